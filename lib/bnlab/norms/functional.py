"""Normalization as formulas, in plain tensor algebra that autograd can follow: written to be read.

The layers compute the same numbers with less memory and time; see `kernels`.

[1] Ioffe & Szegedy 2015, arXiv:1502.03167.  [2] Santurkar et al. 2018, arXiv:1805.11604.
"""

from __future__ import annotations

import math

from torch import Tensor, where


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

    >>> import torch
    >>> x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    >>> batch_norm(x, None, None, eps=0.0)
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """
    dims, per_channel = batch_layout(x)
    mean = x.mean(dims, keepdim=True)
    var = (x - mean).square().mean(dims, keepdim=True)
    y = (x - mean) / (var + eps).sqrt()
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

    >>> import torch
    >>> x, grad = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[1.0], [0.0], [0.0]])
    >>> dx, dweight, dbias = batch_norm_backward(grad, x, None, eps=1e-5)
    >>> bool(dx.sum().abs() < 1e-6), dbias  # the gradient of a batch has no mean
    (True, tensor([1.]))
    """
    dims, per_channel = batch_layout(x)
    weight = x.new_ones(x.size(1)) if weight is None else weight
    dx, dweight, dbias = normalize_backward(grad, x, weight.view(per_channel), dims, eps)
    return dx, dweight.flatten(), dbias.flatten()


def lp_batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, p: float, eps: float) -> Tensor:
    r"""Centre each channel, then divide by the average l_p norm it had before, [2] §3.3.

    .. math:: y = \gamma\,\frac{x - \mu}{(\frac1m \sum_b |x_b|^p)^{1/p} + \epsilon} + \beta

    As plain tensor algebra; arguments as `batch_norm`, p as `LpBatchNorm`.

    >>> import torch
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
        unit = where(largest == 0, 1, largest)
        power = (size / unit).pow(p).mean(dims, keepdim=True)
        norm = largest * (power + (largest == 0)).pow(1 / p)
    y = (x - x.mean(dims, keepdim=True)) / (norm + eps)
    if weight is not None:
        y = y * weight.view(per_channel)
    if bias is not None:
        y = y + bias.view(per_channel)
    return y


def normalize_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, dims: tuple[int, ...], eps: float, centre: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """`batch_norm_backward` for statistics over any `dims`, with or without a mean (RMSNorm has none).

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


def batch_layout(x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The dimensions a channel's statistics run over, and the shape of one number per channel."""
    return (0, *range(2, x.dim())), (1, -1, *(1,) * (x.dim() - 2))
