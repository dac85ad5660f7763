"""How a network is run on a batch: the pass itself, its loss and accuracy, and the count of passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from tqdm import tqdm

Forward = Callable[[nn.Module, Any], Any]
Loss = Callable[[Any, Any], Tensor]


def take(name: str, batches: Iterable, most: int) -> list:
    """The first batches, kept in memory: every mode is measured on the same ones."""
    if isinstance(batches, Tensor | Mapping) or not isinstance(batches, Iterable):
        raise TypeError(
            f"{name}: expected an iterable of batches (a DataLoader, a list, a generator), got "
            f"{type(batches).__name__}; for one batch write [{name}]"
        )
    kept = list(islice(batches, most))
    if not kept:
        raise ValueError(f"{name}: expected at least one batch, got none")
    return kept


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple) and not hasattr(batch, "_fields"):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def device_of(model: nn.Module) -> torch.device:
    """Where the model is: the device of its first parameter or buffer."""
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def is_pair(batch: Any) -> bool:
    """Whether a batch is (input, target)."""
    return isinstance(batch, list | tuple) and len(batch) == 2


def run(model: nn.Module, batch: Any, forward: Forward | None = None) -> Any:
    """The output of `model` for a batch: a tensor, or a pair (input, target).

    Raises:
        TypeError: the batch is something else and `forward` is not given.
    """
    batch = to_device(batch, device_of(model))
    if forward is not None:
        return forward(model, batch)
    if isinstance(batch, Tensor):
        return model(batch)
    if is_pair(batch) and isinstance(batch[0], Tensor):
        return model(batch[0])
    raise TypeError(
        f"batches: expected a tensor or a pair (input, target), got {_describe(batch)}; say how the model "
        'takes it, such as forward=lambda model, batch: model(batch["image"])'
    )


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with {', '.join(map(repr, batch))}"
    if isinstance(batch, list | tuple):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"


class Score:
    """Loss and accuracy of an output, in the manner of `fit`: ``loss(output, target)``."""

    def __init__(self, loss: Loss | None):
        self._loss = loss

    def __call__(self, output: Any, batch: Any) -> tuple[Tensor | None, float]:
        """The loss (None where there is no telling) and the share of right answers (NaN likewise)."""
        target = batch[1] if is_pair(batch) else batch
        if isinstance(output, Tensor):
            target = to_device(target, output.device)
        loss = self._loss or _natural_loss(output, target)
        if loss is None:
            return None, float("nan")
        value = loss(output, target)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise TypeError(f"loss: expected loss(output, target) to return a scalar tensor, got {value!r}")
        return value.reshape(()), _accuracy(output, target)


def _natural_loss(output: Any, target: Any) -> Loss | None:
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        return None
    if _classes(output, target):
        return cross_entropy
    return mse_loss if target.is_floating_point() and target.shape == output.shape else None


def _classes(output: Tensor, target: Tensor) -> bool:
    shape = (output.size(0), *output.shape[2:]) if output.dim() > 1 else None
    return target.dtype == torch.long and target.shape == shape and output.is_floating_point()


def _accuracy(output: Any, target: Any) -> float:
    if isinstance(output, Tensor) and isinstance(target, Tensor) and _classes(output, target):
        return (output.argmax(1) == target).double().mean().item()
    return float("nan")


class Passes:
    """Runs the model, counts the forward passes, shows them in a progress bar, and keeps to a budget."""

    def __init__(self, model: nn.Module, forward: Forward | None, loss: Loss | None, progress: bool):
        self.model, self._forward, self._score = model, forward, Score(loss)
        self.count = 0
        self._bar = tqdm(desc="check-up", unit=" passes", disable=not progress, leave=False)

    def __call__(self, batch: Any) -> tuple[Any, Tensor | None, float]:
        """Output, loss and accuracy on one batch."""
        self.count += 1
        self._bar.update()
        output = run(self.model, batch, self._forward)
        return (output, *self._score(output, batch))

    def close(self) -> None:
        self._bar.close()


def each(batches: list) -> Iterator[tuple[int, Any]]:
    """The batches with their numbers, without gradients."""
    with torch.no_grad():
        yield from enumerate(batches)
