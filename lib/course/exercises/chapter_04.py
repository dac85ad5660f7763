"""Exercises of chapter 4: steps to an accuracy, factors of a speed-up, lengths of weights, panel (c)."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from . import by_function
from .batches import double, normals

_normal = normals(4)


def _reached(
    steps: Sequence[float],
    accuracies: Sequence[float],
    target: float,
    *,
    place: Callable[[float], float] = lambda share: share,
    never: float = math.inf,
) -> float:
    """Where the curve first reaches `target`; `place` turns the share of the gap into one of the way."""
    for i, accuracy in enumerate(accuracies):
        if accuracy >= target:
            before = max(i - 1, 0)
            gap = accuracy - accuracies[before]
            share = (target - accuracies[before]) / gap if gap else 1.0
            return steps[before] + place(share) * (steps[i] - steps[before])
    return never


def _last_crossing(steps: Sequence[float], accuracies: Sequence[float], target: float) -> float:
    below = [i for i, accuracy in enumerate(accuracies) if accuracy < target]
    last = below[-1] if below and below[-1] + 1 < len(steps) else 0
    return _reached(steps[last:], accuracies[last:], target)


_STEPS = [0, 10, 20, 40, 80]

by_function(
    "4.1",
    cases=[
        (_STEPS, [0.1, 0.3, 0.6, 0.5, 0.7], 0.525),
        (_STEPS, [0.1, 0.2, 0.3, 0.3, 0.4], 0.325),
        (_STEPS, [0.1, 0.2, 0.3, 0.3, 0.4], 0.5),
    ],
    solution=_reached,
    mistakes={
        "This is the look that first saw the target. It was reached somewhere before: interpolate.": (
            partial(_reached, place=lambda share: 1.0)
        ),
        "This is the last look below the target. It was reached somewhere after: interpolate.": (
            partial(_reached, place=lambda share: 0.0)
        ),
        "The share is counted from the wrong side: a target just above the earlier look is near it.": (
            partial(_reached, place=lambda share: 1 - share)
        ),
        "This is halfway between two looks, wherever the target lies between them.": (
            partial(_reached, place=lambda share: 0.5)
        ),
        "Right where the target is reached. A run that never gets there did not get there at its end: inf.": (
            lambda steps, *run: _reached(steps, *run, never=steps[-1])
        ),
        "This is the last time the curve rises through the target. Accuracy wobbles; the first counts.": (
            _last_crossing
        ),
    },
    praise="Finer than the looks, and a run that never arrives says so.",
)

by_function(
    "4.2",
    cases=[(31.0, 13.3, 2.1), (100.0, 50.0, 10.0)],
    solution=lambda plain, alone, together: (plain / alone, alone / together),
    mistakes={
        "The second number is the whole way, from Inception to BN-x5. Part of it went to the first.": (
            lambda plain, alone, together: (plain / alone, plain / together)
        ),
        "The whole factor is right, and the first part too. But factors multiply: divide, do not subtract.": (
            lambda plain, alone, together: (plain / alone, plain / together - plain / alone)
        ),
        "These are numbers of steps saved. How many times fewer is a quotient.": (
            lambda plain, alone, together: (plain - alone, alone - together)
        ),
        "Upside down: a factor above 1 means fewer steps.": (
            lambda plain, alone, together: (alone / plain, together / alone)
        ),
        "Both are right, in the other order: first batch normalization alone, then the rest.": (
            lambda plain, alone, together: (alone / together, plain / alone)
        ),
    },
    praise="The changes that came along did more than batch normalization alone, in the paper's own numbers.",
)

by_function(
    "4.3",
    cases=[(0.5, _normal(4, 3)), (2.0, 3 * _normal(2, 5))],
    solution=lambda lr, weight: lr / weight.square().sum(1),
    mistakes={
        "Divided by the length once. The gradient is shorter, and the same turn is a longer way: twice.": (
            lambda lr, weight: lr / weight.norm(dim=1)
        ),
        "One number for the whole layer. Each unit is normalized by itself and has a rate of its own.": (
            lambda lr, weight: lr / weight.square().sum()
        ),
        "These are the columns of the weight, one for each input. A unit is a row.": (
            lambda lr, weight: lr / weight.square().sum(0)
        ),
        "Multiplied where it should be divided: longer weights turn more slowly.": (
            lambda lr, weight: lr * weight.square().sum(1)
        ),
        "The mean of the squares stands where their sum belongs.": (
            lambda lr, weight: lr / weight.square().mean(1)
        ),
    },
    praise="One rate for each unit; it can only fall, unless something shortens the weights.",
)

by_function(
    "4.4",
    cases=[(2.0, 0.5, [1.0, 3.0, 0.2]), (0.3, 2.0, [0.4, 0.4])],
    solution=lambda length, lr, gradients: math.sqrt(length**2 + lr**2 * sum(g**2 for g in gradients)),
    mistakes={
        "Lengths were added as if every step went straight outwards. The steps go sideways: Pythagoras.": (
            lambda length, lr, gradients: length + lr * sum(gradients)
        ),
        "The learning rate has to be squared as well: the step is lr times the gradient.": (
            lambda length, lr, gradients: math.sqrt(length**2 + lr * sum(g**2 for g in gradients))
        ),
        "This is the squared length; a root is missing.": (
            lambda length, lr, gradients: length**2 + lr**2 * sum(g**2 for g in gradients)
        ),
        "The weights got shorter. A step along a tangent leads away from the centre.": (
            lambda length, lr, gradients: math.sqrt(abs(length**2 - lr**2 * sum(g**2 for g in gradients)))
        ),
        "The gradients were added before squaring. Each step has its own right angle.": (
            lambda length, lr, gradients: math.sqrt(length**2 + lr**2 * sum(gradients) ** 2)
        ),
    },
    praise="The gradients of a whole training run, in one Pythagorean sum.",
)

_Z = 2**0.5 * torch.erfinv(double([-0.7, 0.0, 0.7]))  # 15 %, 50 %, 85 % of a Gaussian


def _three(gamma: float, beta: float) -> Tensor:
    return beta + gamma * _Z


by_function(
    "4.5",
    cases=[(1.3, 0.4), (-0.8, -1.5)],
    solution=lambda gamma, beta: _three(abs(gamma), beta),
    mistakes={
        "For a negative gamma the order is upside down: the spread is its absolute value.": _three,
        "The spread is there; the middle of the picture should lie at beta.": (
            lambda gamma, beta: _three(abs(gamma), 0)
        ),
        "Gamma was squared. It multiplies values, and so does the spread: abs(gamma).": (
            lambda gamma, beta: _three(gamma**2, beta)
        ),
        "This is one standard deviation to both sides: the 16th and the 84th percentile, nearly right.": (
            lambda gamma, beta: beta + abs(gamma) * double([-1.0, 0.0, 1.0])
        ),
        "Nothing learned enters here. Before gamma and beta the three would be these; now apply both.": (
            lambda gamma, beta: _three(1, 0)
        ),
    },
    tolerance=1e-3,
    praise="Panel (c), drawn from two numbers of the layer, without any data and without any training.",
)
