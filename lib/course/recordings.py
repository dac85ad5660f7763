"""Make a recording again: the runs whose numbers stand in `recordings/`, with what it takes to redo them.

    python -m course.recordings --list
    python -m course.recordings NAME [--scale laptop|paper] [--device cpu|cuda] [--jobs N] [--seeds 3 4 5]

    torchrun --nproc-per-node=GPUS -m course.recordings NAME --device cuda

writes `recordings/NAME/runs.csv` (tidy: one row a measurement) and `manifest.json`. Finished runs are kept
in the store, so that a recording that was killed goes on where it stopped. Under torchrun each process takes
its share of the runs, on its own GPU, and the first one writes.
"""

import argparse
import csv
import hashlib
import inspect
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from torch import distributed

import bnlab
from bnlab.sweep import Settings, code_of, sweep

from . import data, experiments

UNITS = {
    "model": "the experiment, a function in course.experiments",
    "network": "normalization or activation; standard has none",
    "lr": "learning rate",
    "batch_size": "samples per mini-batch",
    "steps": "updates made in the whole run",
    "seed": "seed of initial weights, data order, and data where it is drawn",
    "kind": "landscape, shift, accuracy, or end (of the run)",
    "step": "number of updates made before the measurement",
    "loss0": "mini-batch loss where the network is: mean cross-entropy (nats) or half the summed squares",
    "gradient_norm": "Euclidean norm of the gradient; of that layer's weight in rows of kind shift",
    "weight_norm": "Euclidean norm of all weight matrices together",
    "step_size": "s of the probe theta - s * gradient, in the units of lr",
    "loss": "mini-batch loss at the probe",
    "gradient_distance": "Euclidean distance between the gradients at the probe and where the network is",
    "cosine": "cosine between those two gradients; in rows of kind shift, between G and G' of [2] Def. 2.1",
    "beta": "gradient_distance / (step_size * gradient_norm)",
    "layer": "number of the linear or convolutional layer, from 1 at the input",
    "name": "the layer's name in the network",
    "l2": "|G - G'| of [2] Def. 2.1",
    "test_accuracy": "share of right answers in test mode, 0 to 1",
    "diverged_at": "first step with a loss that is not finite; empty if there was none",
}


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
        "paper": {"plan": "16", "width": 1.0, "steps": 15_000, "every": 100},
        "laptop": {"plan": "A", "width": 0.25, "steps": 1_000, "every": 20},
    }
    grid: list[Settings] = [{"network": n, "lr": lr, "device": device, **shapes[scale]} for n, lr in runs]
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
        model = part.experiment.__name__
        done = sweep(part.experiment, part.grid, seeds, store=store, n_jobs=n_jobs)
        if done.failures:
            first = done.failures[0]
            raise RuntimeError(
                f"{len(done.failures)} runs of {model} failed, so nothing was written; the first: "
                f"{first.settings}, seed {first.seed}\n{first.traceback}"
            )
        constant = {k: v for k, v in part.grid[0].items() if all(s[k] == v for s in part.grid)}
        rows += [
            {"model": model} | {k: v for k, v in row.items() if k not in constant}
            for row in done.rows
            if row["kind"] in recording.kinds
        ]
        varied = {k: sorted({s[k] for s in part.grid}, key=str) for k in part.grid[0] if k not in constant}
        code = hashlib.sha256(code_of(part.experiment).encode()).hexdigest()
        parts.append(
            {
                "experiment": model,
                "about": inspect.getdoc(part.experiment),
                "runs": len(part.grid) * len(seeds),
                "settings": constant,
            }
            | {"varied": varied, "code_sha256": code}
        )
        seconds += done.seconds
    target = Path(folder) / name
    target.mkdir(parents=True, exist_ok=True)
    columns = write_csv(target / "runs.csv", rows)
    manifest = {
        "title": recording.title,
        "command": f"python -m course.recordings {name} --scale {scale} --seeds {' '.join(map(str, seeds))}",
        "scale": scale,
        "parts": parts,
        "seeds": list(seeds),
        "rows": len(rows),
        "columns": {column: UNITS[column] for column in columns},
        "data": {dataset: dataset_checksum(dataset) for dataset in recording.datasets},
        "note": note,
        "runs_csv_sha256": hashlib.sha256((target / "runs.csv").read_bytes()).hexdigest(),
        "versions": {
            "bnlab": bnlab.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": device_name(device),
        "wall_seconds": round(seconds),  # of all runs together
        "date": datetime.now(UTC).date().isoformat(),
    }
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return target


def compute_share(name: str, *, scale: str, device: str, seeds: Sequence[int], store: str | Path) -> bool:
    """Under torchrun, compute this process's share of the runs and wait for the others.

    The processes share the store. True in the process that is to write the recording.
    """
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    for part in RECORDINGS[name].parts(scale, device):
        if share := part.grid[rank::processes]:
            sweep(part.experiment, share, seeds, store=store, n_jobs=1)
    distributed.barrier()
    distributed.destroy_process_group()
    return rank == 0


def load(folder: str | Path) -> tuple[dict[str, np.ndarray], dict]:
    """The columns of a recording as arrays (NaN where a number is missing), and its manifest.

    Raises ValueError if `runs.csv` is not the file that the manifest describes.
    """
    folder = Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    raw = (folder / "runs.csv").read_bytes()
    found, expected = hashlib.sha256(raw).hexdigest(), manifest["runs_csv_sha256"]
    if found != expected:
        raise ValueError(
            f"{folder / 'runs.csv'}: expected sha256 {expected}, found {found}; check it out again"
        )
    header, *rows = csv.reader(raw.decode().splitlines())
    columns = {}
    for name, values in zip(header, zip(*rows, strict=True), strict=True):
        try:
            columns[name] = np.array([float(value or "nan") for value in values])
        except ValueError:
            columns[name] = np.array(values)
    return columns, manifest


def write_csv(path: Path, rows: list[dict]) -> list[str]:
    """Write rows with six significant digits, and return the columns, in the order of `UNITS`."""
    present = {column for row in rows for column in row}
    columns = [column for column in UNITS if column in present]
    if unknown := present - set(columns):
        raise ValueError(f"columns without a unit: {', '.join(sorted(unknown))}; add them to UNITS")
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(column)) for column in columns])
    return columns


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def dataset_checksum(name: str) -> dict[str, str]:
    """sha256 of the tensors of each split; of seed 0 where the data is drawn."""
    if name == "gaussian":
        return {"seed 0": data.checksum(*data.gaussian_regression(seed=0))}
    load: dict[str, Callable] = {"cifar10": data.cifar10, "fashion_mnist": data.fashion_mnist}
    return {split: data.checksum(*load[name](split)) for split in data.SPLITS}


def device_name(device: str) -> str:
    """The processor's name, as far as it can be found."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return (names[0].split(":")[1].strip() if names else platform.machine()) + ", one thread a run"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m course.recordings", description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", help="one of " + ", ".join(RECORDINGS))
    parser.add_argument("--list", action="store_true", help="list the recordings and stop")
    parser.add_argument("--scale", choices=("laptop", "paper"), default="laptop")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--jobs", type=int, default=-1, help="worker processes; -1 for one per core")
    parser.add_argument("--store", default=".store/recordings", help="folder of finished runs")
    parser.add_argument("--folder", default="recordings", help="where to write")
    parser.add_argument("--note", help="a sentence for the manifest")
    options = parser.parse_args(arguments)
    if options.list:
        for name, recording in RECORDINGS.items():
            sizes = {
                scale: sum(len(part.grid) for part in recording.parts(scale, "cpu"))
                for scale in ("laptop", "paper")
            }
            print(f"{name:14} {recording.title} ({sizes['laptop']} runs a seed)")
    elif options.name not in RECORDINGS:
        sys.exit(f"{parser.prog}: name must be one of {', '.join(RECORDINGS)}; got {options.name!r}")
    else:
        what = {name: getattr(options, name) for name in ("scale", "device", "seeds", "store")}
        if "WORLD_SIZE" in os.environ and not compute_share(options.name, **what):
            return
        written = record(options.name, n_jobs=options.jobs, folder=options.folder, note=options.note, **what)
        print(f"written: {written}", file=sys.stderr)


if __name__ == "__main__":
    main()
