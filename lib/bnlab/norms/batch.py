"""Layers that normalize each channel with the statistics of the batch.

All keep running statistics for eval mode, with PyTorch's conventions: `momentum` is the weight of the *new*
value, and the running variance is the unbiased one, while the batch itself is divided by the biased one.

Sources: Ioffe and Szegedy 2015 (arXiv:1502.03167), Santurkar et al. 2018 (arXiv:1805.11604).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from .functional import batch_layout
from .layer import Layer, check_input, parameters
from .lp import lp_normalize
from .normalize import normalize, statistics_dtype


class ChannelNorm(Layer, _NormBase):
    """What the layers with one weight, one bias and one pair of running statistics per channel share.

    Parameters, buffers and their names are torch's. What a layer computes is written here.
    """

    spread = "running_var"  # the buffer that holds the running measure of spread
    running_mean: Tensor  # this and the next are None where nothing is tracked
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if not bias:
            self.register_parameter("bias", None)

    def _check(self, x: Tensor, ranks: range) -> None:
        if x.dim() not in ranks:
            accepted = ", ".join(f"{rank}D" for rank in ranks)
            raise ValueError(f"expected {accepted} input (batch first, then channels), got {x.dim()}D input")
        if x.size(1) != self.num_features and (self.affine or self.track_running_stats):
            raise RuntimeError(
                f"expected input with {self.num_features} channels in dimension 1, "
                f"got {x.size(1)} channels: input size {list(x.shape)}"
            )
        check_input(self, x)

    def _fixed(self, x: Tensor, scale: Tensor) -> Tensor:
        """Normalize with the running mean and the given scale, both constants of the batch."""
        dtype, shape = statistics_dtype(x), batch_layout(x)[1]
        scale = scale if self.weight is None else scale * self.weight
        y = (x - self.running_mean.to(dtype).view(shape)) * scale.view(shape)
        return (y if self.bias is None else y + self.bias.view(shape)).to(x.dtype)

    def _track(self, mean: Tensor, spread: Tensor, empty: bool) -> None:
        """Count the batch, and let it into the running statistics unless it is empty."""
        self.num_batches_tracked.add_(1)
        if not empty:
            momentum = 1 / self.num_batches_tracked.double() if self.momentum is None else self.momentum
            self._move(mean, spread, momentum)

    def _move(self, mean: Tensor, spread: Tensor, momentum: float | Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        for running, new in ((self.running_mean, mean), (getattr(self, self.spread), spread)):
            new = new.detach().view(-1)
            weight = momentum.to(new.dtype) if isinstance(momentum, Tensor) else momentum
            if running.dtype == new.dtype:
                running.lerp_(new, weight)
            else:
                running.copy_(running.to(new.dtype).lerp(new, weight))


class BatchNorm(ChannelNorm, _BatchNorm):
    r"""Batch normalization of each channel over the batch and all positions.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    In train mode :math:`\mu` and :math:`\sigma^2` are the mean and the **biased** variance of the batch; in
    eval mode they are the running statistics (those of the batch again, if none are tracked). Running
    statistics: ``new = (1 - momentum) * old + momentum * batch``, where the batch's variance is the
    **unbiased** one, as in Ioffe and Szegedy 2015, Algorithm 2; ``momentum=None``
    averages all batches with equal weight. An empty batch leaves them as they are.

    Drop-in for ``torch.nn.BatchNorm1d``, ``2d`` and ``3d``: same arguments, same ``state_dict``. Tools
    that look for torch's batch norms find it. Source: Ioffe and Szegedy 2015, Algorithms 1 and 2.

    Args:
        num_features: number of channels C.
        eps: added to the variance; positive.
        momentum: the weight of the new batch in the running statistics, or None.
        affine: learn :math:`\gamma` (``weight``) and :math:`\beta` (``bias``), (C,).
        track_running_stats: keep running statistics for eval mode.
        bias: False leaves out :math:`\beta`.

    Shape:
        (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W); the output has the shape and dtype of the input.
        bfloat16 and float16 input takes float32 parameters or its own dtype; statistics are float32.

    Raises:
        ValueError: wrong rank; one value per channel in train mode; eps not positive.
        RuntimeError: wrong number of channels or dtype.

    >>> x = torch.tensor([[1.0], [3.0]])
    >>> bn = BatchNorm(1)
    >>> bn(x).detach().round(decimals=3).flatten(), bn.running_mean, bn.running_var
    (tensor([-1.,  1.]), tensor([0.2000]), tensor([1.1000]))
    >>> BatchNorm(1)(x[:1])
    Traceback (most recent call last):
    ...
    ValueError: Expected more than 1 value per channel when training, got input size [1, 1]
    """

    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, range(2, 6))
        if not self.training and self.running_mean is not None:
            if self.eps < 0:
                raise ValueError(f"eps must not be negative, got {self.eps}")
            return self._fixed(x, (self.running_var.to(statistics_dtype(x)) + self.eps).rsqrt())
        if self.eps <= 0:
            raise ValueError(
                f"eps must be positive when training, got {self.eps}; "
                "in float64, 1e-30 changes no digit of a variance above 1e-14"
            )
        y, mean, unbiased = self._normalize(x)
        if self.training and self.track_running_stats:
            self._track(mean, unbiased, empty=not x.numel())
        return y

    def _normalize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The output, and the mean and unbiased variance of each channel."""
        correction = bessel(x, x.size(0))
        dims, shape = batch_layout(x)
        y, mean, var = normalize(x, *parameters(self, shape), dims, self.eps)
        return y, mean, var * correction


class GhostBatchNorm(BatchNorm):
    r"""Batch normalization over parts of the batch: each `ghost_size` samples are a batch of their own.

    A remainder smaller than `ghost_size` joins the last ghost batch, so that no statistic comes from fewer
    samples than asked for, unless the whole batch is smaller. The formula is `BatchNorm`'s. The running
    statistics take one step per batch, towards the average over its ghost batches of mean and unbiased
    variance (Ioffe and Szegedy 2015, Algorithm 2, with the ghost batches as its mini-batches);
    eval mode is `BatchNorm`'s.

    Source: Hoffer, Hubara and Soudry 2017, arXiv:1705.08741. Their Algorithm 1 moves the running
    statistics once per ghost batch instead, so ``momentum`` there means a shorter memory than here.

    Args:
        num_features: number of channels C.
        ghost_size: samples per ghost batch, at least 1.
        The others are `BatchNorm`'s.

    Shape:
        as `BatchNorm`.

    Raises:
        ValueError: ghost_size below 1; otherwise as `BatchNorm`, also for one value per channel and ghost.

    >>> x = torch.tensor([[0.0], [2.0], [10.0], [30.0]])
    >>> GhostBatchNorm(1, ghost_size=2)(x).detach().round(decimals=3).flatten()
    tensor([-1.,  1., -1.,  1.])
    """

    def __init__(self, num_features: int, ghost_size: int, *args, **kwargs) -> None:
        if ghost_size < 1:
            raise ValueError(f"ghost_size must be at least 1 sample, got {ghost_size}")
        super().__init__(num_features, *args, **kwargs)
        self.ghost_size = ghost_size

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"

    def _normalize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        whole, rest = divmod(len(x), self.ghost_size)
        equal = (whole - 1) * self.ghost_size if rest else len(x)  # samples in ghost batches of equal size
        if whole < 1 or not equal:
            return super()._normalize(x)
        dims, shape = batch_layout(x)
        inside, affine = tuple([d + 1 for d in dims]), parameters(self, (1, *shape))
        outputs, means, unbiased = [], [], []
        for part, size in ((x[:equal], self.ghost_size), (x[equal:], self.ghost_size + rest)):
            if len(part):
                ghosts = part.unflatten(0, (-1, size))
                correction = bessel(x, size)
                y, mean, var = normalize(ghosts, *affine, inside, self.eps)
                outputs.append(y.flatten(0, 1))
                means.append(mean.flatten(1))
                unbiased.append(var.flatten(1) * correction)
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return y, torch.cat(means).mean(0), torch.cat(unbiased).mean(0)


class NoisyBatchNorm(BatchNorm):
    r"""Batch normalization followed by noise that changes at every step.

    Train mode. Each step draws, for each unit (channel) j,

    .. math:: \mu_j \sim U(-n_\mu, n_\mu), \qquad \sigma_j \sim U(1, n_\sigma)

    and then, for each unit j of each sample i (in convolutional nets of each pixel too),

    .. math:: m_{ij} \sim U(\mu_j - r_\mu, \mu_j + r_\mu), \quad s_{ij} \sim N(\sigma_j, r_\sigma), \quad
              a_{ij} \leftarrow s_{ij}\,a_{ij} + m_{ij}

    where a is the output of `BatchNorm`. Eval mode is `BatchNorm`'s.

    Source: Santurkar et al. 2018, Algorithm 1. Our reading where it is silent:
    the second argument of N is the standard deviation, and a is taken
    after :math:`\gamma` and :math:`\beta` ("batch-normalized activation"). Noise is drawn from PyTorch's
    default generator in the order mu, sigma, m, s; running statistics see the input, not the noise.

    Args:
        num_features: number of channels C.
        shift: :math:`n_\mu`, at least 0.
        scale: :math:`n_\sigma`, at least 1.
        sample_shift: :math:`r_\mu`, at least 0.
        sample_scale: :math:`r_\sigma`, at least 0.
        The others are `BatchNorm`'s. The defaults are those of the source.

    Shape:
        as `BatchNorm`.

    Raises:
        ValueError: a noise level out of its range; otherwise as `BatchNorm`.

    >>> _ = torch.manual_seed(0)
    >>> noisy, x = NoisyBatchNorm(3), torch.randn(1000, 3)
    >>> y = noisy(x)  # each channel is shifted by up to 0.5 and stretched by up to 1.25
    >>> bool(y.mean(0).abs().max() < 0.55), bool(y.std(0).min() > 0.95)
    (True, True)
    """

    def __init__(
        self,
        num_features: int,
        shift: float = 0.5,
        scale: float = 1.25,
        sample_shift: float = 0.1,
        sample_scale: float = 0.1,
        **kwargs,
    ) -> None:
        levels = {"shift": shift, "scale": scale, "sample_shift": sample_shift, "sample_scale": sample_scale}
        for name, level in levels.items():
            lowest = 1 if name == "scale" else 0
            if not level >= lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {level}")
        super().__init__(num_features, **kwargs)
        self.shift, self.scale = shift, scale
        self.sample_shift, self.sample_scale = sample_shift, sample_scale

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, shift={self.shift}, scale={self.scale}, "
            f"sample_shift={self.sample_shift}, sample_scale={self.sample_scale}"
        )

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.training:
            return y
        per_unit = batch_layout(x)[1]
        unit = y.new_empty(self.num_features)
        mu = torch.empty_like(unit).uniform_(-self.shift, self.shift).view(per_unit)
        sigma = torch.empty_like(unit).uniform_(1, self.scale).view(per_unit)
        m = torch.empty_like(y).uniform_(-self.sample_shift, self.sample_shift).add_(mu)
        s = torch.empty_like(y).normal_(0, 1).mul_(self.sample_scale).add_(sigma)
        return torch.addcmul(m, s, y)


class LpBatchNorm(ChannelNorm, _BatchNorm):
    r"""Batch normalization with an l_p norm in place of the standard deviation.

    .. math:: y = \gamma\,\frac{x - \mu}{r_p + \epsilon} + \beta, \qquad
              r_p = \Big(\tfrac1m \sum_b |x_b|^p\Big)^{1/p}, \qquad r_\infty = \max_b |x_b|

    The norm is that of the input **before** the mean is subtracted, as in Santurkar et al. 2018, section
    3.3. So ``p=2`` is not `BatchNorm`: :math:`r_2^2 = \sigma^2 + \mu^2`, and the output's variance is
    below 1 wherever the mean is
    not 0. The epsilon, added to the norm and not under a root, is ours; the source does not mention one.

    Eval mode uses running averages of :math:`\mu` and :math:`r_p` (``running_mean``, ``running_norm``), with
    the same `momentum` as `BatchNorm` and no small-sample correction. A constant channel gives exactly
    :math:`\beta`. Where several values share the largest magnitude, the gradient of :math:`r_\infty` is
    split evenly between them.

    Args:
        num_features: number of channels C.
        p: at least 1, or ``float("inf")``.
        The others are `BatchNorm`'s.

    Shape:
        as `BatchNorm`. One value per channel is an error in train mode here too: its output is 0.

    Raises:
        ValueError: p below 1; otherwise as `BatchNorm`.

    >>> x = torch.tensor([[1.0], [3.0]])
    >>> LpBatchNorm(1, p=1)(x).detach().round(decimals=3).flatten()  # mean 2, mean magnitude 2
    tensor([-0.5000,  0.5000])
    >>> LpBatchNorm(1, p=float("inf"))(x).detach().round(decimals=3).flatten()
    tensor([-0.3330,  0.3330])
    """

    spread = "running_norm"
    running_norm: Tensor

    def __init__(self, num_features: int, p: float, *args, **kwargs) -> None:
        if not p >= 1:
            raise ValueError(f"p must be at least 1 (or infinity) for an l_p norm, got {p}")
        super().__init__(num_features, *args, **kwargs)
        self.p = p
        names = {"running_var": self.spread}  # a norm in its place
        self._buffers = {names.get(name, name): t for name, t in self._buffers.items()}

    def reset_running_stats(self) -> None:
        for name, t in self._buffers.items():
            if t is not None:
                t.fill_(name in ("running_var", self.spread))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, range(2, 6))
        if not self.training and self.running_mean is not None:
            return self._fixed(x, (self.running_norm.to(statistics_dtype(x)) + self.eps).reciprocal())
        bessel(x, x.size(0))  # one value per channel is an error
        y, mean, norm = lp_normalize(x, self.weight, self.bias, self.p, self.eps)
        if self.training and self.track_running_stats:
            self._track(mean, norm, empty=not x.numel())
        return y


def bessel(x: Tensor, samples: int) -> float:
    """m / (m - 1), with m the values per channel in a batch of `samples` samples like those of x."""
    count = samples * math.prod(x.shape[2:])
    if count == 1:
        part = "" if samples == x.size(0) else f" in ghost batches of {samples}"
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {list(x.shape)}{part}"
        )
    return count / (count - 1) if count else 1.0  # an empty batch has no statistics to correct
