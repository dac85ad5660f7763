"""The experiments behind the recordings: plain functions of settings and a seed that return rows.

The seed decides the initial weights, the order of the data, and the data itself where it is drawn.
"""

from collections.abc import Callable
from functools import cache
from itertools import repeat

import torch
from torch import Tensor, nn

from bnlab import norms

from . import data, models, observers
from .loop import fit


def deep_linear(network: str, lr: float, seed: int, steps: int, every: int, device: str) -> list[dict]:
    """[2]'s deep linear net, full-batch gradient descent on half the summed squared error.

    The probes are [2]'s five, from 1/100 to 10^1.5 times lr; shifts are those of its layers 9 and 17.
    """
    x, y = (tensor.to(device) for tensor in data.gaussian_regression(seed=seed))
    net = models.deep_linear(norm=batch_norm(network), seed=seed).to(device)
    probes = [lr * 10**power for power in (-2, -1, 0, 1, 1.5)]
    return _trained(
        net,
        repeat((x, y)),
        lr=lr,
        steps=steps,
        loss=half_squared_error,
        observers=[observers.landscape(probes, every), observers.covariate_shift(every, (9, 17))],
    )


def vgg_cifar10(
    network: str, lr: float, seed: int, steps: int, every: int, width: float, plan: str, device: str
) -> list[dict]:
    """A VGG on CIFAR-10, He initialisation, batch 128, plain SGD without weight decay or augmentation.

    The probes are [2]'s four, 1/2 to 4 times lr. Test accuracy is on 2,000 test images.
    """
    train, test = _cifar10(device)
    torch.manual_seed(seed)  # of the noise layers
    shape = {"A": models.VGG_A, "16": models.VGG_16}[plan]
    net = models.vgg(shape, width=width, norm=batch_norm(network), init="he", seed=seed).to(device)
    return _trained(
        net,
        data.batches(*train, batch_size=128, seed=seed),
        lr=lr,
        steps=steps,
        loss=nn.functional.cross_entropy,
        observers=[
            observers.landscape([0.5 * lr, lr, 2 * lr, 4 * lr], every),
            observers.covariate_shift(5 * every),
            observers.accuracy(*test, 5 * every),
        ],
        test=test,
    )


def half_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, summed over samples and units."""
    return (prediction - target).square().sum() / 2


def batch_norm(name: str) -> Callable[[int], nn.Module] | None:
    """The normalization of [2]'s experiments by its name; None for "standard"."""
    match name:
        case "standard":
            return None
        case "batchnorm":
            return norms.BatchNorm
        case "noisy_batchnorm":
            return norms.NoisyBatchNorm
        case "l1" | "l2" | "linf":
            return lambda features: norms.LpBatchNorm(features, float(name[1:]))
    raise ValueError(f"unknown network {name!r}")


def _trained(net, batches, *, test=None, **settings) -> list[dict]:
    run = fit(net, batches, **settings)
    end = {"kind": "end", "step": settings["steps"], "diverged_at": run.diverged_at}
    end["loss0"] = run.loss[-1].item()
    if test is not None:
        end["test_accuracy"] = observers.test_accuracy(net, *test)
    return [*run.records, end]


@cache
def _cifar10(device: str) -> tuple[data.Dataset, data.Dataset]:
    """CIFAR-10 on the device, standardized per channel; the first 2,000 test images."""
    train, test = data.cifar10("train"), data.cifar10("test")
    images = data.standardize(train.images, train.images).to(device)
    test_images = data.standardize(test.images[:2000], train.images).to(device)
    last = torch.channels_last
    return (
        data.Dataset(images.contiguous(memory_format=last), train.labels.to(device)),
        data.Dataset(test_images.contiguous(memory_format=last), test.labels[:2000].to(device)),
    )
