"""Run one experiment over a grid of settings and seeds: in parallel, resumable, each result saved at once."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

import cloudpickle
import joblib
import pandas as pd
import torch
from tqdm import tqdm

from .fit import rows_of_kind
from .measure.drawing import axes
from .stats import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Experiment = Callable[..., "dict | list[dict]"]
Settings = dict[str, "str | int | float | bool | None"]


@dataclass(frozen=True)
class Failure:
    """A run that raised."""

    settings: Settings
    seed: int
    error: str  # type and message
    traceback: str


@dataclass(frozen=True, repr=False)
class Sweep:
    """All runs of a sweep, in the order of the grid."""

    rows: list[dict]  # settings, seed and what the experiment returned; one row per dict it returned
    failures: list[Failure]
    seconds: float  # computing time of the runs behind `rows`, also of those taken from the store

    def __repr__(self) -> str:
        text = f"Sweep({len(self.rows)} rows, {self.seconds:.3g} s of computing"
        if self.failures:
            first = self.failures[0]
            text += f"; {len(self.failures)} runs failed, the first:\n{first.settings}, seed {first.seed}: "
            text += first.error.splitlines()[0][:200]
        return f"{text})"

    def frame(self, kind: str | None = None) -> pd.DataFrame:
        """A tidy table of all rows, or of those of one `kind`, for experiments whose rows have one.

        Its columns are the settings, `seed`, and what the experiment returned, in the experiment's units.
        Raises ValueError for a kind that no row has.
        """
        return pd.DataFrame(self.rows) if kind is None else rows_of_kind(self.rows, kind)

    def plot(
        self, x: str, y: str, *, by: str | None = None, kind: str | None = None, ax: Axes | None = None
    ) -> Axes:
        """The mean of `y` over the seeds against `x`, with its 95 % interval, one curve per value of `by`.

        Names are columns of `frame(kind)`. Several rows of one seed at one x, as of runs with other
        settings, count by their mean. With a single seed there is no interval.
        """
        ax, frame = axes(ax), self.frame(kind)
        for name, part in [(None, frame)] if by is None else frame.groupby(by, sort=False):
            seeds = part.pivot_table(y, index="seed", columns=x, aggfunc="mean")
            if len(seeds) > 1:
                mean, low, high = interval(seeds.to_numpy())
            else:
                mean = low = high = seeds.to_numpy()[0]
            (line,) = ax.plot(seeds.columns, mean, marker=".", label=None if by is None else f"{name}")
            ax.fill_between(seeds.columns, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        if by is not None:
            ax.legend(title=by, frameon=False)
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        return ax


def sweep(
    experiment: Experiment,
    grid: Mapping[str, Sequence] | Iterable[Settings],
    seeds: Iterable[int],
    *,
    store: str | Path | None = None,
    n_jobs: int = -1,
) -> Sweep:
    """Call `experiment(**settings, seed=seed)` for every combination, in `n_jobs` one-thread processes.

    `grid` maps names to lists of values (all combinations are run) or is an iterable of settings. Settings
    are strings, numbers, booleans or None; what they stand for (a layer, a data set) is made inside the
    experiment. It returns a dict of results, or a list of them. The experiment and what it uses of its own
    module travel to the workers; other modules that it imports must be there.

    With a `store` folder each finished run is written there at once and atomically, under a key made of
    the experiment's code (with the functions of its own module that it calls), the settings, the seed and
    the versions of bnlab and torch. A sweep that was killed, run again, computes only what is missing. A
    damaged file is reported and its run computed again. A run that raises is reported in
    `Sweep.failures` and not stored; the others go on. Inside `joblib.parallel_config(backend="dask")` the
    runs go to that cluster; only this process writes the store.

    Raises TypeError for settings that are not plain values, ValueError for an empty grid or no seeds,
    OSError if the store cannot be written, RuntimeError if a worker process died (rerun to go on).

    >>> def parabola(a, seed):
    ...     return {"loss": a * seed**2}
    >>> sweep(parabola, {"a": [1, 2]}, seeds=[3], n_jobs=1).rows
    [{'a': 1, 'seed': 3, 'loss': 9}, {'a': 2, 'seed': 3, 'loss': 18}]
    """
    combinations = list(_combinations(grid))
    plan = [(settings, seed) for seed in seeds for settings in combinations]
    if not plan:
        raise ValueError("grid and seeds must hold at least one setting and one seed, got none")
    code = code_of(experiment)
    keys = [run_key(code, settings, seed) for settings, seed in plan]
    archive = Store(Path(store)) if store is not None else None
    done = {} if archive is None else {key: found for key in keys if (found := archive.read(key)) is not None}
    todo = {key: run for key, run in zip(keys, plan, strict=True) if key not in done}
    failures = []
    with tqdm(total=len(plan), initial=len(plan) - len(todo), unit="run") as bar:
        for key, outcome in _compute(experiment, todo, n_jobs):
            if isinstance(outcome, Failure):
                failures.append(outcome)
                _report(f"failed: {outcome.settings}, seed {outcome.seed}: {outcome.error}")
            else:
                done[key] = outcome
                if archive is not None:
                    archive.write(key, outcome)
            bar.update()
    finished = [done[key] for key in keys if key in done]
    rows = [row for result in finished for row in result["rows"]]
    return Sweep(rows, failures, sum(result["seconds"] for result in finished))


def code_of(function: Callable) -> str:
    """The source of a function, of the functions and classes of its module that it uses, and their constants.

    What lies in other modules counts by name only.
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"experiment must be a plain function (def), got {type(function).__name__}")
    parts: dict[str, str] = {}

    def visit(name: str, value: object) -> None:
        if name in parts:
            return
        if isinstance(value, ModuleType):
            parts[name] = f"module {value.__name__}"
        elif isinstance(value, FunctionType) and value.__module__ == function.__module__:
            parts[name] = inspect.getsource(value)
            used = inspect.getclosurevars(value)
            for inner, object_ in sorted({**used.globals, **used.nonlocals}.items()):
                visit(f"{name}:{inner}" if inner in used.nonlocals else inner, object_)
        elif isinstance(value, type) and value.__module__ == function.__module__:
            parts[name] = inspect.getsource(value)
        elif callable(value) and hasattr(value, "__qualname__"):
            parts[name] = f"{value.__module__}.{value.__qualname__}"
        else:
            parts[name] = _fingerprint(value)

    visit(function.__name__, function)
    return json.dumps(parts, sort_keys=True)


def _fingerprint(value: object) -> str:
    """A hash of a value; of a tensor's content, as pickling one gives other bytes each time."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    elif isinstance(value, list | tuple):
        value = [type(value).__name__, *map(_fingerprint, value)]
    return joblib.hash(value)


def run_key(code: str, settings: Settings, seed: int) -> str:
    """The name under which a run is stored."""
    identity = [code, settings, seed, version("bnlab"), torch.__version__]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


class Store:
    """A folder of results, one JSON file a run, each with a checksum of its content."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"store {folder} cannot be made: {error}; give a folder that can be written"
            ) from error

    def read(self, key: str) -> dict | None:
        """The stored result, or None if there is none or it is damaged."""
        path = self.folder / f"{key}.json"
        try:
            stored = json.loads(path.read_bytes())
            if _digest(stored["result"]) == stored["sha256"]:
                return stored["result"]
            reason = "its checksum does not match"
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
        _report(f"{path} is damaged ({reason}); this run is computed again")
        return None

    def write(self, key: str, result: dict) -> None:
        """Save one result, all or nothing."""
        path, part = self.folder / f"{key}.json", self.folder / f"{key}.part"
        try:
            with open(part, "w") as file:
                json.dump({"sha256": _digest(result), "result": result}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{path} could not be written ({error.strerror}); the results before it are intact. "
                "Make room or choose another store, and run the sweep again to go on",
            ) from error


def _combinations(grid: Mapping[str, Sequence] | Iterable[Settings]) -> Iterator[Settings]:
    if isinstance(grid, Mapping):
        names = list(grid)
        grid = [dict(zip(names, values, strict=True)) for values in itertools.product(*grid.values())]
    for settings in grid:
        for name, value in settings.items():
            if not (value is None or isinstance(value, str | int | float)):
                raise TypeError(
                    f"setting {name!r} must be a string, a number, a boolean or None, got "
                    f"{type(value).__name__}; give its name, and make the object inside the experiment"
                )
        yield settings


def _compute(
    experiment: Experiment, todo: Mapping[str, tuple[Settings, int]], n_jobs: int
) -> Iterator[tuple[str, dict | Failure]]:
    """Yield (key, outcome) as the runs finish."""
    # Small batches of tasks would return, and be saved, together: one run a task.
    parallel = joblib.Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")
    call, parcel = joblib.delayed(_one_run), _parcel(experiment)
    try:
        yield from parallel(call(parcel, key, *run) for key, run in todo.items())
    except _WORKER_DIED as error:
        raise RuntimeError(
            f"a worker process died ({type(error).__name__}: killed, or out of memory). What was finished "
            "is in the store, if there is one: run the sweep again to go on"
        ) from error


_WORKER_DIED = (joblib.externals.loky.process_executor.BrokenProcessPool,)


def _parcel(experiment: Experiment) -> bytes:
    """The experiment in bytes, its own module by value: a cluster that cannot import it would hang."""
    module = sys.modules[experiment.__module__]
    if module.__name__ == "__main__" or module.__name__.split(".")[0] in ("bnlab", "course"):
        return cloudpickle.dumps(experiment)
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(experiment)
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _one_run(parcel: bytes, key: str, settings: Settings, seed: int) -> tuple[str, dict | Failure]:
    """One run on one thread, its exceptions caught; executed in a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        results = cloudpickle.loads(parcel)(**settings, seed=seed)
        results = [results] if isinstance(results, Mapping) else list(results)
        rows = [{**settings, "seed": seed, **_plain(result)} for result in results]
    except Exception as error:
        return key, Failure(settings, seed, f"{type(error).__name__}: {error}", traceback.format_exc())
    finally:
        torch.set_num_threads(threads)
    return key, {"rows": rows, "seconds": time.perf_counter() - start}


def _plain(result: Mapping) -> dict:
    """The result with NumPy and torch scalars turned into Python's."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in result.items()}
    for name, value in plain.items():
        if not (value is None or isinstance(value, str | int | float)):
            raise TypeError(f"result {name!r} must be a number or a string, got {type(value).__name__}")
    return plain


def _digest(result: dict) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def _report(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
