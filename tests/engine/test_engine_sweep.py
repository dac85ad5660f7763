"""The sweep: same numbers wherever it runs, and what it survives.

Runs that must be killed from outside live in a module of their own, written by a fixture; each run appends a
line to a log when it starts and when it ends, so that the tests can count what was computed.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import nn

from bnlab import fit
from bnlab.sweep import Store, code_of, run_key, sweep


def training(width, lr, seed):
    """A small real training run, so that "the same numbers" means something."""
    torch.manual_seed(seed)
    x = torch.randn(1280, 10, dtype=torch.float64)
    batches = zip(x.split(32), (x @ torch.randn(10, 10, dtype=torch.float64)).split(32), strict=True)
    net = nn.Sequential(nn.Linear(10, width), nn.Tanh(), nn.Linear(width, 10)).double()
    run = fit(net, batches, lr=lr, steps=40, criterion=nn.functional.mse_loss)
    return {"loss": run.loss[-1], "threads": torch.get_num_threads(), "diverged_at": run.diverged_at}


GRID = {"width": [8, 16], "lr": [0.01, 0.1]}


@pytest.fixture(scope="module")
def alone():
    return sweep(training, GRID, seeds=[0, 1], n_jobs=1)


def test_rows_hold_settings_seed_and_result_in_the_order_of_the_grid(alone):
    combinations = [(s, w, lr) for s in (0, 1) for w in (8, 16) for lr in (0.01, 0.1)]
    assert [(r["seed"], r["width"], r["lr"]) for r in alone.rows] == combinations
    assert all(isinstance(r["loss"], float) for r in alone.rows) and alone.failures == []
    assert len({r["loss"] for r in alone.rows}) == 8


def test_two_workers_give_the_same_bits_on_one_thread_each(alone):
    assert sweep(training, GRID, seeds=[0, 1], n_jobs=2).rows == alone.rows
    assert {row["threads"] for row in alone.rows} == {1}


def test_a_dask_cluster_gives_the_same_bits_and_the_store_serves_it(alone, tmp_path):
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        first = sweep(training, GRID, seeds=[0, 1], store=tmp_path)
    assert first.rows == alone.rows
    assert sweep(training, GRID, seeds=[0, 1], store=tmp_path, n_jobs=1) == first


def test_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert sweep(training, {"width": [4], "lr": [0.1]}, [0], n_jobs=1).rows[0]["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_experiment_may_return_several_rows_and_the_grid_be_a_list():
    def powers(base, seed):
        return [{"power": base**k} for k in (1, 2)]

    rows = sweep(powers, [{"base": 2}, {"base": 5}], [0], n_jobs=1).rows
    assert [(row["base"], row["power"]) for row in rows] == [(2, 2), (2, 4), (5, 5), (5, 25)]


def test_progress_names_the_time_left(capsys):
    sweep(training, GRID, [0], n_jobs=1)
    assert "4/4" in (shown := capsys.readouterr().err) and "<" in shown and "run" in shown


# --- faults ---------------------------------------------------------------------------------------------

MODULE = """
import os, signal, time
from pathlib import Path

HERE = Path(__file__).parent

def log(line):
    with open(HERE / "log", "a") as file:
        file.write(line + "\\n")

def slow(a, seed):
    log(f"start {a} {seed}")
    time.sleep(0.15)
    log(f"end {a} {seed}")
    return {"value": a * 10 + seed}

def deadly(a, seed):
    log(f"start {a} {seed}")
    if a == 3 and not (HERE / "died").exists():
        (HERE / "died").touch()
        while len(list((HERE / "store").glob("*.json"))) < 3:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
    log(f"end {a} {seed}")
    return {"value": a}

if __name__ == "__main__":
    import sys
    from bnlab.sweep import sweep
    import runs_to_kill
    sweep(runs_to_kill.slow, {"a": list(range(10))}, [0, 1], store=HERE / "store", n_jobs=int(sys.argv[1]))
"""


@pytest.fixture
def killable(tmp_path, monkeypatch):
    (tmp_path / "runs_to_kill.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("runs_to_kill")
    del sys.modules["runs_to_kill"]


def logged(folder: Path, word: str) -> list[str]:
    lines = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
    return [line.removeprefix(f"{word} ") for line in lines if line.startswith(word)]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_kill_9_of_the_parent_loses_only_the_runs_in_flight(killable, tmp_path, n_jobs):
    store = tmp_path / "store"
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "runs_to_kill.py"), str(n_jobs)], stderr=subprocess.DEVNULL
    )
    wait_for(lambda: len(list(store.glob("*.json"))) >= 5)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    time.sleep(0.6)  # orphaned workers may finish the run they are in
    kept = {path.name: path.read_bytes() for path in store.glob("*.json")}
    saved = [f"{r['a']} {r['seed']}" for c in kept.values() for r in json.loads(c)["result"]["rows"]]
    before = logged(tmp_path, "start")

    rerun = sweep(killable.slow, {"a": list(range(10))}, [0, 1], store=store, n_jobs=1)
    again = logged(tmp_path, "start")[len(before) :]
    assert 5 <= len(kept) < 20
    assert not set(again) & set(saved) and len(again) == 20 - len(saved)
    assert len(before) - len(saved) <= 2 * n_jobs  # in flight, or finished and not yet saved
    assert {path.name: path.read_bytes() for path in store.glob("*.json") if path.name in kept} == kept
    assert list(store.glob("*.part")) == []
    assert [row["value"] for row in rerun.rows] == [a * 10 + seed for seed in (0, 1) for a in range(10)]


def test_kill_9_of_a_worker_is_said_and_the_rerun_computes_only_what_is_missing(killable, tmp_path):
    grid = {"a": list(range(8))}
    with pytest.raises(RuntimeError, match=r"a worker process died .* run the sweep again to go on"):
        sweep(killable.deadly, grid, [0], store=tmp_path / "store", n_jobs=2)
    time.sleep(0.5)  # the other worker is being shut down
    saved = len(list((tmp_path / "store").glob("*.json")))
    started = len(logged(tmp_path, "start"))
    rerun = sweep(killable.deadly, grid, [0], store=tmp_path / "store", n_jobs=1)
    assert saved >= 3
    assert len(logged(tmp_path, "start")) - started == 8 - saved
    assert [row["value"] for row in rerun.rows] == list(range(8))


def test_a_failing_run_is_reported_with_its_settings_and_sinks_nothing(tmp_path, capsys):
    def sometimes(a, seed):
        if a == 2 and not (tmp_path / "repaired").exists():
            raise ZeroDivisionError("no inverse")
        return {"value": a}

    first = sweep(sometimes, {"a": [1, 2, 3]}, [7], store=tmp_path / "s", n_jobs=1)
    assert [row["value"] for row in first.rows] == [1, 3]
    [failure] = first.failures
    assert (failure.settings, failure.seed) == ({"a": 2}, 7)
    assert failure.error == "ZeroDivisionError: no inverse" and "sometimes" in failure.traceback
    assert "failed: {'a': 2}, seed 7: ZeroDivisionError" in capsys.readouterr().err
    (tmp_path / "repaired").touch()
    second = sweep(sometimes, {"a": [1, 2, 3]}, [7], store=tmp_path / "s", n_jobs=1)
    assert [row["value"] for row in second.rows] == [1, 2, 3] and second.failures == []


def test_a_divergence_is_a_result_and_its_nan_survives_the_store(tmp_path):
    for _ in range(2):
        [row] = sweep(training, {"width": [8], "lr": [1e6]}, [0], store=tmp_path, n_jobs=1).rows
        assert row["loss"] != row["loss"] and 0 < row["diverged_at"] < 40


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: raw.replace(b'"value": 4', b'"value": 5'),
        lambda raw: b"\x00\xff" + raw,
        lambda raw: b"[]",
        lambda raw: b'{"result": {}}',
    ],
)
def test_a_damaged_result_is_found_said_and_computed_again(tmp_path, capsys, damage):
    first = sweep(_square, {"a": [2, 3]}, [0], store=tmp_path, n_jobs=1)
    path = next(p for p in tmp_path.glob("*.json") if b'"value": 4' in p.read_bytes())
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    capsys.readouterr()
    again = sweep(_square, {"a": [2, 3]}, [0], store=tmp_path, n_jobs=1)
    said = capsys.readouterr().err
    assert f"{path} is damaged" in said and "computed again" in said and said.count("is damaged (") == 1
    assert again.rows == first.rows
    assert json.loads(path.read_bytes())["result"]["rows"] == json.loads(whole)["result"]["rows"]


def _square(a, seed):
    return {"value": a * a}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_clear_error_and_earlier_results_stay(tmp_path):
    key = run_key(code_of(_square), {"a": 3}, 0)
    (tmp_path / f"{key}.part").symlink_to("/dev/full")
    with pytest.raises(
        OSError, match=r"could not be written \(No space left on device\); the results before it are intact"
    ):
        sweep(_square, {"a": [2, 3, 4]}, [0], store=tmp_path, n_jobs=1)
    (tmp_path / f"{key}.part").unlink()
    [stored] = tmp_path.glob("*.json")
    assert json.loads(stored.read_bytes())["result"]["rows"] == [{"a": 2, "seed": 0, "value": 4}]
    assert [row["value"] for row in sweep(_square, {"a": [2, 3, 4]}, [0], store=tmp_path, n_jobs=1).rows] == [
        4,
        9,
        16,
    ]


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="needs /proc")
def test_a_store_that_cannot_be_made_is_a_clear_error_before_anything_is_computed():
    def never(seed):
        raise AssertionError("computed although nothing can be saved")

    with pytest.raises(OSError, match=r"store /proc/bnlab cannot be made.*give a folder that can be written"):
        sweep(never, [{}], [0], store="/proc/bnlab", n_jobs=1)


# --- keys -----------------------------------------------------------------------------------------------


def load_module(folder: Path, source: str):
    path = folder / "an_experiment.py"
    path.write_text(source)
    sys.modules.pop("an_experiment", None)
    importlib.invalidate_caches()
    import linecache

    linecache.clearcache()
    spec = importlib.util.spec_from_file_location("an_experiment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOURCE = """
import math
SCALE = {scale}
UNUSED = {unused}

def helper(x):
    return x {sign} 1

def run(a, seed):
    return {{"value": math.sqrt(helper(a) * SCALE)}}
"""


@pytest.mark.parametrize(
    ("change", "same"),
    [({}, True), ({"unused": 9}, True), ({"sign": "-"}, False), ({"scale": 3.0}, False)],
)
def test_the_key_follows_the_code_that_is_used(tmp_path, change, same):
    plain = {"scale": 2.0, "unused": 1, "sign": "+"}
    first = code_of(load_module(tmp_path, SOURCE.format(**plain)).run)
    second = code_of(load_module(tmp_path, SOURCE.format(**plain | change)).run)
    assert (run_key(first, {"a": 1}, 0) == run_key(second, {"a": 1}, 0)) is same


def test_the_key_follows_settings_seed_and_captured_values():
    def make(offset):
        def run(a, seed):
            return {"value": a + offset.sum()}

        return code_of(run)

    one, two = torch.ones(3), torch.zeros(3)
    assert make(one) == make(torch.ones(3)) != make(two)
    keys = {run_key("code", settings, seed) for settings in ({"a": 1}, {"a": 2}, {"b": 1}) for seed in (0, 1)}
    assert len(keys) == 6
    assert run_key("code", {"a": 1, "b": 2}, 0) == run_key("code", {"b": 2, "a": 1}, 0)


# --- the result -----------------------------------------------------------------------------------------


def noisy_square(a, seed):
    if (a, seed) == (3, 1):
        raise ZeroDivisionError("no inverse\nof this")
    return [{"kind": "value", "value": a * a + seed}, {"kind": "end", "last": -1.0}]


def test_a_sweep_shows_itself_and_names_its_failures():
    result = sweep(noisy_square, {"a": [1, 2, 3]}, [0, 1], n_jobs=1)
    lines = repr(result).splitlines()
    assert lines[0].startswith("Sweep(10 rows, ") and lines[0].endswith("; 1 runs failed, the first:")
    assert lines[1:] == ["{'a': 3}, seed 1: ZeroDivisionError: no inverse)"]
    assert result.frame().equals(pd.DataFrame(result.rows))
    values = result.frame("value")
    assert list(values) == ["a", "seed", "value"] and values["value"].tolist() == [1, 4, 9, 2, 5]
    with pytest.raises(ValueError, match="kind: expected one of end, value, got 'loss'"):
        result.frame("loss")


def test_a_sweep_draws_means_over_seeds_with_their_intervals():
    def line(a, slope, seed):
        return {"value": slope * a + seed**2}

    result = sweep(line, {"slope": [1, -1], "a": [1, 2]}, [0, 1, 2], n_jobs=1)
    ax = Figure().subplots()
    assert result.plot("a", "value", by="slope", ax=ax) is ax
    for drawn, band, slope in zip(ax.lines, ax.collections, (1, -1), strict=True):
        assert drawn.get_label() == str(slope) and drawn.get_xdata().tolist() == [1, 2]
        np.testing.assert_allclose(drawn.get_ydata(), [slope + 5 / 3, 2 * slope + 5 / 3])
        low, high = stats.ttest_1samp([slope + s**2 for s in (0, 1, 2)], 0).confidence_interval(0.95)
        y = band.get_paths()[0].vertices[:, 1]
        assert abs(y - low).min() < 1e-9 and abs(y - high).min() < 1e-9
    one = sweep(line, {"slope": [1], "a": [1, 2]}, [3], n_jobs=1).plot("a", "value", ax=Figure().subplots())
    assert one.lines[0].get_ydata().tolist() == [10, 11] and one.get_legend() is None


# --- bad input ------------------------------------------------------------------------------------------


def test_settings_must_be_plain():
    with pytest.raises(
        TypeError, match="setting 'norm' must be a string, a number, a boolean or None, got type"
    ):
        sweep(_square, {"norm": [nn.BatchNorm1d]}, [0])


def test_results_must_be_plain():
    def run(seed):
        return {"curve": [1, 2]}

    [failure] = sweep(run, [{}], [0], n_jobs=1).failures
    assert "result 'curve' must be a number or a string, got list" in failure.error


@pytest.mark.parametrize(("grid", "seeds"), [({"a": []}, [0]), ({"a": [1]}, []), ([], [0])])
def test_an_empty_sweep_is_refused(grid, seeds):
    with pytest.raises(ValueError, match="at least one setting and one seed"):
        sweep(_square, grid, seeds)


def test_an_experiment_must_be_a_function():
    with pytest.raises(TypeError, match="experiment must be a plain function"):
        sweep(nn.Linear(1, 1), [{}], [0])


def test_store_read_of_an_unknown_key_is_none(tmp_path):
    assert Store(tmp_path / "new").read("nothing") is None
