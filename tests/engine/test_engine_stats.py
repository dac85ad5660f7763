"""Intervals against scipy and against their promise: how often they cover the truth."""

import numpy as np
import pytest
from scipy import special, stats

from bnlab.stats import Interval, interval, largest_of, ratio


def test_interval_is_scipys():
    values = np.random.default_rng(0).normal(size=(7, 3))
    found = interval(values, level=0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-12)
    np.testing.assert_allclose(found.mean, values.mean(0))
    np.testing.assert_array_equal(interval(values.T, axis=1, level=0.9).low, found.low)


def test_intervals_of_three_seeds_cover_the_mean_as_often_as_they_say():
    found = interval(np.random.default_rng(0).normal(1, 2, (3, 4000)))
    covered = np.mean((found.low <= 1) & (found.high >= 1))
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


def test_a_nan_stays():
    assert np.isnan(interval([1, np.nan, 2])).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 2"):
        interval([[1.0, 2.0]])
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        interval([1.0, 2.0], level=95)
    with pytest.raises(ValueError, match=r"within bounds=\(0, 1\), got 0.5 to 1.5"):
        interval([0.5, 1.5], bounds=(0, 1))
    with pytest.raises(ValueError, match="kind must be one of"):
        Interval(1, 0, 2, n=3, kind="guess")


def test_a_bounded_quantity_keeps_its_bound():
    shares = np.array([0.9, 0.98, 0.99])
    found = interval(shares, bounds=(0, 1))
    expected = special.expit(stats.ttest_1samp(special.logit(shares), 0).confidence_interval())
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)
    assert interval(shares).high > 1  # which the plain interval does not
    assert interval([0.5, 0.9, 1.0], bounds=(0, 1)).high == 1  # a value on the bound: cut there
    both = interval(np.stack([shares, [0.5, 0.9, 1.0]], axis=1), bounds=(0, 1))  # each place for itself
    np.testing.assert_allclose(both.low[0], found.low)
    np.testing.assert_allclose(both.low[1], interval([0.5, 0.9, 1.0]).low)


def test_a_factor_is_the_geometric_mean_of_paired_quotients():
    rng = np.random.default_rng(0)
    ours, theirs = rng.lognormal(1, 1, (2, 6))
    found = ratio(ours, theirs)
    paired = stats.ttest_rel(np.log(ours), np.log(theirs)).confidence_interval()
    np.testing.assert_allclose([found.low, found.high], np.exp(paired), rtol=1e-12)
    np.testing.assert_allclose(found.mean, stats.gmean(ours / theirs))


def test_an_interval_unpacks_and_knows_what_it_is():
    found = interval(np.log10([[10, 1], [100, 1], [1000, 1]]))
    mean, low, high = found.at(0).map(lambda power: 10**power)
    assert mean == pytest.approx(100) and low < 10 < 1000 < high
    assert (found.n, found.kind) == (3, "t") and list(found.at(0).values) == [1, 2, 3]
    worst = largest_of([3, 1, 2])
    assert (*worst, worst.n, worst.kind) == (3, 1, 3, 3, "range")
    assert (largest_of(4, n=5).n, largest_of(4, n=5).kind) == (5, "value")
