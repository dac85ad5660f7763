"""Intervals against scipy and against their promise: how often they cover the truth."""

import numpy as np
import pytest
from scipy import stats

from bnlab.stats import interval


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
