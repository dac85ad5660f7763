"""Data: what is read, what is refused, and what a damaged or hostile file does."""

import gzip
import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch

from course import data, make_fashion_mnist

SUBSET_SHA256 = "a6cfdf6fc2f9be62a4fd0cc3e325bcded6e9b84765182ed37a0e8ec3abd2c440"
DEBIAN = make_fashion_mnist.DEBIAN_FOLDER
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)


def test_the_bundled_file_is_the_one_it_should_be():
    assert hashlib.sha256(data.FASHION_SUBSET.read_bytes()).hexdigest() == SUBSET_SHA256


@needs_debian
def test_making_the_subset_again_gives_the_same_bytes(tmp_path):
    make_fashion_mnist.make(DEBIAN, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == data.FASHION_SUBSET.read_bytes()


@needs_debian
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_subset_images_are_official_images_with_their_labels(split, prefix):
    images, labels = data.fashion_mnist(split)
    official = gzip.decompress((DEBIAN / f"{prefix}-images-idx3-ubyte.gz").read_bytes())[16:]
    official_labels = gzip.decompress((DEBIAN / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())[8:]
    where = {official[i * 784 : (i + 1) * 784]: label for i, label in enumerate(official_labels)}
    pixels = (images * 255).round().to(torch.uint8).numpy()
    assert [where[image.tobytes()] for image in pixels] == labels.tolist()


@pytest.mark.parametrize(("split", "per_class"), [("train", 1200), ("test", 200)])
def test_subset_is_balanced_and_raw(split, per_class):
    images, labels = data.fashion_mnist(split)
    assert labels.bincount().tolist() == [per_class] * 10
    assert images.shape == (10 * per_class, 1, 28, 28) and images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert data.fashion_mnist(split, n=50).labels.bincount().tolist() == [5] * 10


@pytest.mark.parametrize("n", [0, -1, 2001, 2.5])
def test_n_out_of_range_is_refused(n):
    with pytest.raises(ValueError, match="n must be an integer from 1 to 2000"):
        data.fashion_mnist("test", n=n)


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'train' or 'test', got 'valid'"):
        data.fashion_mnist("valid")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def test_full_fashion_mnist_reads_official_files_and_removes_a_wrong_one(tmp_path, monkeypatch):
    images, labels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28), np.array([3, 9], np.uint8)
    files = {"t10k-images-idx3-ubyte.gz": images, "t10k-labels-idx1-ubyte.gz": labels}
    for name, array in files.items():
        (tmp_path / name).write_bytes(gzip.compress(idx(array)))
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        monkeypatch.setitem(data.FASHION_SHA256, name, digest)
    monkeypatch.setenv("BNLAB_DATA", str(tmp_path))
    found = data.fashion_mnist("test", full=True)
    assert torch.equal((found.images[:, 0] * 255).round().byte(), torch.from_numpy(images))
    assert found.labels.tolist() == [3, 9]

    monkeypatch.setitem(data.FASHION_SHA256, "t10k-labels-idx1-ubyte.gz", "0" * 64)
    with pytest.raises(ValueError, match="expected sha256 0000"):
        data.fashion_mnist("test", full=True)
    assert not (tmp_path / "t10k-labels-idx1-ubyte.gz").exists()


def test_truncated_idx_file_is_refused(tmp_path):
    path = tmp_path / "short.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((4, 4), np.uint8))[:-1]))
    with pytest.raises(ValueError, match="not a complete IDX file"):
        data.read_idx(path)


# --- CIFAR-10 -------------------------------------------------------------------------------------------

WANTED = [name for names in data.CIFAR_FILES.values() for name in names]


@pytest.fixture
def small_cifar(monkeypatch):
    """Files of 20 instead of 10,000 images."""
    monkeypatch.setattr(data, "CIFAR_FILE_BYTES", 20 * data.CIFAR_RECORD)


def cifar_file(seed: int) -> bytes:
    records = np.random.default_rng(seed).integers(0, 256, (20, data.CIFAR_RECORD), dtype=np.uint8)
    records[:, 0] %= 10
    return records.tobytes()


def write_cifar(root: Path) -> Path:
    folder = root / data.CIFAR_FOLDER
    folder.mkdir(parents=True)
    for seed, name in enumerate(WANTED):
        (folder / name).write_bytes(cifar_file(seed))
    return folder


def cifar_archive(path: Path, names=WANTED, extra: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for seed, name in enumerate(names):
            content = cifar_file(seed)
            member = tarfile.TarInfo(f"{data.CIFAR_FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if extra is not None:
            tar.addfile(extra, io.BytesIO(b"x" * extra.size))
    return path


@pytest.fixture
def served(tmp_path, monkeypatch, small_cifar):
    """A local server stands in for the official one; the cache starts empty."""
    site = tmp_path / "site"
    site.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
    monkeypatch.setattr(data, "CIFAR_URL", url)
    monkeypatch.setenv("BNLAB_DATA", str(tmp_path / "cache"))
    yield site / "cifar-10-binary.tar.gz"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pixels_and_labels_are_where_the_official_layout_puts_them(tmp_path, small_cifar):
    folder = write_cifar(tmp_path)
    images, labels = data.cifar10("train", root=tmp_path)
    raw = np.frombuffer((folder / "data_batch_3.bin").read_bytes(), np.uint8).reshape(20, -1)
    assert images.shape == (100, 3, 32, 32) and labels.dtype == torch.int64
    assert labels[45] == raw[5, 0]
    assert images[45, 1, 30, 2].item() == pytest.approx(raw[5, 1 + 1024 + 30 * 32 + 2] / 255)  # green, row 30
    assert data.cifar10("test", root=tmp_path).images.shape == (20, 3, 32, 32)


def test_a_download_is_checked_unpacked_and_not_repeated(served, monkeypatch, tmp_path):
    cifar_archive(served)
    monkeypatch.setattr(data, "CIFAR_SHA256", hashlib.sha256(served.read_bytes()).hexdigest())
    first = data.cifar10("train")
    served.unlink()
    assert torch.equal(first.images, data.cifar10("train").images)
    assert sorted(p.name for p in (tmp_path / "cache" / data.CIFAR_FOLDER).iterdir()) == sorted(WANTED)


def test_a_truncated_archive_names_file_expected_and_found_and_is_not_kept(served, monkeypatch, tmp_path):
    whole = cifar_archive(served).read_bytes()
    expected = hashlib.sha256(whole).hexdigest()
    monkeypatch.setattr(data, "CIFAR_SHA256", expected)
    served.write_bytes(whole[: len(whole) // 2])
    found = hashlib.sha256(served.read_bytes()).hexdigest()
    with pytest.raises(ValueError) as error:
        data.cifar10("train")
    for part in (
        "cifar-10-binary.tar.gz",
        expected,
        found,
        f"{len(whole) // 2} found",
        "170052171 bytes expected",
    ):
        assert part in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_network_the_error_says_what_to_place_where(served, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "CIFAR_URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")  # nobody listens
    with pytest.raises(ConnectionError) as error:
        data.cifar10("train")
    for part in (str(tmp_path / "cache" / "cifar-10-binary.tar.gz"), data.CIFAR_SHA256, "BNLAB_DATA"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["../outside.bin", "/tmp/outside.bin", "a/../../outside.bin"])
def test_an_archive_that_leaves_the_folder_is_refused_and_leaves_nothing(tmp_path, name):
    member = tarfile.TarInfo(name)
    member.size = 1
    archive = cifar_archive(tmp_path / "bad.tar.gz", extra=member)
    with pytest.raises(ValueError, match="leaves the folder"):
        data.extract_cifar(archive, tmp_path / "inner" / "data")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["bad.tar.gz", "inner"]


def test_a_link_in_place_of_a_data_file_is_refused(tmp_path):
    link = tarfile.TarInfo(f"{data.CIFAR_FOLDER}/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive = cifar_archive(tmp_path / "bad.tar.gz", names=WANTED[:-1], extra=link)
    with pytest.raises(ValueError, match="not a plain file"):
        data.extract_cifar(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_archive_that_lacks_a_file_is_refused_and_others_are_not_unpacked(tmp_path):
    archive = cifar_archive(tmp_path / "bad.tar.gz", names=WANTED[:-1])
    with pytest.raises(ValueError, match=r"lacks test_batch\.bin"):
        data.extract_cifar(archive, tmp_path / "data")
    other = tarfile.TarInfo(f"{data.CIFAR_FOLDER}/readme.html")
    data.extract_cifar(cifar_archive(tmp_path / "good.tar.gz", extra=other), tmp_path / "data")
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == sorted(WANTED)


def test_a_damaged_data_file_is_named_with_both_sizes(tmp_path, small_cifar):
    folder = write_cifar(tmp_path)
    path = folder / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data_batch_2.bin is damaged: expected 61460 bytes, found 61459"):
        data.cifar10("train", root=tmp_path)
    path.write_bytes(bytes([200]) + cifar_file(1)[1:])
    with pytest.raises(ValueError, match="a label is 200"):
        data.cifar10("train", root=tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_2.bin is missing"):
        data.cifar10("train", root=tmp_path)


def test_a_root_without_the_data_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no folder cifar-10-batches-bin"):
        data.cifar10("train", root=tmp_path)


# --- the rest -------------------------------------------------------------------------------------------


def test_gaussian_regression_is_linear_and_its_entries_standard_normal():
    x, y = data.gaussian_regression(samples=2000, seed=1)
    matrix = torch.linalg.lstsq(x, y).solution
    assert torch.allclose(x @ matrix, y, atol=1e-10)
    assert x.mean().abs() < 0.03 and (x.std() - 1).abs() < 0.03
    again, other = data.gaussian_regression(samples=2000, seed=1), data.gaussian_regression(seed=2)
    assert torch.equal(again.inputs, x) and not torch.equal(other.targets[:1000], y[:1000])


def test_batches_visit_each_sample_once_an_epoch_in_a_new_order():
    x = torch.arange(10)
    source = iter(data.batches(x, -x, batch_size=5, seed=0))
    pairs = [next(source) for _ in range(4)]
    assert all(torch.equal(a, -b) for a, b in pairs)
    epochs = [torch.cat([pairs[i][0], pairs[i + 1][0]]) for i in (0, 2)]
    assert all(torch.equal(epoch.sort().values, x) for epoch in epochs)
    assert not torch.equal(*epochs)


def test_batches_depend_on_the_seed_only():
    x = torch.arange(100)
    torch.manual_seed(0)
    first = next(iter(data.batches(x, x, 50, seed=4)))[0]
    torch.manual_seed(1)
    assert torch.equal(first, next(iter(data.batches(x, x, 50, seed=4)))[0])
    assert not torch.equal(first, next(iter(data.batches(x, x, 50, seed=5)))[0])


@pytest.mark.parametrize("size", [0, 11, 2.0])
def test_a_batch_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match="batch_size must be an integer from 1 to 10"):
        data.batches(torch.zeros(10), torch.zeros(10), size)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="got 10 and 9"):
        data.batches(torch.zeros(10), torch.zeros(9), 2)


def test_standardize_uses_the_reference_channel_by_channel():
    reference = torch.randn(50, 3, 4, 4) * torch.tensor([1.0, 2, 3]).view(3, 1, 1) + 7
    out = data.standardize(reference, reference)
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out.std((0, 2, 3)), torch.ones(3), atol=1e-5)


def test_checksum_sees_a_single_bit():
    x = torch.zeros(100)
    before = data.checksum(x)
    x[57] = 1e-45
    assert data.checksum(x) != before == data.checksum(torch.zeros(100))
