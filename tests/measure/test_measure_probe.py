"""`probe` against closed forms, and against a network where everything is random."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_cases import Point, Tied, noisy_loss, noisy_net, quadratic, same, state
from torch import nn
from torch.nn import functional as F

from bnlab.measure.landscape import probe

STEPS = [0.3, -0.2, 0.0, 1e-3, 0.3, 2.0]


def test_quadratic_closed_form():
    net, hessian, loss = quadratic()
    theta = net.theta.detach()
    g = hessian @ theta
    result = probe(net, loss, STEPS)
    s = np.array(STEPS)
    slope, curvature = (g @ g).item(), (g @ hessian @ g).item()
    parabola = loss(net).item() - s * slope + 0.5 * s**2 * curvature
    beta = torch.linalg.vector_norm(hessian @ g).item() / math.sqrt(slope)
    moved = s != 0
    np.testing.assert_allclose(result.loss, parabola, rtol=1e-12)
    np.testing.assert_allclose(result.beta[moved], beta, rtol=1e-10)
    assert result.effective_beta == pytest.approx(beta, rel=1e-10)
    np.testing.assert_allclose(
        result.gradient_distance, abs(s) * beta * math.sqrt(slope), rtol=1e-10, atol=1e-14
    )
    there = [g - step * (hessian @ g) for step in STEPS]
    expected = [torch.cosine_similarity(g, other, dim=0).item() for other in there]
    np.testing.assert_allclose(result.cosine, expected, rtol=1e-12)
    assert result.gradient_norm == pytest.approx(math.sqrt(slope), rel=1e-14)
    assert torch.allclose(result.gradient[0], g, rtol=1e-14)


def test_another_direction():
    net, hessian, loss = quadratic()
    d = torch.linspace(-1, 2, 6, dtype=torch.float64)
    result = probe(net, loss, [0.5, -2.0], direction=[d])
    rayleigh = torch.linalg.vector_norm(hessian @ d) / torch.linalg.vector_norm(d)
    np.testing.assert_allclose(result.beta, rayleigh.item(), rtol=1e-12)
    theta = net.theta.detach()
    expected = [loss(Point(theta - s * d)).item() for s in (0.5, -2.0)]
    np.testing.assert_allclose(result.loss, expected, rtol=1e-13)


def test_step_zero_is_where_one_stands():
    net, loss = noisy_net(), noisy_loss()
    result = probe(net, loss, [0.0, 0.1])
    assert result.loss[0] == result.loss0
    assert result.gradient_distance[0] == 0
    assert result.cosine[0] == 1
    assert math.isnan(result.beta[0])
    assert math.isfinite(result.effective_beta)
    assert math.isnan(probe(net, loss, [0.0]).effective_beta)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([-0.5, -0.1, 0.0, 0.1, 0.2, 1.0]), min_size=1, max_size=6))
def test_each_point_is_measured_alone(steps):
    """Order and duplicates do not matter, though every pass draws random numbers and moves statistics."""
    net, loss = noisy_net(), noisy_loss()
    together = probe(net, loss, steps)
    for i, s in enumerate(steps):
        alone = probe(net, loss, [s])
        assert alone.loss[0] == together.loss[i]
        assert alone.gradient_distance[0] == together.gradient_distance[i]
        assert np.array_equal(alone.beta[0], together.beta[i], equal_nan=True)


def test_points_equal_a_model_moved_by_hand():
    net, loss = noisy_net(), noisy_loss()
    rng = torch.get_rng_state()
    result = probe(net, loss, [0.2])
    moved = noisy_net()
    parameters = [p for p in moved.parameters() if p.requires_grad]
    torch.set_rng_state(rng)
    g = torch.autograd.grad(loss(moved), parameters)
    moved = noisy_net()
    parameters = [p for p in moved.parameters() if p.requires_grad]
    for parameter, direction in zip(parameters, g, strict=True):
        parameter.data -= 0.2 * direction
    torch.set_rng_state(rng)
    value = loss(moved)
    there = torch.autograd.grad(value, parameters)
    distance = math.sqrt(sum(((a - b) ** 2).sum().item() for a, b in zip(there, g, strict=True)))
    length = math.sqrt(sum((a**2).sum().item() for a in g))
    assert result.loss[0] == pytest.approx(value.item(), rel=1e-6)
    assert result.gradient_distance[0] == pytest.approx(distance, rel=1e-5)
    assert result.beta[0] == pytest.approx(distance / (0.2 * length), rel=1e-5)


def test_leaves_no_trace_and_repeats():
    net, loss = noisy_net(), noisy_loss()
    before = state(net)
    first = probe(net, loss, [0.1, 0.4])
    assert same(before, state(net))
    second = probe(net, loss, [0.1, 0.4])
    assert same(before, state(net))
    for name in ("loss", "gradient_distance", "cosine", "beta"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_leaves_no_trace_when_the_loss_raises(fails_at):
    net, inner = noisy_net(), noisy_loss()
    before = state(net)
    calls = 0

    def loss(net):
        nonlocal calls
        value = inner(net)
        if calls == fails_at:
            raise ArithmeticError
        calls += 1
        return value

    with pytest.raises(ArithmeticError):
        probe(net, loss, [0.1, 0.2, 0.3])
    assert calls == fails_at
    assert same(before, state(net))


def test_counts_its_passes():
    """k + 1 forward and backward passes for k step sizes, one forward pass for the check, and no more."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    passes = {"forward": 0, "backward": 0}

    def count_backward(grad):
        passes["backward"] += 1

    def count_forward(layer, inputs, output):
        passes["forward"] += 1
        output.register_hook(count_backward)

    for layer in net:
        layer.register_forward_hook(count_forward)
    probe(net, noisy_loss(), [0.1, 0.1, 0.0, -3.0])
    assert passes == {"forward": 6 * 3, "backward": 5 * 3}
    probe(net, noisy_loss(), [0.1, 0.1, 0.0, -3.0], check=False)
    assert passes == {"forward": 11 * 3, "backward": 10 * 3}


def test_gradient_is_the_one_backward_gives():
    net, loss = noisy_net(), noisy_loss()
    rng = torch.get_rng_state()
    result = probe(net, loss, [0.1])
    net.zero_grad()
    torch.set_rng_state(rng)
    loss(net).backward()
    assert same(list(result.gradient), [p.grad for p in net.parameters() if p.requires_grad])


def test_a_loss_that_overflows_is_reported_as_it_is():
    net = Point(torch.tensor([1.0], dtype=torch.float64))
    result = probe(net, lambda net: torch.log(net.theta).sum(), [0.5, 1.0, 2.0])  # 0.5, 0 and -1
    assert result.loss[0] == pytest.approx(math.log(0.5))
    assert result.loss[1] == -math.inf
    assert math.isnan(result.loss[2])
    assert math.isnan(result.loss_band[0]) and math.isnan(result.loss_band[1])
    assert result.gradient_distance[1] == math.inf


def test_nan_gradient_stays_nan():
    net = Point(torch.tensor([1.0], dtype=torch.float64))
    result = probe(net, lambda net: torch.sqrt(net.theta - 0.9).sum(), [0.0, 1.0])
    assert math.isnan(result.effective_beta)


def test_infinite_gradient_at_step_zero():
    net = Point(torch.tensor([0.0], dtype=torch.float64))
    result = probe(net, lambda net: torch.sqrt(net.theta).sum(), [0.0])
    assert result.gradient_norm == math.inf
    assert result.loss[0] == result.loss0 == 0


def test_shared_frozen_and_unused_parameters_and_several_outputs():
    torch.manual_seed(0)
    net = Tied().double()
    x = torch.randn(6, 4, dtype=torch.float64)

    def loss(net):
        a, b = net(x)
        return (a**2).mean() + b.sin().mean()

    fixed = net.fixed.weight.clone()
    result = probe(net, loss, [0.0, 0.1])
    assert len(result.gradient) == 5  # weight once, two biases, and the idle layer's two
    assert not result.gradient[3].any() and not result.gradient[4].any()
    assert torch.equal(net.fixed.weight, fixed)
    net.zero_grad()
    loss(net).backward()
    assert torch.equal(result.gradient[0], net.first.weight.grad)
    assert result.loss[0] == result.loss0
    assert result.loss0 - result.loss[1] > 0


def test_channels_last():
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 2, 3)).double()
        net.to(memory_format=memory_format)
        x = torch.randn(5, 3, 8, 8, dtype=torch.float64).to(memory_format=memory_format)
        strides = net[0].weight.stride()
        results.append(probe(net, lambda net, x=x: (net(x) ** 2).mean(), [0.1, 1.0]))
        assert net[0].weight.stride() == strides
    np.testing.assert_allclose(results[0].loss, results[1].loss, rtol=1e-12)
    np.testing.assert_allclose(results[0].beta, results[1].beta, rtol=1e-9)


def test_on_every_device(device):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).to(device)
    x = torch.randn(8, 5, device=device)
    loss = lambda net: F.mse_loss(net(x), torch.ones(8, 3, device=device))  # noqa: E731
    before = state(net)
    result = probe(net, loss, [0.0, 0.1])
    assert result.loss[0] == result.loss0
    assert result.gradient[0].device.type == device
    assert same(before, state(net))


def test_inside_no_grad_and_after_eval():
    net, loss = noisy_net(), noisy_loss()
    expected = probe(net, loss, [0.1])
    with torch.no_grad():
        found = probe(net, loss, [0.1])
    assert expected.loss[0] == found.loss[0]
    net.eval()
    with torch.no_grad():
        assert probe(net, loss, [0.0]).loss0 == loss(net).item()  # eval mode is measured in eval mode


@pytest.mark.parametrize("steps", [[], [[0.1]], 0.1, [math.nan], [0.1, math.inf]])
def test_bad_step_sizes(steps):
    with pytest.raises(ValueError, match="step_sizes: expected a flat"):
        probe(noisy_net(), noisy_loss(), steps)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (3.0, TypeError, "loss: expected a callable"),
        (lambda net: 3.0, TypeError, "return a tensor, got float"),
        (lambda net: net(torch.zeros(2, 5)), ValueError, r"one number, got shape \(2, 3\)"),
        (lambda net: net(torch.zeros(2, 5)).sum().detach(), ValueError, "depends on the model's trainable"),
    ],
)
def test_bad_losses(loss, error, message):
    net = noisy_net()
    before = state(net)
    with pytest.raises(error, match=message):
        probe(net, loss, [0.1])
    assert same(before, state(net))


def test_bad_direction_and_model_without_parameters():
    with pytest.raises(ValueError, match="direction: expected one tensor per trainable parameter"):
        probe(noisy_net(), noisy_loss(), [0.1], direction=[torch.zeros(3)])
    with pytest.raises(ValueError, match="at least one parameter with requires_grad"):
        probe(nn.ReLU(), noisy_loss(), [0.1])
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module"):
        probe(torch.zeros(3), noisy_loss(), [0.1])
