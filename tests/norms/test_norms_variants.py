"""The layers torch does not have (and weight norm): against their definitions."""

import math

import pytest
import torch
from torch import nn

import bnlab
from bnlab.norms import functional as F
from bnlab.norms.lp import lp_batch_norm


def double(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- l_p ---------------------------------------------------------------------------------------------------

P = [1, 1.5, 2, 3, 10, math.inf]


def average_norm(values, p):
    sizes = [abs(v) for v in values]
    return max(sizes) if p == math.inf else (math.fsum(s**p for s in sizes) / len(sizes)) ** (1 / p)


@pytest.mark.parametrize("shape", [(9, 2), (4, 2, 3), (3, 2, 4, 2)], ids=str)
@pytest.mark.parametrize("p", P)
def test_lp_is_the_definition(p, shape):
    """[2] §3.3 in plain Python: centre, then divide by the norm from before the shift."""
    x = double(*shape) + 0.5
    layer = bnlab.LpBatchNorm(2, p, eps=1e-6, momentum=0.25).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, -1.0])), layer.bias.copy_(torch.tensor([0.5, 0.0]))
    y = layer(x)
    for c in range(2):
        values = x.select(1, c).flatten().tolist()
        mean, norm = math.fsum(values) / len(values), average_norm(values, p)
        expected = [
            layer.weight[c].item() * (v - mean) / (norm + 1e-6) + layer.bias[c].item() for v in values
        ]
        assert y.select(1, c).flatten().tolist() == pytest.approx(expected, abs=1e-13)
        assert layer.running_mean[c].item() == pytest.approx(0.25 * mean, abs=1e-14)
        assert layer.running_norm[c].item() == pytest.approx(0.75 + 0.25 * norm, abs=1e-14)
    torch.testing.assert_close(y, lp_batch_norm(x, layer.weight, layer.bias, p, 1e-6), rtol=0, atol=1e-13)


@pytest.mark.parametrize("p", P)
def test_lp_gradient_in_float32(p):
    """The formula written for speed against autograd of the definition in float64, above the slice size."""
    x = (double(90, 5, 40, 40) * 2 + 0.7).float()
    grad = double(90, 5, 40, 40, seed=1).float()
    layer = bnlab.LpBatchNorm(5, p)
    exact = [t.double().requires_grad_() for t in (x, layer.weight.detach(), layer.bias.detach())]
    y = layer(x.requires_grad_())
    found = torch.autograd.grad(y, [x, layer.weight, layer.bias], grad)
    expected = lp_batch_norm(*exact, p, layer.eps)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(found, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        assert (a.double() - b).abs().max() < 1e-5 * b.abs().max()


def test_l2_is_not_batch_norm_unless_the_mean_is_zero():
    x = double(2000, 1)
    bn, l2 = bnlab.BatchNorm(1, eps=1e-12).double(), bnlab.LpBatchNorm(1, 2, eps=1e-12).double()
    centred = x - x.mean()
    torch.testing.assert_close(l2(centred), bn(centred))
    shifted = centred + 2
    ratio = l2(shifted).std() / bn(shifted).std()  # sigma / sqrt(sigma^2 + mu^2)
    assert ratio.item() == pytest.approx(1 / math.sqrt(1 + 4 / centred.square().mean().item()), rel=1e-9)


@pytest.mark.parametrize("p", P)
def test_lp_is_scale_invariant(p):
    x = double(30, 2)
    layer = bnlab.LpBatchNorm(2, p, eps=0.0).double()
    torch.testing.assert_close(layer(1000 * x), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("p", [1, 3, 10, 40])
@pytest.mark.parametrize("size", [1e-20, 1e15])
def test_lp_powers_neither_overflow_nor_vanish(p, size):
    x = double(50, 1)
    y = bnlab.LpBatchNorm(1, p, eps=0.0)((x * size).float())
    exact = bnlab.LpBatchNorm(1, p, eps=0.0).double()(x)
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", P)
def test_lp_eval_mode_uses_the_running_statistics(p):
    layer = bnlab.LpBatchNorm(3, p, momentum=None).double()
    batches = [double(20, 3, seed=i) for i in range(4)]
    for batch in batches:
        layer(batch)
    means = torch.stack([b.mean(0) for b in batches]).mean(0)
    norms = torch.tensor(
        [sum(average_norm(b[:, c].tolist(), p) for b in batches) / 4 for c in range(3)], dtype=torch.float64
    )
    x = double(5, 3, seed=9)
    torch.testing.assert_close(layer.eval()(x), (x - means) / (norms + layer.eps))
    assert list(layer.state_dict()) == [
        "weight",
        "bias",
        "running_mean",
        "running_norm",
        "num_batches_tracked",
    ]


def test_linf_gradient_at_a_tie_is_split_evenly():
    """As torch's amax does it."""
    x = torch.tensor([[2.0], [-2.0], [1.0]], dtype=torch.float64, requires_grad=True)
    grad = torch.tensor([[1.0], [0.5], [-2.0]], dtype=torch.float64)
    layer = bnlab.LpBatchNorm(1, math.inf, eps=0.0).double()
    (dx,) = torch.autograd.grad(layer(x), x, grad)
    y = (x - x.mean(0)) / x.abs().amax(0)
    torch.testing.assert_close(dx, torch.autograd.grad(y, x, grad)[0])


@pytest.mark.parametrize("p", [0.5, 0, -1, math.nan])
def test_lp_refuses_what_is_no_norm(p):
    with pytest.raises(ValueError, match="p must be at least 1"):
        bnlab.LpBatchNorm(3, p)


def test_lp_one_value_per_channel():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        bnlab.LpBatchNorm(3, 1)(torch.randn(1, 3))


# --- ghost batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 3), (12, 3, 4), (12, 3, 2, 3)], ids=str)
def test_ghosts_are_independent_batches(shape):
    x, grad = double(*shape), double(*shape, seed=1)
    layer = bnlab.GhostBatchNorm(3, ghost_size=4).double()
    with torch.no_grad():
        layer.weight.copy_(double(3, seed=2)), layer.bias.copy_(double(3, seed=3))
    leaf = x.clone().requires_grad_()
    y = layer(leaf)
    found = torch.autograd.grad(y, [leaf, layer.weight, layer.bias], grad)
    twin = x.clone().requires_grad_()
    expected = torch.cat([F.batch_norm(p, layer.weight, layer.bias, layer.eps) for p in twin.split(4)])
    torch.testing.assert_close(y, expected)
    grads = torch.autograd.grad(expected, [twin, layer.weight, layer.bias], grad)
    for a, b in zip(found, grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "samples, ghost, sizes",
    [
        (12, 4, [4, 4, 4]),
        (13, 4, [4, 4, 5]),
        (15, 4, [4, 4, 7]),
        (7, 4, [7]),
        (3, 4, [3]),
        (4, 4, [4]),
        (9, 8, [9]),
    ],
)
def test_a_remainder_joins_the_last_ghost(samples, ghost, sizes):
    x = double(samples, 2, 3)
    layer = bnlab.GhostBatchNorm(2, ghost, momentum=1.0).double()
    y = layer(x)
    parts = x.split(sizes)
    torch.testing.assert_close(y, torch.cat([F.batch_norm(p, None, None, 1e-5) for p in parts]))
    means = torch.stack([p.mean((0, 2)) for p in parts])
    unbiased = torch.stack([p.transpose(0, 1).flatten(1).var(1) for p in parts])
    torch.testing.assert_close(layer.running_mean, means.mean(0))
    torch.testing.assert_close(layer.running_var, unbiased.mean(0))
    assert layer.num_batches_tracked == 1


def test_one_ghost_is_batch_norm_and_so_is_eval_mode():
    x = double(10, 3)
    ghost, bn = bnlab.GhostBatchNorm(3, 10).double(), bnlab.BatchNorm(3).double()
    torch.testing.assert_close(ghost(x), bn(x))
    bn.load_state_dict(ghost.state_dict())
    torch.testing.assert_close(ghost.eval()(x), bn.eval()(x))


def test_running_variance_of_ghosts_is_unbiased():
    """[1] Alg. 2: the m/(m-1) correction makes small ghost batches right on average."""
    layer = bnlab.GhostBatchNorm(1, 2, momentum=1.0).double()
    layer(3 * double(200_000, 1))
    assert layer.running_var.item() == pytest.approx(9, rel=0.02)  # without the correction 4.5


def test_ghost_errors():
    with pytest.raises(ValueError, match="ghost_size must be at least 1"):
        bnlab.GhostBatchNorm(3, 0)
    with pytest.raises(ValueError, match="ghost batches of 1"):
        bnlab.GhostBatchNorm(3, 1)(torch.randn(4, 3))
    bnlab.GhostBatchNorm(3, 1)(torch.randn(4, 3, 2))  # two positions: two values per channel and ghost
    bnlab.GhostBatchNorm(3, 2)(torch.empty(0, 3))


def test_ghost_keeps_channels_last():
    x = torch.randn(8, 3, 4, 4).to(memory_format=torch.channels_last)
    layer = bnlab.GhostBatchNorm(3, 4)
    torch.testing.assert_close(layer(x), bnlab.GhostBatchNorm(3, 4)(x.contiguous()))
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


# --- noise -------------------------------------------------------------------------------------------------


def noise_of(layer, x):
    """The factor s and offset m that the layer applied to each value: two outputs with the same noise."""
    bn = bnlab.BatchNorm(x.size(1)).to(x.dtype)
    ys, clean = [], []
    for bias in (0.0, 1.0):
        for each in (layer, bn):
            nn.init.constant_(each.bias, bias)
        torch.manual_seed(7)
        ys.append(layer(x).detach())
        clean.append(bn(x).detach())
    s = ys[1] - ys[0]  # the clean output moved by exactly 1
    return s, ys[0] - s * clean[0]


@pytest.mark.parametrize("shape", [(4000, 300), (40, 300, 10, 10)], ids=["dense", "conv"])
def test_noise_has_the_papers_distribution(shape):
    """[2] Alg. 1: mu, sigma one number per unit and step, m, s one per sample and pixel around them."""
    s, m = noise_of(bnlab.NoisyBatchNorm(shape[1]).double(), double(*shape))
    s, m = (t.transpose(0, 1).flatten(1) for t in (s, m))  # (unit, samples and pixels)
    sigma, mu = s.mean(1), m.amin(1) / 2 + m.amax(1) / 2
    # between units: mu ~ U(-0.5, 0.5), sigma ~ U(1, 1.25)
    assert -0.5 < mu.min() < -0.45 and 0.45 < mu.max() < 0.5
    assert mu.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.1)
    assert 0.99 < sigma.min() < 1.02 and 1.23 < sigma.max() < 1.26
    assert sigma.mean().item() == pytest.approx(1.125, abs=0.015)
    # within a unit: m ~ U(mu - 0.1, mu + 0.1), s ~ N(sigma, 0.1)
    within_m, within_s = m - m.mean(1, keepdim=True), s - sigma[:, None]
    assert within_m.abs().max() < 0.105
    assert within_m.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.01)
    assert within_s.std().item() == pytest.approx(0.1, rel=0.01)
    assert (within_s / 0.1).pow(4).mean().item() == pytest.approx(3, rel=0.03)  # Gaussian
    assert (within_m / (0.1 / math.sqrt(3))).pow(4).mean().item() == pytest.approx(1.8, rel=0.03)  # uniform
    # independent of each other, and between samples and pixels
    assert abs((within_m * within_s).mean().item()) < 1e-4
    assert abs((within_s[:, 1:] * within_s[:, :-1]).mean().item()) < 1e-4


def test_noise_levels_have_the_papers_names():
    """n_mu, n_sigma, r_mu, r_sigma, one at a time."""
    x = double(2000, 50)
    off = {"shift": 0, "scale": 1, "sample_shift": 0, "sample_scale": 0}
    s, m = noise_of(bnlab.NoisyBatchNorm(50, **off).double(), x)
    assert (s - 1).abs().max() < 1e-12 and m.abs().max() < 1e-12
    s, m = noise_of(bnlab.NoisyBatchNorm(50, **off | {"shift": 2.0}).double(), x)
    assert m.std(0).max() < 1e-12 and 1.5 < m.abs().max() < 2 and (s - 1).abs().max() < 1e-12
    s, m = noise_of(bnlab.NoisyBatchNorm(50, **off | {"scale": 3.0}).double(), x)
    assert s.std(0).max() < 1e-12 and 2.5 < s.max() < 3 and s.min() > 1 and m.abs().max() < 1e-11
    s, m = noise_of(bnlab.NoisyBatchNorm(50, **off | {"sample_shift": 0.4}).double(), x)
    assert 0.39 < m.abs().max() < 0.4 and m.mean(0).abs().max() < 0.03
    s, m = noise_of(bnlab.NoisyBatchNorm(50, **off | {"sample_scale": 0.4}).double(), x)
    assert s.std(0).mean().item() == pytest.approx(0.4, rel=0.01)


def test_noise_is_fresh_at_every_step_and_reproducible():
    x = double(20, 4)
    layer = bnlab.NoisyBatchNorm(4).double()
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first) and torch.equal(layer(x), second)


def test_eval_mode_and_running_statistics_are_exactly_batch_norms():
    noisy, bn = bnlab.NoisyBatchNorm(4), bnlab.BatchNorm(4)
    for seed in range(3):
        x = double(20, 4, seed=seed).float()
        noisy(x), bn(x)
    assert list(noisy.state_dict()) == list(bn.state_dict())
    for a, b in zip(noisy.state_dict().values(), bn.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    state = torch.get_rng_state()
    assert torch.equal(noisy.eval()(x), bn.eval()(x))
    assert torch.equal(torch.get_rng_state(), state)  # eval mode draws nothing


def test_noise_passes_the_gradient_on():
    """dL/dx is batch norm's own gradient of s * dL/da."""
    x = double(20, 4).requires_grad_()
    layer, grad = bnlab.NoisyBatchNorm(4).double(), double(20, 4, seed=1)
    s, _ = noise_of(layer, x.detach())
    torch.manual_seed(7)
    (dx,) = torch.autograd.grad(layer(x), x, grad)
    torch.testing.assert_close(dx, F.batch_norm_backward(grad * s, x.detach(), layer.weight, 1e-5)[0])


@pytest.mark.parametrize("level", ["shift", "scale", "sample_shift", "sample_scale"])
def test_noise_levels_are_checked(level):
    with pytest.raises(ValueError, match=f"^{level} must be at least"):
        bnlab.NoisyBatchNorm(3, **{level: -0.1})


# --- dynamic tanh and weight norm --------------------------------------------------------------------------


def test_dynamic_tanh_is_the_definition():
    layer = bnlab.DynamicTanh(3, alpha=0.8, dtype=torch.float64)
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        "alpha": (1,),
        "weight": (3,),
        "bias": (3,),
    }
    assert bnlab.DynamicTanh(3).alpha.item() == 0.5
    with torch.no_grad():
        layer.weight.copy_(double(3, seed=1)), layer.bias.copy_(double(3, seed=2))
    x = double(4, 3, 2)
    for n in range(4):
        for c in range(3):
            for i in range(2):
                expected = layer.weight[c] * math.tanh(0.8 * x[n, c, i].item()) + layer.bias[c]
                assert layer(x)[n, c, i].item() == pytest.approx(expected.item(), abs=1e-14)


def test_dynamic_tanh_errors_and_dtypes():
    with pytest.raises(RuntimeError, match="3 channels"):
        bnlab.DynamicTanh(3)(torch.randn(2, 4))
    with pytest.raises(RuntimeError, match="float64"):
        bnlab.DynamicTanh(3)(torch.randn(2, 3).double())
    assert bnlab.DynamicTanh(3)(torch.randn(2, 3).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(5, 4),
        lambda: nn.Conv2d(3, 4, 2),
        lambda: nn.ConvTranspose1d(3, 4, 2),
        lambda: nn.Linear(5, 1),
    ],
    ids=["linear", "conv", "transposed", "one unit"],
)
@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_weight_norm_is_torchs(make, dim):
    torch.manual_seed(0)
    theirs = make().double()
    ours = make().double()
    ours.load_state_dict(theirs.state_dict())
    torch.nn.utils.parametrizations.weight_norm(theirs, dim=dim)
    before = ours.weight.detach().clone()
    assert bnlab.weight_norm(ours, dim=dim) is ours
    torch.testing.assert_close(ours.weight, before, rtol=1e-12, atol=1e-12)
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    for a, b in zip(state.values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    with torch.no_grad():  # away from the start, where g = ||v||
        for p in theirs.parameters():
            p.add_(double(p.numel(), seed=5).view(p.shape))
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-12, atol=1e-12)
    grad = double(*before.shape, seed=6)
    for a, b in zip(
        torch.autograd.grad(ours.weight, list(ours.parametrizations.parameters()), grad),
        torch.autograd.grad(theirs.weight, list(theirs.parametrizations.parameters()), grad),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_weight_norm_trains_and_can_be_removed():
    layer = bnlab.weight_norm(nn.Linear(3, 2))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    weight = layer.weight.detach().clone()
    torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert torch.equal(layer.weight, weight) and "weight" in dict(layer.named_parameters())


def test_weight_norm_names_what_is_missing():
    with pytest.raises(ValueError, match=r"Linear has no parameter 'kernel'; it has \['weight', 'bias'\]"):
        bnlab.weight_norm(nn.Linear(3, 2), name="kernel")
