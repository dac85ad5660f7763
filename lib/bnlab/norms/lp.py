"""The l_p norm in place of the standard deviation: the formula, and a node that keeps its input."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .functional import batch_layout
from .normalize import centre, refuse_torchscript_export, statistics_dtype


def lp_batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, p: float, eps: float) -> Tensor:
    r"""Centre each channel, then divide by the average l_p norm it had before.

    .. math:: y = \gamma\,\frac{x - \mu}{(\frac1m \sum_b |x_b|^p)^{1/p} + \epsilon} + \beta

    As plain tensor algebra; arguments as `functional.batch_norm`, p as `LpBatchNorm`. Source: Santurkar et
    al. 2018, section 3.3.

    >>> lp_batch_norm(torch.tensor([[1.0], [3.0]]), None, None, p=1, eps=0.0)
    tensor([[-0.5000],
            [ 0.5000]])
    """
    return _formula(x, weight, bias, p, eps)[0]


def lp_normalize(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, p: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`lp_batch_norm`, and per channel the mean and the l_p norm, not differentiable."""
    refuse_torchscript_export()
    return _LpNormalize.apply(x, weight, bias, p, eps)


def _formula(x, weight, bias, p, eps):
    dims, per_channel = batch_layout(x)
    mean, centred = centre(x, dims)
    norm = _average_norm(x.to(statistics_dtype(x)), p, dims)
    y = centred / (norm + eps)
    if weight is not None:
        y = y * weight.view(per_channel)
    if bias is not None:
        y = y + bias.view(per_channel)
    return y.to(x.dtype), mean, norm


def _average_norm(x: Tensor, p: float, dims: tuple[int, ...]) -> Tensor:
    """(mean |x|^p)^(1/p) over `dims`."""
    size = x.abs()
    if p == 1 or not x.numel():
        return size.sum(dims, keepdim=True) / max(1, x.numel() // x.size(1))
    if p == math.inf:
        return size.amax(dims, keepdim=True)
    # Divided by the largest magnitude, the powers neither overflow nor vanish.
    largest = size.detach().amax(dims, keepdim=True)
    unit = torch.where(largest == 0, 1, largest)
    power = (size / unit).pow(p).mean(dims, keepdim=True)
    return largest * (power + (largest == 0)).pow(1 / p)


class _LpNormalize(torch.autograd.Function):
    """The formula, kept as its input: the backward pass computes it again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, bias, p, eps):
        return _formula(x, weight, bias, p, eps)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.p, ctx.eps = inputs
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx, grad, _mean, _norm):
        tensors = ctx.saved_tensors
        given = [t for t in tensors if t is not None]

        def formula(*given):
            found = iter(given)
            x, weight, bias = (None if t is None else next(found) for t in tensors)
            return _formula(x, weight, bias, ctx.p, ctx.eps)[0]

        found = iter(torch.func.vjp(formula, *given)[1](grad))
        return *(None if t is None else next(found) for t in tensors), None, None
