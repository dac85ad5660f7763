"""A sweep as a tidy frame; the progress bar can be silent, a failure cannot."""

import joblib
import pandas as pd
import pytest

from course import over_seeds


def looks(slope, seed):
    if slope < 0:
        raise ValueError("downhill")
    return [{"step": step, "loss": slope * step + seed} for step in (0, 10)]


@pytest.fixture(autouse=True)
def one_process():
    with joblib.parallel_config(backend="sequential"):
        yield


def test_a_row_for_each_result(capsys):
    frame = over_seeds(looks, {"slope": [1, 2]}, seeds=[0, 5], quiet=True)
    expected = [(a, seed, step, a * step + seed) for seed in (0, 5) for a in (1, 2) for step in (0, 10)]
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected, columns=["slope", "seed", "step", "loss"]))
    assert capsys.readouterr().err == ""
    over_seeds(looks, [{"slope": 1}], seeds=[0])
    assert "1/1" in capsys.readouterr().err


def test_a_run_that_raises_is_an_error_that_names_it():
    with pytest.raises(
        RuntimeError, match=r"2 of the runs .*'slope': -1.* seed 0, raised ValueError: downhill"
    ):
        over_seeds(looks, {"slope": [1, -1]}, seeds=[0, 1], quiet=True)
