"""Observers for `fit`: the instruments of `bnlab.measure.observers`, and the accuracy."""

import torch
from torch import Tensor

from bnlab.measure.observers import activations as activations
from bnlab.measure.observers import covariate_shift as covariate_shift
from bnlab.measure.observers import curvature as curvature
from bnlab.measure.observers import landscape as landscape

from .loop import Context, Observer


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
