"""Exercises of chapter 2: distances between distributions, a runaway bias, whitening."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import answered, by_function, register
from .batches import double, normals, spread

_normal = normals(2)


# Units of very different spread and mean: a forgotten or misplaced division shows.
_scale = double([1.0, 0.05, 4.0])
_before = _normal(8, 3) * _scale + double([0.5, -1.0, 3.0])
_after = _before + _scale * (0.3 + _normal(8, 3))


def _sorted(before: Tensor, after: Tensor, dim: int = 0) -> Tensor:
    return after.sort(dim).values - before.sort(dim).values


def _shift(before: Tensor, after: Tensor) -> Tensor:
    return _sorted(before, after).abs().mean(0) / spread(before)


by_function(
    "2.1",
    cases=[(_before, _after), (_before, _before + 2 * _scale)],
    solution=_shift,
    mistakes={
        "Every image was compared with itself. A distribution does not know the images apart: sort first.": (
            lambda before, after: (after - before).abs().mean(0) / spread(before)
        ),
        "The units of each image were sorted. Sort the images of each unit.": (
            lambda before, after: _sorted(before, after, 1).abs().mean(0) / spread(before)
        ),
        "The differences were averaged with their signs, so they cancel: this is how far the mean moved.": (
            lambda before, after: _sorted(before, after).mean(0).abs() / spread(before)
        ),
        "The distance is right. It is still to be divided by the unit's spread before.": (
            lambda before, after: _sorted(before, after).abs().mean(0)
        ),
        "The distance is right, but was divided by the spread after the step.": (
            lambda before, after: _sorted(before, after).abs().mean(0) / spread(after)
        ),
        "The spread was divided by one image too few, torch's habit. Divide by the number of images.": (
            lambda before, after: _sorted(before, after).abs().mean(0) / before.std(0)
        ),
        "Absolute differences were summed over the images; they are to be averaged.": (
            lambda before, after: _sorted(before, after).abs().sum(0) / spread(before)
        ),
        "Differences were squared. That is another distance (2-Wasserstein); take absolute values.": (
            lambda before, after: _sorted(before, after).square().mean(0).sqrt() / spread(before)
        ),
    },
    praise="The 1-Wasserstein distance, in units of the unit's own spread.",
)


def _stands_still(answer: Callable) -> str | None:
    """Whether `answer` moves every image and no distribution, on a batch with all values different."""
    x, y = _before, answered(answer(_before.clone()))
    if not isinstance(y, Tensor) or y.shape != x.shape:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        return f"Values of shape {tuple(x.shape)} are expected, got {got}."
    distributions, images = _shift(x, y).max(), (y - x).abs().mean(0) / spread(x)
    if images.max() == 0:
        return "Nothing has moved, neither distributions nor images."
    if distributions > 1e-9:
        if torch.equal(y.flatten().sort().values, x.flatten().sort().values):
            return "Values went from one unit to another: the units' distributions moved. Stay within a unit."
        if torch.allclose(y.mean(0), x.mean(0)) and torch.allclose(spread(y), spread(x)):
            return "Mean and spread stand still, but the shape of the distributions has changed."
        return f"The distributions moved, by up to {distributions:.2g} spreads. Use the old values only."
    if images.min() < 0.5:
        return f"No distribution moved. But in one unit the images moved by only {images.min():.2g} spreads."
    return None


register(
    "2.2",
    _stands_still,
    praise="Every percentile stands still, and for the next layer everything has changed.",
)


def _bias(b0: float, y: Tensor, lr: float, steps: int) -> Tensor:
    return b0 + steps * lr * y.mean()


by_function(
    "2.3",
    cases=[(0.0, _normal(6) + 1, 0.1, 50), (-2.0, _normal(9) - 1, 0.3, 7)],
    solution=_bias,
    mistakes={
        "The bias runs the wrong way: descent goes against the gradient, which is minus the mean of y.": (
            lambda b0, y, lr, steps: b0 - steps * lr * y.mean()
        ),
        "This is b after a single step; the gradient stays the same and is followed at every step.": (
            lambda b0, y, lr, steps: b0 + lr * y.mean()
        ),
        "This bias settles. It would, if its own steps had an effect on the next gradient. Do they?": (
            lambda b0, y, lr, steps: b0 + (1 - (1 - lr) ** steps) * (y.mean() - b0)
        ),
        "This is what happens inside the gradient, where b never moves. Here the mean is held constant.": (
            lambda b0, y, lr, steps: double(b0)
        ),
        "The step is too large by the number of images: the loss is an average over them.": (
            lambda b0, y, lr, steps: b0 + steps * lr * y.sum()
        ),
        "The growth is right. The bias starts at b0, not at zero.": (
            lambda b0, y, lr, steps: steps * lr * y.mean()
        ),
    },
    praise="It grows for ever, and the loss never notices.",
)


def _whitened(x: Tensor, power: float = -0.5, correction: int = 0, centre: bool = True) -> Tensor:
    centred = x - x.mean(0) if centre else x
    scale, axes = torch.linalg.eigh(centred.T @ centred / (len(x) - correction))
    return centred @ (axes * scale**power) @ axes.T


def _rotated(x: Tensor) -> Tensor:
    """White, along the axes of the eigenvectors."""
    centred = x - x.mean(0)
    scale, axes = torch.linalg.eigh(centred.T @ centred / len(x))
    return centred @ (axes / scale.sqrt())


def _by_cholesky(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    root = torch.linalg.cholesky(centred.T @ centred / len(x))
    return torch.linalg.solve_triangular(root, centred.T, upper=False).T


_correlated = _normal(12, 3) @ _normal(3, 3) + 2

by_function(
    "2.4",
    cases=[(_correlated,), (_normal(9, 2) @ _normal(2, 2) - 1,)],
    solution=_whitened,
    tolerance=1e-7,
    mistakes={
        "Each unit has mean 0 and variance 1, but they are correlated still. That is batch normalization.": (
            lambda x: (x - x.mean(0)) / spread(x)
        ),
        "The covariance was divided by m - 1. Expectations divide by m here.": partial(
            _whitened, correction=1
        ),
        "The mean was not subtracted: E[x x'] is not yet the covariance.": partial(_whitened, centre=False),
        "This multiplies by the inverse covariance; a root is missing.": partial(_whitened, power=-1),
        "This multiplies by the root of the covariance: long axes become longer. The inverse is needed.": (
            partial(_whitened, power=0.5)
        ),
        "White, but turned: after the scaling, go back from the eigenvectors' axes to those of the units.": (
            _rotated
        ),
        "White, but turned: a Cholesky factor is *a* root of the covariance; the symmetric one is meant.": (
            _by_cholesky
        ),
    },
    praise="Mean zero, variance one, no correlation: what batch normalization was first meant to be.",
)


by_function(
    "2.5",
    cases=[(64, 256), (60, 100), (100, 100), (101, 100), (300, 100)],
    solution=lambda m, d: max(d - (m - 1), 0),
    mistakes={
        "The mean is subtracted before the covariance is taken; that costs one more direction.": (
            lambda m, d: max(d - m, 0)
        ),
        "These are the directions in which it *has* an inverse. How many are left?": (
            lambda m, d: min(d, m - 1)
        ),
        "Right for few images. With many, this is negative; no direction is left over then.": (
            lambda m, d: d - (m - 1)
        ),
        "Either all or nothing? A mini-batch that is too small still says something in some directions.": (
            lambda m, d: d if m <= d else 0
        ),
        "Turn it round: units that have no image are lost, not images that have no unit.": (
            lambda m, d: max(m - 1 - d, 0)
        ),
    },
    praise="With 64 images, 193 of 256 directions look as if they had no variance at all.",
)
