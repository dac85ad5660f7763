"""Intervals over seeds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Interval(NamedTuple):
    """A mean and its confidence interval, each of the shape of the values without the averaged axis."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interval(values: ArrayLike, *, axis: int = 0, level: float = 0.95) -> Interval:
    r"""Mean over seeds and its two-sided Student-t interval.

    .. math:: \bar v \pm t_{n-1}\, s / \sqrt n

    with the unbiased standard deviation s. For a comparison of two networks give the differences of paired
    seeds. A NaN stays NaN.

    Args:
        values: one entry per seed along `axis`, at least two.
        axis: the axis of the seeds.
        level: the probability with which such intervals cover the true mean, if the values are normal.

    Raises:
        ValueError: fewer than two values, or a level outside (0, 1).

    >>> mean, low, high = interval([1.0, 2.0, 3.0])
    >>> print(f"{mean:.2f} [{low:.2f}, {high:.2f}]")
    2.00 [-0.48, 4.48]
    """
    values = np.asarray(values, dtype=float)
    n = values.shape[axis] if values.ndim else 1
    if n < 2:
        raise ValueError(f"values: {n} value along axis {axis}; an interval over seeds needs at least 2")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, for example 0.95, got {level!r}")
    mean = values.mean(axis)
    half = stats.t.ppf(0.5 + level / 2, n - 1) * values.std(axis, ddof=1) / np.sqrt(n)
    return Interval(mean, mean - half, mean + half)
