"""Recordings: what is written, what is refused, the command line, and that the committed ones are whole."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import joblib
import pytest

from course import manifests, recordings
from course.recordings import Part, Recording

COMMITTED = sorted(Path(__file__).parents[2].glob("recordings/*/manifest.json"))

TINY = '''
from course import recordings
from course.recordings import Part, Recording

def tiny(network, lr, seed, steps, device):
    """Two numbers."""
    end = {"kind": "end", "step": steps, "loss0": float("nan") if lr > 1 else lr + seed / 3}
    return [{"kind": "landscape", "step": 0, "beta": 1 / 3}, end]

def parts(scale, device):
    fixed = {"steps": {"laptop": 10, "paper": 1000}[scale], "device": device}
    runs = [(network, lr) for network in ("standard", "batchnorm") for lr in (0.5, 2.0)]
    return [Part(tiny, [{"network": network, "lr": lr} | fixed for network, lr in runs])]

recordings.RECORDINGS["tiny"] = Recording("A tiny one", parts, ("end",), ("gaussian",))

if __name__ == "__main__":
    import tiny_recording  # so that the experiment has an importable home
    recordings.main()
'''


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    (tmp_path / "tiny_recording.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(recordings, "RECORDINGS", dict(recordings.RECORDINGS))
    import tiny_recording

    yield tiny_recording
    del sys.modules["tiny_recording"]


def make(tmp_path, **options):
    return recordings.record("tiny", n_jobs=1, store=tmp_path / "store", folder=tmp_path / "out", **options)


def test_table_and_manifest_say_what_was_run(tiny, tmp_path):
    frame, manifest = recordings.load(make(tmp_path, seeds=[3, 4], note="made up"))
    assert list(frame) == ["model", "network", "lr", "seed", "kind", "step", "loss0"]
    assert len(frame) == manifest["rows"] == 8 and set(frame.kind) == {"end"}
    assert frame.loss0[frame.lr == 0.5].tolist() == [1.5, 1.5, 1.83333, 1.83333]
    assert frame.loss0[frame.lr == 2].isna().all()
    [part] = manifest["parts"]
    assert part["settings"] == {"steps": 10, "device": "cpu"} and part["about"] == "Two numbers."
    assert part["varied"] == {"network": ["batchnorm", "standard"], "lr": [0.5, 2.0]} and part["runs"] == 8
    assert manifest["seeds"] == [3, 4] and manifest["note"] == "made up" and manifest["scale"] == "laptop"
    assert set(manifest["columns"]) == set(frame) and all(manifest["columns"].values())
    assert manifest["command"] == "python -m course.recordings tiny --scale laptop --seeds 3 4"
    assert len(manifest["data"]["gaussian"]["seed 0"]) == 64
    assert {"torch", "numpy", "python", "bnlab"} <= set(manifest["versions"])
    assert manifest["device"] and manifest["date"] and manifest["wall_seconds"] >= 0


def test_scale_changes_the_settings(tiny, tmp_path):
    _, manifest = recordings.load(make(tmp_path, scale="paper"))
    assert manifest["parts"][0]["settings"]["steps"] == 1000 and manifest["scale"] == "paper"


def test_a_changed_table_is_noticed(tiny, tmp_path):
    path = make(tmp_path) / "runs.csv"
    path.write_text(path.read_text().replace("1.16667", "1.26667"))
    with pytest.raises(ValueError, match="expected sha256"):
        recordings.load(path.parent)


def test_a_recording_with_a_failed_run_is_not_written(tmp_path, monkeypatch):
    def broken(lr, seed):
        raise ArithmeticError("no")

    broken_recording = Recording("", lambda scale, device: [Part(broken, [{"lr": 1.0}])], ("end",), ())
    monkeypatch.setattr(recordings, "RECORDINGS", {"tiny": broken_recording})
    with pytest.raises(RuntimeError, match=r"3 runs of broken failed, so nothing was written; .*'lr': 1.0"):
        make(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_column_without_a_unit_is_refused():
    with pytest.raises(ValueError, match="columns without a unit: furlongs"):
        manifests.table_of([{"furlongs": 1.0}])


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="name must be one of deep-linear, vgg-cifar10, ics, alternatives"):
        recordings.record("imagenet")


def test_the_command_line_lists_the_recordings(capsys):
    recordings.main(["--list"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("deep-linear", "vgg-cifar10", "ics", "alternatives", "vgg-long"))


def test_a_dask_cluster_makes_the_same_table(tiny, tmp_path):
    from dask.distributed import Client, LocalCluster

    here = make(tmp_path)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        there = recordings.record("tiny", store=tmp_path / "other-store", folder=tmp_path / "other")
    assert (there / "runs.csv").read_bytes() == (here / "runs.csv").read_bytes()


def test_torchrun_shares_the_runs_and_makes_the_same_table(tiny, tmp_path):
    here = make(tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = ["tiny", "--store", str(tmp_path / "other-store"), "--folder", str(tmp_path / "other")]
    done = subprocess.run(
        [*launch, str(tmp_path / "tiny_recording.py"), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other/tiny/runs.csv").read_bytes() == (here / "runs.csv").read_bytes()
    assert done.stderr.count("6/6") == 2  # each process computed half of the twelve runs
    assert done.stderr.count("written:") == 1


@pytest.mark.parametrize("name", recordings.RECORDINGS)
@pytest.mark.parametrize("scale", ["laptop", "paper"])
def test_every_run_of_a_recording_is_different(name, scale):
    for part in recordings.RECORDINGS[name].parts(scale, "cpu"):
        assert max(Counter(json.dumps(s, sort_keys=True) for s in part.grid).values()) == 1


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_a_committed_recording_is_whole(path):
    """Every combination that the manifest names has its rows, for every seed."""
    frame, manifest = recordings.load(path.parent)
    settings = [name for name in ("model", "network", "init", "lr", "batch_size") if name in frame]
    runs = frame.groupby([*settings, "seed"]).size()
    assert set(frame.seed) == set(manifest["seeds"])
    if "runs" in manifest:  # written run by run
        assert len(runs) == len(manifest["runs"])
    else:
        enough = 3 if path.parent.name in recordings.RECORDINGS else 2  # a repetition of one needs fewer
        assert len(manifest["seeds"]) >= enough
        assert set(runs.groupby(settings).size()) == {len(manifest["seeds"])}
    assert len(runs) == sum(part["runs"] for part in manifest["parts"])
    assert manifest["rows"] == len(frame) and set(manifest["columns"]) == set(frame)
    if "cifar10" in manifest["data"]:
        assert "JPEG re-encoded" in manifest["note"]
    if "end" in set(frame.kind):
        ends = frame[frame.kind == "end"].groupby([*settings, "seed"]).size()
        assert len(ends) == len(runs) and set(ends) == {1}
    assert frame[[*settings, "seed", "kind", "step"]].notna().all(axis=None)


def test_the_committed_recordings_are_small():
    sizes = {p.parent.name: sum(f.stat().st_size for f in p.parent.rglob("*.*")) for p in COMMITTED}
    assert sizes.pop("vgg-long", 0) < 6e6
    assert sum(sizes.values()) < 10e6
