"""The networks: sizes from the papers, initial weights, and where the normalization sits."""

import math

import pytest
import torch
from torch import nn

import bnlab
from course import experiments, models

CONV_A = [64, 128, 256, 256, 512, 512, 512, 512]  # Simonyan and Zisserman 2015, Table 1, column A
CONV_16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]  # column D


def of_type(net, kind):
    return [module for module in net.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(("plan", "channels"), [(models.VGG_A, CONV_A), (models.VGG_16, CONV_16)])
@pytest.mark.parametrize("width", [1.0, 0.25])
def test_vgg_has_the_published_convolutions(plan, channels, width):
    net = models.vgg(plan, width=width, init="he", seed=0)
    assert [conv.out_channels for conv in of_type(net, nn.Conv2d)] == [width * c for c in channels]
    assert len(of_type(net, nn.MaxPool2d)) == 5


def test_deep_linear_is_a_product_of_matrices():
    net = models.deep_linear(seed=0)
    matrices = [layer.weight for layer in of_type(net, nn.Linear)]
    assert len(matrices) == 25 and all(matrix.shape == (10, 10) for matrix in matrices)
    x = torch.randn(4, 10, dtype=torch.float64)
    assert torch.allclose(net(x).T, torch.linalg.multi_dot(matrices[::-1]) @ x.T)


MAKERS = {
    "sigmoid_mlp": (models.sigmoid_mlp, (6, 1, 28, 28), 3),
    "conv_net": (models.conv_net, (6, 1, 28, 28), 3),
    "vgg": (lambda **k: models.vgg(width=0.125, **k), (6, 3, 32, 32), 10),
    "deep_linear": (models.deep_linear, (6, 10), 24),
}


@pytest.mark.parametrize("name", MAKERS)
def test_normalization_sits_right_after_each_hidden_linear_layer_which_loses_its_bias(name):
    make, shape, count = MAKERS[name]
    net = make(norm=bnlab.BatchNorm, init="he", seed=0)
    leaves = [m for m in net.modules() if not list(m.children())]
    places = [i for i, m in enumerate(leaves) if isinstance(m, bnlab.BatchNorm)]
    assert len(places) == count
    assert all(
        isinstance(leaves[i - 1], nn.Linear | nn.Conv2d) and leaves[i - 1].bias is None for i in places
    )
    dtype = next(net.parameters()).dtype
    assert net(torch.randn(shape, dtype=dtype)).shape == (6, 10)


@pytest.mark.parametrize("name", MAKERS)
def test_one_seed_gives_the_same_weights_with_and_without_normalization(name):
    make = MAKERS[name][0]
    weights = [
        [
            m.weight
            for m in make(norm=norm, init="glorot", seed=s).modules()
            if isinstance(m, nn.Linear | nn.Conv2d)
        ]
        for norm, s in ((None, 1), (bnlab.BatchNorm, 1), (None, 2))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*weights[:2], strict=True))
    assert not torch.equal(weights[0][0], weights[2][0])


def test_a_bias_is_kept_where_the_normalization_has_none():
    net = models.conv_net(norm=lambda channels: nn.BatchNorm2d(channels, affine=False), init="he", seed=0)
    assert all(conv.bias is not None for conv in of_type(net, nn.Conv2d))


@pytest.mark.parametrize(
    ("init", "std"),
    [("he", math.sqrt(2 / 900)), ("glorot", math.sqrt(2 / (900 + 1800))), ("lecun", 1 / 30), (0.05, 0.05)],
)
def test_initial_standard_deviation(init, std):
    """A 3 x 3 convolution from 100 to 200 channels has fan-in 900 and fan-out 1800."""
    conv = models.initialise(nn.Sequential(nn.Conv2d(100, 200, 3)), init, seed=0)[0]
    assert conv.weight.std().item() == pytest.approx(std, rel=0.01)  # 180,000 weights: 0.17 % expected
    assert conv.weight.mean().abs() < 5 * std / math.sqrt(180_000)
    assert not conv.bias.any()


def test_he_initialisation_keeps_the_scale_through_a_deep_relu_net():
    net = models.initialise(
        nn.Sequential(*[m for _ in range(10) for m in (nn.Linear(1000, 1000), nn.ReLU())]), "he", seed=0
    )
    x = torch.randn(100, 1000, generator=torch.Generator().manual_seed(1))  # seed 0 drew the weights
    ratio = net(x).square().mean() / x.square().mean()
    assert 0.5 < ratio < 2


@pytest.mark.parametrize("init", ["xavier", 0, -0.1, None])
def test_an_unknown_initialisation_is_refused(init):
    with pytest.raises(ValueError, match="init must be one of 'he', 'glorot', 'lecun' or a positive number"):
        models.conv_net(init=init, seed=0)


@pytest.mark.parametrize("name", [*experiments.ALTERNATIVES, "noisy_batchnorm"])
def test_every_alternative_trains_a_step(name):
    if name == "noisy_batchnorm":
        net = models.conv_net(norm=experiments.batch_norm(name), size=14, init="he", seed=0)
    else:
        net = experiments.alternative_net(name, batch_size=16, seed=0)
    images = torch.rand(16, 1, 14, 14)
    nn.functional.cross_entropy(net(images), torch.arange(16) % 10).backward()
    gradients = [p.grad for p in net.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    first = gradients[0] if name != "weightnorm" else gradients[1]
    assert first.any()


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="unknown network 'l3norm'"):
        experiments.batch_norm("l3norm")
