"""What all layers share: how they are called and what they accept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .normalize import statistics_dtype


class Layer(nn.Module):
    """A layer that graph tools see as torch's own.

    ``torch.fx`` records it as one call of the module. ``torch.func`` works in reverse mode; forward mode
    (``jvp``, ``jacfwd``, ``hessian``) is not defined. ``torch.jit.trace`` works; what it traced cannot be
    saved, nor exported to ONNX by TorchScript, where the backward pass and the batch size would be frozen:
    ``torch.export`` and ``torch.onnx.export(dynamo=True)`` take it.
    """

    def __call__(self, *args, **kwargs):
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.fx.Proxy):
                name = value.tracer.path_of_module(self)  # type: ignore[attr-defined]
                return value.tracer.create_proxy("call_module", name, args, kwargs)
        return super().__call__(*args, **kwargs)


def parameters(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    """The layer's weight and bias in a shape that broadcasts over its input."""
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    return None if weight is None else weight.view(shape), None if bias is None else bias.view(shape)


def check_input(layer: nn.Module, x: Tensor) -> None:
    """Raise unless x is floating point and the layer's parameters and buffers fit its dtype."""
    name = type(layer).__name__
    if not x.is_floating_point():
        raise NotImplementedError(f"{name} needs floating-point input, got {x.dtype}; use x.float()")
    fitting = (x.dtype, statistics_dtype(x))
    for t in (*layer._parameters.values(), *layer._buffers.values()):
        if t is not None and t.dtype not in fitting and t.is_floating_point():
            raise RuntimeError(
                f"{name} holds {t.dtype}, but the input is {x.dtype}: mixed dtypes are not supported; "
                f"use layer.to({x.dtype}) or convert the input"
            )
