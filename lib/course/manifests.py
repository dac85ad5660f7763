"""What every recording says about itself: columns and their units, data, versions, device."""

import hashlib
import inspect
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import bnlab
from bnlab.sweep import Settings, code_of

from . import data

UNITS = {
    "model": "the experiment, a function in course.experiments",
    "network": "normalization or activation; standard has none",
    "init": "initial weights: he or glorot",
    "lr": "learning rate",
    "batch_size": "samples per mini-batch",
    "steps": "updates made in the whole run",
    "seed": "seed of initial weights, data order, and data where it is drawn",
    "kind": "landscape, shift, loss, accuracy, or end (of the run)",
    "step": "number of updates made before the measurement",
    "loss0": "mini-batch loss where the network is: mean cross-entropy (nats) or half the summed squares",
    "gradient_norm": "Euclidean norm of the gradient; of that layer's weight in rows of kind shift",
    "weight_norm": "Euclidean norm of all weight matrices together; of that layer's in rows of kind shift",
    "step_size": "s of the probe theta - s * gradient, in the units of lr",
    "loss": "mini-batch loss at the probe",
    "gradient_distance": "Euclidean distance between the gradients at the probe and where the network is",
    "cosine": "cosine between those two gradients; in rows of kind shift, between the G and G' of l2",
    "beta": "gradient_distance / (step_size * gradient_norm)",
    "layer": "number of the linear or convolutional layer, from 1 at the input",
    "name": "the layer's name in the network",
    "l2": "|G - G'| of Santurkar et al. 2018, Definition 2.1",
    "mean_loss": "mean mini-batch loss of the steps from this one to the next row of kind loss",
    "train_accuracy": "share of right answers, 0 to 1, on 2,000 training images, batch statistics, noise on",
    "train_loss": "mean cross-entropy (nats) of the same",
    "quiet_train_accuracy": "train_accuracy with the noise off; empty without normalization and noise",
    "quiet_train_loss": "mean cross-entropy (nats) of the same",
    "test_accuracy": "share of right answers, 0 to 1, on 2,000 test images in test mode",
    "test_loss": "mean cross-entropy (nats) of the same",
    "recollected_test_accuracy": "test_accuracy with running statistics collected again with the noise off",
    "recollected_test_loss": "mean cross-entropy (nats) of the same",
    "whole_test_accuracy": "test_accuracy on all 10,000 test images",
    "diverged_at": "first step with a loss that is not finite; empty if there was none",
}


def table_of(rows: Sequence[dict]) -> pd.DataFrame:
    """The rows as a table, its columns in the order of `UNITS`; ValueError for a column without a unit."""
    frame = pd.DataFrame(rows)
    if unknown := set(frame) - set(UNITS):
        raise ValueError(f"columns without a unit: {', '.join(sorted(unknown))}; add them to UNITS")
    return frame[[column for column in UNITS if column in frame]]


def csv_of(frame: pd.DataFrame) -> bytes:
    """The table as CSV with six significant digits."""
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def part_of(experiment: Callable, grid: Sequence[Settings], runs: int) -> dict:
    """The runs of one experiment: settings that all share, settings that vary."""
    constant = {k: v for k, v in grid[0].items() if all(settings[k] == v for settings in grid)}
    return {
        "experiment": experiment.__name__,
        "about": inspect.getdoc(experiment),
        "runs": runs,
        "settings": constant,
        "varied": {k: sorted({s[k] for s in grid}, key=str) for k in grid[0] if k not in constant},
    }


def code_sha256(experiment: Callable) -> str:
    """Of the experiment's source, with what it uses of its own module."""
    return hashlib.sha256(code_of(experiment).encode()).hexdigest()


def origin(device: str) -> dict:
    """Versions, device and date."""
    versions = {"bnlab": bnlab.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "versions": versions | {"python": platform.python_version()},
        "device": device_name(device),
        "date": datetime.now(UTC).date().isoformat(),
    }


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
