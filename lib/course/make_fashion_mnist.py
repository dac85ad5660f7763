"""Make the bundled subset `fashion_mnist.npz` from the official Fashion-MNIST files.

    python -m course.make_fashion_mnist [SOURCE] [DEST]

SOURCE is the folder of the four IDX files (default: where Debian's package `dataset-fashion-mnist` puts
them). The choice is pseudo-random with a fixed seed, so that running this again gives the same bytes.
"""

import sys
from pathlib import Path

import numpy as np

from .data import CLASSES, FASHION_SUBSET, read_idx

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PER_CLASS = {"train": 1200, "test": 200}
IDX_PREFIX = {"train": "train", "test": "t10k"}


def balanced_choice(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices of `per_class` images of every class, in rounds of ten images with ten different classes."""
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(CLASSES)]
    rounds = np.stack(members, axis=1)  # (per_class, 10)
    return rng.permuted(rounds, axis=1).reshape(-1)


def make(source: Path, dest: Path) -> None:
    """Write the subset of the IDX files in `source` to the file `dest`."""
    arrays = {}
    for split, prefix in IDX_PREFIX.items():
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = balanced_choice(labels, PER_CLASS[split], seed=0)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[chosen], labels[chosen]
    np.savez_compressed(dest, **arrays)


if __name__ == "__main__":
    make(
        Path(sys.argv[1]) if len(sys.argv) > 1 else DEBIAN_FOLDER,
        Path(sys.argv[2]) if len(sys.argv) > 2 else FASHION_SUBSET,
    )
