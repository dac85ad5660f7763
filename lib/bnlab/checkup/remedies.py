"""What to do where a line of the user's own will not: take statistics again, choose them, fold them away."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..measure.frozen import frozen
from .layers import NormLayer, find_layers
from .passes import Forward, each, run, take
from .statistics import Call, Population, call_statistics, population, watched
from .structure import trace


@dataclass(frozen=True, eq=False)
class Retaken:
    """The statistics of one layer, taken again. All tensors are (C,)."""

    mean: Tensor
    spread: Tensor  # the variance, or the l_p norm where the layer stores one
    shift: Tensor  # stored minus retaken mean, in retaken spreads
    log_spread: Tensor  # log of the stored over the retaken spread, eps included


def retake_statistics(
    model: nn.Module,
    batches: Iterable,
    *,
    forward: Forward | None = None,
    dry_run: bool = False,
) -> dict[str, Retaken]:
    r"""Replace the stored statistics of every normalization layer by those of `batches`, taken exactly.

    .. math:: \mu = \tfrac1M \sum_{b,i} x_{bi}, \qquad \sigma^2 = \tfrac{1}{M-1} \sum_{b,i} (x_{bi} - \mu)^2

    over all M values of all batches. While it measures, each layer normalizes with the statistics of the
    batch, so that the layers behind it see what they see in training; everything else is in eval mode, so
    that dropout does not widen what is stored. torch's ``swa_utils.update_bn`` averages the variances of the
    batches, which leaves out how far the batch means lie apart, and knows torch's layers only.

    Nothing but the stored statistics changes. ``num_batches_tracked`` changes in layers with
    ``momentum=None`` only, where it says how much the stored average weighs.

    Args:
        model: any network. Its layers with stored statistics are found by `find_layers`.
        batches: some hundred samples or more, mixed as in training: tensors or pairs (input, target).
        forward: runs the model on a batch of another kind, such as
            ``lambda model, batch: model(batch["image"])``.
        dry_run: measure and change nothing.

    Returns:
        By name of the layer a `Retaken`: the new statistics, and how far the stored ones lay from them.

    Raises:
        ValueError: no layer stores statistics, none of them ran, or a batch has one value per channel.
        TypeError: a batch is of another kind and `forward` is not given.

    Source: Wu & Johnson 2021, section 3 (they call it PreciseBN).

    Example:
        >>> import torch
        >>> from bnlab.checkup import retake_statistics
        >>> net = torch.nn.Sequential(torch.nn.BatchNorm1d(1))
        >>> found = retake_statistics(net, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
        >>> net[0].running_mean.tolist(), round(net[0].running_var.item(), 4), found["0"].shift.item() < -1
        ([4.0], 6.6667, True)
    """
    layers = [layer for layer in find_layers(model) if layer.buffers is not None]
    if not layers:
        raise ValueError(f"model: no layer of this {type(model).__name__} stores statistics")
    kept = take("batches", batches, 2**62)
    with frozen(model), normalizing_by_batch(model, layers):
        calls = collect(model, layers, kept, forward)
    retaken = {
        layer: population(layer, calls[layer]) for layer in layers if calls[layer] and moves_itself(layer)
    }
    if not retaken:
        raise ValueError("batches: no layer that stores statistics ran; do they reach the model?")
    found = {layer.name: _compare(layer, new) for layer, new in retaken.items()}
    if not dry_run:
        for layer, new in retaken.items():
            store(layer, new)
            if layer.momentum is None and layer.updates is not None:
                layer.module.num_batches_tracked.fill_(len(calls[layer]))  # type: ignore[operator]
    return found


def moves_itself(layer: NormLayer) -> bool:
    """Whether the layer is made to track; one whose tracking was switched off keeps what it has."""
    return getattr(layer.module, "track_running_stats", True) is not False


@contextmanager
def normalizing_by_batch(model: nn.Module, layers: list[NormLayer]) -> Iterator[None]:
    """Normalization by the batch, everything else in eval mode. For use inside `frozen`."""
    model.eval()
    for layer in layers:
        layer.module.training = True
    yield


def collect(
    model: nn.Module, layers: list[NormLayer], batches: list, forward: Forward | None
) -> dict[NormLayer, list[Call]]:
    """The statistics of every call of every layer, in one pass over the batches."""
    calls: dict[NormLayer, list[Call]] = {layer: [] for layer in layers}
    number = 0

    def seen(layer: NormLayer, x: Tensor) -> None:
        call = call_statistics(layer, x, number)
        if call is not None:
            calls[layer].append(call)

    with watched(layers, seen):
        for number, batch in each(batches):  # noqa: B007 (read in `seen`)
            run(model, batch, forward)
    return calls


def _compare(layer: NormLayer, new: Population) -> Retaken:
    spread = new.spread(layer)
    return Retaken(
        mean=new.mean,
        spread=new.var if new.norm is None else new.norm,
        shift=(layer.stored_mean - new.mean) / spread,
        log_spread=(layer.stored_spread / spread).log(),
    )


def store(layer: NormLayer, new: Population) -> None:
    """Write the statistics into the layer's buffers, in their own dtype."""
    assert layer.buffers is not None
    for name, values in zip(
        layer.buffers, (new.mean, new.var if new.norm is None else new.norm), strict=True
    ):
        buffer = getattr(layer.module, name)
        buffer.data.copy_(values.view_as(buffer))


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Normalize with the statistics of the batch, and leave the stored ones as they are.

    Only layers that store statistics are touched: dropout, augmentation and the rest stay in the mode they
    are in. When the block ends, modes and stored statistics are what they were.

    Args:
        model: any network, in any mode.

    Example:
        >>> import torch
        >>> from bnlab.checkup import batch_statistics
        >>> net = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Dropout(0.5)).eval()
        >>> with batch_statistics(net):
        ...     print(net(torch.tensor([[1.0], [3.0]])).detach().round(decimals=3).flatten())
        tensor([-1.,  1.])
        >>> net[0].running_mean.item()
        0.0
    """
    with _modes_kept(model, training=True):
        yield


@contextmanager
def running_statistics(model: nn.Module) -> Iterator[None]:
    """Normalize with the stored statistics, and leave them as they are, whatever mode the network is in.

    Only layers that store statistics are touched: in train mode dropout stays active, and gamma and beta
    still learn. When the block ends, modes and stored statistics are what they were. A later
    ``model.train()`` inside the block undoes it: call that first.

    Args:
        model: any network, in any mode.

    Example:
        >>> import torch
        >>> from bnlab.checkup import running_statistics
        >>> net = torch.nn.Sequential(torch.nn.BatchNorm1d(1, eps=0), torch.nn.Dropout(0.0)).train()
        >>> with running_statistics(net):
        ...     print(net(torch.tensor([[1.0], [3.0]])).flatten().tolist(), net[1].training)
        [1.0, 3.0] True
    """
    with _modes_kept(model, training=False):
        yield


@contextmanager
def _modes_kept(model: nn.Module, *, training: bool) -> Iterator[None]:
    layers = [layer for layer in find_layers(model) if layer.buffers is not None]
    modes = [(layer.module, layer.module.training) for layer in layers]
    kept = [
        (buffer, buffer.detach().clone())
        for layer in layers
        for buffer in layer.module._buffers.values()
        if buffer is not None
    ]
    for module, _ in modes:
        module.training = training
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, values in kept:
            buffer.data.copy_(values)


def fold(model: nn.Module, batch: Any, *, forward: Forward | None = None) -> nn.Module:
    r"""A copy of `model` for use, with each batch norm folded into the layer before it.

    .. math:: W' = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}\,W, \qquad
              b' = \beta + \frac{\gamma\,(b - \mu)}{\sqrt{\sigma^2 + \epsilon}}

    A norm is folded where its input is the output of one linear or convolution layer, as one pass over
    `batch` shows, and where the output of the network is then the same to rounding. Any other norm stays:
    one behind an addition, or behind a layer whose output is used in a second place.

    Args:
        model: a trained network; it is not changed.
        batch: any input of the usual size: a tensor, a pair (input, target), or what `forward` takes.
        forward: runs the model on a batch of another kind.

    Returns:
        A deep copy in eval mode, in which ``nn.Identity`` stands where a norm was folded away.

    Raises:
        ValueError: no norm could be folded.

    Source: Jacob et al. 2018, section 3.2.

    Example:
        >>> import torch
        >>> from bnlab.checkup import fold
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU())
        >>> fold(net, torch.randn(5, 3))
        Sequential(
          (0): Linear(in_features=3, out_features=4, bias=True)
          (1): Identity()
          (2): ReLU()
        )
    """
    folded = copy.deepcopy(model).eval()
    with torch.no_grad():
        found = trace(folded, find_layers(folded), batch, forward)
        expected = _numbers(run(folded, batch, forward))
        done = 0
        for layer, place in found.items():
            if place.calls != 1 or not _foldable(place.producer, layer):
                continue
            before = folded.get_submodule(place.producer_name)
            backup = {name: getattr(before, name) for name in ("weight", "bias")}
            _fold_into(before, layer)
            _put(folded, layer.name, nn.Identity())
            if _same(expected, _numbers(run(folded, batch, forward))):
                done += 1
                continue
            _put(folded, layer.name, layer.module)
            for name, parameter in backup.items():
                setattr(before, name, parameter)
    if not done:
        raise ValueError(
            f"model: no batch norm of this {type(model).__name__} follows directly on a linear or "
            "convolution layer whose output goes nowhere else"
        )
    return folded


_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _foldable(module: nn.Module | None, layer: NormLayer) -> bool:
    if not isinstance(module, _LINEAR + _TRANSPOSED) or nn.utils.parametrize.is_parametrized(module):
        return False
    outputs = module.out_features if isinstance(module, nn.Linear) else module.out_channels
    return layer.kind == "batch" and layer.buffers is not None and layer.channels == outputs


def _fold_into(before: nn.Module, layer: NormLayer) -> None:
    weight: Tensor = before.weight  # type: ignore[assignment]
    like = weight.detach()
    scale = layer.stored_spread.reciprocal().to(like.device)
    if layer.gamma is not None:
        scale = scale * layer.gamma.double()
    shift = -layer.stored_mean.to(like.device)
    if before.bias is not None:
        shift = shift + before.bias.double()  # type: ignore[operator]
    shift = shift * scale
    if layer.beta is not None:
        shift = shift + layer.beta.double()
    if isinstance(before, _TRANSPOSED):  # (in, out / groups, ...), the inputs in groups
        grouped = like.double().unflatten(0, (before.groups, -1))
        per_output = scale.view(before.groups, 1, -1, *(1,) * (like.dim() - 2))
        new = (grouped * per_output).flatten(0, 1)
    else:
        new = like.double() * scale.view(-1, *(1,) * (like.dim() - 1))
    before.weight = nn.Parameter(new.to(like.dtype), requires_grad=weight.requires_grad)
    before.bias = nn.Parameter(shift.to(like.dtype), requires_grad=weight.requires_grad)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _numbers(output: Any) -> list[Tensor]:
    """The floating-point tensors in an output, in order."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    values = output.values() if hasattr(output, "values") else output
    return [t for value in values for t in _numbers(value)] if isinstance(output, list | tuple | dict) else []


def _same(expected: list[Tensor], got: list[Tensor]) -> bool:
    """To rounding: 10,000 units in the last place of the largest value (0.001 of it in float32)."""
    return all(
        bool((a - b).abs().max() <= 1e4 * torch.finfo(a.dtype).eps * a.abs().max())
        for a, b in zip(expected, got, strict=True)
    )
