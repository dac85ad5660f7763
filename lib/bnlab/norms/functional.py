"""Normalization as formulas: what every layer of this package computes, and its derivative.

`batch_norm` and `batch_norm_backward` are plain tensor algebra, to be read. `normalize` computes the same
numbers for all layers at once (batch, layer, group, instance, ghost, RMS): they differ only in the set of
values that share one mean and one variance. It keeps the input and two numbers per set for the backward
pass, nothing else of the input's size.

[1] Ioffe & Szegedy 2015, arXiv:1502.03167.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 2**18  # values per temporary: it stays in the processor's cache


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    r"""Batch normalization with the statistics of the batch, [1] Alg. 1.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    :math:`\mu` and :math:`\sigma^2` (biased: divided by m, not by m - 1) are taken per channel, over all
    other dimensions.

    Args:
        x: (N, C, ...), at least one value per channel.
        weight: :math:`\gamma`, (C,), or None for 1.
        bias: :math:`\beta`, (C,), or None for 0.
        eps: added to the variance. Zero is allowed; a constant channel then gives NaN.

    Returns:
        y, shaped like x.

    >>> x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    >>> batch_norm(x, None, None, eps=0.0)
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """
    dims, per_channel = _batch_layout(x)
    mean = x.mean(dims, keepdim=True)
    var = (x - mean).square().mean(dims, keepdim=True)
    y = (x - mean) / torch.sqrt(var + eps)
    if weight is not None:
        y = y * weight.view(per_channel)
    if bias is not None:
        y = y + bias.view(per_channel)
    return y


def batch_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The derivative of `batch_norm`: from dL/dy to dL/dx, dL/dgamma, dL/dbeta.

    .. math::
        \frac{\partial L}{\partial x} = \frac{\gamma}{\sqrt{\sigma^2+\epsilon}}
            \Big(g - \overline{g} - \hat x\,\overline{g\hat x}\Big), \quad
        \frac{\partial L}{\partial \gamma} = \sum g\,\hat x, \quad
        \frac{\partial L}{\partial \beta} = \sum g

    where g = dL/dy and the bar is the mean over the batch: the four lines of [1] §3 put together. It is
    itself differentiable, so second derivatives follow from it.

    Args:
        grad: dL/dy, shaped like x.
        x: the input of the forward pass, (N, C, ...).
        weight: :math:`\gamma`, (C,), or None for 1.
        eps: as in the forward pass.

    Returns:
        dx, shaped like x; dweight, (C,); dbias, (C,).

    >>> x, grad = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[1.0], [0.0], [0.0]])
    >>> dx, dweight, dbias = batch_norm_backward(grad, x, None, eps=1e-5)
    >>> round(dx.sum().item(), 6), dbias  # the gradient of a batch has no mean
    (0.0, tensor([1.]))
    """
    dims, per_channel = _batch_layout(x)
    weight = x.new_ones(x.size(1)) if weight is None else weight
    dx, dweight, dbias = normalize_backward(grad, x, weight.view(per_channel), dims, eps)
    return dx, dweight.flatten(), dbias.flatten()


def _batch_layout(x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The dimensions a channel's statistics run over, and the shape of one number per channel."""
    return (0, *range(2, x.dim())), (1, -1, *(1,) * (x.dim() - 2))


def normalize_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, dims: tuple[int, ...], eps: float, centre: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivative of `normalize` as plain, differentiable tensor algebra; see `batch_norm_backward`.

    `dweight` and `dbias` have the shape of `weight` (of x where it is None).
    """
    mean = x.mean(dims, keepdim=True) if centre else 0.0
    invstd = ((x - mean).square().mean(dims, keepdim=True) + eps).rsqrt()
    normalized = (x - mean) * invstd
    scaled = grad if weight is None else grad * weight
    dx = scaled - normalized * (scaled * normalized).mean(dims, keepdim=True)
    if centre:
        dx = dx - scaled.mean(dims, keepdim=True)
    shape = x.shape if weight is None else weight.shape
    return dx * invstd, (grad * normalized).sum_to_size(shape), grad.sum_to_size(shape)


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    dims: tuple[int, ...],
    eps: float,
    centre: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Standardize x over `dims`, then scale and shift: the one computation behind all layers.

    .. math:: y = w\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + b

    Statistics are float32 for bfloat16 and float16 input. The variance is the mean square of the centred
    values, which does not cancel when the mean is large. A constant set gives exactly b.

    Args:
        x: any shape.
        weight, bias: broadcastable to x, with as many dimensions as x; or None.
        dims: the dimensions that share one mean and one variance.
        eps: added to the variance.
        centre: False leaves the mean in and divides by the root mean square (RMSNorm).

    Returns:
        y, shaped like x; the mean and the biased variance (or mean square), with size 1 along `dims`,
        not differentiable.

    >>> y, mean, var = normalize(torch.tensor([[0.0, 2.0], [5.0, 5.0]]), None, None, dims=(1,), eps=1e-5)
    >>> mean.flatten(), var.flatten()
    (tensor([1., 5.]), tensor([1., 0.]))
    """
    return _Normalize.apply(x, weight, bias, dims, eps, centre)


class _Normalize(torch.autograd.Function):
    """`normalize`. Backward uses the saved statistics; a backward that is itself to be differentiated
    goes through `normalize_backward`."""

    @staticmethod
    def forward(x, weight, bias, dims, eps, centre):
        stats_dtype = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
        count = max(_count(x, dims), 1)
        mean = x.sum(dims, keepdim=True, dtype=stats_dtype).div_(count) if centre else None
        if centre and x.numel():
            # The rounded mean of a constant can miss the constant by some units in the last place.
            first = x[tuple(slice(0, 1) if d in dims else slice(None) for d in range(x.dim()))]
            close = (first - mean).abs_() <= 32 * torch.finfo(stats_dtype).eps * mean.abs()
            mean = torch.where(close, first, mean)
        y = x - mean if centre else x.to(stats_dtype, copy=True)
        var = _sum_of_products(y, y, dims).div_(count)
        scale = (var + eps).rsqrt_()
        if weight is not None and not _constant_dims(weight, dims):
            y.mul_(scale)
            scale = weight
        elif weight is not None:
            scale = scale * weight
        y.mul_(scale)
        if bias is not None:
            y.add_(bias)
        return y.to(x.dtype), mean if centre else torch.zeros_like(var), var

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.dims, ctx.eps, ctx.centre = inputs
        _, mean, var = output
        ctx.save_for_backward(x, weight, mean, var)
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad, _mean, _var):
        if grad is None:
            return (None,) * 6
        x, weight, mean, var = ctx.saved_tensors
        if torch.is_grad_enabled():
            dx, dweight, dbias = normalize_backward(grad, x, weight, ctx.dims, ctx.eps, ctx.centre)
        else:
            dx, dweight, dbias = _backward(grad, x, weight, mean, var, ctx.dims, ctx.eps, ctx.centre)
        _, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        return dx, dweight if needs_weight else None, dbias if needs_bias else None, None, None, None


def _backward(grad, x, weight, mean, var, dims, eps, centre):
    """`normalize_backward` with the statistics given and one temporary of x's size.

    Sums first run over the dimensions along which the weight is constant; what is left is small in
    every layer but LayerNorm and RMSNorm, where each value has its own weight.
    """
    count = max(_count(x, dims), 1)
    inner = dims if weight is None else _constant_dims(weight, dims)
    invstd = (var + eps).rsqrt_()
    dx = x - mean if centre else x.to(var.dtype, copy=True)
    dot = _sum_of_products(grad, dx, inner)
    total = grad.sum(inner, keepdim=True, dtype=var.dtype) if inner else grad
    dweight = dbias = None
    if weight is not None:
        dweight, dbias = (dot * invstd).sum_to_size(weight.shape), total.sum_to_size(weight.shape)
        dweight, dbias = dweight.to(weight.dtype), dbias.to(weight.dtype)
        dot, total = (dot * weight).sum(dims, keepdim=True), (total * weight).sum(dims, keepdim=True)
    # dx = invstd * (w g - mean(w g) - (x - mean) invstd^2 mean(w g (x - mean)))
    dx.mul_(-dot * invstd**3 / count)
    if weight is None:
        dx.addcmul_(grad, invstd)
    elif inner:
        dx.addcmul_(grad, weight * invstd)
    else:
        dx.addcmul_(grad * weight, invstd)
    if centre:
        dx.sub_(total * invstd / count)
    return dx.to(x.dtype), dweight, dbias


def _sum_of_products(a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
    """(a * b).sum(dims, keepdim=True), slice by slice, so that no temporary of the full size arises."""
    if not dims or a.numel() <= _CHUNK:
        return (a * b).sum(dims, keepdim=True) if dims else a * b
    rows = max(1, _CHUNK * a.size(0) // a.numel())
    parts = [(p * q).sum(dims, keepdim=True) for p, q in zip(a.split(rows), b.split(rows), strict=True)]
    return torch.cat(parts).sum(0, keepdim=True) if 0 in dims else torch.cat(parts)


def _constant_dims(weight: Tensor, dims: tuple[int, ...]) -> tuple[int, ...]:
    """Those of `dims` along which the weight does not change."""
    return tuple(d for d in dims if weight.size(d) == 1)


def _count(x: Tensor, dims: tuple[int, ...]) -> int:
    """How many values share one mean."""
    count = 1
    for d in dims:
        count *= x.size(d)
    return count
