"""The data of the experiments: Fashion-MNIST, CIFAR-10 and the Gaussian regression of the deep linear net.

Images come as float32 in [0, 1], the raw pixels divided by 255; `standardize` is a separate, visible step.
Nothing here loads a pickle; downloads are checked against a sha256, and an archive is opened only for the
members that are expected.
"""

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
import torch
from torch import Tensor

CLASSES = 10
SPLITS = ("train", "test")

FASHION_SUBSET = Path(__file__).with_name("fashion_mnist.npz")
# The files of the authors' repository at a fixed commit; each agrees with the md5 in their README.
FASHION_URL = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/"
)
FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}

CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR_BYTES = 170_052_171
CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR_RECORD = 1 + 3 * 32 * 32  # one label byte, then the red, green and blue planes
CIFAR_FILE_BYTES = 10_000 * CIFAR_RECORD


class Dataset(NamedTuple):
    """Images and their labels; unpacks as `images, labels = ...`."""

    images: Tensor  # (n, channels, height, width) float32
    labels: Tensor  # (n,) int64


class Regression(NamedTuple):
    """Inputs and targets of a regression; unpacks as `inputs, targets = ...`."""

    inputs: Tensor  # (samples, features)
    targets: Tensor  # (samples, features)


def fashion_mnist(split: str, n: int | None = None, full: bool = False) -> Dataset:
    """Fashion-MNIST as float32 images (n, 1, 28, 28) in [0, 1] and int64 labels (n,).

    The package carries 12,000 training and 2,000 test images, equally many of each class and so ordered
    that any ten in a row from a multiple of ten hold all ten classes: the first `n` are a balanced choice
    when `n` is a multiple of ten. `full=True` reads the 60,000 and 10,000 official images in their own
    order, and downloads them on first use (30 MB, sha256 checked).

    Raises ValueError for an unknown split, or an `n` that is not between 1 and the images there are.
    Source: Xiao, Rasul and Vollgraf, arXiv:1708.07747; licence MIT.

    >>> images, labels = fashion_mnist("test", n=20)
    >>> images.shape, images.dtype, labels.bincount().tolist()
    (torch.Size([20, 1, 28, 28]), torch.float32, [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    _check_split(split)
    pixels, labels = _fashion_full(split) if full else _fashion_subset(split)
    if n is not None and not (isinstance(n, int) and 1 <= n <= len(labels)):
        more = "" if full else "; full=True gives the whole set"
        raise ValueError(f"n must be an integer from 1 to {len(labels)} or None, got {n!r}{more}")
    return _dataset(pixels[:n, None], labels[:n])


def cifar10(split: str, root: str | Path | None = None) -> Dataset:
    """CIFAR-10 as float32 images (n, 3, 32, 32) in [0, 1] and int64 labels (n,); n is 50,000 or 10,000.

    Reads the official *binary* layout, the folder `cifar-10-batches-bin`, from `root`, else from the folder
    in the environment variable BNLAB_DATA, else from the cache, where it is downloaded on first use (170 MB,
    size and sha256 checked).

    Raises ValueError for an unknown split or a file that is not what it should be, FileNotFoundError for a
    `root` without the data, ConnectionError (saying what to place where) if the download fails.
    Source: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009.
    """
    _check_split(split)
    folder = _cifar_folder(root)
    records = np.concatenate([_read_cifar_file(folder / name) for name in CIFAR_FILES[split]])
    return _dataset(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0])


def gaussian_regression(samples: int = 1000, features: int = 10, seed: int = 0) -> Regression:
    """The task of [2]'s deep linear net: x Gaussian, y = A x, A Gaussian; all entries are i.i.d. N(0, 1).

    Returns float64 inputs x and targets y, both (samples, features), one sample a row ([2] App. A.1).

    >>> x, y = gaussian_regression(samples=50, seed=3)
    >>> bool(torch.linalg.lstsq(x, y).solution.shape == (10, 10))
    True
    """
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(features, features, generator=generator, dtype=torch.float64)
    inputs = torch.randn(samples, features, generator=generator, dtype=torch.float64)
    return Regression(inputs, inputs @ matrix.T)


@dataclass(frozen=True)
class batches:
    """Endless mini-batches (x, y) of two aligned tensors, reshuffled every epoch.

    Each epoch visits every sample at most once and drops the last incomplete batch. Iterating twice gives
    the same batches twice, so that two networks can be trained on the same sequence.

    Raises ValueError if lengths differ or batch_size is not between 1 and their length.

    >>> x = torch.arange(6.0)
    >>> first = next(iter(batches(x, x, batch_size=4, seed=0)))[0]
    >>> again = next(iter(batches(x, x, batch_size=4, seed=0)))[0]
    >>> bool((first == again).all()), len(first)
    (True, 4)
    """

    images: Tensor  # (n, ...)
    labels: Tensor  # (n, ...)
    batch_size: int
    seed: int = 0

    def __post_init__(self):
        n = len(self.images)
        if len(self.labels) != n:
            raise ValueError(f"images and labels must be equally many, got {n} and {len(self.labels)}")
        if not (isinstance(self.batch_size, int) and 1 <= self.batch_size <= n):
            raise ValueError(
                f"batch_size must be an integer from 1 to {n} (the data), got {self.batch_size!r}"
            )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        n = len(self.images)
        while True:
            order = torch.randperm(n, generator=generator).to(self.images.device)
            for start in range(0, n - self.batch_size + 1, self.batch_size):
                chosen = order[start : start + self.batch_size]
                yield self.images[chosen], self.labels[chosen]


def standardize(images: Tensor, reference: Tensor) -> Tensor:
    """(images - mean) / std, with mean and std per channel over all of `reference` (the training images).

    >>> train, _ = fashion_mnist("train", n=100)
    >>> bool(standardize(train, train).mean().abs() < 1e-5)
    True
    """
    dims = [d for d in range(reference.ndim) if d != 1]
    std, mean = torch.std_mean(reference, dim=dims, keepdim=True)
    return (images - mean) / std


def checksum(*tensors: Tensor) -> str:
    """sha256 (hexadecimal) over the bytes of the tensors, in order: which data a recording was made from."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in a gzipped IDX file (the format of MNIST); ValueError if it is not one."""
    with gzip.open(path) as file:
        raw = file.read()
    zero, kind, ndim = int.from_bytes(raw[:2], "big"), raw[2], raw[3]
    shape = tuple(np.frombuffer(raw, ">u4", count=ndim, offset=4).tolist())
    if zero != 0 or kind != 0x08 or len(raw) != 4 + 4 * ndim + int(np.prod(shape)):
        raise ValueError(f"{path} is not a complete IDX file of unsigned bytes; fetch it again")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")


def _dataset(pixels: np.ndarray, labels: np.ndarray) -> Dataset:
    images = torch.from_numpy(pixels.astype(np.float32)).div_(255)
    return Dataset(images, torch.from_numpy(labels.astype(np.int64)))


@cache
def _fashion_subset(split: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(FASHION_SUBSET, allow_pickle=False) as arrays:
        return arrays[f"{split}_images"], arrays[f"{split}_labels"]


def _fashion_full(split: str) -> tuple[np.ndarray, np.ndarray]:
    prefix = {"train": "train", "test": "t10k"}[split]
    folder = _data_folder()
    names = (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
    images, labels = (read_idx(_fetch(FASHION_URL + name, FASHION_SHA256[name], folder)) for name in names)
    return images, labels


def _data_folder() -> Path:
    return Path(os.environ.get("BNLAB_DATA") or pooch.os_cache("bnlab"))


def _fetch(url: str, sha256: str, folder: Path, size: int | None = None) -> Path:
    """The verified file of that url in `folder`, downloaded if it is not there; a bad file is removed."""
    path = folder / url.rsplit("/", 1)[1]
    if not path.exists():
        try:
            pooch.retrieve(url, known_hash=None, fname=path.name, path=folder, progressbar=False)
        except OSError as error:  # requests' exceptions are OSErrors
            raise ConnectionError(
                f"could not download {url} ({error}). Without a network, place that file at {path} "
                f"(sha256 {sha256}), or set BNLAB_DATA to a folder that holds it."
            ) from error
    found_size, found = path.stat().st_size, pooch.file_hash(str(path))
    if found != sha256:
        path.unlink()
        sizes = f" ({size} bytes expected, {found_size} found)" if size else f" ({found_size} bytes found)"
        raise ValueError(f"{path} has been removed: expected sha256 {sha256}, found {found}{sizes}")
    return path


def _cifar_folder(root: str | Path | None) -> Path:
    base = Path(root) if root is not None else _data_folder()
    folder = base / CIFAR_FOLDER
    if folder.is_dir():
        return folder
    if root is not None:
        raise FileNotFoundError(
            f"root={str(root)!r} has no folder {CIFAR_FOLDER}; unpack {CIFAR_URL} there, "
            "or leave root out to have it downloaded"
        )
    archive = _fetch(CIFAR_URL, CIFAR_SHA256, base, size=CIFAR_BYTES)
    extract_cifar(archive, folder)
    archive.unlink()
    return folder


def extract_cifar(archive: Path, folder: Path) -> None:
    """Unpack the six data files of the CIFAR-10 archive into `folder`, all or nothing.

    Raises ValueError if any member would leave the folder, or one of the six is missing or not a plain file.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = [name for names in CIFAR_FILES.values() for name in names]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, tarfile.open(archive, "r:gz") as tar:
        complete = Path(scratch) / CIFAR_FOLDER
        complete.mkdir()
        found = set()
        for member in tar:
            parts = Path(member.name).parts
            if Path(member.name).is_absolute() or ".." in parts:
                raise ValueError(f"{archive}: member {member.name!r} leaves the folder; archive refused")
            if len(parts) == 2 and parts[0] == CIFAR_FOLDER and parts[1] in wanted:
                source = tar.extractfile(member) if member.isfile() else None
                if source is None:
                    raise ValueError(
                        f"{archive}: member {member.name!r} is not a plain file; archive refused"
                    )
                with source, open(complete / parts[1], "wb") as target:
                    shutil.copyfileobj(source, target)
                found.add(parts[1])
        if missing := sorted(set(wanted) - found):
            raise ValueError(f"{archive} lacks {', '.join(missing)}; it is not the CIFAR-10 binary archive")
        os.replace(complete, folder)


def _read_cifar_file(path: Path) -> np.ndarray:
    """The records (10000, 3073) of one file; ValueError if its size or a label is wrong."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; remove {path.parent} to have it downloaded again")
    size = path.stat().st_size
    if size != CIFAR_FILE_BYTES:
        raise ValueError(f"{path} is damaged: expected {CIFAR_FILE_BYTES} bytes, found {size}; replace it")
    records = np.fromfile(path, np.uint8).reshape(-1, CIFAR_RECORD)
    if records[:, 0].max() >= CLASSES:
        raise ValueError(f"{path} is damaged: a label is {records[:, 0].max()}, expected 0 to 9; replace it")
    return records
