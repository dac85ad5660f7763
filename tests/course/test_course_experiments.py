"""The recordings are what this code makes: their first measurements, made again.

Only those of the untrained network: after it, the last digits differ from processor to processor, and chaos
makes the differences grow.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bnlab import fit, norms
from course import data, experiments, models, recordings
from course.checkpoints import Checkpoint

RECORDINGS = Path(__file__).parents[2] / "recordings"
MEASURED = ("loss0", "gradient_norm", "weight_norm", "loss", "gradient_distance", "cosine", "beta")


def recorded_at_start(recording, **settings):
    """The measured columns, one row per probe of the untrained network of seed 0."""
    frame, _ = recordings.load(RECORDINGS / recording)
    wanted = (frame.kind == "landscape") & (frame.step == 0) & (frame.seed == 0)
    for name, value in settings.items():
        wanted &= frame[name] == value
    return frame.loc[wanted, ["step_size", *MEASURED]]


def assert_is_recorded(rows, recorded, rel):
    probes = [row for row in rows if row["kind"] == "landscape" and row["step"] == 0]
    assert len(probes) == len(recorded["step_size"]) >= 4
    for name, expected in recorded.items():
        # Six digits are recorded; a cosine near 1 comes out of a cancellation.
        np.testing.assert_allclose([p[name] for p in probes], expected, rtol=rel, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("network", experiments.BATCH_NORMS)
def test_the_deep_linear_recording_begins_like_this(network):
    rows = experiments.deep_linear(network, lr=1e-6, seed=0, steps=1, every=1, device="cpu")
    assert_is_recorded(rows, recorded_at_start("deep-linear", network=network, lr=1e-6), rel=1e-4)
    assert {row["layer"] for row in rows if row["kind"] == "shift"} == {9, 17}


@pytest.mark.parametrize("network", experiments.ALTERNATIVES)
def test_the_recording_of_the_alternatives_begins_like_this(network):
    rows = experiments.alternative(network, lr=0.1, batch_size=32, seed=0, steps=1, device="cpu")
    recorded = recorded_at_start("alternatives", network=network, lr=0.1, batch_size=32)
    assert_is_recorded(rows, recorded, rel=1e-3)
    assert rows[-1]["kind"] == "end" and 0 <= rows[-1]["test_accuracy"] <= 1


VGG = {"init": "glorot", "lr": 0.1, "width": 0.05, "plan": "A", "device": "cpu"}
VGG |= {"probe_every": 1, "shift_every": 2, "accuracy_every": 2}


@pytest.fixture
def made_up_images(monkeypatch):
    """In place of CIFAR-10, which need not be there."""

    def cifar10(split):
        generator = torch.Generator().manual_seed(len(split))
        images = torch.rand(256, 3, 32, 32, generator=generator)
        return data.Dataset(images, torch.randint(10, (256,), generator=generator))

    monkeypatch.setattr(data, "cifar10", cifar10)
    experiments._cifar10.cache_clear()
    yield
    experiments._cifar10.cache_clear()


def test_a_vgg_with_noise_repeats_by_its_seed(made_up_images):
    first, again, other = (
        experiments.vgg_cifar10("noisy_batchnorm", seed=seed, steps=1, **VGG) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert {row["kind"] for row in first} == {"landscape", "shift", "loss", "accuracy", "end"}
    probes = [row["step_size"] for row in first if row["kind"] == "landscape"]
    assert probes == pytest.approx([0.001, 0.01, 0.05, 0.1, 0.2, 0.4])
    weights = [row["weight_norm"] for row in first if row["kind"] == "shift"]
    together = next(row["weight_norm"] for row in first if row["kind"] == "landscape")
    assert len(weights) == 11 and sum(w**2 for w in weights) == pytest.approx(together**2, rel=1e-5)


@pytest.mark.parametrize("network", ["noisy_batchnorm", "noisy_standard", "l1"])
def test_a_run_in_stretches_is_the_run_that_nobody_watched(made_up_images, network):
    """Two steps a stretch, against one call of `fit` without observers."""
    rows = experiments.vgg_cifar10(network, seed=3, steps=5, **VGG)
    train, _ = experiments._cifar10("cpu")
    norm = experiments.batch_norm(network)
    net = models.vgg(models.VGG_A, width=0.05, norm=norm, init="glorot", seed=3)
    torch.manual_seed(3)
    run = fit(net, data.batches(*train, batch_size=128, seed=3), lr=0.1, steps=5)
    losses = {row["step"]: row["loss0"] for row in rows if row["kind"] == "landscape"}
    assert losses == dict(enumerate(run.loss.tolist()))
    assert {row["step"]: row["mean_loss"] for row in rows if row["kind"] == "loss"} == losses


def test_a_killed_run_goes_on_bit_for_bit(made_up_images, tmp_path):
    whole = experiments.vgg_cifar10("noisy_batchnorm", seed=0, steps=5, **VGG)

    def killed(step, resumed):
        if step == 4:
            raise KeyboardInterrupt

    reported = []
    with pytest.raises(KeyboardInterrupt):
        checkpoint = Checkpoint(tmp_path / "run.pt", killed)
        experiments.vgg_cifar10("noisy_batchnorm", seed=0, steps=5, **VGG, checkpoint=checkpoint)
    checkpoint = Checkpoint(tmp_path / "run.pt", lambda *report: reported.append(report))
    torch.rand(7)  # another process has other random numbers
    assert experiments.vgg_cifar10("noisy_batchnorm", seed=0, steps=5, **VGG, checkpoint=checkpoint) == whole
    assert reported == [(4, True), (5, False)]
    assert checkpoint.seconds > 0


def test_a_damaged_checkpoint_is_named(made_up_images, tmp_path):
    (tmp_path / "run.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"run.pt is damaged .UnpicklingError.; remove it"):
        experiments.vgg_cifar10(
            "standard", seed=0, steps=1, **VGG, checkpoint=Checkpoint(tmp_path / "run.pt")
        )


def test_readings_of_accuracy_are_what_torch_finds():
    """Noise off, statistics of batches of 125, plain averages of them; by torch's own batch norm."""
    generator = torch.Generator().manual_seed(0)
    net = models.conv_net(norm=experiments.batch_norm("noisy_batchnorm"), init="he", seed=0)
    native = models.conv_net(norm=nn.BatchNorm2d, init="he", seed=0)
    images = [torch.rand(250, 1, 28, 28, generator=generator) for _ in range(2)]
    train, test = (data.Dataset(x, torch.randint(10, (250,), generator=generator)) for x in images)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    found = experiments._readings(net, train, test)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(now, before[name]) for name, now in net.state_dict().items())

    def accuracy(native, dataset):
        with torch.no_grad():
            out = torch.cat([native(x) for x in dataset.images.split(125)])
        return (out.argmax(1) == dataset.labels).double().mean().item()

    for layer in native.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    assert found["test_accuracy"] == pytest.approx(accuracy(native.eval(), test), abs=0.005)
    assert found["quiet_train_accuracy"] == pytest.approx(accuracy(native.train(), train), abs=0.005)
    assert found["recollected_test_accuracy"] == pytest.approx(accuracy(native.eval(), test), abs=0.005)
    assert found["train_loss"] != pytest.approx(found["quiet_train_loss"], rel=1e-4)


def test_noise_without_normalization_is_that_of_the_noisy_batch_norm():
    """On outputs that already have mean 0 and variance 1 the two layers do the same."""
    x = torch.randn(64, 3, 9, 9, dtype=torch.float64)
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)
    noise, noisy = experiments.Noise(3), norms.NoisyBatchNorm(3, eps=1e-30).double()
    torch.manual_seed(0)
    y = noise(x)
    torch.manual_seed(0)
    torch.testing.assert_close(y, noisy(x))
    assert torch.equal(noise.eval()(x), x)
