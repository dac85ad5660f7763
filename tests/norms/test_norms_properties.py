"""Properties that hold for any shape and dtype, searched for counterexamples."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bnlab
from bnlab.norms import functional as F
from bnlab.norms.lp import lp_batch_norm

settings.register_profile("norms", deadline=None, max_examples=150, derandomize=True)
settings.load_profile("norms")

dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16])
seeds = st.integers(0, 2**20)
sizes = st.integers(1, 5)
shapes = st.integers(0, 3).flatmap(lambda n: st.tuples(st.integers(2, 9), sizes, *[sizes] * n))
formats = st.sampled_from(["contiguous", "channels first in memory", "strided"])
exponents = st.sampled_from([1.0, 1.5, 2.0, 4.0, float("inf")])
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2**-6}


def tensor(shape, seed, dtype, layout, mean=0.0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean
    x = x.to(dtype)
    if layout == "channels first in memory":
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    elif layout == "strided":
        x = torch.stack([x, -x], dim=-1)[..., 0]
    return x


def run(layer, x):
    x = x.detach().requires_grad_()
    y = layer(x)
    grads = torch.autograd.grad(y, [x, *layer.parameters()], torch.ones_like(y) * y.detach().cos())
    return [y.detach(), *grads, *layer.buffers()]


def same(found, expected, dtype):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        scale = max(1.0, b.double().abs().max().item()) if b.numel() else 1.0
        assert ((a.double() - b.double()).abs() <= TOLERANCE[dtype] * scale).all()


@given(shapes, seeds, st.sampled_from([torch.float64, torch.float32]), formats, st.floats(-30, 30))
def test_batch_norm_is_torchs_for_any_shape(shape, seed, dtype, layout, mean):
    x = tensor(shape, seed, dtype, layout, mean)
    theirs = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[x.dim()]
    ours, theirs = bnlab.BatchNorm(shape[1], dtype=dtype), theirs(shape[1], dtype=dtype)
    expected = run(theirs, x)
    found = run(ours, x)
    # the gradient of a batch whose spread is near zero is ill-conditioned: compare where it is not
    if F.batch_norm(x.double(), None, None, 1e-5).std() > 0.1:
        same(found, expected, dtype)
    same([ours.eval()(x)], [theirs.eval()(x)], dtype)


@given(shapes, seeds, dtypes, formats)
def test_normalized_moments(shape, seed, dtype, layout):
    """Whatever the shape: mean beta, variance gamma^2 var / (var + eps), per channel."""
    x = tensor(shape, seed, dtype, layout)
    layer = bnlab.BatchNorm(shape[1])
    layer.to(dtype if dtype != torch.bfloat16 else torch.float32)
    with torch.no_grad():
        layer.weight.fill_(1.5), layer.bias.fill_(-0.5)
    y = layer(x).detach()
    assert y.dtype == dtype and y.shape == x.shape
    x, y = (t.double().transpose(0, 1).flatten(1) for t in (x, y))
    var = x.var(1, correction=0)
    assert ((y.mean(1) + 0.5).abs() <= 10 * TOLERANCE[dtype]).all()
    assert ((y.var(1, correction=0) - 2.25 * var / (var + 1e-5)).abs() <= 10 * TOLERANCE[dtype]).all()


@given(shapes, seeds, formats, st.integers(1, 9), exponents)
def test_a_batch_does_not_care_about_its_order(shape, seed, layout, ghost, p):
    x = tensor(shape, seed, torch.float64, layout)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    for layer in (bnlab.BatchNorm(shape[1]), bnlab.LpBatchNorm(shape[1], p)):
        layer.double()
        torch.testing.assert_close(layer(x)[order], layer(x[order]), rtol=1e-9, atol=1e-9)


@given(shapes, seeds, formats, exponents)
def test_lp_layer_is_its_formula(shape, seed, layout, p):
    x = tensor(shape, seed, torch.float64, layout, mean=0.3)
    layer = bnlab.LpBatchNorm(shape[1], p).double()
    weight, bias = layer.weight.detach(), layer.bias.detach()
    leaf = x.detach().requires_grad_()
    y = lp_batch_norm(leaf, weight, bias, p, layer.eps)
    expected = torch.autograd.grad(y, leaf, y.detach().cos())[0]
    same(run(layer, x)[:2], [y.detach(), expected], torch.float64)


@given(shapes, seeds, formats, st.integers(1, 9))
def test_ghosts_cover_the_batch(shape, seed, layout, ghost):
    x = tensor((*shape, 2), seed, torch.float64, layout)[..., :2]
    if x.dim() > 5:
        x = x[:, :, 0]
    layer = bnlab.GhostBatchNorm(x.size(1), ghost).double()
    y = layer(x).detach()
    count = max(1, len(x) // ghost)
    parts = [ghost] * (count - 1) + [len(x) - ghost * (count - 1)]
    for part in y.split(parts):
        assert part.transpose(0, 1).flatten(1).mean(1).abs().max() < 1e-9


@given(seeds, sizes, sizes, sizes, formats, st.sampled_from([torch.float64, torch.float32]))
def test_sample_layers_are_torchs_for_any_shape(seed, n, groups, width, layout, dtype):
    channels = groups * 2
    x = tensor((n, channels, width + 1), seed, dtype, layout)
    pairs = [
        (bnlab.GroupNorm(groups, channels), nn.GroupNorm(groups, channels)),
        (bnlab.InstanceNorm(channels, affine=True), nn.InstanceNorm1d(channels, affine=True)),
        (bnlab.LayerNorm((channels, width + 1)), nn.LayerNorm((channels, width + 1))),
        (bnlab.LayerNorm(width + 1), nn.LayerNorm(width + 1)),
        (bnlab.RMSNorm(width + 1, eps=1e-3), nn.RMSNorm(width + 1, eps=1e-3)),
    ]
    for ours, theirs in pairs:
        found, expected = run(ours.to(dtype), x), run(theirs.to(dtype), x)
        same(found[:1], expected[:1], dtype)
        if width > 1:
            same(found, expected, dtype)


@given(seeds, sizes, st.lists(st.integers(2, 4), min_size=1, max_size=3), formats)
def test_samples_do_not_see_each_other(seed, n, tail, layout):
    x = tensor((n, 4, *tail), seed, torch.float64, layout)
    layers = [
        bnlab.LayerNorm((4, *tail)),
        bnlab.GroupNorm(2, 4),
        bnlab.InstanceNorm(4),
        bnlab.RMSNorm((4, *tail)),
    ]
    for layer in layers:
        layer.double()
        torch.testing.assert_close(layer(x)[:1], layer(x[:1]), rtol=1e-12, atol=1e-12)
