"""Layers that normalize each sample by itself: train and eval mode are the same computation.

Ba, Kiros & Hinton 2016 (LayerNorm), arXiv:1607.06450.  Ulyanov, Vedaldi & Lempitsky 2016 (InstanceNorm),
arXiv:1607.08022.  Wu & He 2018 (GroupNorm), arXiv:1803.08494.  Zhang & Sennrich 2019 (RMSNorm),
arXiv:1910.07467.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .batch import ChannelNorm, check_input
from .kernels import normalize, normalize_rows, statistics_dtype


class _TrailingNorm(nn.Module):
    """What LayerNorm and RMSNorm share: the trailing dimensions, and a weight for each value in them."""

    weight: nn.Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None,
        elementwise_affine: bool,
        device,
        dtype,
    ) -> None:
        super().__init__()
        self.normalized_shape = (
            (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        )
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        weight = torch.ones(self.normalized_shape, device=device, dtype=dtype) if elementwise_affine else None
        self.register_parameter("weight", None if weight is None else nn.Parameter(weight))

    def _normalize(self, x: Tensor, bias: Tensor | None, eps: float | None, centre: bool) -> Tensor:
        trailing = len(self.normalized_shape)
        if not trailing or x.shape[-trailing:] != self.normalized_shape:
            raise RuntimeError(
                f"normalized_shape is {list(self.normalized_shape)}: expected input that ends in these "
                f"sizes (at least one), got input size {list(x.shape)}"
            )
        check_input(self, x)
        if eps is None:
            eps = torch.finfo(statistics_dtype(x)).eps
        return normalize_rows(x, self.weight, bias, math.prod(self.normalized_shape), eps, centre)


class LayerNorm(_TrailingNorm):
    r"""Layer normalization: each sample over its trailing dimensions.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    :math:`\mu` and the biased :math:`\sigma^2` are taken over the last dimensions, those of
    `normalized_shape`; :math:`\gamma` and :math:`\beta` have one entry per value in them, not per channel.
    Drop-in for ``torch.nn.LayerNorm``. Source: arXiv:1607.06450.

    Args:
        normalized_shape: the sizes of the trailing dimensions to normalize; an int for the last one.
        eps: added to the variance.
        elementwise_affine: learn `weight` and `bias`, of shape `normalized_shape`.
        bias: False leaves out `bias`.

    Shape:
        (..., normalized_shape); the output has the shape and dtype of the input.

    Raises:
        RuntimeError: input that does not end in `normalized_shape`, or of another dtype.

    >>> LayerNorm(2)(torch.tensor([[1.0, 3.0], [10.0, 30.0]])).detach().round(decimals=3)
    tensor([[-1.,  1.],
            [-1.,  1.]])
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)
        shift = None if self.weight is None or not bias else torch.zeros_like(self.weight)
        self.register_parameter("bias", None if shift is None else nn.Parameter(shift))

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._normalize(x, self.bias, self.eps, centre=True)


class RMSNorm(_TrailingNorm):
    r"""Root-mean-square normalization: LayerNorm without the mean and without the bias.

    .. math:: y = \gamma\,\frac{x}{\sqrt{\frac1n\sum_i x_i^2 + \epsilon}}

    Drop-in for ``torch.nn.RMSNorm``: the default epsilon is the machine epsilon of the computation (that of
    float32 for 16-bit input). Source: arXiv:1910.07467.

    Args:
        normalized_shape: the sizes of the trailing dimensions to normalize; an int for the last one.
        eps: added to the mean square, or None for the machine epsilon.
        elementwise_affine: learn `weight`, of shape `normalized_shape`.

    Shape:
        (..., normalized_shape); the output has the shape and dtype of the input.

    Raises:
        RuntimeError: input that does not end in `normalized_shape`, or of another dtype.

    >>> RMSNorm(2)(torch.tensor([[3.0, 4.0], [30.0, 40.0]])).detach().round(decimals=3)
    tensor([[0.8490, 1.1310],
            [0.8490, 1.1310]])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)

    def reset_parameters(self) -> None:
        """Set the weight to 1."""
        if self.weight is not None:
            nn.init.ones_(self.weight)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"

    def forward(self, x: Tensor) -> Tensor:
        return self._normalize(x, None, self.eps, centre=False)


class GroupNorm(nn.Module):
    r"""Group normalization: each sample over groups of its channels and all positions.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    :math:`\mu` and the biased :math:`\sigma^2` are taken over the ``num_channels / num_groups`` channels of
    a group and all positions of **one** sample; :math:`\gamma` and :math:`\beta` are per channel. One group
    is LayerNorm over channels and positions with per-channel parameters; as many groups as channels is
    InstanceNorm. Drop-in for ``torch.nn.GroupNorm``. Source: arXiv:1803.08494.

    Args:
        num_groups: number of groups G.
        num_channels: number of channels C, a multiple of G.
        eps: added to the variance.
        affine: learn `weight` and `bias`, (C,).
        bias: False leaves out `bias`.

    Shape:
        (N, C, ...); the output has the shape and dtype of the input.

    Raises:
        ValueError: C is not a multiple of G; the whole input is one value per group.
        RuntimeError: fewer than two dimensions, wrong number of channels or dtype.

    >>> x = torch.tensor([[1.0, 3.0, 10.0, 30.0]])
    >>> GroupNorm(2, 4)(x).detach().round(decimals=3)
    tensor([[-1.,  1., -1.,  1.]])
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        weight = torch.ones(num_channels, device=device, dtype=dtype) if affine else None
        self.register_parameter("weight", None if weight is None else nn.Parameter(weight))
        shift = None if weight is None or not bias else torch.zeros_like(weight)
        self.register_parameter("bias", None if shift is None else nn.Parameter(shift))

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2:
            raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {x.dim()}")
        if x.size(1) != self.num_channels:
            raise RuntimeError(
                f"expected input with {self.num_channels} channels in dimension 1, "
                f"got {x.size(1)} channels: input size {list(x.shape)}"
            )
        if x.numel() == self.num_groups:
            raise ValueError(f"Expected more than 1 value per group, got input size {list(x.shape)}")
        check_input(self, x)
        groups = (x if x.dim() > 2 else x[..., None]).unflatten(1, (self.num_groups, -1))
        per_channel = (1, *groups.shape[1:3], *(1,) * (groups.dim() - 3))
        dims = tuple(range(2, groups.dim()))
        y = normalize(groups, self.weight, self.bias, per_channel, dims, self.eps)[0]
        return y.flatten(1, 2).view(x.shape)


class InstanceNorm(ChannelNorm):
    r"""Instance normalization: each channel of each sample over its positions.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    :math:`\mu` and the biased :math:`\sigma^2` belong to one channel of one sample. Drop-in for
    ``torch.nn.InstanceNorm1d``, ``2d`` and ``3d`` on batches, with their defaults: nothing learned, nothing
    tracked. With `track_running_stats` eval mode uses running averages of the mean and the unbiased
    variance over the samples, moved by `momentum`; None means 0 here, and ``num_batches_tracked`` stays 0:
    both as in PyTorch. One difference: an empty batch leaves the running statistics as they are, where
    PyTorch makes them NaN. Source: arXiv:1607.08022.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        momentum: the weight of the new batch in the running statistics.
        affine: learn `weight` and `bias`, (C,).
        track_running_stats: keep running statistics for eval mode.
        bias: False leaves out `bias`.

    Shape:
        (N, C, L), (N, C, H, W) or (N, C, D, H, W); a single sample needs ``x.unsqueeze(0)``, because
        one class for all ranks cannot tell (C, H, W) from (N, C, L).

    Raises:
        ValueError: wrong rank; one position per channel; wrong number of channels if `affine`.
        RuntimeError: wrong number of channels for the running statistics; wrong dtype.

    >>> InstanceNorm(2)(torch.tensor([[[1.0, 3.0], [10.0, 30.0]]])).round(decimals=3)
    tensor([[[-1.,  1.],
             [-1.,  1.]]])
    """

    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() in range(3, 6) and x.size(1) != self.num_features:
            message = (
                f"expected input's size at dim=1 to match num_features ({self.num_features}), "
                f"but got: {x.size(1)}"
            )
            if self.affine:
                raise ValueError(message)
            if not self.track_running_stats:
                warnings.warn(f"{message}; num_features is not used when affine=False", stacklevel=2)
        self._check(x, range(3, 6))
        if not self.training and self.track_running_stats:
            return self._fixed(x, (self.running_var.to(statistics_dtype(x)) + self.eps).rsqrt())
        count = math.prod(x.shape[2:])
        if count == 1:
            raise ValueError(
                f"Expected more than 1 spatial element when training, got input size {list(x.shape)}"
            )
        positions = tuple(range(2, x.dim()))
        y, mean, var = normalize(
            x, self.weight, self.bias, (1, -1, *(1 for _ in positions)), positions, self.eps
        )
        if self.training and self.track_running_stats and x.numel():
            self._move(mean.mean(0), var.mean(0) * (count / (count - 1)), self.momentum or 0.0)
        return y
