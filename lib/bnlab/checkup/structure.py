"""What stands around each normalization layer, read off one pass: no graph is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .layers import NormLayer
from .passes import Forward, run


@dataclass(eq=False)
class Place:
    """Where one layer stands in the network."""

    order: int = -1  # of its first call among all layers' calls
    calls: int = 0  # in one pass
    producer_name: str = ""  # the module whose output is its input, unchanged
    producer: nn.Module | None = None
    shape: tuple[int, ...] = ()  # of its input
    contiguous: bool = True
    dtype: torch.dtype = torch.float32
    tokens_last: bool = False  # a linear layer reads or writes a tensor of this shape: features come last
    outputs: list[tuple[int, ...]] = field(default_factory=list)


def trace(
    model: nn.Module, layers: list[NormLayer], batch: Any, forward: Forward | None
) -> dict[NormLayer, Place]:
    """Run `model` once, in the mode it is in, and note the place of each layer that runs, in order of calls.

    A producer is known by memory: the input is the memory that a module without children wrote last, at the
    same version. The outputs of that one pass are kept until it ends.
    """
    by_module = {layer.module: layer for layer in layers}
    places: dict[NormLayer, Place] = {}
    written: dict[int, tuple[str, nn.Module, int, int]] = {}  # by memory: writer, version, number of values
    held: list[Tensor] = []
    features_last: set[tuple[int, ...]] = set()

    def before(module: nn.Module, args: tuple) -> None:
        x = args[0] if args and isinstance(args[0], Tensor) else None
        if x is None or module not in by_module:
            return
        place = places.setdefault(by_module[module], Place(order=len(places)))
        place.calls += 1
        if place.calls > 1:
            return
        place.shape, place.contiguous, place.dtype = tuple(x.shape), x.is_contiguous(), x.dtype
        writer = written.get(x.untyped_storage().data_ptr())
        if writer and writer[2] == x._version and writer[3] == x.numel():
            place.producer_name, place.producer = writer[:2]

    def after(name: str):
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            if isinstance(module, nn.Linear) and args and isinstance(args[0], Tensor):
                features_last.update(tuple(t.shape) for t in (args[0], output) if t.dim() == 3)
            if isinstance(output, Tensor):
                held.append(output)
                memory, as_written = output.untyped_storage().data_ptr(), (output._version, output.numel())
                if written.get(memory, ())[2:] != as_written:  # else it only passed the tensor on
                    written[memory] = (name, module, *as_written)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    hooks = [module.register_forward_hook(after(name)) for name, module in leaves]
    hooks += [layer.module.register_forward_pre_hook(before) for layer in layers]
    try:
        with torch.no_grad():
            run(model, batch, forward)
    finally:
        for hook in hooks:
            hook.remove()
    for place in places.values():
        place.tokens_last = place.contiguous and place.shape in features_last
    return places
