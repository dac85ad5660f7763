"""The experiments behind the recordings: plain functions of settings and a seed that return rows.

The seed decides the initial weights, the order of the data, and the data itself where it is drawn.
"""

import copy
from collections.abc import Callable
from functools import cache, partial
from itertools import islice, repeat
from math import lcm

import torch
from torch import Tensor, nn

from bnlab import Run, fit, norms, observers
from bnlab.fit import Context

from . import data, models
from .checkpoints import Checkpoint

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
        criterion=half_squared_error,
        observers=[
            observers.landscape(probes, every=every),
            observers.covariate_shift(every=every, layers=(9, 17)),
        ],
    )


def vgg_cifar10(
    network: str,
    init: str,
    lr: float,
    seed: int,
    steps: int,
    probe_every: int,
    shift_every: int,
    accuracy_every: int,
    width: float,
    plan: str,
    device: str,
    checkpoint: Checkpoint | None = None,
) -> list[dict]:
    """A VGG on CIFAR-10, batch 128, plain SGD without weight decay or augmentation.

    The probes are 0.01, 0.1, 1/2, 1, 2 and 4 times lr; the last four are the paper's. Accuracy is read on
    the first 2,000 training and test images, at the end on all test images as well. With a `checkpoint` a
    run that was killed goes on from there, bit for bit.
    """
    train, test = _cifar10(device)
    shape = {"A": models.VGG_A, "16": models.VGG_16}[plan]
    net = models.vgg(shape, width=width, norm=batch_norm(network), init=init, seed=seed).to(device)
    torch.manual_seed(seed)  # of the noise layers
    read = partial(_readings, train=_first(train), test=_first(test))
    watch = [
        observers.landscape([factor * lr for factor in (0.01, 0.1, 0.5, 1, 2, 4)], every=probe_every),
        _shift_and_weights(shift_every),
        lambda at: None if at.step % accuracy_every else [{"kind": "accuracy"} | read(at.model)],
    ]
    at, rows = checkpoint.resume(net) if checkpoint else (0, [])
    batches = islice(data.batches(*train, batch_size=128, seed=seed), at, None)
    stretch = lcm(probe_every, shift_every, accuracy_every)  # an observer counts from its beginning
    end: dict = {"kind": "end", "step": steps, "diverged_at": None}
    while at < steps and end["diverged_at"] is None:
        run = fit(net, batches, lr=lr, steps=min(stretch, steps - at), observers=watch)
        rows = rows + _at(at, run, probe_every)
        if run.diverged_at is not None:
            end["diverged_at"] = at + run.diverged_at
        at += len(run.loss)
        if checkpoint and run.diverged_at is None:
            checkpoint.save(net, at, rows)
    whole = {"whole_test_accuracy": _evaluated(net.eval(), *test)[0]}
    net.train()
    return [*rows, end | read(net) | whole]


def _at(start: int, run: Run, every: int) -> list[dict]:
    """The rows of a stretch of a run, counted from the run's beginning, and its mean losses."""
    means = enumerate(run.loss.split(every))
    losses = [{"kind": "loss", "step": start + every * i, "mean_loss": m.mean().item()} for i, m in means]
    return [row | {"step": start + row["step"]} for row in run.records] + losses


def _shift_and_weights(every: int) -> observers.Observer:
    """Covariate shift of all layers, and beside it the norm of each layer's weight."""
    shift = observers.covariate_shift(every=every)

    def observe(at: Context) -> list[dict]:
        weights = dict(at.model.named_parameters())
        rows = shift(at) or ()
        return [row | {"weight_norm": weights[f"{row.pop('name')}.weight"].norm().item()} for row in rows]

    return observe


@torch.no_grad()
def _readings(net: nn.Module, train: data.Dataset, test: data.Dataset) -> dict[str, float]:
    """Accuracies and losses of a copy of the network, which itself stays as it is.

    On training images as in training: statistics of batches of 125, noise on. The same with the noise off,
    while running statistics are collected again, as plain averages over these batches. On test images in
    test mode, with the running statistics that training left, and with those.
    """
    with torch.random.fork_rng():
        copied = copy.deepcopy(net).train()
        found = dict(zip(("train_accuracy", "train_loss"), _evaluated(copied, *train), strict=True))
    quiet = copy.deepcopy(net).eval()
    found["test_accuracy"], found["test_loss"] = _evaluated(quiet, *test)
    changed = [m for m in quiet.modules() if isinstance(m, norms.BatchNorm | norms.LpBatchNorm | Noise)]
    if not changed:
        return found
    for layer in changed:
        if isinstance(layer, norms.NoisyBatchNorm | Noise):
            layer.shift, layer.scale, layer.sample_shift, layer.sample_scale = 0, 1, 0, 0
        if not isinstance(layer, Noise):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.random.fork_rng():
        found["quiet_train_accuracy"], found["quiet_train_loss"] = _evaluated(quiet.train(), *train)
    found["recollected_test_accuracy"], found["recollected_test_loss"] = _evaluated(quiet.eval(), *test)
    return found


@torch.no_grad()
def _evaluated(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of right answers and mean cross-entropy, in batches of 125."""
    outputs = torch.cat([net(x) for x in images.split(125)])
    right = (outputs.argmax(1) == labels).double().mean().item()
    return right, nn.functional.cross_entropy(outputs, labels).item()


def _first(dataset: data.Dataset, n: int = 2000) -> data.Dataset:
    return data.Dataset(dataset.images[:n], dataset.labels[:n])


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
        criterion=nn.functional.cross_entropy,
        observers=[observers.landscape([0.5 * lr, lr, 2 * lr, 4 * lr], every=max(1, steps // 5))],
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


class Noise(nn.Module):
    """The noise of `norms.NoisyBatchNorm` on outputs that nothing has normalized; none in test mode.

    Santurkar et al. 2018, section 2.1: "the same amount of noise", the numbers of their Algorithm 1.
    """

    def __init__(self, units: int):
        super().__init__()
        self.units = units
        self.shift, self.scale, self.sample_shift, self.sample_scale = 0.5, 1.25, 0.1, 0.1

    def forward(self, x: Tensor) -> Tensor:
        """x of shape (n, units, ...)."""
        if not self.training:
            return x
        unit = x.new_empty(self.units, *[1] * (x.ndim - 2))
        shift = torch.empty_like(unit).uniform_(-self.shift, self.shift)
        scale = torch.empty_like(unit).uniform_(1, self.scale)
        shift = torch.empty_like(x).uniform_(-self.sample_shift, self.sample_shift) + shift
        return shift + (self.sample_scale * torch.randn_like(x) + scale) * x


def half_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, summed over samples and units."""
    return (prediction - target).square().sum() / 2


def batch_norm(name: str) -> Callable[[int], nn.Module] | None:
    """What stands behind each layer in Santurkar et al. 2018, by its name; None for "standard"."""
    match name:
        case "standard":
            return None
        case "batchnorm":
            return norms.BatchNorm
        case "noisy_batchnorm":
            return norms.NoisyBatchNorm
        case "noisy_standard":
            return Noise
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
    """CIFAR-10 on the device, standardized per channel."""
    train, test = data.cifar10("train"), data.cifar10("test")
    last = torch.channels_last
    images, test_images = (
        data.standardize(part.images, train.images).to(device).contiguous(memory_format=last)
        for part in (train, test)
    )
    return data.Dataset(images, train.labels.to(device)), data.Dataset(test_images, test.labels.to(device))


@cache
def _fashion(device: str) -> tuple[data.Dataset, data.Dataset]:
    """The Fashion-MNIST subset on the device, averaged over 2 x 2 pixels, then standardized."""
    train, test = data.fashion_mnist("train"), data.fashion_mnist("test")
    small, small_test = (nn.functional.avg_pool2d(images, 2) for images in (train.images, test.images))
    return (
        data.Dataset(data.standardize(small, small).to(device), train.labels.to(device)),
        data.Dataset(data.standardize(small_test, small).to(device), test.labels.to(device)),
    )
