"""Make a recording again: the runs whose numbers stand in `recordings/`, with what it takes to redo them.

    python -m course.recordings --list
    python -m course.recordings NAME [--scale laptop|paper] [--device cpu|cuda] [--jobs N] [--seeds 3 4 5]

    torchrun --nproc-per-node=GPUS -m course.recordings NAME --device cuda

writes `recordings/NAME/runs.csv` (tidy: one row a measurement) and `manifest.json`. Finished runs are kept
in the store, so that a recording that was killed goes on where it stopped. Under torchrun each process takes
its share of the runs, on its own GPU, and the first one writes. A recording of long runs (`long_runs`) is
written run by run; the same command in a second terminal takes other runs.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd
import torch
from torch import distributed

from bnlab.sweep import Settings, Sweep, sweep

from . import experiments
from .long_runs import LONG_RECORDINGS, listing, read_manifest, record_long
from .manifests import UNITS, code_sha256, csv_of, dataset_checksum, origin, part_of, table_of

PAIR = ("standard", "batchnorm")


@dataclass(frozen=True)
class Part:
    """One sweep of a recording."""

    experiment: Callable[..., list[dict]]
    grid: list[Settings]


@dataclass(frozen=True)
class Recording:
    """What a recording consists of, at a scale on a device."""

    title: str
    parts: Callable[[str, str], list[Part]]
    kinds: tuple[str, ...]  # of the rows that are kept
    datasets: tuple[str, ...]


def deep_linear_parts(scale: str, device: str) -> list[Part]:
    """[2] Figs. 10 and 13, every network at both learning rates of Fig. 3."""
    runs = [(n, lr) for lr in (1e-6, 1e-7) for n in experiments.BATCH_NORMS]
    return [_deep_linear(runs, device)]


def vgg_parts(scale: str, device: str) -> list[Part]:
    """[2] Figs. 1, 2, 4 and 12: every network and noisy batch norm at lr 0.1, the pair at 0.5."""
    runs = [(n, 0.1) for n in (*experiments.BATCH_NORMS, "noisy_batchnorm")] + [(n, 0.5) for n in PAIR]
    return [_vgg(runs, scale, device)]


def shift_parts(scale: str, device: str) -> list[Part]:
    """[2] Fig. 3. Runs shared with the two recordings above are computed once."""
    deep = _deep_linear([(n, lr) for n in PAIR for lr in (1e-6, 1e-7)], device)
    return [deep, _vgg([(n, lr) for n in PAIR for lr in (0.1, 0.01)], scale, device)]


def _deep_linear(runs: Iterable[tuple[str, float]], device: str) -> Part:
    """The same at both scales: 10,000 steps are the paper's."""
    fixed: Settings = {"steps": 10_000, "every": 100, "device": device}
    return Part(experiments.deep_linear, [{"network": n, "lr": lr, **fixed} for n, lr in runs])


def _vgg(runs: Iterable[tuple[str, float]], scale: str, device: str) -> Part:
    shapes: dict[str, Settings] = {
        "paper": {"plan": "16", "width": 1.0, "steps": 15_000, "probe_every": 100},
        "laptop": {"plan": "A", "width": 0.25, "steps": 1_000, "probe_every": 20},
    }
    fixed: Settings = shapes[scale] | {
        "init": "he",
        "shift_every": 100,
        "accuracy_every": 100,
        "device": device,
    }
    grid: list[Settings] = [{"network": n, "lr": lr, **fixed} for n, lr in runs]
    return Part(experiments.vgg_cifar10, grid)


def alternatives_parts(scale: str, device: str) -> list[Part]:
    """Every normalization at seven learning rates over three decades, and three batch sizes."""
    learning_rates = [round(10 ** (exponent / 2), 4) for exponent in range(-5, 2)]  # 0.0032 to 3.2
    steps = {"paper": {4: 9000, 32: 4500, 256: 1500}, "laptop": {4: 400, 32: 200, 256: 60}}[scale]
    grid: list[Settings] = [
        {"network": n, "lr": lr, "batch_size": size, "steps": count, "device": device}
        for size, count in steps.items()
        for n in experiments.ALTERNATIVES
        for lr in learning_rates
    ]
    return [Part(experiments.alternative, grid)]


RECORDINGS = {
    "deep-linear": Recording(
        "Landscape of the 25-layer deep linear net", deep_linear_parts, ("landscape", "end"), ("gaussian",)
    ),
    "vgg-cifar10": Recording(
        "Landscape and accuracy of a VGG on CIFAR-10",
        vgg_parts,
        ("landscape", "accuracy", "end"),
        ("cifar10",),
    ),
    "ics": Recording("Covariate shift by [2] Def. 2.1", shift_parts, ("shift",), ("gaussian", "cifar10")),
    "alternatives": Recording(
        "Every normalization, learning rate and batch size on Fashion-MNIST",
        alternatives_parts,
        ("landscape", "end"),
        ("fashion_mnist",),
    ),
}


def record(
    name: str,
    *,
    scale: str = "laptop",
    device: str = "cpu",
    seeds: Sequence[int] = (0, 1, 2),
    n_jobs: int = -1,
    store: str | Path = ".store/recordings",
    folder: str | Path = "recordings",
    note: str | None = None,
) -> Path:
    """Run what is missing of a recording, write it to `folder/name`, and return that path.

    `note` goes into the manifest, for example on where the data came from. Raises ValueError for an
    unknown name, RuntimeError if a run failed: a recording is written whole or not at all.
    """
    if name not in RECORDINGS:
        raise ValueError(f"name must be one of {', '.join(RECORDINGS)}, got {name!r}")
    recording = RECORDINGS[name]
    rows, parts, seconds = [], [], 0.0
    for part in recording.parts(scale, device):
        done = sweep(part.experiment, part.grid, seeds, store=store, n_jobs=n_jobs)
        described = part_of(part.experiment, part.grid, len(part.grid) * len(seeds))
        rows += _kept(done, recording.kinds, described)
        parts.append(described | {"code_sha256": code_sha256(part.experiment)})
        seconds += done.seconds
    manifest = {
        "title": recording.title,
        "command": f"python -m course.recordings {name} --scale {scale} --seeds {' '.join(map(str, seeds))}",
        "scale": scale,
        "parts": parts,
        "seeds": list(seeds),
        "data": {dataset: dataset_checksum(dataset) for dataset in recording.datasets},
        "note": note,
        "wall_seconds": round(seconds),  # of all runs together
    } | origin(device)
    return _written(Path(folder) / name, rows, manifest)


def _written(target: Path, rows: list[dict], about: dict) -> Path:
    """Write table and manifest."""
    frame = table_of(rows)
    table = csv_of(frame)
    columns = {column: UNITS[column] for column in frame}
    shape = {"rows": len(rows), "columns": columns, "runs_csv_sha256": hashlib.sha256(table).hexdigest()}
    target.mkdir(parents=True, exist_ok=True)
    (target / "runs.csv").write_bytes(table)
    (target / "manifest.json").write_text(json.dumps(about | shape, indent=2) + "\n")
    return target


def _kept(done: Sweep, kinds: Sequence[str], described: dict) -> list[dict]:
    """The rows of a part, without what all its runs share; RuntimeError if a run failed."""
    model = described["experiment"]
    if done.failures:
        first = done.failures[0]
        raise RuntimeError(
            f"{len(done.failures)} runs of {model} failed, so nothing was written; the first: "
            f"{first.settings}, seed {first.seed}\n{first.traceback}"
        )
    kept = (row for row in done.rows if row["kind"] in kinds)
    return [
        {"model": model} | {k: v for k, v in row.items() if k not in described["settings"]} for row in kept
    ]


def compute_share(name: str, *, scale: str, device: str, seeds: Sequence[int], store: str | Path) -> bool:
    """Under torchrun, compute this process's share of the runs and wait for the others.

    The processes share the store. True in the process that is to write the recording.
    """
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    for part in RECORDINGS[name].parts(scale, device):
        if share := part.grid[rank::processes]:
            sweep(part.experiment, share, seeds, store=store, n_jobs=1)
    distributed.barrier()
    distributed.destroy_process_group()
    return rank == 0


def load(folder: str | Path) -> tuple[pd.DataFrame, dict]:
    """A recording as a table, one row a measurement (units in the manifest's `columns`), and its manifest.

    Raises ValueError if a file is not the one that the manifest describes.

    >>> frame, manifest = load("recordings/ics")  # doctest: +SKIP
    >>> frame[frame.layer == 9].groupby("network").cosine.median()  # doctest: +SKIP
    """
    folder = Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    if "runs" in manifest:
        files = {f"runs/{name}.csv.gz": run["sha256"] for name, run in manifest["runs"].items()}
    else:
        files = {"runs.csv": manifest["runs_csv_sha256"]}
    frames = []
    for name, expected in files.items():
        raw = (folder / name).read_bytes()
        if (found := hashlib.sha256(raw).hexdigest()) != expected:
            raise ValueError(
                f"{folder / name}: expected sha256 {expected}, found {found}; check it out again"
            )
        text = gzip.decompress(raw) if name.endswith(".gz") else raw
        frames.append(pd.read_csv(io.BytesIO(text)))
    return pd.concat(frames, ignore_index=True), manifest


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m course.recordings", description=__doc__.split("\n")[0])
    names = (*RECORDINGS, *LONG_RECORDINGS)
    parser.add_argument("name", nargs="?", help="one of " + ", ".join(names))
    parser.add_argument("--list", action="store_true", help="say what each costs and what is done, and stop")
    parser.add_argument("--scale", choices=("laptop", "paper"), default="laptop")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 1 2; of a long recording, all")
    parser.add_argument("--jobs", type=int, default=-1, help="worker processes; -1 for one per core")
    parser.add_argument("--store", default=".store/recordings", help="folder of finished runs")
    parser.add_argument("--folder", default="recordings", help="where to write")
    parser.add_argument("--note", help="a sentence for the manifest")
    options = parser.parse_args(arguments)
    if options.list:
        for name, recording in RECORDINGS.items():
            print(f"{name}: {recording.title}; {_cost(name, recording, options.folder)}")
        for name in LONG_RECORDINGS:
            print("\n".join(listing(name, options.folder)))
        return
    if options.name not in names:
        sys.exit(f"{parser.prog}: name must be one of {', '.join(names)}; got {options.name!r}")
    what = {k: getattr(options, k) for k in ("scale", "device", "store")}
    where = {"folder": options.folder, "note": options.note}
    if "LOCAL_RANK" in os.environ and options.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if options.name in LONG_RECORDINGS:
        written = record_long(options.name, seeds=options.seeds, **what, **where)
    else:
        what["seeds"] = options.seeds or (0, 1, 2)
        if "WORLD_SIZE" in os.environ and not compute_share(options.name, **what):
            return
        written = record(options.name, n_jobs=options.jobs, **what, **where)
    print(f"written: {written}", file=sys.stderr)


def _cost(name: str, recording: Recording, folder: str | Path) -> str:
    """Runs of a seed, and the hours that the recording at hand took."""
    runs = sum(len(part.grid) for part in recording.parts("laptop", "cpu"))
    manifest = read_manifest(Path(folder) / name)
    if not manifest:
        return f"{runs} runs a seed, cost not measured"
    hours = manifest["wall_seconds"] / 3600 / len(manifest["seeds"])
    others = " and ".join({"laptop", "paper"} - {manifest["scale"]})
    return f"{runs} runs a seed, {hours:.2f} h at scale {manifest['scale']}, not measured at scale {others}"


if __name__ == "__main__":
    main()
