"""Batches on which answers are tried: random, the same in every run, in double precision."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def normals(seed: int) -> Callable[..., Tensor]:
    """A function of a shape that draws standard normal values, new ones at each call."""
    random = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=random, dtype=torch.float64)


def double(values: float | Sequence[float] | Tensor) -> Tensor:
    """The values as a tensor in double precision."""
    return torch.as_tensor(values, dtype=torch.float64)


def spread(x: Tensor) -> Tensor:
    """Standard deviation of each unit of a batch (m, ...), divided by m as batch normalization does."""
    return x.std(0, correction=0)
