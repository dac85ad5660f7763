"""Observers for `fit`: each looks at the network every so many steps and returns rows of results."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnlab.measure import internal_covariate_shift, probe
from bnlab.measure.gradient import norm

from .loop import Context, Observer


def landscape(step_sizes: Sequence[float], every: int) -> Observer:
    """Probe the loss along the gradient ([2] Fig. 4): one row per step size, of kind "landscape".

    The probe's gradient is handed to the training step. `weight_norm` is the norm of all weight matrices.
    """

    def observe(context: Context) -> list[dict] | None:
        if context.step % every:
            return None
        found = probe(context.model, context.loss, step_sizes)
        context.gradient, context.loss0 = found.gradient, found.loss0
        weights = norm([p for p in context.model.parameters() if p.ndim > 1])
        start = {
            "kind": "landscape",
            "loss0": found.loss0,
            "gradient_norm": found.gradient_norm,
            "weight_norm": weights,
        }
        columns = zip(step_sizes, found.loss, found.gradient_distance, found.cosine, found.beta, strict=True)
        names = ("step_size", "loss", "gradient_distance", "cosine", "beta")
        return [start | dict(zip(names, values, strict=True)) for values in columns]

    return observe


def covariate_shift(every: int, layers: Sequence[int] | None = None) -> Observer:
    """[2] Def. 2.1 of some layers (counted from 1; all if None): one row per layer, of kind "shift"."""

    def observe(context: Context) -> list[dict] | None:
        if context.step % every:
            return None
        shifts = internal_covariate_shift(context.model, context.loss, context.step_function)
        return [
            {"kind": "shift", "layer": i, "l2": shift.l2, "cosine": shift.cosine}
            | {"gradient_norm": shift.gradient_norm}
            for i, shift in enumerate(shifts.values(), start=1)
            if layers is None or i in layers
        ]

    return observe


def accuracy(images: Tensor, labels: Tensor, every: int) -> Observer:
    """Share of right answers in test mode: one row of kind "accuracy"."""

    def observe(context: Context) -> list[dict] | None:
        if context.step % every:
            return None
        return [{"kind": "accuracy", "test_accuracy": test_accuracy(context.model, images, labels)}]

    return observe


@torch.no_grad()
def test_accuracy(model: torch.nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers in test mode, in [0, 1]; the network's mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    pairs = zip(images.split(500), labels.split(500), strict=True)
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in pairs)
    for module, mode in modes:
        module.training = mode
    return right / len(labels)
