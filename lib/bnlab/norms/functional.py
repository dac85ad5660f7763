"""Normalization as formulas, in plain tensor algebra that autograd can follow: written to be read.

The layers compute the same numbers with less memory and time; see `normalize`.

Sources: Ioffe and Szegedy 2015 (arXiv:1502.03167), Santurkar et al. 2018 (arXiv:1805.11604).
"""

from __future__ import annotations

from torch import Tensor


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    r"""Batch normalization with the statistics of the batch, Ioffe and Szegedy 2015, Algorithm 1.

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

    where g = dL/dy and the bar is the mean over the batch: the four lines of Ioffe and Szegedy 2015,
    section 3, put together. It is itself differentiable, so second derivatives follow from it.

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
    mean = x.mean(dims, keepdim=True)
    invstd = ((x - mean).square().mean(dims, keepdim=True) + eps).rsqrt()
    normalized = (x - mean) * invstd
    dx = grad - grad.mean(dims, keepdim=True) - normalized * (grad * normalized).mean(dims, keepdim=True)
    dx = dx * invstd if weight is None else dx * invstd * weight.view(per_channel)
    return dx, (grad * normalized).sum(dims), grad.sum(dims)


def batch_layout(x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The dimensions a channel's statistics run over, and the shape of one number per channel."""
    return (0, *range(2, x.dim())), (1, -1, *(1,) * (x.dim() - 2))
