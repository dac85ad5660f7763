"""The formulas of `functional` arranged for speed and memory: one computation behind all layers.

Batch, group, instance and ghost normalization differ only in the set of values that share one mean and one
variance: `normalize`. In layer and RMS normalization each value of a set has a weight of its own:
`normalize_rows`. All keep the input and two numbers per set for the backward pass, and nothing else of the
input's size. What can be overwritten is, and samples and sums are worked off in slices, so that temporaries
stay in the processor's cache.

A backward pass that is itself to be differentiated goes through the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .functional import batch_layout, lp_batch_norm, normalize_backward

_SLICE = 2**19  # values
_PLAIN_SUM = 2**16  # values; torch's norm adds one after the other, and loses 1e-4 over 2**23 values


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    shape: tuple[int, ...],
    dims: tuple[int, ...],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Standardize x over `dims`, then scale and shift.

    .. math:: y = w\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + b

    Statistics are float32 for bfloat16 and float16 input. The variance is the mean square of the centred
    values, which does not cancel when the mean is large. A constant set gives exactly b.

    Args:
        x: any shape.
        weight, bias: viewed as `shape`, which has as many dimensions as x, broadcasts to it and is 1 in at
            least one of `dims`; or None.
        dims: the dimensions that share one mean and one variance.
        eps: added to the variance.

    Returns:
        y, shaped like x; the mean and the biased variance, of size 1 along `dims`, not differentiable.

    >>> y, mean, var = normalize(torch.tensor([[0.0, 2.0], [5.0, 5.0]]), None, None, (1, 1), (1,), eps=1e-5)
    >>> mean.flatten(), var.flatten().round(decimals=3)
    (tensor([1., 5.]), tensor([1., 0.]))
    """
    return _Normalize.apply(x, weight, bias, shape, dims, eps)


def normalize_rows(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, size: int, eps: float, centre: bool
) -> Tensor:
    r"""Standardize x over rows of `size` values, with a weight and a bias for each value of a row.

    The formula is that of `normalize`; without `centre` the mean stays in, and the divisor is the root mean
    square.

    >>> normalize_rows(torch.tensor([[3.0, 4.0]]), None, None, size=2, eps=0.0, centre=False)
    tensor([[0.8485, 1.1314]])
    """
    return _NormalizeRows.apply(x, weight, bias, size, eps, centre)


def lp_normalize(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, p: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`functional.lp_batch_norm`, and per channel the mean and the l_p norm, not differentiable."""
    return _LpNormalize.apply(x, weight, bias, p, eps)


def statistics_dtype(x: Tensor) -> torch.dtype:
    """float32 for the 16-bit types, whose sums would lose most digits; otherwise x's own."""
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype


def slices(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The tensors in step, cut along dimension 0 into pieces of about _SLICE values."""
    values = tensors[0].numel()
    if values <= _SLICE:
        return (tensors,)
    rows = max(1, _SLICE * len(tensors[0]) // values)
    return zip(*(t.split(rows) for t in tensors), strict=True)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, shape, dims, eps):
        w = None if weight is None else weight.view(shape)
        b = None if bias is None else bias.view(shape)
        if 0 in dims or x.numel() <= _SLICE:
            y, mean, var, invstd = _standardize(x, w, b, dims, eps)
        else:
            y = torch.empty_like(x, dtype=statistics_dtype(x))
            parts = [_standardize(part, w, b, dims, eps, out)[1:] for part, out in slices(x, y)]
            mean, var, invstd = map(torch.cat, zip(*parts, strict=True))
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.layout = shape, dims, eps
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return _to(y, x.dtype), mean, var

    @staticmethod
    def backward(ctx, grad, _mean, _var):
        if grad is None:
            return (None,) * 6
        x, weight, mean, invstd = ctx.saved_tensors
        shape, dims, eps = ctx.layout
        w = None if weight is None else weight.view(shape)
        if torch.is_grad_enabled():
            dx, dweight, dbias = normalize_backward(grad, x, w, dims, eps)
        elif 0 in dims or x.numel() <= _SLICE:
            dx, dweight, dbias = _gradient(grad, x, w, mean, invstd, dims)
        else:
            dx = torch.empty_like(x, dtype=invstd.dtype)
            parts = [
                _gradient(g, part, w, m, i, dims, out)[1:]
                for g, part, m, i, out in slices(grad, x, mean, invstd, dx)
            ]
            if w is not None:
                dweight, dbias = (sum(t) for t in zip(*parts, strict=True))
        _, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        to_weight = _to(dweight.view(-1), weight.dtype) if needs_weight else None
        to_bias = _to(dbias.view(-1), weight.dtype) if needs_bias else None
        return _to(dx, x.dtype), to_weight, to_bias, None, None, None


def _standardize(x, w, b, dims, eps, out=None):
    """y, written to `out` if given; mean, variance and 1 / standard deviation: three walks over x."""
    y = torch.empty_like(x, dtype=statistics_dtype(x)) if out is None else out
    first, count = _first(x, dims), _count(x, dims)
    rest = _total([torch.sub(part, first, out=o).sum(dims, keepdim=True) for part, o in slices(x, y)])
    rest.div_(count)
    var = _total([_sum_of_squares(o.sub_(rest), dims) for (o,) in slices(y)]).div_(count)
    invstd = (var + eps).rsqrt_()
    scale = invstd if w is None else invstd * w
    for (o,) in slices(y):
        _affine(o, scale, b, o)
    return y, first + rest if x.numel() else rest, var, invstd


def _gradient(grad, x, w, mean, invstd, dims, out=None):
    """The formula of `normalize_backward` with the statistics given; dx is written to `out` if given.

    Sums first run over the dimensions along which the weight is constant; what is left of them is small.
    """
    dx = torch.empty_like(x, dtype=invstd.dtype) if out is None else out
    scale, inner, dweight, dbias = invstd, dims, None, None
    if w is not None:
        scale = w * invstd
        inner = tuple([d for d in dims if w.size(d) == 1])
    dots, totals = [], []
    for g, part, o in slices(grad, x, dx):
        dots.append((torch.sub(part, mean, out=o) * g).sum(inner, keepdim=True))
        totals.append(g.sum(inner, keepdim=True, dtype=invstd.dtype))
    dot, total = _total(dots) * invstd, _total(totals)
    if w is not None:
        dweight, dbias = _sum_to(dot, w), _sum_to(total, w)
    # dx = scale g - mean(scale g) - (x - mean) invstd^2 mean(scale g (x - mean))
    if inner == dims:
        outer = scale / -_count(x, dims)
    else:
        outer = invstd / -_count(x, dims)
        dot, total = (dot * w).sum(dims, keepdim=True), (total * w).sum(dims, keepdim=True)
    inner, outer = dot * (invstd * outer), total * outer
    for g, o in slices(grad, dx):
        _affine(o, inner, outer, o).addcmul_(g, scale)
    return dx, dweight, dbias


class _NormalizeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, size, eps, centre):
        w = None if weight is None else weight.view(-1)
        b = None if bias is None else bias.view(-1)
        y = torch.empty(x.shape, dtype=statistics_dtype(x), device=x.device)
        means, invstds = [], []
        for rows, out in slices(x.reshape(-1, size), y.view(-1, size)):
            if centre:
                mean, rows = _centre(rows, (1,), out)
                means.append(mean)
            else:
                rows = _to(rows, y.dtype)
            invstd = _sum_of_squares(rows, (1,)).div_(max(1, size)).add_(eps).rsqrt_()
            invstds.append(invstd)
            torch.mul(rows, invstd, out=out)
            if w is not None:
                _affine(out, w, b, out)
        ctx.save_for_backward(x, weight, torch.cat(means) if centre else None, torch.cat(invstds))
        ctx.layout = size, eps, centre
        return _to(y, x.dtype)

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, invstd = ctx.saved_tensors
        size, eps, centre = ctx.layout
        if torch.is_grad_enabled():
            w = None if weight is None else weight.view(1, -1)
            table = grad.reshape(-1, size), x.reshape(-1, size)
            dx, dweight, dbias = normalize_backward(*table, w, (1,), eps, centre)
            dx = dx.view(x.shape)
        else:
            dx, dweight, dbias = _gradient_of_rows(grad, x, weight, mean, invstd, size)
        _, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        to_weight = _to(dweight.view(weight.shape), weight.dtype) if needs_weight else None
        to_bias = _to(dbias.view(weight.shape), weight.dtype) if needs_bias else None
        return dx, to_weight, to_bias, None, None, None


def _gradient_of_rows(grad, x, weight, mean, invstd, size):
    """The formula of `normalize_backward` for rows: its sums are products with a matrix."""
    dtype = invstd.dtype
    dx = torch.empty(x.shape, dtype=dtype, device=x.device)
    w = invstd.new_ones(size) if weight is None else _to(weight.view(-1), dtype)
    dweight, dbias = torch.zeros_like(w), torch.zeros_like(w)
    tables = [grad.reshape(-1, size), x.reshape(-1, size), dx.view(-1, size), invstd]
    if mean is not None:
        tables.append(mean)
    for g, rows, out, i, *m in slices(*tables):
        g = _to(g, dtype)
        centred = torch.sub(rows, *m, out=out) if m else _to(rows, dtype)
        products = g * centred
        if weight is not None:
            dweight.addmv_(products.t(), i.view(-1))
            dbias.add_(g.sum(0))
        # dx = invstd (w g - mean(w g) - (x - mean) invstd^2 mean(w g (x - mean)))
        torch.mul(centred, (products @ w)[:, None] * i.square().div_(-size), out=out)
        if m:
            out.add_((g @ w).div_(-size)[:, None])
        out.addcmul_(g, w).mul_(i)
    return _to(dx, x.dtype), dweight, dbias


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
        y = _affine(y, scale, None if bias is None else bias.view(shape), out=y)
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
        to_weight = _to(dweight.view(-1), weight.dtype) if needs_weight else None
        to_bias = _to(dbias.view(-1), bias.dtype) if needs_bias else None
        return dx, to_weight, to_bias, None, None


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


def _centre(x: Tensor, dims: tuple[int, ...], out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean over `dims`, and x minus it, written to `out` if given."""
    first = _first(x, dims)
    centred = torch.sub(x, first, out=out)
    if not x.numel():
        return first.sum(dims, keepdim=True), centred
    rest = centred.mean(dims, keepdim=True)
    return first + rest, centred.sub_(rest)


def _first(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The first value of each set. It is subtracted before the mean is taken.

    So a constant becomes exactly 0, where its rounded mean would miss it, and a large mean costs no digits.
    """
    index = tuple([slice(0, 1) if d in dims else slice(None) for d in range(x.dim())])
    return _to(x[index], statistics_dtype(x))


def _affine(t: Tensor, scale: Tensor, shift: Tensor | None, out: Tensor) -> Tensor:
    """scale * t + shift, written to `out`: in one pass if the scale runs along t's memory, else in two."""
    if shift is None:
        return torch.mul(t, scale, out=out)
    if scale.size(-1) > 1 or (t.dim() == 4 and t.stride(1) == 1):
        return torch.addcmul(shift, t, scale, out=out)
    return torch.mul(t, scale, out=out).add_(shift)


def _total(parts: list[Tensor]) -> Tensor:
    """The sum over slices of the batch."""
    return parts[0] if len(parts) == 1 else torch.cat(parts).sum(0, keepdim=True)


def _sum(term: Callable[..., Tensor], dims: tuple[int, ...], *tensors: Tensor) -> Tensor:
    """term(*tensors).sum(dims, keepdim=True), in slices, so that no temporary of the full size arises."""
    if tensors[0].numel() <= _SLICE:
        return term(*tensors).sum(dims, keepdim=True)
    parts = torch.cat([term(*part).sum(dims, keepdim=True) for part in slices(*tensors)])
    return parts.sum(0, keepdim=True) if 0 in dims else parts


def _sum_of_squares(t: Tensor, dims: tuple[int, ...]) -> Tensor:
    if 0 not in dims and t.is_contiguous() and _count(t, dims) <= _PLAIN_SUM:
        return torch.linalg.vector_norm(t, dim=dims, keepdim=True).square_()
    return _sum(torch.square, dims, t)


def _sum_to(t: Tensor, like: Tensor) -> Tensor:
    return t if t.shape == like.shape else t.sum_to_size(like.shape)


def _to(t: Tensor, dtype: torch.dtype) -> Tensor:
    """`t.to(dtype)` without the cost of a call that changes nothing."""
    return t if t.dtype == dtype else t.to(dtype)


def _count(x: Tensor, dims: tuple[int, ...]) -> int:
    """How many values share one mean; 1 for an empty input, whose sums are zero."""
    return max(1, math.prod([x.size(d) for d in dims]))
