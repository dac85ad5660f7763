"""An experiment over a grid of settings and seeds, as one tidy frame."""

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr

import pandas as pd

from bnlab.sweep import Experiment, Settings, sweep


def over_seeds(
    experiment: Experiment,
    grid: Mapping[str, Sequence] | Iterable[Settings],
    seeds: Iterable[int],
    *,
    quiet: bool = False,
) -> pd.DataFrame:
    """Run `experiment(**settings, seed=seed)` over a grid and seeds, on all cores: a row for each result.

    The columns are the settings, `seed`, and what the experiment returns. `quiet` hides the progress bar.
    Otherwise as `bnlab.sweep`, but a run that raises is an error here: a mean over the seeds that are left
    would be the mean of the lucky ones.

    Raises RuntimeError when a run raised, with its settings, seed and message.

    >>> def parabola(a, seed):
    ...     return {"loss": a * seed**2}
    >>> import joblib
    >>> with joblib.parallel_config(backend="sequential"):  # in this process, for so little
    ...     over_seeds(parabola, {"a": [1, 2]}, seeds=[3], quiet=True)
       a  seed  loss
    0  1     3     9
    1  2     3    18
    """
    with redirect_stderr(io.StringIO()) if quiet else nullcontext():
        found = sweep(experiment, grid, seeds)
    if found.failures:
        first = found.failures[0]
        raise RuntimeError(
            f"{len(found.failures)} of the runs raised; the first, {first.settings} with seed {first.seed}, "
            f"raised {first.error}\n{first.traceback}"
        )
    return pd.DataFrame(found.rows)
