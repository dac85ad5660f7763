"""`slice1d`, `slice2d` and the normalization of random directions."""

import copy
import math

import numpy as np
import pytest
import torch
from measure_cases import Point, Tied, noisy_loss, noisy_net, quadratic, same, state
from torch import nn

from bnlab.measure.slices import random_direction, slice1d, slice2d


def test_quadratic_closed_form():
    net, hessian, loss = quadratic()
    theta = net.theta.detach()
    d1, d2 = torch.linspace(-1, 1, 6).double(), torch.linspace(2, 3, 6).double()
    line = slice1d(net, loss, [-0.5, 0.0, 2.0], direction=[d1])
    expected = [0.5 * (theta + a * d1) @ hessian @ (theta + a * d1) for a in (-0.5, 0.0, 2.0)]
    np.testing.assert_allclose(line.loss, torch.stack(expected), rtol=1e-13)
    plane = slice2d(net, loss, [-0.5, 0.0, 2.0], [0.0, 1.0], directions=([d1], [d2]))
    for i, a in enumerate(plane.alphas):
        for j, b in enumerate(plane.betas):
            point = theta + a * d1 + b * d2
            assert plane.loss[i, j] == pytest.approx((0.5 * point @ hessian @ point).item(), rel=1e-12)
    assert plane.loss[1, 0] == loss(net).item()


def test_every_point_equals_a_model_set_there_by_hand():
    """Train-mode batch norm, dropout and noise: each point alone, on a copy, with the same random numbers."""
    net, loss = noisy_net(), noisy_loss()
    before = state(net)
    alphas, betas = [-1.0, 0.0, 0.5], [0.0, 0.25]
    found = slice2d(net, loss, alphas, betas, seed=3)
    assert same(before, state(net))
    rng = torch.get_rng_state()
    for i, a in enumerate(alphas):
        for j, b in enumerate(betas):
            moved = copy.deepcopy(net)
            parameters = [p for p in moved.parameters() if p.requires_grad]
            for p, d1, d2 in zip(parameters, *found.directions, strict=True):
                p.data += a * d1 + b * d2
            torch.set_rng_state(rng)
            assert found.loss[i, j] == pytest.approx(loss(moved).item(), rel=1e-5)
    torch.set_rng_state(rng)
    assert found.loss[1, 0] == loss(net).item()  # the centre is exactly the model
    torch.set_rng_state(rng)
    line = slice1d(noisy_net(), loss, alphas, seed=3)
    torch.set_rng_state(rng)
    np.testing.assert_allclose(line.loss, found.loss[:, 0], rtol=1e-6)


def test_leaves_no_trace_when_the_loss_raises():
    net, inner = noisy_net(), noisy_loss()
    before = state(net)
    calls = []

    def loss(net):
        calls.append(inner(net))
        if len(calls) == 3:
            raise ArithmeticError
        return calls[-1]

    with pytest.raises(ArithmeticError):
        slice2d(net, loss, [0.0, 1.0], [0.0, 1.0])
    assert same(before, state(net))


def test_one_forward_pass_per_point_and_no_gradients():
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    outputs = []
    net.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    slice2d(net, noisy_loss(), [0.0, 0.1, 0.2], [0.0, 0.1])
    assert len(outputs) == 7 and not any(output.requires_grad for output in outputs)  # one for the check
    slice2d(net, noisy_loss(), [0.0, 0.1, 0.2], [0.0, 0.1], check=False)
    assert len(outputs) == 13


def test_directions_are_normalized_filter_by_filter():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    net[0].weight.data[1] = 0  # a dead filter stays where it is
    d = random_direction(net, seed=1)
    for i, parameter in ((0, net[0].weight), (4, net[3].weight)):
        lengths = torch.linalg.vector_norm(parameter.flatten(1), dim=1)
        assert torch.allclose(torch.linalg.vector_norm(d[i].flatten(1), dim=1), lengths, rtol=1e-5)
        assert torch.isfinite(d[i]).all()
    assert all(not d[i].any() for i in (1, 2, 3, 5))  # biases and batch norm
    assert same(list(d), list(random_direction(net, seed=1)))
    assert not torch.equal(d[0], random_direction(net, seed=2)[0])


def test_drawing_a_direction_leaves_the_generators_alone():
    net = noisy_net()
    before = state(net)
    random_direction(net, seed=0)
    assert same(before, state(net))


def test_a_fresh_batch_norm_network_gives_finite_numbers():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    x = torch.randn(8, 1, 6, 6)
    running = net[1].running_mean.clone()
    found = slice2d(net, lambda net: net(x).square().mean(), np.linspace(-1, 1, 5), np.linspace(-1, 1, 5))
    assert np.isfinite(found.loss).all() and found.loss.shape == (5, 5)
    assert torch.equal(net[1].running_mean, running) and net[1].num_batches_tracked == 0


def test_shared_and_frozen_parameters():
    net = Tied()
    fixed = net.fixed.weight.clone()
    x = torch.randn(3, 4)
    found = slice1d(net, lambda net: net(x)[0].sum() + net(x)[1].sum(), [0.0, 1.0])
    assert len(found.direction) == 5 and torch.equal(net.fixed.weight, fixed)


def test_not_finite_is_reported():
    net = Point(torch.ones(1, 1, dtype=torch.float64))
    found = slice1d(
        net, lambda net: torch.log(net.theta).sum(), [0.0, -1.0, -2.0], direction=[torch.ones(1, 1)]
    )
    assert found.loss[0] == 0 and found.loss[1] == -math.inf and math.isnan(found.loss[2])


def test_on_every_device(device):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).to(device)
    x = torch.randn(8, 5, device=device)
    found = slice1d(net, lambda net: net(x).square().mean(), [0.0, 1.0])
    assert found.direction[0].device.type == device and np.isfinite(found.loss).all()


def test_bad_input():
    with pytest.raises(ValueError, match="alphas: expected a flat"):
        slice1d(noisy_net(), noisy_loss(), [])
    with pytest.raises(ValueError, match="betas: expected a flat"):
        slice2d(noisy_net(), noisy_loss(), [0.0], [[0.0]])
    with pytest.raises(ValueError, match="direction: expected one tensor per trainable parameter"):
        slice1d(noisy_net(), noisy_loss(), [0.0], direction=[torch.zeros(1)])
