"""Exercises of chapter 5: the noise, what a normalization removes, the factor in test mode, matched noise."""

from torch import Tensor

from . import by_function
from .batches import normals, spread

_normal = normals(5)


def _whole(a: Tensor, mu: Tensor, sigma: Tensor, m: Tensor, s: Tensor) -> Tensor:
    return (sigma + s) * a + mu + m


by_function(
    "5.1",
    cases=[(_normal(5, 3), _normal(3), 1 + _normal(3).abs(), _normal(5, 3), _normal(5, 3))],
    solution=_whole,
    mistakes={
        "The part of each sample, u and v, is missing: this is only the noise of the units.": (
            lambda a, mu, sigma, u, v: sigma * a + mu
        ),
        "The part of each unit, mu and sigma, is missing: this is only the noise of the samples.": (
            lambda a, mu, sigma, u, v: (1 + v) * a + u
        ),
        "The shift was stretched as well. The noise multiplies first and adds afterwards.": (
            lambda a, mu, sigma, u, v: (sigma + v) * (a + mu + u)
        ),
        "The activation is counted once too often: the scale already holds the 1.": (
            lambda a, mu, sigma, u, v: a + (sigma + v) * a + mu + u
        ),
        "The two scales were multiplied. s is drawn around sigma: it is sigma plus v.": (
            lambda a, mu, sigma, u, v: sigma * v * a + mu + u
        ),
    },
    praise="Every unit has a shift and a scale of its own, every sample a little more of both.",
)


def _after(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return (x - x.mean(0)) / spread(x)


by_function(
    "5.2",
    cases=[
        (_normal(6, 4), _normal(4), 1 + _normal(4).abs()),
        (3 * _normal(8, 2) + 1, _normal(2), _normal(2) ** 2),
    ],
    solution=_after,
    mistakes={
        "The shift is still in there. A constant added to every sample moves the mean with it: it cancels.": (
            lambda x, shift, scale: _after(x, shift, scale) + shift
        ),
        "The scale is still in there. It multiplies the spread of the batch as well: it cancels.": (
            lambda x, shift, scale: scale * _after(x, shift, scale)
        ),
        "Both are still in there. What does batch normalization divide by, after the noise?": (
            lambda x, shift, scale: scale * _after(x, shift, scale) + shift
        ),
        "The mean is gone, but the spread is not 1.": lambda x, shift, scale: x - x.mean(0),
        "The variance was divided by m - 1. Batch normalization divides by m.": (
            lambda x, shift, scale: (x - x.mean(0)) / x.std(0)
        ),
        "Each sample was normalized over its units. The statistics are those of the batch, for each unit.": (
            lambda x, shift, scale: (x - x.mean(1, keepdim=True)) / x.std(1, unbiased=False, keepdim=True)
        ),
    },
    praise="Neither shift nor scale appears in the formula: the next batch normalization never saw them.",
)

by_function(
    "5.3",
    cases=[(1.25, 1), (1.25, 13), (2.0, 4)],
    solution=lambda n_sigma, depth: ((1 + n_sigma) / 2) ** -depth,
    mistakes={
        "One layer is right. Each layer hands what is missing to the next: the factors multiply.": (
            lambda n_sigma, depth: 2 / (1 + n_sigma)
        ),
        "This is the largest scale that can be drawn. The running statistics remember the mean.": (
            lambda n_sigma, depth: n_sigma**-depth
        ),
        "Upside down. Without the noise the signal is smaller than in training: below 1.": (
            lambda n_sigma, depth: ((1 + n_sigma) / 2) ** depth
        ),
        "What is missing was added up over the layers. It multiplies.": (
            lambda n_sigma, depth: 1 - depth * (1 - 2 / (1 + n_sigma))
        ),
        "This is the mean of a uniform distribution from 0. It begins at 1.": (
            lambda n_sigma, depth: (n_sigma / 2) ** -depth
        ),
    },
    praise="Harmless in one layer, and a different network after thirteen.",
)


def _matched(a: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    mean, std = a.mean(0), spread(a)
    return mean + scale * (a - mean) + shift * std


by_function(
    "5.4",
    cases=[
        (2 * _normal(6, 3) + 5, _normal(3), 1 + _normal(3).abs()),
        (_normal(9, 2) / 100, _normal(2), 1.5 * _normal(2) ** 2),
    ],
    solution=_matched,
    mistakes={
        "This is the noise of the paper. A shift of 0.5 is large or small only next to the unit's spread.": (
            lambda a, shift, scale: scale * a + shift
        ),
        "The shift is matched. But the scale multiplies the mean too, and shifts the unit once more.": (
            lambda a, shift, scale: scale * a + shift * spread(a)
        ),
        "The scale is right. The shift is still in absolute units: multiply it by the unit's spread.": (
            lambda a, shift, scale: a.mean(0) + scale * (a - a.mean(0)) + shift
        ),
        "The spread was taken over the whole layer. Each unit has its own.": (
            lambda a, shift, scale: a.mean(0) + scale * (a - a.mean(0)) + shift * a.std(unbiased=False)
        ),
        "The unit's own mean is gone. That would be a normalization, and the control must not have one.": (
            lambda a, shift, scale: scale * (a - a.mean(0)) + shift * spread(a)
        ),
        "The result is normalized: mean and spread of the unit are lost. The control must keep them.": (
            lambda a, shift, scale: scale * _after(a, shift, scale) + shift
        ),
    },
    praise="The same change of the distribution, seen by each unit in units of its own spread.",
)
