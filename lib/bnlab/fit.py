"""The training loop: plain steps of an optimizer, and observers that look at the network between them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from .measure.frozen import ForwardState
from .measure.gradient import evaluate, trainable, value_and_gradient


@dataclass
class Context:
    """What an observer sees before the update of one step.

    `loss` maps a model to the scalar loss on the current mini-batch. An observer that has computed loss and
    gradient there may leave them in `loss0` and `gradient`, and the training step uses them; with
    `advanced`, the state in which the forward pass leaves buffers and random generators, it computes
    nothing again.
    """

    step: int  # 0 is the untrained network
    model: nn.Module
    loss: Callable[[nn.Module], Tensor]
    optimizer: Optimizer
    lr: float
    gradient: tuple[Tensor, ...] | None = None  # one per trainable parameter, in the model's order
    loss0: float | None = None
    advanced: ForwardState | None = None

    def step_function(self, model: nn.Module) -> None:
        """Apply to the network the optimizer's real update for the gradient in `.grad`, momentum and all.

        It is what `internal_covariate_shift` takes as `step`.
        """
        if model is not self.model:
            raise ValueError("model must be the network in training: the optimizer holds its parameters")
        self.optimizer.step()


Observer = Callable[[Context], "list[dict] | None"]


@dataclass(frozen=True)
class Run:
    """One training run."""

    loss: Tensor  # (steps,) float64, mini-batch loss before each update; NaN after a divergence
    records: list[dict]  # what the observers returned, each with its "step"
    diverged_at: int | None  # the first step whose loss was not finite


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    lr: float,
    steps: int,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    optimizer: Callable[..., Optimizer] = SGD,
    observers: Iterable[Observer] = (),
) -> Run:
    """Train `model` in place: theta <- theta - lr * gradient, for the default optimizer.

    `batches` yields pairs (x, y); `loss(model(x), y)` is the scalar to minimise; `optimizer(parameters,
    lr=lr)` makes the optimizer. Each observer is called with a `Context` before every update and may return
    a list of dicts, which become `Run.records`. A run whose loss is no longer finite stops there.

    Raises ValueError for a negative or non-finite lr, steps below 1, a model without trainable parameters,
    or batches that end too early.

    >>> from itertools import repeat
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(40, 3)
    >>> run = fit(nn.Linear(3, 3), repeat((x, -x)), lr=0.1, steps=50, loss=nn.functional.mse_loss)
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
                f"batches ended after {step} of {steps} steps; give an endless iterator, such as itertools.cycle(loader)"
            ) from None

        def batch_loss(net: nn.Module, x: Tensor = x, y: Tensor = y) -> Tensor:
            return loss(net(x), y)

        context = Context(step, model, batch_loss, descent, lr)
        for observer in observers:
            records.extend({"step": step, **record} for record in observer(context) or ())
        losses[step] = _prepare_gradient(context)
        if not isfinite(losses[step]):
            return Run(losses, records, diverged_at=step)
        descent.step()
    return Run(losses, records, diverged_at=None)


def _prepare_gradient(context: Context) -> float:
    """Put the gradient of the current mini-batch into `.grad` and return the loss.

    Running statistics and random generators advance by exactly one forward pass, so that an observed run is
    the same run as an unobserved one.
    """
    if context.gradient is None:
        value, gradient = value_and_gradient(context.model, context.loss, trainable(context.model))
        loss = value.item()
    elif context.advanced is None or context.loss0 is None:
        with torch.no_grad():
            gradient, loss = context.gradient, evaluate(context.model, context.loss).item()
    else:
        context.advanced.rewind()
        gradient, loss = context.gradient, context.loss0
    _set_gradient(context.model, gradient)
    return loss


def _set_gradient(model: nn.Module, gradient: tuple[Tensor, ...]) -> None:
    for parameter, values in zip(trainable(model), gradient, strict=True):
        parameter.grad = values
