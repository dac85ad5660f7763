"""The formulas: against finite differences, closed forms, and input that breaks careless arithmetic."""

import math

import pytest
import torch
from torch import nn

import bnlab
from bnlab.norms import functional as F

SHAPES = [(7, 3), (4, 3, 5), (3, 3, 4, 2), (2, 3, 2, 3, 2)]


def double(*shape, seed=0, grad=True):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def fresh(layer):
    """The layer as a function of its input and parameters, for gradcheck."""
    names = [n for n, _ in layer.named_parameters()]
    values = [double(*p.shape, seed=9 + i) for i, p in enumerate(layer.parameters())]

    def call(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return call, values


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_formula_is_the_definition(shape):
    """Channel by channel in plain Python: mean, biased variance, standardize, scale, shift."""
    x, weight, bias = double(*shape), double(3, seed=1), double(3, seed=2)
    y = F.batch_norm(x, weight, bias, 1e-3)
    for c in range(3):
        values = x.select(1, c).flatten().tolist()
        mean = math.fsum(values) / len(values)
        var = math.fsum((v - mean) ** 2 for v in values) / len(values)
        expected = [weight[c].item() * (v - mean) / math.sqrt(var + 1e-3) + bias[c].item() for v in values]
        assert y.select(1, c).flatten().tolist() == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_backward_formula_is_the_gradient(shape, affine):
    """Against finite differences of the forward formula, not against autograd of our own code."""
    x, grad = double(*shape, grad=False), double(*shape, seed=3, grad=False)
    weight = double(3, seed=1, grad=False) if affine else None
    bias = double(3, seed=2, grad=False) if affine else None

    def loss(x, weight, bias):
        return (F.batch_norm(x, weight, bias, 1e-3) * grad).sum().item()

    def slope(t, at, rebuild):
        h = 1e-5
        step = torch.zeros_like(t).flatten()
        step[at] = h
        step = step.view_as(t)
        return (loss(*rebuild(t + step)) - loss(*rebuild(t - step))) / (2 * h)

    dx, dweight, dbias = F.batch_norm_backward(grad, x, weight, 1e-3)
    for at in range(0, x.numel(), 5):
        expected = slope(x, at, lambda t: (t, weight, bias))
        assert dx.flatten()[at].item() == pytest.approx(expected, rel=1e-6, abs=1e-8)
    if affine:
        for c in range(3):
            assert dweight[c].item() == pytest.approx(slope(weight, c, lambda t: (x, t, bias)), rel=1e-6)
            assert dbias[c].item() == pytest.approx(slope(bias, c, lambda t: (x, weight, t)), rel=1e-6)


def test_backward_formula_has_the_papers_invariants():
    """[1] §3: the gradient of a batch sums to zero and, at eps = 0, has no component along x-hat."""
    x, grad, weight = (
        double(50, 4, grad=False),
        double(50, 4, seed=1, grad=False),
        double(4, seed=2, grad=False),
    )
    dx, _, _ = F.batch_norm_backward(grad, x, weight, 0.0)
    normalized = F.batch_norm(x, None, None, 0.0)
    assert dx.sum(0).abs().max() < 1e-13
    assert (dx * normalized).sum(0).abs().max() < 1e-12


GRADCHECK = {
    "batch (N,C)": (bnlab.BatchNorm(3), (5, 3)),
    "batch (N,C,H,W)": (bnlab.BatchNorm(3), (2, 3, 3, 2)),
    "batch, no affine": (bnlab.BatchNorm(3, affine=False), (5, 3)),
    "batch, no bias": (bnlab.BatchNorm(3, bias=False), (4, 3, 2)),
    "batch, eval": (bnlab.BatchNorm(3).eval(), (5, 3)),
    "layer": (bnlab.LayerNorm((3, 4)), (2, 3, 4)),
    "layer, no affine": (bnlab.LayerNorm(4, elementwise_affine=False), (5, 4)),
    "rms": (bnlab.RMSNorm(4), (3, 2, 4)),
    "group": (bnlab.GroupNorm(2, 4), (2, 4, 3)),
    "instance": (bnlab.InstanceNorm(3, affine=True), (2, 3, 4)),
    "ghost": (bnlab.GhostBatchNorm(2, 3), (6, 2)),
    "ghost, remainder": (bnlab.GhostBatchNorm(2, 2), (5, 2, 2)),
    "elu": (bnlab.ELU(0.7), (4, 3)),
    "selu": (bnlab.SELU(), (4, 3)),
    "elu, negative": (bnlab.ELU(-0.7), (4, 3)),
    "tanh": (bnlab.DynamicTanh(3), (4, 3)),
    "weight norm": (bnlab.weight_norm(nn.Linear(3, 2)), (4, 3)),
    **{f"l_{p:g}": (bnlab.LpBatchNorm(3, p), (5, 3)) for p in (1, 1.5, 2, 3, 7.3, math.inf)},
    "l_1, conv": (bnlab.LpBatchNorm(2, 1), (2, 2, 3)),
    "l_3, no affine": (bnlab.LpBatchNorm(3, 3, affine=False), (5, 3)),
}


@pytest.mark.parametrize("name", GRADCHECK)
def test_gradients_to_second_order(name):
    layer, shape = GRADCHECK[name]
    call, parameters = fresh(layer.double())
    x = double(*shape, seed=4) + 0.3  # away from ties and, at this seed, from 0
    assert x.abs().min() > 1e-3
    inputs = (x.detach().requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("centre", [True, False])
def test_hessian_vector_product_through_a_net(centre):
    """What the sharpness instrument does, against the same net built of torch's layers."""
    norms = (bnlab.BatchNorm, nn.BatchNorm1d) if centre else (bnlab.RMSNorm, nn.RMSNorm)
    products = []
    for norm in norms:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), norm(6), nn.Tanh(), nn.Linear(6, 2)).double()
        x = double(8, 4, grad=False)
        parameters = list(net.parameters())
        gradient = torch.autograd.grad(net(x).square().mean(), parameters, create_graph=True)
        direction = [double(*p.shape, seed=i, grad=False) for i, p in enumerate(parameters)]
        dot = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
        products.append(torch.autograd.grad(dot, parameters))
    for a, b in zip(*products, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_only_what_is_asked_for_gets_a_gradient():
    layer = bnlab.BatchNorm(3)
    layer.weight.requires_grad_(False)
    x = torch.randn(5, 3)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None


# --- memory ------------------------------------------------------------------------------------------------


def kept_for_backward(call, x):
    """How many tensors of x's size autograd keeps, counting shared storage once."""
    kept = {}

    def pack(t):
        if t.numel() >= x.numel():
            kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = call(x)
    assert y.requires_grad
    return len(kept)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (bnlab.BatchNorm(8), (16, 8, 5, 5)),
        (bnlab.BatchNorm(8), (64, 8)),
        (bnlab.BatchNorm(8).eval(), (64, 8)),
        (bnlab.LayerNorm(8), (64, 8)),
        (bnlab.RMSNorm(8), (64, 8)),
        (bnlab.GroupNorm(2, 8), (16, 8, 5)),
        (bnlab.InstanceNorm(8, affine=True), (16, 8, 5)),
        (bnlab.GhostBatchNorm(8, 4), (16, 8, 5)),
        (bnlab.LpBatchNorm(8, 1), (16, 8, 5)),
        (bnlab.ELU(), (16, 8)),
        (bnlab.SELU(), (16, 8)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else str(v),
)
def test_one_activation_is_kept_for_the_backward(layer, shape):
    assert kept_for_backward(layer, torch.randn(shape, requires_grad=True)) <= 1


def test_the_textbook_keeps_three_or_more():
    """So the count above counts something."""
    weight, bias = torch.ones(8, requires_grad=True), torch.zeros(8, requires_grad=True)
    x = torch.randn(16, 8, 5, 5, requires_grad=True)
    assert kept_for_backward(lambda x: F.batch_norm(x, weight, bias, 1e-5), x) >= 3


# --- numbers that break careless arithmetic ----------------------------------------------------------------

BATCHED = {
    "batch": lambda: bnlab.BatchNorm(3),
    "layer": lambda: bnlab.LayerNorm((3, 400)),
    "group": lambda: bnlab.GroupNorm(3, 3),
    "instance": lambda: bnlab.InstanceNorm(3),
    "ghost": lambda: bnlab.GhostBatchNorm(3, 5),
}


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("mean", [1e5, -1e5, 1e4])
def test_large_mean_small_spread(name, mean):
    """E[x^2] - E[x]^2 in float32 would give garbage here (a variance of +-1000)."""
    x = (mean + double(10, 3, 400, grad=False)).float()
    y = BATCHED[name]()(x).detach()
    assert y.std().item() == pytest.approx(1, abs=1e-2)
    assert y.mean().item() == pytest.approx(0, abs=1e-2)
    exact = BATCHED[name]().double()(x.double()).detach()
    assert (y - exact).abs().max() < 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_at_a_large_mean(dtype):
    """Relative to the exact gradient of the same (rounded) input; torch's own error is of this size."""
    x = (1e4 + double(200, 3, grad=False)).to(dtype)
    grad = double(200, 3, seed=1, grad=False) + 1
    exact, *_ = F.batch_norm_backward(grad, x.double(), None, 1e-5)
    x.requires_grad_()
    (dx,) = torch.autograd.grad(bnlab.BatchNorm(3, dtype=dtype)(x), x, grad.to(dtype))
    tolerance = {torch.float32: 1e-3, torch.float64: 1e-10}[dtype]
    assert (dx - exact).abs().max() < tolerance * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e5 / 3, 1e-30, 1e30])
@pytest.mark.parametrize(
    "make",
    [
        lambda: bnlab.BatchNorm(2),
        lambda: bnlab.GhostBatchNorm(2, 7),
        lambda: bnlab.LpBatchNorm(2, 1),
        lambda: bnlab.LpBatchNorm(2, 2),
        lambda: bnlab.LpBatchNorm(2, math.inf),
        lambda: bnlab.InstanceNorm(2, affine=True),
        lambda: bnlab.GroupNorm(2, 2),
    ],
    ids=["batch", "ghost", "l_1", "l_2", "l_inf", "instance", "group"],
)
def test_a_constant_channel_gives_exactly_beta(make, value, dtype):
    layer = make().to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.7, -0.3]))
        layer.bias.copy_(torch.tensor([0.7, 0.1]))
    x = double(33, 2, 5, 7, grad=False).to(dtype)
    x[:, 0] = value
    y = layer(x.requires_grad_())
    assert (y[:, 0] == layer.bias[0]).all()
    y.square().sum().backward()
    assert x.grad.isfinite().all() and layer.weight.grad.isfinite().all()
    assert layer.weight.grad[0] == 0


def test_a_constant_sample_gives_exactly_beta():
    layer = bnlab.LayerNorm(7)
    nn.init.normal_(layer.bias)
    y = layer(torch.full((3, 7), 0.1))
    assert torch.equal(y, layer.bias.expand(3, 7))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "make",
    [
        lambda: bnlab.BatchNorm(3),
        lambda: bnlab.GhostBatchNorm(3, 20),
        lambda: bnlab.NoisyBatchNorm(3),
        lambda: bnlab.LpBatchNorm(3, 1),
        lambda: bnlab.LpBatchNorm(3, 2.5),
        lambda: bnlab.LpBatchNorm(3, math.inf),
    ],
    ids=["batch", "ghost", "noisy", "l_1", "l_2.5", "l_inf"],
)
@pytest.mark.parametrize("at", [0, 11])
def test_nan_stays_in_its_channel(make, bad, at):
    """All of that channel, none of the others: output, gradient and running statistics."""
    layer = make()
    x = double(20, 3, 2, grad=False).float()
    x[at, 1, 1] = bad
    x.requires_grad_()
    y = layer(x)
    grad = torch.autograd.grad(y, x, torch.ones_like(y))[0]
    spread = getattr(layer, layer.spread)
    for part in (y[:, 1], grad[:, 1]):
        assert part.isnan().any() and (bad != bad) <= bool(part.isnan().all())
    assert not layer.running_mean[1].isfinite() and not spread[1].isfinite()
    for part in (y[:, ::2], grad[:, ::2], layer.running_mean[::2], spread[::2]):
        assert part.isfinite().all()


@pytest.mark.parametrize("name", ["layer", "group", "instance"])
def test_nan_stays_in_its_sample(name):
    x = double(10, 3, 400, grad=False).float()
    x[4, 1, 7] = float("nan")
    y = BATCHED[name]()(x)
    assert y[4, 1].isnan().all()
    assert y[:4].isfinite().all() and y[5:].isfinite().all()
    assert y[4, 0].isfinite().all() or name == "layer"


def test_rounding_does_not_grow_with_the_batch():
    """A million values per channel: float32 within 1e-5 of float64, mean and spread."""
    x = (3 + double(1000, 1, 1000, grad=False)).float()
    layer, exact = bnlab.BatchNorm(1, momentum=1.0), bnlab.BatchNorm(1, momentum=1.0).double()
    torch.testing.assert_close(layer(x).double(), exact(x.double()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.running_mean.double(), exact.running_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(layer.running_var.double(), exact.running_var, rtol=1e-5, atol=0)


def test_an_outlier_in_the_first_place_does_no_harm():
    """The first value is the pivot of the sums. At worst it is sqrt(m) standard deviations out."""
    m = 1 << 17
    x = double(m, 1, grad=False)
    x[0] = 1e6
    y = bnlab.BatchNorm(1)(x.float()).detach().double()
    exact = bnlab.BatchNorm(1).double()(x.float().double()).detach()
    assert exact[0] == pytest.approx(math.sqrt(m), rel=1e-3)
    assert (y - exact).abs().max() < 2 * torch.finfo(torch.float32).eps * math.sqrt(m)
