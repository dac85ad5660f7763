"""The instruments as observers of a training loop: each looks every so many steps and returns rows.

An observer is called before each update with a `Step` (what `bnlab.fit` hands out) and returns a list of
dicts, one per row of a tidy table, or None. Each row has a `kind`. Watching changes nothing: a watched run
is, bit for bit, the run nobody watched.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .curvature import sharpness
from .distribution import PERCENTILES, ActivationTrack
from .frozen import ForwardState
from .gradient import Loss, norm
from .landscape import probe_and_advance
from .shift import internal_covariate_shift


class Step(Protocol):
    """What an observer sees of one training step."""

    step: int  # 0 is the untrained network
    model: nn.Module
    loss: Loss  # on the current mini-batch
    # A probe leaves here what its training step would compute itself, so that it need not.
    gradient: tuple[Tensor, ...] | None
    loss0: float | None
    advanced: ForwardState | None  # buffers and random generators after the one forward pass

    def step_function(self, model: nn.Module) -> None:
        """Apply the optimizer's real update for the gradient in `.grad`."""


Rows = list[dict] | None
Observer = Callable[[Step], Rows]


def landscape(step_sizes: Sequence[float], every: int) -> Observer:
    """`probe` every so many steps: one row per step size, of kind "landscape".

    The probe's gradient is handed to the training step, which then costs k + 1 passes in all for k step
    sizes. `weight_norm` is the norm of all parameters with at least two dimensions.
    """

    def observe(at: Step) -> Rows:
        found, at.advanced = probe_and_advance(at.model, at.loss, step_sizes)
        at.gradient, at.loss0 = found.gradient, found.loss0
        start = {
            "kind": "landscape",
            "loss0": found.loss0,
            "gradient_norm": found.gradient_norm,
            "weight_norm": norm([p.detach() for p in at.model.parameters() if p.ndim > 1]),
        }
        names = ("step_size", "loss", "gradient_distance", "cosine", "beta")
        columns = (found.step_sizes, found.loss, found.gradient_distance, found.cosine, found.beta)
        rows = np.stack(columns, axis=1).tolist()
        return [start | dict(zip(names, row, strict=True)) for row in rows]

    return _every(every, observe)


def covariate_shift(every: int, layers: Sequence[int] | None = None) -> Observer:
    """`internal_covariate_shift` of some layers (counted from 1; all if None): rows of kind "shift"."""

    def observe(at: Step) -> Rows:
        shifts = internal_covariate_shift(at.model, at.loss, at.step_function)
        return [
            {"kind": "shift", "layer": i, "name": name, **vars(shift)}
            for i, (name, shift) in enumerate(shifts.items(), start=1)
            if layers is None or i in layers
        ]

    return _every(every, observe)


def curvature(every: int, k: int = 1) -> Observer:
    """`sharpness` on the current mini-batch: one row per eigenvalue, of kind "curvature"."""

    def observe(at: Step) -> Rows:
        found = sharpness(at.model, at.loss, k=k)
        pairs = enumerate(zip(found.eigenvalues.tolist(), found.residuals.tolist(), strict=True), start=1)
        return [
            {"kind": "curvature", "rank": i, "eigenvalue": value, "residual": residual}
            | {"converged": found.converged}
            for i, (value, residual) in pairs
        ]

    return _every(every, observe)


def activations(track: ActivationTrack, every: int) -> Observer:
    """A track made by `track_activations`: one row per module and unit, of kind "activations"."""

    def observe(at: Step) -> Rows:
        rows = []
        for name, now in track.record(at.step).items():
            for unit in range(len(now.mean)):
                moments = {m: float(getattr(now, m)[unit]) for m in ("mean", "std", "skewness", "kurtosis")}
                levels = {f"p{p}": float(now.percentiles[i, unit]) for i, p in enumerate(PERCENTILES)}
                rows.append({"kind": "activations", "name": name, "unit": unit} | moments | levels)
        return rows

    return _every(every, observe)


def accuracy(images: Tensor, labels: Tensor, every: int) -> Observer:
    """Share of right answers in test mode: one row of kind "accuracy"."""
    return _every(
        every, lambda at: [{"kind": "accuracy", "test_accuracy": test_accuracy(at.model, images, labels)}]
    )


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
    return lambda at: observe(at) if at.step % k == 0 else None
