"""Exercises of chapter 8: the loss variation, the effective beta, the angle of gradients, the ceiling."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import by_function
from .batches import double, normals

_normal = normals(8)


_SLOPES = double([1.0, 4.0, 9.0])
_CORNER = double([2.0, 1.0, -1.0])


def _bowl(theta: Tensor) -> Tensor:
    """A quadratic whose gradient is _SLOPES * theta: the longer probes overshoot, the shorter ones do not."""
    return (theta.square() * _SLOPES).sum() / 2


def _band(loss: Callable, points: Sequence[Tensor]) -> tuple[float, float]:
    values = [float(loss(point)) for point in points]
    return min(values), max(values)


def _walk(theta: Tensor, gradient: Tensor, steps: Sequence[float]) -> list[Tensor]:
    points = [theta]
    for s in steps:
        points.append(points[-1] - s * gradient)
    return points[1:]


def _band_at(loss: Callable, theta: Tensor, gradient: Tensor, steps: Sequence[float]) -> tuple[float, float]:
    return _band(loss, [theta - s * gradient for s in steps])


by_function(
    "8.1",
    cases=[
        (_bowl, _CORNER, _SLOPES * _CORNER, [0.05, 0.1, 0.2, 0.4]),
        (_bowl, _CORNER, _SLOPES * _CORNER, [0.02, 0.04, 0.06]),
    ],
    solution=_band_at,
    mistakes={
        "You walked uphill. The probe is at theta minus s times the gradient.": (
            lambda loss, theta, gradient, steps: _band(loss, [theta + s * gradient for s in steps])
        ),
        "Each point starts from theta, not from the point before it: the steps must not add up.": (
            lambda loss, theta, gradient, steps: _band(loss, _walk(theta, gradient, steps))
        ),
        "The gradient was shortened to length 1. The probes use it as it is.": (
            lambda loss, theta, gradient, steps: _band_at(loss, theta, gradient / gradient.norm(), steps)
        ),
        "These are the first and the last value. The largest may lie between them: take min and max.": (
            lambda loss, theta, gradient, steps: tuple(
                float(loss(theta - s * gradient)) for s in (steps[0], steps[-1])
            )
        ),
        "The unmoved point is in your band. Here only the points at the given s count.": (
            lambda loss, theta, gradient, steps: _band_at(loss, theta, gradient, [0.0, *steps])
        ),
        "This is the width of the band; return its two edges.": (
            lambda *case: max(_band_at(*case)) - min(_band_at(*case))
        ),
    },
    tolerance=1e-6,
    praise="Panel (a) of Figure 4 is this band, once for every hundredth step of training.",
)


def _quotients(steps: Sequence[float], gradient: Tensor, gradients: Sequence[Tensor]) -> list[float]:
    return [
        float((there - gradient).norm() / (s * gradient.norm()))
        for s, there in zip(steps, gradients, strict=True)
    ]


def _distances(gradient: Tensor, gradients: Sequence[Tensor]) -> list[float]:
    return [float((there - gradient).norm()) for there in gradients]


by_function(
    "8.2",
    cases=[
        ([0.05, 0.1, 0.2, 0.4], 2 * _normal(5), list(_normal(4, 5))),
        ([0.1, 0.2, 0.4], _normal(4), list(9 * _normal(3, 4) * torch.tensor([[0.1], [0.5], [3.0]]))),
    ],
    solution=lambda *given: max(_quotients(*given)),
    mistakes={
        "This is the largest gradient distance, panel (b). Divide each by the distance moved.": (
            lambda steps, gradient, gradients: max(_distances(gradient, gradients))
        ),
        "Divided by s alone. The distance moved is s times the length of the gradient.": (
            lambda steps, gradient, gradients: max(
                d / s for d, s in zip(_distances(gradient, gradients), steps, strict=True)
            )
        ),
        "Divided by the length of the gradient alone: that is the relative distance. Divide by s too.": (
            lambda steps, gradient, gradients: max(_distances(gradient, gradients)) / float(gradient.norm())
        ),
        "You compared lengths. A gradient can turn and keep its length: take the norm of the difference.": (
            lambda steps, gradient, gradients: max(
                float(abs(there.norm() - gradient.norm()) / (s * gradient.norm()))
                for s, there in zip(steps, gradients, strict=True)
            )
        ),
        "The smallest quotient is the friendliest one. Effective beta is the largest.": (
            lambda *given: min(_quotients(*given))
        ),
        "This is the mean over the step sizes; take the largest.": (
            lambda *given: sum(_quotients(*given)) / len(given[0])
        ),
        "Only the longest step was looked at. The largest quotient may be at another.": (
            lambda *given: _quotients(*given)[-1]
        ),
    },
    tolerance=1e-6,
    praise="Distance of gradients over distance moved: without the division it is another panel.",
)

by_function(
    "8.3",
    cases=[(1.0, 0.5), (2.0, 0.25), (0.5, -0.75), (3.0, -1.0)],
    solution=lambda ratio, cosine: math.sqrt(1 + ratio**2 - 2 * ratio * cosine),
    mistakes={
        "This is the square of it; a root is missing.": (
            lambda ratio, cosine: 1 + ratio**2 - 2 * ratio * cosine
        ),
        "The angle counts only half: the product in the law of cosines comes twice.": (
            lambda ratio, cosine: math.sqrt(1 + ratio**2 - ratio * cosine)
        ),
        "That is the length of the sum of the two gradients. For the difference, mind the sign.": (
            lambda ratio, cosine: math.sqrt(1 + ratio**2 + 2 * ratio * cosine)
        ),
        "Right for a gradient that keeps its length. Here it is `ratio` times as long.": (
            lambda ratio, cosine: math.sqrt(2 - 2 * cosine)
        ),
        "Right for gradients at a right angle. Here the cosine says how far they turned.": (
            lambda ratio, cosine: math.sqrt(1 + ratio**2)
        ),
        "That is the difference of the lengths. The direction changed too.": (
            lambda ratio, cosine: abs(ratio - 1)
        ),
    },
    tolerance=1e-6,
    praise="Turning and stretching, put together: one number cannot tell the two apart.",
)

by_function(
    "8.4",
    cases=[(0.1, [0.5, 1, 2, 4]), (0.02, [0.25, 1, 8]), (1e-6, [0.01, 0.1, 1, 10, 30])],
    solution=lambda lr, multiples: math.sqrt(2) / (min(multiples) * lr),
    mistakes={
        "You divided by the learning rate. The largest quotient belongs to the shortest probe.": (
            lambda lr, multiples: math.sqrt(2) / lr
        ),
        "You divided by the longest probe. The largest quotient belongs to the shortest one.": (
            lambda lr, multiples: math.sqrt(2) / (max(multiples) * lr)
        ),
        "The right probe; but two arrows of equal length at a right angle are not one length apart.": (
            lambda lr, multiples: 1 / (min(multiples) * lr)
        ),
        "The right probe; but 2 is the distance of opposite gradients. These stand at a right angle.": (
            lambda lr, multiples: 2 / (min(multiples) * lr)
        ),
        "That is 2/lr, which depends on no probe at all. Which s gives the largest quotient?": (
            lambda lr, multiples: 2 / lr
        ),
        "The multiples are in units of the learning rate: s is their product.": (
            lambda lr, multiples: math.sqrt(2) / min(multiples)
        ),
    },
    tolerance=1e-6,
    praise="No network, no data, no curvature: the ceiling is set by the shortest probe.",
)
