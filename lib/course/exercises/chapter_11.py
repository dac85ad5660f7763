"""Exercises of chapter 11: sizes of the groups, l_p, group norm, an outlier, the gradient of weight norm."""

import math
from functools import partial

from torch import Tensor

from . import by_function
from .batches import normals

_normal = normals(11)


def _sizes(n: int, c: int, hw: int, groups: int, ghost: int) -> tuple[int, ...]:
    """Values per mean and variance: batch, ghost, layer, group, instance norm."""
    return n * hw, ghost * hw, c * hw, c // groups * hw, hw


by_function(
    "11.1",
    cases=[(32, 12, 49, 4, 8), (6, 8, 9, 2, 3)],
    solution=_sizes,
    mistakes={
        "The positions are missing: in a convolutional layer they count as further samples.": (
            lambda n, c, hw, groups, ghost: (n, ghost, c, c // groups, 1)
        ),
        "Batch norm keeps the channels apart: every channel has its own mean and variance.": (
            lambda n, c, hw, groups, ghost: (n * c * hw, *_sizes(n, c, hw, groups, ghost)[1:])
        ),
        "The number of groups is not the number of channels in one of them.": (
            lambda n, c, hw, groups, ghost: (n * hw, ghost * hw, c * hw, groups * hw, hw)
        ),
        "The ghost size is a number of samples, not a number of ghost batches.": (
            lambda n, c, hw, groups, ghost: (n * hw, n // ghost * hw, *_sizes(n, c, hw, groups, ghost)[2:])
        ),
        "Layer norm does not look beyond its own sample: n has no place in it.": (
            lambda n, c, hw, groups, ghost: (n * hw, ghost * hw, n * c * hw, c // groups * hw, hw)
        ),
        "That is group norm across the batch. Its groups are channels of one sample.": (
            lambda n, c, hw, groups, ghost: (n * hw, ghost * hw, c * hw, n * c // groups * hw, hw)
        ),
    },
    praise="Who shares a mean with whom: that is all by which these five differ.",
)


def _lp(x: Tensor, p: float, *, centred=False, mean=True, root=True, absolute=True, shift=True) -> Tensor:
    inner = x - x.mean(0) if centred else x
    power = (inner.abs() if absolute else inner) ** p
    norm = power.mean(0) if mean else power.sum(0)
    norm = norm.abs() ** (1 / p) if root else norm
    return (x - x.mean(0) if shift else x) / norm


by_function(
    "11.2",
    cases=[(_normal(9, 3) + 0.7, 1), (2 * _normal(6, 2) - 1, 2), (_normal(8, 2) + 0.3, 3)],
    solution=_lp,
    mistakes={
        "The norm was taken after the mean was subtracted. The paper takes it before.": (
            partial(_lp, centred=True)
        ),
        "The norm has to be an average over the batch: a larger batch must not give a larger norm.": (
            partial(_lp, mean=False)
        ),
        "The p-th root is missing: without it the result changes with the unit of measurement.": (
            partial(_lp, root=False)
        ),
        "For odd p positive and negative values cancel: the norm is made of magnitudes.": (
            partial(_lp, absolute=False)
        ),
        "The division is right, but the mean is still there.": partial(_lp, shift=False),
    },
    praise="For p = 2 this is not batch normalization: the norm sees the mean.",
)


def _group(x: Tensor, groups: int, *, dims=(2, 3), interleaved=False, correction=0, divide=True) -> Tensor:
    n, c, length = x.shape
    if interleaved:
        parts = x.reshape(n, c // groups, groups, length).transpose(1, 2)
    else:
        parts = x.reshape(n, groups, c // groups, length)
    y = parts - parts.mean(dims, keepdim=True)
    if divide:
        y = y / parts.std(dims, correction=correction, keepdim=True)
    return (y.transpose(1, 2) if interleaved else y).reshape(x.shape)


by_function(
    "11.3",
    cases=[(_normal(3, 4, 5) * 2 + 1, 2), (_normal(2, 6, 3), 2)],
    solution=_group,
    mistakes={
        "Samples were mixed: the statistics of a group belong to one sample.": partial(
            _group, dims=(0, 2, 3)
        ),
        "Each channel was normalized by itself: that is instance norm.": partial(_group, dims=(3,)),
        "Each position was normalized by itself: the positions belong to the group as well.": (
            partial(_group, dims=(2,))
        ),
        "All channels of a sample were taken together: that is layer norm, or one group.": (
            lambda x, groups: _group(x, 1)
        ),
        "A group is a run of neighbouring channels, not channels at equal distances.": (
            partial(_group, interleaved=True)
        ),
        "The variance was divided by m - 1; normalization layers divide by m.": partial(_group, correction=1),
        "Only the mean was removed; the spread still is what it was.": partial(_group, divide=False),
    },
    praise="No sample knows of another, so the batch size does not matter.",
)


def _kept(m: int, size: float, *, shift=True, others=True, root=True) -> tuple[float, float]:
    """Spread that the other values keep beside an outlier, under batch norm and under l-infinity."""
    square = ((m - 1 if others else 0) + size**2) / m - ((size / m) ** 2 if shift else 0)
    return 1 / (math.sqrt(square) if root else square), 1 / size


by_function(
    "11.4",
    cases=[(256, 100.0), (16, 10.0)],
    solution=_kept,
    mistakes={
        "Nearly: the outlier moves the mean too, and the variance is about the mean.": (
            partial(_kept, shift=False)
        ),
        "The other values have a spread of their own; they are part of the variance.": (
            partial(_kept, others=False)
        ),
        "Batch norm divides by the standard deviation, not by the variance.": partial(_kept, root=False),
        "These are the numbers divided by. What is asked for is what is left of a spread of 1.": (
            lambda m, size: tuple(1 / kept for kept in _kept(m, size))
        ),
        "The largest magnitude is not averaged over the batch.": (
            lambda m, size: (_kept(m, size)[0], m / size)
        ),
        "Both are right, in the other order: batch norm first.": lambda m, size: _kept(m, size)[::-1],
    },
    tolerance=1e-6,
    praise="A larger batch dilutes the outlier in an average. In a maximum nothing dilutes it.",
)


def _weight_norm_gradient(
    grad: Tensor, v: Tensor, g: float, *, project=True, scale=1, unit=True, length=True
) -> tuple[Tensor, Tensor]:
    direction = v / v.norm()
    along = grad @ direction
    dv = grad - along * direction if project else grad
    return (along if unit else grad @ v), dv * (g if length else 1) / v.norm() ** scale


by_function(
    "11.5",
    cases=[(_normal(4), 2 * _normal(4), 1.5), (_normal(3), _normal(3) / 3, -0.7)],
    solution=_weight_norm_gradient,
    mistakes={
        "The gradient of v still has a part along v. But the length of v does not matter: no such part.": (
            partial(_weight_norm_gradient, project=False)
        ),
        "For g the direction has length 1: divide by the length of v.": (
            partial(_weight_norm_gradient, unit=False)
        ),
        "The gradient of v lacks the factor g.": partial(_weight_norm_gradient, length=False),
        "The gradient of v is to be divided by its length: a longer v turns more slowly.": (
            partial(_weight_norm_gradient, scale=0)
        ),
        "Divided by the length of v once too often: the square belongs to the angle of a step.": (
            partial(_weight_norm_gradient, scale=2)
        ),
        "Both are right, in the other order: first g, then v.": (
            lambda grad, v, g: _weight_norm_gradient(grad, v, g)[::-1]
        ),
    },
    praise="At a right angle to v: weight norm shares with batch norm that a length can only grow.",
)
