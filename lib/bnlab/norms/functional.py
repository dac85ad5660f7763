"""Normalization as formulas: what every layer of this package computes, and its derivative.

`batch_norm` and `batch_norm_backward` are plain tensor algebra, to be read. `normalize` computes the same
numbers for all layers at once (batch, layer, group, instance, ghost, RMS): they differ only in the set of
values that share one mean and one variance. It keeps the input and two numbers per set for the backward
pass, nothing else of the input's size.

[1] Ioffe & Szegedy 2015, arXiv:1502.03167.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

_CHUNK = 2**19  # values per temporary: it stays in the processor's cache


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
    dims, per_channel = batch_layout(x)
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
    >>> bool(dx.sum().abs() < 1e-6), dbias  # the gradient of a batch has no mean
    (True, tensor([1.]))
    """
    dims, per_channel = batch_layout(x)
    weight = x.new_ones(x.size(1)) if weight is None else weight
    dx, dweight, dbias = normalize_backward(grad, x, weight.view(per_channel), dims, eps)
    return dx, dweight.flatten(), dbias.flatten()


def batch_layout(x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The dimensions a channel's statistics run over, and the shape of one number per channel."""
    return (0, *range(2, x.dim())), (1, -1, *(1,) * (x.dim() - 2))


def statistics_dtype(x: Tensor) -> torch.dtype:
    """float32 for the 16-bit types, whose sums would lose most digits; otherwise x's own."""
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype


def check_input(layer: nn.Module, x: Tensor) -> None:
    """Raise unless x is floating point and the layer's parameters and buffers fit its dtype."""
    name = type(layer).__name__
    if not x.is_floating_point():
        raise NotImplementedError(
            f"{name} needs floating-point input, got {x.dtype}; convert it with .float()"
        )
    fitting = (x.dtype, statistics_dtype(x))
    for t in (*layer._parameters.values(), *layer._buffers.values()):
        if t is not None and t.is_floating_point() and t.dtype not in fitting:
            raise RuntimeError(
                f"{name} holds {t.dtype}, but the input is {x.dtype}: mixed dtypes are not supported; "
                f"use layer.to({x.dtype}) or convert the input"
            )


def normalize_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, dims: tuple[int, ...], eps: float, centre: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivative of `normalize` as plain, differentiable tensor algebra; see `batch_norm_backward`.

    The weight has as many dimensions as x; `dweight` and `dbias` have its shape (that of x where it is None).
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
    shape: tuple[int, ...],
    dims: tuple[int, ...],
    eps: float,
    centre: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    r"""Standardize x over `dims`, then scale and shift: the one computation behind all layers.

    .. math:: y = w\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + b

    Statistics are float32 for bfloat16 and float16 input. The variance is the mean square of the centred
    values, which does not cancel when the mean is large. A constant set gives exactly b.

    Args:
        x: any shape.
        weight, bias: viewed as `shape`, which has as many dimensions as x and broadcasts to it; or None.
        dims: the dimensions that share one mean and one variance.
        eps: added to the variance.
        centre: False leaves the mean in and divides by the root mean square (RMSNorm).

    Returns:
        y, shaped like x; the mean (None if not centred) and the biased variance (or mean square), of size 1
        along `dims`, not differentiable.

    >>> y, mean, var = normalize(torch.tensor([[0.0, 2.0], [5.0, 5.0]]), None, None, (1, 1), (1,), eps=1e-5)
    >>> mean.flatten(), var.flatten()
    (tensor([1., 5.]), tensor([1., 0.]))
    """
    return _Normalize.apply(x, weight, bias, shape, dims, eps, centre)


class _Normalize(torch.autograd.Function):
    """`normalize`. Backward uses the saved statistics; a backward that is itself to be differentiated
    goes through `normalize_backward`."""

    @staticmethod
    def forward(ctx, x, weight, bias, shape, dims, eps, centre):
        ctx.shape, ctx.dims, ctx.eps, ctx.centre = shape, dims, eps, centre
        w = None if weight is None else weight.view(shape)
        mean, y = _centre(x, dims) if centre else (None, x.to(statistics_dtype(x), copy=True))
        var = _sum(torch.square, dims, y).div_(_count(x, dims))
        invstd = (var + eps).rsqrt_()
        ctx.save_for_backward(x, weight, mean, invstd)
        if centre:
            ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        if w is None or _constant_dims(w, dims):
            scale = invstd if w is None else invstd * w
        else:
            y.mul_(invstd)
            scale = w
        y = _affine_(y, scale, None if bias is None else bias.view(shape))
        return _to(y, x.dtype), mean, var

    @staticmethod
    def backward(ctx, grad, _mean, _var):
        if grad is None:
            return (None,) * 7
        x, weight, mean, invstd = ctx.saved_tensors
        w = None if weight is None else weight.view(ctx.shape)
        if torch.is_grad_enabled():
            dx, dweight, dbias = normalize_backward(grad, x, w, ctx.dims, ctx.eps, ctx.centre)
        else:
            dx, dweight, dbias = _backward(grad, x, w, mean, invstd, ctx.dims)
        _, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        dweight = dweight.view(weight.shape) if needs_weight else None
        dbias = dbias.view(weight.shape) if needs_bias else None
        return dx, dweight, dbias, None, None, None, None


def lp_batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, p: float, eps: float) -> Tensor:
    r"""Centre each channel, then divide by the average l_p norm it had before, [2] §3.3.

    .. math:: y = \gamma\,\frac{x - \mu}{(\frac1m \sum_b |x_b|^p)^{1/p} + \epsilon} + \beta

    As plain tensor algebra; arguments as `batch_norm`, p as `LpBatchNorm`.

    >>> lp_batch_norm(torch.tensor([[1.0], [3.0]]), None, None, p=1, eps=0.0)
    tensor([[-0.5000],
            [ 0.5000]])
    """
    dims, per_channel = batch_layout(x)
    size = x.abs()
    if p == math.inf:
        norm = size.amax(dims, keepdim=True)
    else:
        # Divided by the largest magnitude, the powers neither overflow nor vanish.
        largest = size.detach().amax(dims, keepdim=True)
        unit = torch.where(largest == 0, 1, largest)
        power = (size / unit).pow(p).mean(dims, keepdim=True)
        norm = largest * (power + (largest == 0)).pow(1 / p)
    y = (x - x.mean(dims, keepdim=True)) / (norm + eps)
    if weight is not None:
        y = y * weight.view(per_channel)
    if bias is not None:
        y = y + bias.view(per_channel)
    return y


def lp_normalize(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, p: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`lp_batch_norm` with the memory, the speed and the care for digits of `normalize`.

    Returns y, and per channel the mean and the l_p norm, not differentiable.
    """
    return _LpNormalize.apply(x, weight, bias, p, eps)


class _LpNormalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, p, eps):
        ctx.p, ctx.eps = p, eps
        ctx.set_materialize_grads(False)
        dims, shape = batch_layout(x)
        norm = _average_norm(x, p, dims)
        mean, y = _centre(x, dims)
        scale = (norm + eps).reciprocal_()
        if weight is not None:
            scale = scale * weight.view(shape)
        ctx.save_for_backward(x, weight, bias, mean, norm)
        ctx.mark_non_differentiable(mean, norm)
        y = _affine_(y, scale, None if bias is None else bias.view(shape))
        return _to(y, x.dtype), mean, norm

    @staticmethod
    def backward(ctx, grad, _mean, _norm):
        if grad is None:
            return (None,) * 5
        x, weight, bias, mean, norm = ctx.saved_tensors
        if torch.is_grad_enabled():
            wanted = [t for t, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if needed]
            y = lp_batch_norm(x, weight, bias, ctx.p, ctx.eps)
            found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None
        dims, shape = batch_layout(x)
        count, dtype = _count(x, dims), x.dtype
        x = _to(x, norm.dtype)
        inverse = (norm + ctx.eps).reciprocal_()
        dx = x - mean
        dweight = _sum(torch.mul, dims, grad, dx).mul_(inverse)
        dbias = grad.sum(dims, keepdim=True, dtype=norm.dtype)
        scale = inverse if weight is None else inverse * weight.view(shape)
        # dx = scale (g - mean(g)) + dL/dr dr/dx, with dL/dr = -scale sum(g (x - mean)) / (r + eps)
        dx = _norm_slope(x, norm, ctx.p, dims, out=dx).mul_(dweight * scale / -count)
        dx = _to(dx.addcmul_(grad, scale).sub_(dbias * scale / count), dtype)
        _, needs_weight, needs_bias, _, _ = ctx.needs_input_grad
        dweight = _to(dweight.view(-1), weight.dtype) if needs_weight else None
        dbias = _to(dbias.view(-1), bias.dtype) if needs_bias else None
        return dx, dweight, dbias, None, None


def _average_norm(x: Tensor, p: float, dims: tuple[int, ...]) -> Tensor:
    """r = (mean |x|^p)^(1/p) over `dims`."""
    x = _to(x, statistics_dtype(x))
    if not x.numel():
        return x.sum(dims, keepdim=True)
    if p == 1:
        return _sum(torch.abs, dims, x).div_(_count(x, dims))
    if p == 2:
        return _sum(torch.square, dims, x).div_(_count(x, dims)).sqrt_()
    largest = torch.maximum(x.amax(dims, keepdim=True), -x.amin(dims, keepdim=True))
    if p == math.inf:
        return largest
    unit = torch.where(largest == 0, 1, largest)  # as in lp_batch_norm
    power = _sum(lambda part: (part.abs() / unit).pow_(p), dims, x).div_(_count(x, dims))
    return power.pow_(1 / p).mul_(largest)


def _norm_slope(x: Tensor, norm: Tensor, p: float, dims: tuple[int, ...], out: Tensor) -> Tensor:
    """m dr/dx = sign(x) (|x| / r)^(p-1), written to `out`."""
    if p == 1:
        return torch.sign(x, out=out)
    if p == math.inf:
        largest = x.abs() == norm
        torch.sign(x, out=out).mul_(largest)
        return out.mul_(_count(x, dims) / largest.sum(dims, keepdim=True))
    floor = norm.clamp_min(torch.finfo(norm.dtype).tiny)  # a channel of zeros has slope 0
    if p == 2:
        return torch.div(x, floor, out=out)
    return torch.abs(x, out=out).div_(floor).pow_(p - 1).copysign_(x)


def _centre(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The mean over `dims`, and x minus it.

    The first value of each set is subtracted before the mean: a constant becomes exactly zero, where its
    rounded mean would miss it, and a large mean costs no digits.
    """
    first = _to(
        x[tuple([slice(0, 1) if d in dims else slice(None) for d in range(x.dim())])], statistics_dtype(x)
    )
    centred = x - first
    if not x.numel():
        return first.sum(dims, keepdim=True), centred
    rest = centred.mean(dims, keepdim=True)
    return first + rest, centred.sub_(rest)


def _backward(grad, x, weight, mean, invstd, dims):
    """`normalize_backward` with the statistics given, and few temporaries.

    Sums first run over the dimensions along which the weight is constant; what is left of them is small
    in every layer but LayerNorm and RMSNorm, where each value has its own weight.
    """
    inner = dims if weight is None else _constant_dims(weight, dims)
    dx = x.to(invstd.dtype, copy=True) if mean is None else x - mean
    dot = _sum(torch.mul, inner, grad, dx) * invstd
    total = grad.sum(inner, keepdim=True, dtype=invstd.dtype) if inner else grad
    scale, dweight, dbias = invstd, None, None
    if weight is not None:
        dweight, dbias = _sum_to(dot, weight), _sum_to(total, weight)
        if inner:
            scale = weight * invstd
        else:
            grad = grad * weight
        if inner != dims:
            dot, total = (dot * weight).sum(dims, keepdim=True), (total * weight).sum(dims, keepdim=True)
    # dx = invstd (w g - mean(w g) - (x - mean) invstd^2 mean(w g (x - mean)))
    mean_scale = (scale if inner == dims else invstd) / -_count(x, dims)
    _affine_(dx, dot * (invstd * mean_scale), None if mean is None else total * mean_scale)
    return _to(dx.addcmul_(grad, scale), x.dtype), dweight, dbias


def _affine_(y: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """scale * y + shift in place: in one pass if the scale runs along y's memory, where that is faster."""
    if shift is None:
        return y.mul_(scale)
    if any([stride == 1 and n > 1 for stride, n in zip(y.stride(), scale.shape, strict=True)]):
        return torch.addcmul(shift, y, scale, out=y)
    return y.mul_(scale).add_(shift)


def _sum(term: Callable[..., Tensor], dims: tuple[int, ...], *tensors: Tensor) -> Tensor:
    """term(*tensors).sum(dims, keepdim=True), in slices, so that no temporary of the full size arises."""
    if not dims:
        return term(*tensors)
    size = tensors[0].numel()
    if size <= _CHUNK:
        return term(*tensors).sum(dims, keepdim=True)
    rows = max(1, _CHUNK * len(tensors[0]) // size)
    slices = zip(*(t.split(rows) for t in tensors), strict=True)
    parts = torch.cat([term(*s).sum(dims, keepdim=True) for s in slices])
    return parts.sum(0, keepdim=True) if 0 in dims else parts


def _sum_to(t: Tensor, like: Tensor) -> Tensor:
    """t, summed to the shape and cast to the dtype of `like`."""
    return _to(t if t.shape == like.shape else t.sum_to_size(like.shape), like.dtype)


def _to(t: Tensor, dtype: torch.dtype) -> Tensor:
    """`t.to(dtype)` without the cost of a call that changes nothing."""
    return t if t.dtype == dtype else t.to(dtype)


def _constant_dims(weight: Tensor, dims: tuple[int, ...]) -> tuple[int, ...]:
    """Those of `dims` along which the weight does not change."""
    return tuple([d for d in dims if weight.size(d) == 1])


def _count(x: Tensor, dims: tuple[int, ...]) -> int:
    """How many values share one mean; 1 for an empty input, whose sums are zero."""
    return max(1, math.prod([x.size(d) for d in dims]))
