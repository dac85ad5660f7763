"""Intervals over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float
    n: int  # number of values, one a seed
    method: str  # "t" or "bootstrap"

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    r"""The mean with Student's interval, :math:`\bar x \pm t_{n-1}\, s / \sqrt n`: for three or more seeds.

    For a comparison of two networks give the differences of paired seeds. A NaN among the values makes all
    three numbers NaN. Raises ValueError for fewer than two values or a level outside (0, 1).

    >>> print(t_interval([1.0, 2.0, 3.0]))
    2 [-0.4841, 4.484]
    """
    x = _values(values, level)
    mean = float(x.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x), "t")


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[..., float] = np.median,
    level: float = 0.95,
    *,
    resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Any statistic (the median unless given) with its percentile bootstrap interval.

    With few values it is too narrow: below about ten seeds use `t_interval`. A NaN among the values makes
    all three numbers NaN. Raises ValueError for fewer than two values or a level outside (0, 1).

    >>> print(bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0]))
    3 [1, 5]
    """
    x = _values(values, level)
    if np.isnan(x).any():
        return Interval(np.nan, np.nan, np.nan, len(x), "bootstrap")
    drawn = np.random.default_rng(seed).choice(x, size=(resamples, len(x)))
    low, high = np.percentile(statistic(drawn, axis=1), [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(statistic(x)), float(low), float(high), len(x), "bootstrap")


def _values(values: Sequence[float], level: float) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"values must be a flat sequence of two or more numbers, got shape {x.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, for example 0.95, got {level!r}")
    return x
