"""Normalization of the weights instead of the activations."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize


class WeightNorm(nn.Module):
    """The map (g, v) -> g v / ||v||, for `weight_norm`."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / self._norm(v))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return self._norm(weight), weight

    def _norm(self, v: Tensor) -> Tensor:
        if self.dim in (None, -1):
            return v.square().sum().sqrt()
        others = tuple(d for d in range(v.dim()) if d != self.dim)
        return v.square().sum(others, keepdim=True).sqrt() if others else v.abs()


def weight_norm(module: nn.Module, name: str = "weight", dim: int | None = 0) -> nn.Module:
    r"""Learn the length and the direction of a module's weights separately.

    .. math:: w = g\,\frac{v}{\|v\|}

    The direction v/||v|| has unit length; g is the length. With ``dim=0`` there is one length per output
    unit; with ``dim=None`` one for the whole tensor. The module's function does not change at first.
    A unit whose v is all zero has no direction: its weights are NaN, as in PyTorch.

    Drop-in for ``torch.nn.utils.parametrizations.weight_norm``: g and v are
    ``parametrizations.<name>.original0`` and ``original1``, and ``torch.nn.utils.parametrize`` can remove it
    again. Source: Salimans and Kingma 2016, arXiv:1602.07868.

    Args:
        module: holds the weight; changed in place.
        name: the weight's name.
        dim: the dimension that keeps a length of its own, or None (-1 means None, as in PyTorch).

    Returns:
        the module.

    Raises:
        ValueError: the module has no parameter of that name.

    >>> import torch
    >>> layer = weight_norm(nn.Linear(3, 2))
    >>> g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    >>> g.shape, v.shape
    (torch.Size([2, 1]), torch.Size([2, 3]))
    >>> torch.allclose(layer.weight.norm(dim=1), g.flatten())
    True
    """
    if not isinstance(getattr(module, name, None), Tensor):
        found = [n for n, _ in module.named_parameters(recurse=False)]
        raise ValueError(f"{type(module).__name__} has no parameter {name!r}; it has {found}")
    parametrize.register_parametrization(module, name, WeightNorm(dim), unsafe=True)
    return module
