"""The training loop: plain steps of an optimizer, and observers that look at the network between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from .measure.drawing import axes
from .measure.gradient import trainable
from .measure.observers import Context, Observer

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class Run:
    """One training run."""

    loss: Tensor  # (steps,) float64, mini-batch loss before each update; NaN after a divergence
    records: list[dict]  # what the observers returned, each with its "step"
    diverged_at: int | None  # the first step whose loss was not finite

    def __repr__(self) -> str:
        end = len(self.loss) if self.diverged_at is None else self.diverged_at
        losses = f"loss {self.loss[0]:.4g} to {self.loss[end - 1]:.4g}" if end else "no finite loss"
        fate = "" if self.diverged_at is None else f", diverged at step {self.diverged_at}"
        kinds = Counter(record.get("kind", "without kind") for record in self.records)
        rows = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
        return f"Run({len(self.loss)} steps: {losses}{fate}; records: {rows})"

    def frame(self, kind: str | None = None) -> pd.DataFrame:
        """A tidy table: of the mini-batch losses, or of the records of one kind.

        Without `kind`: the columns `step` and `loss`, one row per step, the loss in units of the criterion.
        With it: what observers of that kind returned, one row per record, such as "landscape" or "shift";
        see `bnlab.measure.observers` and the instruments for their columns. Raises ValueError for a kind
        that no record has.
        """
        if kind is None:
            return pd.DataFrame({"step": range(len(self.loss)), "loss": self.loss.numpy()})
        return rows_of_kind(self.records, kind)

    def plot(self, ax: Axes | None = None, *, label: str | None = None) -> Axes:
        """The mini-batch loss over the steps, on a log axis where it is positive throughout."""
        ax = axes(ax)
        shown = self.loss.masked_fill(self.loss.abs() > 1e100, torch.nan)  # a log axis overflows
        ax.plot(shown.numpy(), label=label)
        if bool((self.loss[: self.diverged_at] > 0).all()):
            ax.set_yscale("log")
        if self.diverged_at is not None:
            ax.axvline(self.diverged_at, color="0.4", linewidth=1, linestyle="--")
            ax.annotate("diverged", (self.diverged_at, 0.98), xycoords=("data", "axes fraction"), va="top")
        ax.set_xlabel("step")
        ax.set_ylabel("mini-batch loss")
        return ax


def rows_of_kind(rows: list[dict], kind: str) -> pd.DataFrame:
    """The rows of one kind, without the columns that they do not have."""
    chosen = [{k: v for k, v in row.items() if k != "kind"} for row in rows if row.get("kind") == kind]
    if not chosen:
        kinds = sorted({str(row["kind"]) for row in rows if "kind" in row})
        raise ValueError(f"kind: expected one of {', '.join(kinds) or 'none'}, got {kind!r}")
    return pd.DataFrame(chosen)


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    lr: float,
    steps: int,
    criterion: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    optimizer: Callable[..., Optimizer] = SGD,
    observers: Iterable[Observer] = (),
) -> Run:
    """Train `model` in place: theta <- theta - lr * gradient, for the default optimizer.

    `batches` yields pairs (x, y); `criterion(model(x), y)` is the scalar to minimise; `optimizer(parameters,
    lr=lr)` makes the optimizer. Each observer is called with a `Context` before every update and may return
    a list of dicts, which become `Run.records`. A run whose loss is no longer finite stops there.

    Raises ValueError for a negative or non-finite lr, steps below 1, a model without trainable parameters,
    a criterion that is not one differentiable number, or batches that end too early.

    >>> from itertools import repeat
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(40, 3)
    >>> run = fit(nn.Linear(3, 3), repeat((x, -x)), lr=0.1, steps=50, criterion=nn.functional.mse_loss)
    >>> bool(run.loss[-1] < run.loss[0] / 10), run.diverged_at
    (True, None)
    """
    if not (isfinite(lr) and lr >= 0):
        raise ValueError(f"lr must be a finite number >= 0, got {lr!r}")
    if not (isinstance(steps, int) and steps >= 1):
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
    descent = optimizer(trainable(model), lr=lr)
    observers = tuple(observers)
    losses = torch.full((steps,), torch.nan, dtype=torch.float64)
    records: list[dict] = []
    source = iter(batches)
    for step in range(steps):
        try:
            x, y = next(source)
        except StopIteration:
            raise ValueError(
                f"batches ended after {step} of {steps} steps; give an endless iterator, such as "
                f"itertools.cycle(loader)"
            ) from None

        def loss(net: nn.Module, x: Tensor = x, y: Tensor = y) -> Tensor:
            return criterion(net(x), y)

        context = Context(step, model, loss, descent, lr)
        for observer in observers:
            records.extend({"step": step, **record} for record in observer(context) or ())
        losses[step] = _backward(context)
        if not isfinite(losses[step]):
            return Run(losses, records, diverged_at=step)
        descent.step()
    return Run(losses, records, diverged_at=None)


def _backward(context: Context) -> float:
    """Put the gradient of the current mini-batch into `.grad`, and return the loss."""
    torch.clear_autocast_cache()  # inside autocast, it would hold the weights of the step before
    value = context.loss(context.model)
    if not (isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"criterion: expected one number that depends on the model's parameters, got {got}; take the "
            f"mean or the sum over the batch, and leave out .detach() and .item()"
        )
    context.optimizer.zero_grad()
    value.backward()
    return value.item()
