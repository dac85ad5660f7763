"""The instruments as observers of a training loop: each looks every so many steps and returns rows.

An observer is called before each update with a `Context` (what `bnlab.fit` hands out) and returns a list of
dicts, one per row of a tidy table, or None. Each row has a `kind`. Watching changes nothing: a watched run
is, bit for bit, the run nobody watched. The loss of a step is that of one batch, and is not checked for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .curvature import sharpness
from .distribution import ActivationTrack
from .gradient import Loss, norm
from .landscape import probe
from .shift import Layers, Order, internal_covariate_shift


@dataclass(frozen=True)
class Context:
    """What an observer sees before the update of one training step."""

    step: int  # 0 is the untrained network
    model: nn.Module
    loss: Loss  # takes a model, returns the scalar loss on the current mini-batch
    optimizer: Optimizer
    lr: float  # as given to `fit`

    def update(self, model: nn.Module) -> None:
        """Apply to the network the optimizer's real update for the gradient in `.grad`, momentum and all.

        It is what `internal_covariate_shift` takes as `step`.
        """
        if model is not self.model:
            raise ValueError("model must be the network in training: the optimizer holds its parameters")
        self.optimizer.step()


Rows = list[dict] | None
Observer = Callable[[Context], Rows]


def landscape(step_sizes: Sequence[float], *, every: int) -> Observer:
    """`probe` every so many steps: one row per step size, of kind "landscape".

    A probed step costs k + 2 passes for k step sizes, the training step's own among them. `weight_norm` is
    the norm of all parameters with at least two dimensions.
    """

    def observe(context: Context) -> Rows:
        look = probe(context.model, context.loss, step_sizes, check=False)
        start = {
            "kind": "landscape",
            "loss0": look.loss0,
            "gradient_norm": look.gradient_norm,
            "weight_norm": norm([p.detach() for p in context.model.parameters() if p.ndim > 1]),
        }
        names = ("step_size", "loss", "gradient_distance", "cosine", "beta")
        columns = (look.step_sizes, look.loss, look.gradient_distance, look.cosine, look.beta)
        rows = np.stack(columns, axis=1).tolist()
        return [start | dict(zip(names, row, strict=True)) for row in rows]

    return _every(every, observe)


def covariate_shift(*, every: int, layers: Layers | None = None, order: Order = "execution") -> Observer:
    """`internal_covariate_shift` of some layers (names, or numbers from 1; all if None): kind "shift"."""

    def observe(context: Context) -> Rows:
        shifts = internal_covariate_shift(
            context.model, context.loss, context.update, layers=layers, order=order
        )
        numbered = zip(shifts.numbers, shifts.items(), strict=True)
        return [
            {"kind": "shift", "layer": number, "name": name, **vars(shift)}
            for number, (name, shift) in numbered
        ]

    return _every(every, observe)


def curvature(*, every: int, k: int = 1) -> Observer:
    """`sharpness` on the current mini-batch: one row per eigenvalue, of kind "curvature"."""

    def observe(context: Context) -> Rows:
        top = sharpness(context.model, context.loss, k=k, check=False)
        pairs = zip(top.eigenvalues.tolist(), top.residuals.tolist(), strict=True)
        return [
            {"kind": "curvature", "rank": rank, "eigenvalue": value, "residual": residual}
            | {"converged": top.converged}
            for rank, (value, residual) in enumerate(pairs, start=1)
        ]

    return _every(every, observe)


def activations(track: ActivationTrack, *, every: int) -> Observer:
    """A track made by `track_activations`: one row per layer and unit, of kind "activations"."""

    def observe(context: Context) -> Rows:
        return [
            {"kind": "activations", "name": name, **row}
            for name, now in track.record(context.step).items()
            for row in now.frame().to_dict("records")
        ]

    return _every(every, observe)


def accuracy(images: Tensor, labels: Tensor, *, every: int) -> Observer:
    """Share of right answers in test mode: one row of kind "accuracy"."""

    def observe(context: Context) -> Rows:
        return [{"kind": "accuracy", "test_accuracy": test_accuracy(context.model, images, labels)}]

    return _every(every, observe)


@torch.no_grad()
def test_accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers in test mode, in [0, 1]; the network's mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    pairs = zip(images.split(500), labels.split(500), strict=True)
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in pairs)
    for module, mode in modes:
        module.training = mode
    return right / len(labels)


def _every(k: int, observe: Observer) -> Observer:
    if not (isinstance(k, int) and k >= 1):
        raise ValueError(f"every: expected an integer of at least 1, got {k!r}")
    return lambda context: observe(context) if context.step % k == 0 else None
