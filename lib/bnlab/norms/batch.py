"""Normalization with the statistics of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .functional import _batch_layout, normalize


class BatchNorm(nn.Module):
    r"""Batch normalization of (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W) input.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta
    """

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
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        like = {"device": device, "dtype": dtype}
        self.register_parameter("weight", nn.Parameter(torch.empty(num_features, **like)) if affine else None)
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(num_features, **like)) if affine and bias else None
        )
        tracked = track_running_stats
        self.register_buffer("running_mean", torch.zeros(num_features, **like) if tracked else None)
        self.register_buffer("running_var", torch.ones(num_features, **like) if tracked else None)
        self.register_buffer(
            "num_batches_tracked", torch.tensor(0, dtype=torch.long, device=device) if tracked else None
        )
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget the running statistics: mean 0, variance 1, no batches."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, running statistics forgotten."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if not 2 <= x.dim() <= 5:
            raise ValueError(f"expected 2D, 3D, 4D or 5D input (got {x.dim()}D input)")
        dims, per_channel = _batch_layout(x)
        if not self.training and self.running_mean is not None:
            scale = (self.running_var.view(per_channel) + self.eps).rsqrt()
            scale = scale if self.weight is None else scale * self.weight.view(per_channel)
            y = (x - self.running_mean.view(per_channel)) * scale
            return (y if self.bias is None else y + self.bias.view(per_channel)).to(x.dtype)
        count = x.numel() // x.size(1)
        if count == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {list(x.shape)}"
            )
        y, mean, var = normalize(x, self.weight, self.bias, per_channel, dims, self.eps)
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            if count:
                self._track(self.running_mean, mean, momentum)
                self._track(self.running_var, var * (count / (count - 1)), momentum)
        return y

    @staticmethod
    def _track(running: Tensor, new: Tensor, momentum: float) -> None:
        if running.dtype == new.dtype:
            running.lerp_(new.view(-1), momentum)
        else:
            running.copy_(running.to(new.dtype).lerp(new.view(-1), momentum))

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )
