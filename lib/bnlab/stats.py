"""Intervals over seeds: what was estimated, from how many values, and of which kind the interval is."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

KINDS = {
    "t": "95 % interval",
    "bootstrap": "95 % interval by resampling",
    "range": "range",
    "value": "one number",
}


class _Ends(NamedTuple):
    mean: Any
    low: Any
    high: Any


class Interval(_Ends):
    """An estimate with its interval: unpacks as ``mean, low, high``, numbers or arrays of one shape.

    `n` is the number of seeds behind it; `kind` is "t" (Student's), "bootstrap", "range" (from the smallest
    to the largest of the seeds) or "value" (one number for all seeds); `values` are the seeds themselves,
    along the first axis, where they are known.

    >>> Interval(2.0, 1.5, 2.5, n=3, kind="range").map(np.log10)
    0.301 [0.176, 0.398], range, n = 3
    """

    n: int
    kind: str
    values: np.ndarray | None

    def __new__(cls, mean, low, high, *, n: int, kind: str, values: ArrayLike | None = None):
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        self = super().__new__(cls, mean, low, high)
        self.n, self.kind = n, kind
        self.values = None if values is None else np.asarray(values, dtype=float)
        return self

    def map(self, rising: Callable) -> "Interval":
        """The interval of a rising function of the quantity, such as ``10 ** x`` for powers of ten."""
        values = None if self.values is None else rising(self.values)
        return Interval(*(rising(end) for end in self), n=self.n, kind=self.kind, values=values)

    def factor(self) -> "Interval":
        """The factor of which this is the power of ten."""
        return self.map(lambda power: 10.0**power)

    def percent(self) -> "Interval":
        """The percentage of which this is the share."""
        return self.map(lambda share: 100 * share)

    def at(self, index: int) -> "Interval":
        """One entry of an interval of arrays."""
        values = None if self.values is None else self.values[:, index]
        return Interval(*(end[index] for end in self), n=self.n, kind=self.kind, values=values)

    def __repr__(self) -> str:
        if np.ndim(self.mean):
            return f"Interval of shape {np.shape(self.mean)}, {KINDS[self.kind]}, n = {self.n}"
        mean, low, high = (f"{end:.3g}" for end in self)
        return f"{mean} [{low}, {high}], {KINDS[self.kind]}, n = {self.n}"


def interval(
    values: ArrayLike,
    *,
    axis: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    r"""Mean over seeds and its two-sided Student-t interval.

    .. math:: \bar v \pm t_{n-1}\, s / \sqrt n

    with the unbiased standard deviation s. For a comparison of two networks give the differences of paired
    seeds. A NaN stays NaN.

    Within `bounds` (a, b) the mean and the interval are those of log((v - a) / (b - v)), or of log(v - a)
    where b is infinite, taken back: no end leaves the possible. Where a value lies on a bound, the plain
    interval is cut there instead.

    Args:
        values: one entry per seed along `axis`, at least two.
        axis: the axis of the seeds.
        level: the probability with which such intervals cover the true mean, if the values are normal.
        bounds: what the quantity cannot leave, for example (0, 1) for a share, (0, inf) for a factor.

    Raises:
        ValueError: fewer than two values, a level outside (0, 1), or a value out of bounds.

    >>> mean, low, high = interval([1.0, 2.0, 3.0])
    >>> print(f"{mean:.2f} [{low:.2f}, {high:.2f}]")
    2.00 [-0.48, 4.48]
    >>> interval([0.9, 0.98, 0.99], bounds=(0, 1))
    0.972 [0.622, 0.999], 95 % interval, n = 3
    """
    values = np.moveaxis(np.atleast_1d(np.asarray(values, dtype=float)), axis, 0)
    n = len(values) if values.ndim else 1
    if n < 2:
        raise ValueError(f"values: {n} value along axis {axis}; an interval over seeds needs at least 2")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, for example 0.95, got {level!r}")
    least, most = bounds
    if (values < least).any() or (values > most).any():
        raise ValueError(f"values must lie within bounds={bounds}, got {values.min():g} to {values.max():g}")
    ends = [np.clip(end, least, most) for end in _student(values, level)]
    if math.isfinite(least) or math.isfinite(most):
        inside = ((values > least) & (values < most)).all(0)
        with np.errstate(divide="ignore", invalid="ignore"):  # on a bound the plain interval stays
            free = [_free(end, least, most) for end in _student(_freed(values, least, most), level)]
        ends = [np.where(inside, *pair) for pair in zip(free, ends, strict=True)]
    ends = [np.asarray(end) if np.ndim(end) else float(end) for end in ends]
    return Interval(*ends, n=n, kind="t", values=values)


def largest_of(values: ArrayLike, *, n: int | None = None) -> Interval:
    """The largest of the seeds, with their range; a single number stands for all `n` seeds.

    For claims about the worst case, where a mean would say nothing.

    >>> largest_of([1e-16, 3e-15])
    3e-15 [1e-16, 3e-15], range, n = 2
    """
    values = np.atleast_1d(np.asarray(values, dtype=float))
    kind = "value" if len(values) == 1 else "range"
    return Interval(
        float(values.max()), float(values.min()), float(values.max()), n=n or len(values), kind=kind
    )


def ratio(ours: ArrayLike, theirs: ArrayLike) -> Interval:
    """Geometric mean over paired seeds (first axis) of ours over theirs, as a factor, with its t interval.

    >>> ratio([2.0, 8.0, 4.0], [1.0, 2.0, 2.0])
    2.52 [0.932, 6.81], 95 % interval, n = 3
    """
    return interval(np.asarray(ours, dtype=float) / np.asarray(theirs, dtype=float), bounds=(0, math.inf))


def _student(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(values)
    mean = values.mean(0)
    half = stats.t.ppf(0.5 + level / 2, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half


def _freed(values: np.ndarray, least: float, most: float) -> np.ndarray:
    """Values between bounds, on a scale without bounds."""
    above = np.log(values - least) if math.isfinite(least) else np.zeros_like(values)
    below = np.log(most - values) if math.isfinite(most) else np.zeros_like(values)
    return above - below


def _free(free: np.ndarray, least: float, most: float) -> np.ndarray:
    """The way back from `_freed`."""
    if not math.isfinite(most):
        return least + np.exp(free)
    if not math.isfinite(least):
        return most - np.exp(-free)
    return least + (most - least) / (1 + np.exp(-free))
