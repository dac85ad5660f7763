"""Exercises of chapter 1: the slope of a sigmoid, where it dies, its average, and its power over depth."""

import torch
from torch import Tensor

from . import by_function
from .batches import double, normals

_normal = normals(1)


by_function(
    "1.1",
    cases=[(3 * _normal(20),), (_normal(4, 5),)],
    solution=lambda z: torch.sigmoid(z) * (1 - torch.sigmoid(z)),
    mistakes={
        "This is the sigmoid itself. Its slope is wanted, and that is largest at 0.": torch.sigmoid,
        "This is the slope of tanh. That of the sigmoid is at most 1/4.": (lambda z: 1 - z.tanh().square()),
        "One factor is the input z where the output f(z) belongs.": (lambda z: torch.sigmoid(z) * (1 - z)),
        "This is f squared. The second factor is what the output lacks to reach 1.": (
            lambda z: torch.sigmoid(z).square()
        ),
        "This is 1 - f squared: right for tanh, where outputs run from -1 to 1, not for the sigmoid.": (
            lambda z: 1 - torch.sigmoid(z).square()
        ),
    },
    praise="The output alone tells the slope; that is why a backward pass need not keep the input.",
)


def _edge(share: float) -> Tensor:
    return 2 * torch.atanh(torch.sqrt(1 - double(share)))


by_function(
    "1.2",
    cases=[(0.1,), (0.2,), (0.01,)],
    solution=_edge,
    mistakes={
        "Here the slope itself equals `share`. It should be that share of the steepest slope, 1/4.": (
            lambda share: _edge(4 * share)
        ),
        "Half the way: this is the edge of tanh.": lambda share: _edge(share) / 2,
        "Here the output is that far from 1. Saturation is about the slope, not about the output.": (
            lambda share: torch.log(1 / double(share) - 1)
        ),
        "This takes f'(z) as exp(-z), which holds only far out, and the steepest slope as 1. It is 1/4.": (
            lambda share: -torch.log(double(share))
        ),
        "This takes f'(z) as exp(-z): close, for small shares. Solve f (1 - f) = share / 4 exactly.": (
            lambda share: -torch.log(double(share) / 4)
        ),
    },
    praise="For a share of 0.1 it is 3.64: beyond that this chapter calls a sigmoid saturated.",
    tolerance=1e-6,
)


def _phi(t: float) -> Tensor:
    return torch.special.ndtr(double(t))


def _elu(mean: float, spread: float, shift: float = 1.0, bend: float = 0.5) -> Tensor:
    below = torch.exp(double(mean + bend * spread**2)) * _phi(-mean / spread - shift * spread)
    return _phi(mean / spread) + below


by_function(
    "1.3",
    cases=[(0.0, 1.0), (-1.0, 2.0), (0.5, 0.3)],
    solution=_elu,
    mistakes={
        "This is ReLU's mean slope. Below zero ELU has the slope exp(z), and that counts too.": (
            lambda mean, spread: _phi(mean / spread)
        ),
        "Signs: the share of inputs above zero is Phi(mean / spread), the share below is 1 minus that.": (
            lambda mean, spread: _elu(-mean, spread)
        ),
        "Completing the square leaves exp(mean + spread^2 / 2) before the integral; the spread is missing.": (
            lambda mean, spread: _elu(mean, spread, bend=0.0)
        ),
        "Completing the square also moves the mean, to mean + spread^2; in Phi it has not moved.": (
            lambda mean, spread: _elu(mean, spread, shift=0.0)
        ),
        "The part below zero is right. The part above zero, slope 1, is missing.": (
            lambda mean, spread: _elu(mean, spread) - _phi(mean / spread)
        ),
    },
    praise="The curve labelled ELU in the chapter is this function.",
    tolerance=1e-6,
)


def _factor(pre_activation: Tensor, weight_scale: float) -> Tensor:
    return weight_scale * (1 - pre_activation.tanh().square()).square().mean().sqrt()


by_function(
    "1.4",
    cases=[(_normal(50, 4), 1.3), (3 * _normal(50, 4), 0.4)],
    solution=_factor,
    mistakes={
        "The slopes were averaged. Squares add up: average the squares of the slopes, then take the root.": (
            lambda z, scale: scale * (1 - z.tanh().square()).mean()
        ),
        "This is the factor for the mean square of the gradient. The root of it is wanted.": (
            lambda z, scale: _factor(z, scale).square()
        ),
        "The slope part is right. The weights stretch as well: the weight scale is missing.": (
            lambda z, scale: _factor(z, 1.0)
        ),
        "These are the outputs of tanh; their slopes are wanted.": (
            lambda z, scale: scale * z.tanh().square().mean().sqrt()
        ),
        "This is the slope of the sigmoid; the network here has tanh units.": (
            lambda z, scale: (
                scale * torch.special.expit(z).mul(torch.special.expit(-z)).square().mean().sqrt()
            )
        ),
    },
    praise="Above 1 the gradient grows on its way down, below 1 it fades.",
)


by_function(
    "1.5",
    cases=[(10, 1.0, 0.25), (30, 0.5, 0.9), (2, 3.0, 0.1)],
    solution=lambda depth, weight_scale, slope: double(weight_scale * slope) ** (depth - 1),
    mistakes={
        "One layer too many: between the last layer and the first there are depth - 1 steps.": (
            lambda depth, weight_scale, slope: double(weight_scale * slope) ** depth
        ),
        "The slopes are there; the weights multiply the gradient too.": (
            lambda depth, weight_scale, slope: double(slope) ** (depth - 1)
        ),
        "The layers multiply; here they are added.": (
            lambda depth, weight_scale, slope: double(weight_scale * slope) * (depth - 1)
        ),
        "This is the mean square; the gradient itself is wanted.": (
            lambda depth, weight_scale, slope: double(weight_scale * slope) ** (2 * (depth - 1))
        ),
        "Upside down: this is the last layer's gradient over the first one's.": (
            lambda depth, weight_scale, slope: double(weight_scale * slope) ** (1 - depth)
        ),
    },
    praise="Ten sigmoid layers in the middle of the linear region leave four millionths of the gradient.",
    tolerance=1e-6,
)
