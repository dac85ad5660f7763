"""The normalization layers of a network: which there are, and what they store."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .. import norms

# The buffers by which a layer of unknown class is recognized: its stored mean and its stored variance.
STORED = (
    ("running_mean", "running_var"),
    ("running_mean", "running_norm"),
    ("moving_mean", "moving_var"),
    ("moving_mean", "moving_variance"),
)
_BATCH = (_BatchNorm, norms.BatchNorm, norms.LpBatchNorm)
_INSTANCE = (_InstanceNorm, norms.InstanceNorm)
_SAMPLE = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, norms.LayerNorm, norms.GroupNorm, norms.RMSNorm)


@dataclass(frozen=True, eq=False)
class NormLayer:
    """One normalization layer and its name in the network."""

    name: str
    module: nn.Module
    kind: str  # "batch", "instance" (a channel of a sample) or "sample" (nothing is stored)
    buffers: tuple[str, str] | None  # names of the stored mean and spread; None where nothing is stored

    @property
    def stored_mean(self) -> Tensor:
        """(C,) float64."""
        return self._stored(0)

    @property
    def stored_spread(self) -> Tensor:
        """(C,) float64: what eval mode divides by, eps included."""
        stored = self._stored(1)
        return stored + self.eps if self.divides_by_norm else (stored + self.eps).sqrt()

    def _stored(self, which: int) -> Tensor:
        if self.buffers is None:
            raise ValueError(f"{self.name or 'the layer'} stores no statistics")
        return getattr(self.module, self.buffers[which]).detach().double().cpu()

    @property
    def divides_by_norm(self) -> bool:
        """Whether the stored spread is an l_p norm (`LpBatchNorm`) and not a variance."""
        return self.buffers is not None and self.buffers[1] == "running_norm"

    @property
    def eps(self) -> float:
        value = getattr(self.module, "eps", None)
        return 0.0 if value is None else float(value)

    @property
    def momentum(self) -> float | None:
        """The weight of a new batch; None for a plain average of all batches, or where it is not known."""
        return getattr(self.module, "momentum", None)

    @property
    def updates(self) -> int | None:
        """How many batches the layer has counted, or None."""
        count = getattr(self.module, "num_batches_tracked", None)
        return None if count is None or self.kind == "instance" else int(count)

    @property
    def gamma(self) -> Tensor | None:
        """The learned scale."""
        return getattr(self.module, "weight", None)

    @property
    def beta(self) -> Tensor | None:
        """The learned shift."""
        return getattr(self.module, "bias", None)

    @property
    def channels(self) -> int | None:
        if self.buffers is not None:
            return getattr(self.module, self.buffers[0]).numel()
        return getattr(self.module, "num_features", None)

    def channels_last(self, x: Tensor) -> Tensor | None:
        """The input as (samples, positions, C), or None where its channels are not found."""
        if self.kind == "instance" and x.dim() > 1 and x.dim() == _unbatched_rank(self.module):
            x = x.unsqueeze(0)
        if x.dim() < 2 or not x.is_floating_point():
            return None
        if self.channels in (None, x.size(1)):
            return x.flatten(2).transpose(1, 2) if x.dim() > 2 else x.unsqueeze(1)
        return x.flatten(1, -2) if x.size(-1) == self.channels and x.dim() > 2 else None


def _unbatched_rank(module: nn.Module) -> int | None:
    """The rank of one sample, for torch's instance norms, which take it without a batch."""
    ranks = {nn.InstanceNorm1d: 2, nn.InstanceNorm2d: 3, nn.InstanceNorm3d: 4}
    return next((rank for kind, rank in ranks.items() if isinstance(module, kind)), None)


def find_layers(model: nn.Module) -> list[NormLayer]:
    """Every normalization layer of `model`, in the order of registration.

    Known by class are torch's layers and this library's, and what is derived from them; a layer of another
    class is known by buffers called running_mean and running_var (or moving_mean and moving_var).
    """
    layers = []
    for name, module in model.named_modules():
        kind = _kind(module)
        if kind:
            layers.append(NormLayer(name, module, kind, _stored_names(module)))
    return layers


def _kind(module: nn.Module) -> str | None:
    if isinstance(module, _INSTANCE):
        return "instance"
    if isinstance(module, _SAMPLE):
        return "sample"
    return "batch" if isinstance(module, _BATCH) or _stored_names(module) else None


def _stored_names(module: nn.Module) -> tuple[str, str] | None:
    for names in STORED:
        if all(isinstance(module._buffers.get(name), torch.Tensor) for name in names):
            return names
    return None
