"""One computation behind all layers with a mean and a variance, and its derivative.

Batch, layer, group, instance and ghost normalization differ only in the set of values that share one mean
and one variance. `normalize` keeps its input and two numbers per set for the backward pass. These two are
outputs with a derivative of their own, so the backward pass can be differentiated again as it stands.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    dims: tuple[int, ...],
    eps: float,
    subtract_mean: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Standardize x over `dims`, then scale and shift.

    .. math:: y = w\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + b

    Statistics are float32 for bfloat16 and float16 input. The variance is the mean square of the centred
    values, which does not cancel when the mean is large. A constant set gives exactly b.

    Args:
        x: any shape.
        weight, bias: as many dimensions as x, each of x's size or 1; or None.
        dims: the dimensions that share one mean and one variance, ascending and not negative.
        eps: added to the variance.
        subtract_mean: False leaves the mean in, and divides by the root mean square.

    Returns:
        y, shaped like x; the mean (None if it was left in) and the biased variance, of size 1 along `dims`.

    >>> y, mean, var = normalize(torch.tensor([[0.0, 2.0], [5.0, 5.0]]), None, None, (1,), eps=1e-5)
    >>> mean.flatten(), var.flatten().round(decimals=3)
    (tensor([1., 5.]), tensor([1., 0.]))
    """
    refuse_torchscript_export()
    if x.numel():
        return Normalize.apply(x, weight, bias, dims, eps, subtract_mean)
    y = x if weight is None else x * weight
    none = x.sum(dims, keepdim=True)
    return (y if bias is None else y + bias).to(x.dtype), none, none


class Normalize(torch.autograd.Function):
    """`normalize` as a node of the graph: it keeps x and two numbers per set."""

    @staticmethod
    def forward(x, weight, bias, dims, eps, subtract_mean):
        mean, y = centre(x, dims) if subtract_mean else (None, x.to(statistics_dtype(x), copy=True))
        var = _mean_square(y, dims)
        scale = (var + eps).rsqrt_()
        if weight is not None and _varies(weight, dims):
            y.mul_(scale)
            scale = weight
        elif weight is not None:
            scale = scale * weight
        y.mul_(scale)
        if bias is not None:
            y.add_(bias)
        return y.to(x.dtype), mean, var

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.dims, ctx.eps, _ = inputs
        ctx.save_for_backward(x, weight, *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad, grad_mean, grad_var):
        x, weight, mean, var = ctx.saved_tensors
        dims, n = ctx.dims, x.numel() // var.numel()
        grad = torch.zeros_like(x) if grad is None else grad
        invstd = scale = (var + ctx.eps).rsqrt()
        centred = x.to(var.dtype) if mean is None else x - mean
        # Where the weight is constant over a dimension, sums over that dimension come first.
        inner = tuple([d for d in dims if weight is None or weight.size(d) == 1])
        dot, total, dweight, dbias = grad * centred, grad, None, None
        if inner:
            dot, total = dot.sum(inner, keepdim=True), grad.sum(inner, keepdim=True, dtype=var.dtype)
        dot.mul_(invstd)
        if weight is not None:
            dweight = dot.sum_to_size(weight.shape)
            dbias = total.sum_to_size(weight.shape) if ctx.needs_input_grad[2] else None
            scale = invstd * weight
            dot, total = _weigh(dot, weight, dims), _weigh(total, weight, dims)
        # dx = invstd (w g - mean(w g) - x^ mean(w g x^)) = scale g + slope (x - mean) + level
        share = invstd / -n
        slope, level = dot * invstd * share, total * share
        if grad_var is not None:
            slope = slope + grad_var * (2 / n)
        if grad_mean is not None:
            level = level + grad_mean / n
        dx = grad * scale
        if torch.is_grad_enabled():
            dx = dx + centred * slope
        else:
            dx.addcmul_(centred, slope)  # saves room for one activation
        return dx if mean is None else dx.add_(level), dweight, dbias, None, None, None

    @staticmethod
    def vmap(info, in_dims, x, weight, bias, dims, *options):
        """The dimension that is mapped over goes in front; no statistic runs over it."""

        def in_front(t, d):
            return t if t is None else t[None] if d is None else t.movedim(d, 0)

        x, weight, bias = map(in_front, (x, weight, bias), in_dims)
        x = x.expand(info.batch_size, *x.shape[1:])
        y, *statistics = Normalize.apply(x, weight, bias, tuple([d + 1 for d in dims]), *options)
        if in_dims[0] is None:  # one input, many weights: one pair of statistics
            return (y, *(None if t is None else t[0] for t in statistics)), (0, None, None)
        return (y, *statistics), (0, None if statistics[0] is None else 0, 0)


def centre(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The mean over `dims`, and x minus it.

    The first value of each set is subtracted before the mean is taken. So a constant becomes exactly 0,
    where its rounded mean would miss it, and a large mean costs no digits.
    """
    first = x.detach()[tuple([slice(0, 1) if d in dims else slice(None) for d in range(x.dim())])]
    first = first.to(statistics_dtype(x))
    centred = x - first
    rest = centred.mean(dims, keepdim=True)
    return first + rest, centred.sub_(rest)


def refuse_torchscript_export() -> None:
    """Raise in the exporter that would write the shapes of one batch as constants."""
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
        raise RuntimeError(
            "this layer computes statistics of its input, which ONNX export by TorchScript would freeze; "
            "use torch.onnx.export(..., dynamo=True), or eval() for a batch norm with running statistics"
        )


def statistics_dtype(x: Tensor) -> torch.dtype:
    """float32 for the 16-bit types, whose sums would lose most digits; otherwise x's own."""
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype


def _mean_square(t: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The mean of t^2: within each sample as a norm, which needs no room for the squares."""
    inner = tuple([d for i, d in enumerate(dims) if d == t.dim() - len(dims) + i])  # one block of memory
    if not inner or not t.is_contiguous():
        return t.square().mean(dims, keepdim=True)
    square = torch.linalg.vector_norm(t, dim=inner, keepdim=True).square_()
    return square.mean(dims, keepdim=True).div_(t.numel() // square.numel())


def _varies(weight: Tensor, dims: tuple[int, ...]) -> bool:
    """Whether values that share one mean have weights of their own."""
    return any([weight.size(d) > 1 for d in dims])


def _weigh(t: Tensor, weight: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The sum of weight * t over those of `dims` that the weight runs along."""
    if not _varies(weight, dims):
        return t * weight
    if t.dim() == 2 and dims == (1,) and weight.size(0) == 1:
        return t @ weight.to(t.dtype).mT  # a table of rows: no room is needed for the products
    return (t * weight).sum([d for d in dims if weight.size(d) > 1], keepdim=True)
