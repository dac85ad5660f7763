"""Exercises of chapter 12: gradient growth, weight lengths, statistics from shares, warm-up."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import by_function
from .batches import double, normals

_normal = normals(12)


_FACTOR = math.sqrt(math.pi / (math.pi - 1))

by_function(
    "12.1",
    cases=[(10,), (50,)],
    solution=lambda depth: _FACTOR**depth,
    mistakes={
        "This is the growth of the squared gradient. Its length grows by the root.": (
            lambda depth: _FACTOR ** (2 * depth)
        ),
        "The factors were added. Each layer multiplies what comes back from the one above.": (
            lambda depth: _FACTOR * depth
        ),
        "Upside down: going back, the gradient grows.": lambda depth: _FACTOR**-depth,
        "This is one layer; depth of them stand on top of each other.": lambda depth: _FACTOR,
        "Without normalization nothing grows. The division by the spread is missing.": lambda depth: 1.0,
    },
    praise="Fifty layers, a factor of more than ten thousand, before the first step.",
)


def _length(
    length: float, lr: float, gradient: float, steps: int, *, times: Callable = lambda w: 1 / w
) -> float:
    for _ in range(steps):
        length = math.hypot(length, lr * gradient * times(length))
    return length


by_function(
    "12.2",
    cases=[(1.0, 0.5, 2.0, 3), (2.0, 10.0, 0.3, 5)],
    solution=_length,
    mistakes={
        "The gradient shrinks as the weights grow: it is g divided by the length they have now.": (
            lambda *run: _length(*run, times=lambda w: 1.0)
        ),
        "The gradient was divided by the length at the start, in every step. Use the length of the moment.": (
            lambda length, lr, g, steps: _length(length, lr, g / length, steps, times=lambda w: 1.0)
        ),
        "Divided by the squared length. The gradient shrinks once; it is the turn that shrinks twice.": (
            lambda *run: _length(*run, times=lambda w: 1 / w**2)
        ),
        "Gradients grow with the weights here; they should shrink.": (
            lambda *run: _length(*run, times=lambda w: w)
        ),
        "This is one step only.": lambda length, lr, g, steps: _length(length, lr, g, 1),
    },
    praise="With a high rate the length soon goes like the square root of the rate, and the rate cancels.",
)


def _joint(n: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    total = (n * mean).sum() / n.sum()
    return total, (n * (var + (mean - total) ** 2)).sum() / n.sum()


by_function(
    "12.3",
    cases=[
        (double([5.0, 11.0]), _normal(2), _normal(2).square()),
        (double([3.0, 4.0, 9.0]), _normal(3), _normal(3).square()),
    ],
    solution=_joint,
    mistakes={
        "The mean is right. To the mean of the variances comes the spread of the means themselves.": (
            lambda n, mean, var: (_joint(n, mean, var)[0], (n * var).sum() / n.sum())
        ),
        "Every process counted the same. One with more samples weighs more.": (
            lambda n, mean, var: _joint(torch.ones_like(n), mean, var)
        ),
        "Averages of means and of variances, each process counted the same: two things are missing.": (
            lambda n, mean, var: (mean.mean(), var.mean())
        ),
        "These are the second moments; subtract the square of the joint mean.": (
            lambda n, mean, var: (_joint(n, mean, var)[0], (n * (var + mean**2)).sum() / n.sum())
        ),
        "The mean is right; the variance is the unbiased one. Batch normalization divides by all samples.": (
            lambda n, mean, var: (
                _joint(n, mean, var)[0],
                _joint(n, mean, var)[1] * n.sum() / (n.sum() - 1),
            )
        ),
    },
    praise="Two numbers and a count from each process are all that has to travel.",
)


def _warm(step: int, steps: int, top: float) -> float:
    return top * min(1.0, (step + 1) / steps)


_STEPS = ((0, 10, 0.5), (4, 10, 0.5), (9, 10, 0.5), (10, 10, 0.5), (40, 10, 0.5))


by_function(
    "12.4",
    cases=_STEPS,
    solution=_warm,
    mistakes={
        "The first step has rate zero and is wasted; the top comes one step late.": (
            lambda step, steps, top: top * min(1.0, step / steps)
        ),
        "The rise never ends. After the warm-up the rate stays at the top.": (
            lambda step, steps, top: top * (step + 1) / steps
        ),
        "After the warm-up the rate is gone. It should stay at the top.": (
            lambda step, steps, top: top * (step + 1) / steps if step < steps else 0.0
        ),
        "This falls from the top. A warm-up rises to it.": (
            lambda step, steps, top: top * max(0.0, 1 - step / steps)
        ),
        "This is the top from the first step on: no warm-up.": lambda step, steps, top: top,
    },
    praise="One line, and the first steps are small ones.",
)
