"""What all layers share: how they are called and what they accept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .normalize import statistics_dtype


class Layer(nn.Module):
    """A layer that graph tools see as torch's own.

    ``torch.fx`` records it as one call of the module. ``torch.jit.trace`` works; what it traced cannot be
    saved, and the ONNX exporter for TorchScript refuses it, because both would freeze the shapes.
    """

    def __call__(self, *args, **kwargs):
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.fx.Proxy):
                return self._record(value.tracer, args, kwargs)
        return super().__call__(*args, **kwargs)

    def _record(self, tracer, args, kwargs):
        name = tracer.path_of_module(self)
        if not name:
            raise TypeError(
                f"torch.fx was given a {type(self).__name__} alone; trace a model that contains it, "
                "such as nn.Sequential(layer)"
            )
        return tracer.create_proxy("call_module", name, args, kwargs)


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
