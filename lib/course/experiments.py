"""The experiments behind the recordings: plain functions of settings and a seed that return rows.

The seed decides the initial weights, the order of the data, and the data itself where it is drawn.
"""

from collections.abc import Callable
from functools import cache, partial
from itertools import repeat

import torch
from torch import Tensor, nn

from bnlab import fit, norms, observers

from . import data, models

BATCH_NORMS = ("standard", "batchnorm", "l1", "l2", "linf")
ALTERNATIVES = (
    *BATCH_NORMS,
    "ghost",
    "layernorm",
    "groupnorm",
    "instancenorm",
    "rmsnorm",
    "weightnorm",
    "dynamictanh",
    "elu",
    "selu",
)


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


def alternative(network: str, lr: float, batch_size: int, seed: int, steps: int, device: str) -> list[dict]:
    """A mini conv net on the Fashion-MNIST subset at 14 x 14 pixels, plain SGD; see `alternative_net`.

    Five times in the run, probes from 1/2 to 4 times lr. Test accuracy is on the 2,000 test images.
    """
    train, test = _fashion(device)
    net = alternative_net(network, batch_size, seed).to(device)
    return _trained(
        net,
        data.batches(*train, batch_size=batch_size, seed=seed),
        lr=lr,
        steps=steps,
        loss=nn.functional.cross_entropy,
        observers=[observers.landscape([0.5 * lr, lr, 2 * lr, 4 * lr], max(1, steps // 5))],
        test=test,
    )


def alternative_net(network: str, batch_size: int, seed: int) -> nn.Module:
    """A mini conv net, He initialisation (LeCun for SELU).

    Layer norm is over channels and positions with a scale per channel (group norm with one group), RMS norm
    over the channels of a position; group norm has four groups; a ghost batch is an eighth of the batch, but
    at least two samples.
    """
    conv_net = partial(models.conv_net, size=14, seed=seed)
    if network in BATCH_NORMS:
        return conv_net(norm=batch_norm(network), init="he")
    match network:
        case "elu":
            return conv_net(activation=norms.ELU, init="he")
        case "selu":
            return conv_net(activation=norms.SELU, init="lecun")
        case "weightnorm":
            net = conv_net(init="he")
            for module in list(net.modules()):
                if isinstance(module, nn.Conv2d):
                    norms.weight_norm(module)
            return net
    factories = {
        "ghost": lambda channels: norms.GhostBatchNorm(channels, max(2, batch_size // 8)),
        "layernorm": lambda channels: norms.GroupNorm(1, channels),
        "groupnorm": lambda channels: norms.GroupNorm(4, channels),
        "instancenorm": lambda channels: norms.InstanceNorm(channels, affine=True),
        "rmsnorm": lambda channels: _ChannelsLast(norms.RMSNorm(channels)),
        "dynamictanh": norms.DynamicTanh,
    }
    return conv_net(norm=factories[network], init="he")


class _ChannelsLast(nn.Module):
    """Apply a layer that works on the last dimension to the channels of images."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.movedim(1, -1)).movedim(-1, 1)


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


@cache
def _fashion(device: str) -> tuple[data.Dataset, data.Dataset]:
    """The Fashion-MNIST subset on the device, averaged over 2 x 2 pixels, then standardized."""
    train, test = data.fashion_mnist("train"), data.fashion_mnist("test")
    small, small_test = (nn.functional.avg_pool2d(images, 2) for images in (train.images, test.images))
    return (
        data.Dataset(data.standardize(small, small).to(device), train.labels.to(device)),
        data.Dataset(data.standardize(small_test, small).to(device), test.labels.to(device)),
    )
