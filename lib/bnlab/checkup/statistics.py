"""The statistics of a layer's input: of one call, and of all samples together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .layers import NormLayer


@dataclass(frozen=True, eq=False)
class Call:
    """What one call of a layer saw. All tensors are float64 on the CPU, one entry per channel."""

    batch: int
    samples: int
    positions: int
    mean: Tensor  # (C,)
    within: Tensor  # (C,) mean over the samples of the biased variance over the positions of a sample
    between: Tensor  # (C,) biased variance of the samples' means
    power: Tensor | None  # (C,) mean of |x|^p (p = inf: the largest |x|), for layers that divide by a norm

    @property
    def count(self) -> int:
        """Values per channel."""
        return self.samples * self.positions

    @property
    def var(self) -> Tensor:
        """(C,) biased variance over all values of the call."""
        return self.within + self.between


def call_statistics(layer: NormLayer, x: Tensor, batch: int) -> Call | None:
    """The statistics of one input, or None where the layer's channels are not found in it."""
    values = layer.channels_last(x.detach())
    if values is None or not values.numel():
        return None
    exact = values if values.dtype in (torch.float32, torch.float64) else values.float()
    within, sample_means = torch.var_mean(exact, 1, correction=0)
    sample_means = sample_means.double()
    between, mean = torch.var_mean(sample_means, 0, correction=0)
    power = None
    if layer.divides_by_norm:
        p, size = float(layer.module.p), exact.abs().double()  # type: ignore[arg-type]
        power = size.amax((0, 1)) if p == float("inf") else size.pow(p).mean((0, 1))
    tensors = (mean, within.double().mean(0), between, power)
    on_cpu = (None if tensor is None else tensor.cpu() for tensor in tensors)
    return Call(batch, values.size(0), values.size(1), *on_cpu)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Population:
    """The statistics of all samples of several calls together."""

    mean: Tensor  # (C,)
    var: Tensor  # (C,) unbiased; for an instance norm the average over the samples, as it is stored
    norm: Tensor | None  # (C,) for layers that divide by a norm

    def spread(self, layer: NormLayer) -> Tensor:
        """(C,) what the layer would divide by, eps included."""
        return (self.var + layer.eps).sqrt() if self.norm is None else self.norm + layer.eps


def population(layer: NormLayer, calls: list[Call]) -> Population:
    r"""Pool the calls exactly, by the law of total variance.

    .. math:: \mu = \sum_b \tfrac{m_b}{M} \mu_b, \qquad
              \sigma^2 = \tfrac{M}{M-1} \sum_b \tfrac{m_b}{M} (\sigma_b^2 + (\mu_b - \mu)^2)

    with m_b values in call b, M in all.
    """
    count = torch.tensor([[call.count] for call in calls], dtype=torch.float64)
    share, total = count / count.sum(), float(count.sum())
    means = torch.stack([call.mean for call in calls])
    mean = (share * means).sum(0)
    if layer.kind == "instance":
        ones = [call.within * call.positions / max(call.positions - 1, 1) for call in calls]
        var = (share * torch.stack(ones)).sum(0)
    else:
        var = (share * (torch.stack([call.var for call in calls]) + (means - mean) ** 2)).sum(0)
        var = var * total / max(total - 1, 1)
    powers = [call.power for call in calls if call.power is not None]
    return Population(mean, var, _pooled_norm(layer, powers, share) if powers else None)


def _pooled_norm(layer: NormLayer, powers: list[Tensor], share: Tensor) -> Tensor:
    p = float(layer.module.p)  # type: ignore[arg-type]
    stacked = torch.stack(powers)
    return stacked.amax(0) if p == float("inf") else (share * stacked).sum(0) ** (1 / p)


Seen = Callable[[NormLayer, Tensor], None]


@contextmanager
def watched(layers: list[NormLayer], seen: Seen) -> Iterator[None]:
    """Call ``seen(layer, input)`` before each call of each layer."""

    def before(layer: NormLayer) -> Callable:
        def hook(module, args, kwargs) -> None:
            x = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(x, Tensor):
                seen(layer, x)

        return hook

    hooks = [layer.module.register_forward_pre_hook(before(layer), with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
