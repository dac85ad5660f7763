"""Layers without statistics: what each value becomes depends on that value alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .functional import batch_layout
from .layer import Layer, check_input


class _ScaledELU(torch.autograd.Function):
    """scale * (x if x > 0 else alpha (e^x - 1)). The output is all that backward needs if alpha >= 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, alpha, scale):
        return x.clamp(max=0).expm1_().mul_(scale * alpha).add_(x.clamp(min=0), alpha=scale)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.alpha, ctx.scale = inputs
        ctx.save_for_backward(output if ctx.alpha >= 0 else x)

    @staticmethod
    def backward(ctx, grad):
        """The slope is scale * alpha e^min(x, 0), and for positive x what lacks to scale."""
        (saved,) = ctx.saved_tensors
        low, level = saved.clamp(max=0), ctx.scale * ctx.alpha
        slope = low + level if ctx.alpha >= 0 else low.exp() * level
        if ctx.alpha != 1:
            slope = slope + saved.sign().clamp(min=0) * (ctx.scale - level)
        return grad * slope, None, None


class ELU(Layer):
    r"""Exponential linear unit: the identity above zero, a curve that levels off at -alpha below.

    .. math:: f(x) = x \;\text{if}\; x > 0 \;\text{else}\; \alpha\,(e^x - 1)

    Its slope for negative input is :math:`\alpha e^x`: it does saturate, but gradually. Drop-in for
    ``torch.nn.ELU``. Source: Clevert, Unterthiner and Hochreiter 2016, arXiv:1511.07289.

    Args:
        alpha: the level that large negative input approaches is -alpha.
        inplace: overwrite the input.

    Shape:
        any; the output has the shape and dtype of the input.

    >>> ELU()(torch.tensor([-50.0, 0.0, 2.0]))
    tensor([-1.,  0.,  2.])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if inplace and alpha < 0:
            raise ValueError(f"inplace=True needs alpha >= 0 to find its gradient, got alpha={alpha}")
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        check_input(self, x)
        y = _ScaledELU.apply(x, self.alpha, 1.0)
        return x.copy_(y) if self.inplace else y

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}{', inplace=True' if self.inplace else ''}"


class SELU(Layer):
    r"""Scaled exponential linear unit.

    .. math:: f(x) = \lambda\,(x \;\text{if}\; x > 0 \;\text{else}\; \alpha\,(e^x - 1))

    with :math:`\lambda = 1.0507...` and :math:`\alpha = 1.6732...`: the pair for which a standard normal
    input has a standard normal's mean and variance at the output. A net keeps these from layer to layer
    only with weights of mean 0 and variance 1/fan-in. Drop-in for ``torch.nn.SELU``. Source: Klambauer,
    Unterthiner, Mayr and Hochreiter 2017, arXiv:1706.02515.

    Args:
        inplace: overwrite the input.

    Shape:
        any; the output has the shape and dtype of the input.

    >>> SELU()(torch.tensor([-50.0, 0.0, 1.0]))
    tensor([-1.7581,  0.0000,  1.0507])
    """

    alpha = 1.6732632423543772848170429916717
    scale = 1.0507009873554804934193349852946

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        check_input(self, x)
        y = _ScaledELU.apply(x, self.alpha, self.scale)
        return x.copy_(y) if self.inplace else y

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class DynamicTanh(Layer):
    r"""Dynamic tanh (DyT): a learned squashing in place of a normalization.

    .. math:: y = \gamma\,\tanh(\alpha x) + \beta

    One scalar :math:`\alpha` for the layer, :math:`\gamma` and :math:`\beta` per channel, no statistics at
    all. Proposed for Transformers, in place of LayerNorm. Source: Zhu, Chen, He, LeCun and Liu 2025,
    arXiv:2503.10622, with its start :math:`\alpha = 0.5, \gamma = 1, \beta = 0`. There the channels are the
    last dimension; here, as in all layers of this package, the second (`convert` takes care of it).

    Args:
        num_features: number of channels C.
        alpha: the start of :math:`\alpha`.

    Shape:
        (N, C, ...); the output has the shape and dtype of the input.

    Raises:
        RuntimeError: wrong number of channels or dtype.

    >>> DynamicTanh(1)(torch.tensor([[0.0], [2.0], [100.0]])).detach().flatten()
    tensor([0.0000, 0.7616, 1.0000])
    """

    def __init__(self, num_features: int, alpha: float = 0.5, device=None, dtype=None) -> None:
        super().__init__()
        self.num_features = num_features
        self.alpha = nn.Parameter(torch.full((1,), alpha, device=device, dtype=dtype))
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.size(1) != self.num_features:
            raise RuntimeError(
                f"expected input with {self.num_features} channels in dimension 1, "
                f"got input size {list(x.shape)}"
            )
        check_input(self, x)
        shape = batch_layout(x)[1]
        return (self.weight.view(shape) * torch.tanh(self.alpha * x) + self.bias.view(shape)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}"
