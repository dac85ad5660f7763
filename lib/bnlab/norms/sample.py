"""Layers that normalize each sample by itself: train and eval mode are the same computation.

Sources: Ba, Kiros and Hinton 2016 (LayerNorm), Ulyanov, Vedaldi and Lempitsky 2016 (InstanceNorm),
Wu and He 2018 (GroupNorm), Zhang and Sennrich 2019 (RMSNorm).
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from .batch import ChannelNorm
from .functional import batch_layout
from .layer import Layer, check_input, parameters
from .normalize import normalize, statistics_dtype


def _normalize_rows(
    layer: nn.LayerNorm | nn.RMSNorm, x: Tensor, eps: float | None, subtract_mean: bool
) -> Tensor:
    """Each slice of the layer's `normalized_shape` is one set, and has a weight for each of its values."""
    trailing = len(layer.normalized_shape)
    if not trailing or x.shape[-trailing:] != tuple(layer.normalized_shape):
        raise RuntimeError(
            f"normalized_shape is {list(layer.normalized_shape)}: expected input that ends in these "
            f"sizes (at least one), got input size {list(x.shape)}"
        )
    check_input(layer, x)
    if eps is None:
        eps = torch.finfo(statistics_dtype(x)).eps
    rows = x.reshape(-1, math.prod(layer.normalized_shape))
    return normalize(rows, *parameters(layer, (1, -1)), (1,), eps, subtract_mean)[0].view(x.shape)


class LayerNorm(Layer, nn.LayerNorm):
    r"""Layer normalization: each sample over its trailing dimensions.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    :math:`\mu` and the biased :math:`\sigma^2` are taken over the last dimensions, those of
    `normalized_shape`; :math:`\gamma` and :math:`\beta` have one entry per value in them, not per channel.
    Drop-in for ``torch.nn.LayerNorm``. Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450.

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

    def forward(self, x: Tensor) -> Tensor:
        return _normalize_rows(self, x, self.eps, subtract_mean=True)


class RMSNorm(Layer, nn.RMSNorm):
    r"""Root-mean-square normalization: LayerNorm without the mean and without the bias.

    .. math:: y = \gamma\,\frac{x}{\sqrt{\frac1n\sum_i x_i^2 + \epsilon}}

    Drop-in for ``torch.nn.RMSNorm``: the default epsilon is the machine epsilon of the computation (that of
    float32 for 16-bit input). Source: Zhang and Sennrich 2019, arXiv:1910.07467.

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

    def forward(self, x: Tensor) -> Tensor:
        return _normalize_rows(self, x, self.eps, subtract_mean=False)


class GroupNorm(Layer, nn.GroupNorm):
    r"""Group normalization: each sample over groups of its channels and all positions.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    :math:`\mu` and the biased :math:`\sigma^2` are taken over the ``num_channels / num_groups`` channels of
    a group and all positions of **one** sample; :math:`\gamma` and :math:`\beta` are per channel. One group
    is LayerNorm over channels and positions with per-channel parameters; as many groups as channels is
    InstanceNorm. Drop-in for ``torch.nn.GroupNorm``. Source: Wu and He 2018, arXiv:1803.08494.

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
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)
        if not bias:
            self.register_parameter("bias", None)

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
        shape = (1, *groups.shape[1:3], *(1,) * (groups.dim() - 3))
        y = normalize(groups, *parameters(self, shape), tuple(range(2, groups.dim())), self.eps)[0]
        return y.flatten(1, 2).view(x.shape)


class InstanceNorm(ChannelNorm, _InstanceNorm):
    r"""Instance normalization: each channel of each sample over its positions.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    :math:`\mu` and the biased :math:`\sigma^2` belong to one channel of one sample. Drop-in for
    ``torch.nn.InstanceNorm1d``, ``2d`` and ``3d`` on batches, with their defaults: nothing learned, nothing
    tracked. With `track_running_stats` eval mode uses running averages of the mean and the unbiased
    variance over the samples, moved by `momentum`; None means 0 here, and ``num_batches_tracked`` stays 0:
    both as in PyTorch. One difference: an empty batch leaves the running statistics as they are, where
    PyTorch makes them NaN. Source: Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022.

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
        y, mean, var = normalize(x, *parameters(self, batch_layout(x)[1]), positions, self.eps)
        if self.training and self.track_running_stats and x.numel():
            self._move(mean.mean(0), var.mean(0) * (count / (count - 1)), self.momentum or 0.0)
        return y
