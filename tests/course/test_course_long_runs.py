"""Long runs: written one by one, resumed after kill -9, never made twice."""

import gzip
import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
import torch

from course import long_runs, recordings

TINY = """
import sys
import torch
from course import data, experiments, long_runs, recordings
from course.long_runs import LongRecording, LongRun

def cifar10(split):
    generator = torch.Generator().manual_seed(len(split))
    images = torch.rand(256, 3, 32, 32, generator=generator)
    return data.Dataset(images, torch.randint(10, (256,), generator=generator))

def parts(scale, device):
    fixed = {"plan": "A", "width": 0.05, "steps": 6, "device": device}
    fixed |= {"probe_every": 3, "shift_every": 3, "accuracy_every": 3}
    names = ("noisy_batchnorm", "standard")
    return {"both": [LongRun({"network": n, "init": "he", "lr": 0.1, **fixed}, 0) for n in names]}

data.cifar10 = cifar10
long_runs.LONG_RECORDINGS["tiny"] = LongRecording("Tiny", experiments.vgg_cifar10, parts, ("cifar10",))
"""
KILLED = """
import os, signal
from course.checkpoints import Checkpoint
save = Checkpoint.save

def killed(self, net, step, rows):
    save(self, net, step, rows)
    os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = killed
"""
MAIN = """
if __name__ == "__main__":
    recordings.main(["tiny", *sys.argv[1:]])
"""


def start(tmp_path, folder, script=TINY + MAIN):
    path = tmp_path / "tiny.py"
    path.write_text(script)
    options = ["--store", str(tmp_path / f"store-{folder}"), "--folder", str(tmp_path / folder)]
    return subprocess.Popen(
        [sys.executable, str(path), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def make(tmp_path, folder, script=TINY + MAIN):
    process = start(tmp_path, folder, script)
    _, said = process.communicate(timeout=300)
    return process.returncode, said.decode()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    code, said = make(folder, "out", TINY + MAIN)
    assert code == 0, said
    return folder / "out" / "tiny"


def test_each_run_is_a_table_of_its_own_and_load_joins_them(made):
    frame, manifest = recordings.load(made)
    names = ["noisy_batchnorm-he-lr0.1-seed0", "standard-he-lr0.1-seed0"]
    assert sorted(manifest["runs"]) == sorted(p.name[:-7] for p in (made / "runs").iterdir()) == names
    apart = [pd.read_csv(made / "runs" / f"{name}.csv.gz") for name in names]
    assert len(frame) == sum(map(len, apart)) == manifest["rows"]
    assert set(frame.kind) == {"landscape", "shift", "loss", "accuracy", "end"}
    assert set(frame) == set(manifest["columns"]) and all(manifest["columns"].values())
    run = manifest["runs"][names[0]]
    assert run["settings"]["network"] == "noisy_batchnorm" and run["seed"] == 0 and run["device"]
    assert (
        {"torch", "numpy", "python", "bnlab"} <= set(run["versions"]) and run["seconds"] > 0 and run["date"]
    )
    noisy, standard = (frame[(frame.kind == "end") & (frame.network == n[:-16])] for n in names)
    assert noisy.recollected_test_accuracy.notna().all()
    assert standard.recollected_test_accuracy.isna().all()


def test_a_changed_table_is_noticed(made, tmp_path):
    copy = tmp_path / "copy"
    (copy / "runs").mkdir(parents=True)
    (copy / "manifest.json").write_text((made / "manifest.json").read_text())
    for path in (made / "runs").iterdir():
        (copy / "runs" / path.name).write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\n"))
    with pytest.raises(ValueError, match=r"seed0.csv.gz: expected sha256 .* check it out again"):
        recordings.load(copy)


def test_a_run_killed_again_and_again_loses_what_came_after_its_checkpoint_and_nothing_else(made, tmp_path):
    for kept in (3, 6):  # steps behind the checkpoint at which it dies
        code, said = make(tmp_path, "out", TINY + KILLED + MAIN)
        assert code == -signal.SIGKILL, said
        [checkpoint] = (tmp_path / "store-out").glob("noisy*.pt")
        assert torch.load(checkpoint, weights_only=True)["step"] == kept
        assert not (tmp_path / "out").exists()
    code, said = make(tmp_path, "out")
    assert code == 0 and "| 12/12" in said, said
    for path in (made / "runs").iterdir():
        assert (tmp_path / "out" / "tiny" / "runs" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "store-out").glob("*.pt"))


def test_two_processes_share_the_runs_and_a_third_has_nothing_to_do(made, tmp_path):
    processes = [start(tmp_path, "out") for _ in range(2)]
    said = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    target = tmp_path / "out" / "tiny"
    runs = json.loads((target / "manifest.json").read_text())["runs"]
    expected = json.loads((made / "manifest.json").read_text())["runs"]
    assert {k: r["sha256"] for k, r in runs.items()} == {k: r["sha256"] for k, r in expected.items()}
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.*")}
    assert make(tmp_path, "out")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.*")} == before


def test_the_list_says_what_is_done_and_what_it_costs(tmp_path):
    assert "34 runs, cost not measured" in "\n".join(long_runs.listing("vgg-long", tmp_path))
    manifest = {"runs": {f"standard-glorot-lr0.1-seed{seed}": {"seconds": 1800} for seed in (0, 1)}}
    (tmp_path / "vgg-long").mkdir()
    (tmp_path / "vgg-long" / "manifest.json").write_text(json.dumps(manifest))
    lines = "\n".join(long_runs.listing("vgg-long", tmp_path))
    assert "34 runs, 0.50 h a run" in lines
    assert "2 of 6 done, 2.0 h to go: standard and batchnorm, Glorot, lr 0.1" in lines


def test_the_runs_of_the_long_recording_have_names_of_their_own():
    for scale in ("laptop", "paper"):
        parts = long_runs.LONG_RECORDINGS["vgg-long"].parts(scale, "cpu")
        names = [run.name for part in parts.values() for run in part]
        assert len(set(names)) == len(names) == 34
        assert names[:2] == ["standard-glorot-lr0.1-seed0", "batchnorm-glorot-lr0.1-seed0"]


def test_other_data_are_refused(made, tmp_path):
    script = TINY.replace("(256, 3, 32, 32, generator", "(300, 3, 32, 32, generator") + MAIN
    script = script.replace("(256,)", "(300,)")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tiny").symlink_to(made)
    code, said = make(tmp_path, "out", script)
    assert code == 1 and "was made from other data" in said
