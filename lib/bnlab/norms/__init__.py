"""Normalization layers from scratch: each a drop-in for PyTorch's where PyTorch has one."""

from .batch import BatchNorm, GhostBatchNorm, LpBatchNorm, NoisyBatchNorm
from .convert import convert
from .pointwise import ELU, SELU, DynamicTanh
from .sample import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from .weight import weight_norm

__all__ = [
    "ELU",
    "SELU",
    "BatchNorm",
    "DynamicTanh",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LpBatchNorm",
    "NoisyBatchNorm",
    "RMSNorm",
    "convert",
    "weight_norm",
]
