"""Intervals against scipy and against their promise: how often they cover the truth."""

import numpy as np
import pytest
from scipy import stats

from bnlab.train.intervals import bootstrap_interval, t_interval


def test_t_interval_is_scipys():
    x = np.random.default_rng(0).normal(size=7)
    found = t_interval(x, level=0.9)
    expected = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.estimate == pytest.approx(x.mean()) and (found.n, found.method) == (7, "t")


def test_t_interval_of_three_seeds_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = sum(i.low <= 1 <= i.high for i in (t_interval(rng.normal(1, 2, 3)) for _ in range(4000)))
    assert abs(hits / 4000 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


def test_bootstrap_interval_of_the_mean_is_scipys_percentile_interval():
    x = np.random.default_rng(1).exponential(size=60)
    found = bootstrap_interval(x, np.mean, resamples=20_000)
    expected = stats.bootstrap(
        (x,), np.mean, method="percentile", rng=1, n_resamples=20_000
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.01)


def test_a_nan_stays():
    for interval in (t_interval([1, np.nan, 2]), bootstrap_interval([1, np.nan, 2])):
        assert np.isnan([interval.estimate, interval.low, interval.high]).all()


@pytest.mark.parametrize("function", [t_interval, bootstrap_interval])
def test_bad_input_is_named(function):
    with pytest.raises(ValueError, match="two or more numbers"):
        function([1.0])
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        function([1.0, 2.0], level=95)
