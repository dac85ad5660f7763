"""The networks of the experiments, each with or without a normalization before every nonlinearity.

`norm` is a factory that takes the number of features or channels and returns a layer (`bnlab.BatchNorm`,
`lambda channels: bnlab.GroupNorm(4, channels)`), or None. It sits before the nonlinearity, as in [1] §3.2.
A linear layer keeps its own bias unless the normalization after it adds one.

`init` says how weights are drawn, biases are zero: "he" is N(0, 2 / fan_in), "glorot" is
N(0, 2 / (fan_in + fan_out)), "lecun" is N(0, 1 / fan_in) (what SELU needs), and a number is the standard
deviation of a Gaussian. Networks of one seed share their weights whatever `norm` is.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import Literal

import torch
from torch import nn

Norm = Callable[[int], nn.Module] | None

Plan = tuple[int | Literal["M"], ...]

VGG_A: Plan = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG_16: Plan = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")

SCHEMES = {
    "he": lambda fan_in, fan_out: sqrt(2 / fan_in),
    "glorot": lambda fan_in, fan_out: sqrt(2 / (fan_in + fan_out)),
    "lecun": lambda fan_in, fan_out: sqrt(1 / fan_in),
}


def sigmoid_mlp(*, norm: Norm = None, init: str | float, seed: int) -> nn.Sequential:
    """[1] Fig. 1: 28 x 28 inputs, three hidden layers of 100 sigmoid units, 10 outputs.

    [1] draws weights from "a small random Gaussian" and does not say how small.

    >>> sigmoid_mlp(init=0.1, seed=0)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    sizes = (28 * 28, 100, 100, 100)
    hidden = [block(nn.Linear(a, b), b, norm, nn.Sigmoid) for a, b in pairwise(sizes)]
    return initialise(nn.Sequential(nn.Flatten(), *hidden, nn.Linear(100, 10)), init, seed)


def conv_net(
    *,
    norm: Norm = None,
    init: str | float,
    seed: int,
    size: int = 28,
    channels: Sequence[int] = (8, 16, 32),
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """A mini VGG for 1 x size x size images: 3 x 3 convolutions and pooling, then a linear layer.

    >>> conv_net(init="he", seed=0)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    sizes = (1, *channels)
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [block(nn.Conv2d(a, b, 3, padding=1), b, norm, activation), nn.MaxPool2d(2)]
    side = size // 2 ** len(channels)
    return initialise(nn.Sequential(*layers, nn.Flatten(), nn.Linear(b * side**2, 10)), init, seed)


def vgg(
    plan: Plan = VGG_A,
    *,
    width: float = 1.0,
    norm: Norm = None,
    init: str | float,
    seed: int,
) -> nn.Sequential:
    """A VGG for 3 x 32 x 32 images: the convolutions of `plan` (VGG_A or VGG_16), two hidden layers of 512.

    `width` multiplies every layer's channels; "M" in the plan is max pooling. [2] calls its network
    "VGG-like" and does not give the depth; its figures name layers up to 13, which VGG_16 has.
    In `channels_last` memory format it is faster on the CPU.

    >>> net = vgg(VGG_A, width=0.25, init="he", seed=0)
    >>> net(torch.zeros(2, 3, 32, 32)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 10]), 611434)
    """
    layers: list[nn.Module] = []
    before = 3
    for item in plan:
        if item == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            channels = max(1, round(item * width))
            layers.append(block(nn.Conv2d(before, channels, 3, padding=1), channels, norm, nn.ReLU))
            before = channels
    hidden = max(1, round(512 * width))
    layers += [nn.Flatten(), block(nn.Linear(before, hidden), hidden, norm, nn.ReLU)]
    layers += [block(nn.Linear(hidden, hidden), hidden, norm, nn.ReLU), nn.Linear(hidden, 10)]
    return initialise(nn.Sequential(*layers), init, seed).to(
        memory_format=torch.channels_last  # type: ignore[call-overload]  # torch's hints lack this form
    )


def deep_linear(
    *, depth: int = 25, width: int = 10, norm: Norm = None, init: str | float = "glorot", seed: int
) -> nn.Sequential:
    """[2]'s deep linear network: `depth` square matrices, in float64, a normalization after all but the last.

    >>> sum(p.numel() for p in deep_linear(seed=0).parameters())
    2500
    """
    layers: list[nn.Module] = []
    for i in range(depth):
        layer = nn.Linear(width, width, bias=False)
        layers.append(nn.Sequential(layer, norm(width)) if norm and i < depth - 1 else layer)
    return initialise(nn.Sequential(*layers), init, seed).double()


def block(layer: nn.Module, features: int, norm: Norm, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Layer, normalization (if any), activation."""
    if norm is None:
        return nn.Sequential(layer, activation())
    normalization = norm(features)
    if getattr(normalization, "bias", None) is not None:
        layer.register_parameter("bias", None)  # batch normalization cancels it; the rule is the same for all
    return nn.Sequential(layer, normalization, activation())


def initialise(model: nn.Sequential, init: str | float, seed: int) -> nn.Sequential:
    """Draw every linear and convolutional weight as `init` says, from a generator of its own; return model.

    >>> net = initialise(nn.Sequential(nn.Linear(200, 50)), 0.1, seed=0)
    >>> round(net[0].weight.std().item(), 2), net[0].bias.any().item()
    (0.1, False)
    """
    if not (init in SCHEMES if isinstance(init, str) else isinstance(init, int | float) and init > 0):
        raise ValueError(
            f"init must be one of {', '.join(map(repr, SCHEMES))} or a positive number, got {init!r}"
        )
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_out, fan_in = module.weight.shape[0], module.weight[0].numel()
            fan_out *= module.weight[0, 0].numel()  # the kernel's area; 1 for a linear layer
            std = SCHEMES[init](fan_in, fan_out) if isinstance(init, str) else init
            with torch.no_grad():
                module.weight.normal_(0, std, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    return model
