"""The recordings are what this code makes: their first measurements, made again.

Only those of the untrained network: after it, the last digits differ from processor to processor, and chaos
makes the differences grow.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from course import data, experiments, recordings

RECORDINGS = Path(__file__).parents[2] / "recordings"
MEASURED = ("loss0", "gradient_norm", "weight_norm", "loss", "gradient_distance", "cosine", "beta")


def recorded_at_start(recording, **settings):
    """The measured columns, one row per probe of the untrained network of seed 0."""
    columns, _ = recordings.load(RECORDINGS / recording)
    wanted = (columns["kind"] == "landscape") & (columns["step"] == 0) & (columns["seed"] == 0)
    for name, value in settings.items():
        wanted &= columns[name] == value
    return {name: columns[name][wanted] for name in ("step_size", *MEASURED)}


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


def test_a_vgg_with_noise_repeats_by_its_seed(monkeypatch):
    """On made-up images: CIFAR-10 need not be there."""

    def cifar10(split):
        generator = torch.Generator().manual_seed(len(split))
        images = torch.rand(256, 3, 32, 32, generator=generator)
        return data.Dataset(images, torch.randint(10, (256,), generator=generator))

    monkeypatch.setattr(data, "cifar10", cifar10)
    experiments._cifar10.cache_clear()
    try:
        settings = {"lr": 0.1, "steps": 1, "every": 1, "width": 0.05, "plan": "A", "device": "cpu"}
        first, again, other = (
            experiments.vgg_cifar10("noisy_batchnorm", seed=seed, **settings) for seed in (0, 0, 1)
        )
    finally:
        experiments._cifar10.cache_clear()
    assert first == again != other
    assert {row["kind"] for row in first} == {"landscape", "shift", "accuracy", "end"}
