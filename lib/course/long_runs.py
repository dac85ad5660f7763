"""Recordings of long runs: each finished run is written at once, so that the work can go on anywhere.

`recordings/NAME/runs/` has a table a run, `manifest.json` an entry a run. A run that has its entry is not
made again. Checkpoints and locks are in the store: a killed run goes on from its checkpoint, and two
processes never take the same run.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from bnlab.sweep import Settings, code_of, run_key

from . import experiments
from .checkpoints import Checkpoint
from .manifests import UNITS, code_sha256, csv_of, dataset_checksum, origin, part_of, table_of


@dataclass(frozen=True)
class LongRun:
    """One run: its settings and its seed."""

    settings: Settings
    seed: int

    @property
    def name(self) -> str:
        """What it is called in its recording, for example batchnorm-glorot-lr0.1-seed0."""
        network, init, lr = (self.settings[k] for k in ("network", "init", "lr"))
        return f"{network}-{init}-lr{lr}-seed{self.seed}"


@dataclass(frozen=True)
class LongRecording:
    """What a recording consists of, at a scale on a device: runs by the title of their part, in order."""

    title: str
    experiment: Callable[..., list[dict]]
    parts: Callable[[str, str], dict[str, list[LongRun]]]
    datasets: tuple[str, ...]


def vgg_parts(scale: str, device: str) -> dict[str, list[LongRun]]:
    """Santurkar et al. 2018, Figures 1 to 4 and 12 at their own length, and the same with He weights."""
    shapes: dict[str, Settings] = {
        "laptop": {"plan": "A", "width": 0.25},
        "paper": {"plan": "16", "width": 1.0},
    }
    fixed: Settings = {"steps": 15_000, "probe_every": 50, "shift_every": 100, "accuracy_every": 250}
    fixed |= shapes[scale] | {"device": device}

    def part(networks: Iterable[str], init: str, lr: float, seeds: Iterable[int]) -> list[LongRun]:
        return [LongRun({"network": n, "init": init, "lr": lr, **fixed}, s) for s in seeds for n in networks]

    pair = ("standard", "batchnorm")
    return {
        "standard and batchnorm, Glorot, lr 0.1": part(pair, "glorot", 0.1, range(3)),
        "standard and batchnorm, He, lr 0.1": part(pair, "he", 0.1, range(3)),
        "noisy batchnorm, Glorot, lr 0.1": part(["noisy_batchnorm"], "glorot", 0.1, range(3)),
        "standard with unmatched noise, Glorot, lr 0.1": part(["noisy_standard"], "glorot", 0.1, range(3)),
        "standard and batchnorm, Glorot, lr 0.01": part(pair, "glorot", 0.01, range(3)),
        "l1, l2 and linf, Glorot, lr 0.1": part(("l1", "l2", "linf"), "glorot", 0.1, [0]),
        "standard and batchnorm again, two more seeds": part(pair, "glorot", 0.1, (3, 4)),
        "batchnorm, Glorot, lr 0.5": part(["batchnorm"], "glorot", 0.5, range(3)),
    }


LONG_RECORDINGS = {
    "vgg-long": LongRecording(
        "Landscape, covariate shift and accuracy of a VGG on CIFAR-10 over the paper's 15,000 steps",
        experiments.vgg_cifar10,
        vgg_parts,
        ("cifar10",),
    )
}


def record_long(
    name: str,
    *,
    scale: str = "laptop",
    device: str = "cpu",
    seeds: Collection[int] | None = None,
    store: str | Path = ".store/recordings",
    folder: str | Path = "recordings",
    note: str | None = None,
) -> Path:
    """Make the runs that a long recording lacks, one after the other, and return the recording's path.

    Runs that another process is making are left to it. Without a `note` the manifest's stays.
    Raises ValueError if the recording was made from other data than are here.
    """
    recording, target = LONG_RECORDINGS[name], _target(name, scale, folder)
    store = Path(store)
    store.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    about = {
        "title": recording.title,
        "command": f"python -m course.recordings {name} --scale {scale}",
        "scale": scale,
        "data": {dataset: dataset_checksum(dataset) for dataset in recording.datasets},
    } | ({"note": note} if note else {})
    if (made_from := read_manifest(target).get("data", about["data"])) != about["data"]:
        raise ValueError(f"{target} was made from other data: {made_from}; here are {about['data']}")
    runs = [run for part in recording.parts(scale, device).values() for run in part]
    runs = [run for run in runs if seeds is None or run.seed in seeds]
    with tqdm(total=sum(int(run.settings["steps"] or 0) for run in runs), unit="step", smoothing=0) as bar:
        for run in runs:
            with _lock(store / f"{target.name}-{run.name}.lock") as ours:
                if ours and run.name not in _done(target):
                    _make(recording, run, runs, target, store, about, bar)
    return target


def _make(
    recording: LongRecording,
    run: LongRun,
    runs: list[LongRun],
    target: Path,
    store: Path,
    about: dict,
    bar: tqdm,
) -> None:
    """Make one run and write it."""
    done = _done(target)
    before = sum(int(other.settings["steps"] or 0) for other in runs if other.name in done)

    def report(step: int, resumed: bool) -> None:
        if resumed:  # those steps say nothing about the speed
            bar.initial += before + step - bar.n
        bar.update(before + step - bar.n)

    report(0, True)
    bar.set_description(run.name)
    key = run_key(code_of(recording.experiment), run.settings, run.seed)
    checkpoint = Checkpoint(store / f"{run.name}-{key[:8]}.pt", report)
    rows = recording.experiment(**run.settings, seed=run.seed, checkpoint=checkpoint)
    identity = {k: run.settings[k] for k in ("network", "init", "lr")} | {"seed": run.seed}
    frame = table_of([identity | row for row in rows])
    packed = gzip.compress(csv_of(frame), mtime=0)
    (target / "runs").mkdir(parents=True, exist_ok=True)
    _replace(target / "runs" / f"{run.name}.csv.gz", packed)
    entry = {
        "settings": run.settings,
        "seed": run.seed,
        "rows": len(frame),
        "sha256": hashlib.sha256(packed).hexdigest(),
        "seconds": round(checkpoint.seconds),  # of processor time
        "code_sha256": code_sha256(recording.experiment),
    } | origin(str(run.settings["device"]))
    with FileLock(store / f"{target.name}.lock"):
        manifest = read_manifest(target)
        entries = manifest.get("runs", {}) | {run.name: entry}
        columns = manifest.get("columns", {}) | {column: UNITS[column] for column in frame}
        _replace(target / "manifest.json", _manifest(recording, manifest | about, entries, columns))
    checkpoint.path.unlink(missing_ok=True)


def _manifest(recording: LongRecording, about: dict, runs: dict[str, dict], columns: dict) -> bytes:
    """The manifest in JSON: what is common, a summary in the terms of the other recordings, every run."""
    settings = [entry["settings"] for entry in runs.values()]
    manifest = {"note": None} | about
    manifest |= {
        "parts": [part_of(recording.experiment, settings, len(runs))],
        "seeds": sorted({entry["seed"] for entry in runs.values()}),
        "rows": sum(entry["rows"] for entry in runs.values()),
        "columns": {column: unit for column, unit in UNITS.items() if column in columns},
        "device": "; ".join(sorted({entry["device"] for entry in runs.values()})),
        "wall_seconds": sum(entry["seconds"] for entry in runs.values()),
        "date": max(entry["date"] for entry in runs.values()),
        "runs": dict(sorted(runs.items())),
    }
    return (json.dumps(manifest, indent=1) + "\n").encode()


def listing(name: str, folder: str | Path = "recordings") -> Iterator[str]:
    """What each scale and part costs, and how much of it is done."""
    recording = LONG_RECORDINGS[name]
    for scale in ("laptop", "paper"):
        done = _done(_target(name, scale, folder))
        seconds = [entry["seconds"] for entry in done.values()]
        each = sum(seconds) / len(seconds) / 3600 if seconds else None
        cost = "cost not measured" if each is None else f"{each:.2f} h a run"
        parts = recording.parts(scale, "cpu")
        yield f"{name}, {scale}: {recording.title}; {sum(map(len, parts.values()))} runs, {cost}"
        for title, runs in parts.items():
            missing = sum(run.name not in done for run in runs)
            left = "" if each is None or not missing else f", {missing * each:.1f} h to go"
            yield f"  {len(runs) - missing} of {len(runs)} done{left}: {title}"


def read_manifest(target: Path) -> dict:
    """The manifest of a recording; empty if there is none."""
    path = target / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _done(target: Path) -> dict[str, dict]:
    return read_manifest(target).get("runs", {})


def _target(name: str, scale: str, folder: str | Path) -> Path:
    return Path(folder) / (name if scale == "laptop" else f"{name}-{scale}")


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether the lock could be had; the system frees it when its process dies."""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _replace(path: Path, content: bytes) -> None:
    """Write a file, all or nothing."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
