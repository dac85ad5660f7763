"""Swap the normalization layers of an existing network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .batch import ChannelNorm
from .pointwise import DynamicTanh
from .sample import GroupNorm, LayerNorm, RMSNorm

_BY_CHANNEL = (_BatchNorm, _InstanceNorm, nn.GroupNorm, ChannelNorm, GroupNorm, DynamicTanh)
_TRAILING = (nn.LayerNorm, nn.RMSNorm, LayerNorm, RMSNorm)


class OnTrailing(nn.Module):
    """Apply `layer` where a LayerNorm or RMSNorm was: its input becomes a batch of `normalized_shape`.

    (*, C) becomes (rows, C) and (*, C, H, W) becomes (rows, C, H, W), so that channels are dimension 1.
    """

    def __init__(self, layer: nn.Module, normalized_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = layer
        self.normalized_shape = normalized_shape

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, *self.normalized_shape)).reshape(x.shape)

    def extra_repr(self) -> str:
        return f"normalized_shape={self.normalized_shape}"


def convert(model: nn.Module, factory: Callable[[int], nn.Module]) -> nn.Module:
    """Replace every normalization layer of a network, in place, by ``factory(num_features)``.

    Replaced are PyTorch's BatchNorm, InstanceNorm, GroupNorm, LayerNorm and RMSNorm, and the layers of this
    package. `num_features` is the number of channels; for a LayerNorm or RMSNorm it is the first entry of
    `normalized_shape`, and the new layer is wrapped in `OnTrailing`, which hands it each normalized slice as
    one sample: the tokens of (N, T, C) become a batch of N * T.

    The new layer keeps the old one's device, dtype and train/eval mode, and takes over each parameter and
    buffer that has the same name and shape in both (with its `requires_grad`); the rest starts as the
    factory made it. A layer used in two places is replaced by one layer used in two places. The fast path
    of ``nn.TransformerEncoderLayer``, which would bypass the new layer in eval mode, is turned off.

    Make the optimizer after converting: it must see the new parameters. To keep the original, convert
    ``copy.deepcopy(model)``.

    Args:
        model: any network; a single normalization layer too.
        factory: from the number of channels to a new layer, such as ``bnlab.BatchNorm`` or
            ``lambda c: bnlab.GroupNorm(8, c)``; ``lambda c: nn.Identity()`` removes the layers.

    Returns:
        the model (the new layer, if the model itself was a normalization layer).

    Raises:
        ValueError: no normalization layer found, or one whose number of channels is not known yet.
        TypeError: the factory returned something else than a module.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    >>> convert(net, lambda c: GroupNorm(4, c))[1]
    GroupNorm(4, 8, eps=1e-05, affine=True, bias=True)
    """
    home = next(model.parameters(), None)
    old_layers = [m for m in model.modules() if isinstance(m, _BY_CHANNEL + _TRAILING)]
    if not old_layers:
        kinds = ", ".join(sorted({t.__name__.lstrip("_") for t in _BY_CHANNEL + _TRAILING}))
        raise ValueError(f"found no normalization layer in {type(model).__name__}; looked for {kinds}")
    # All new layers are made before the first is put in: a factory that fails leaves the model whole.
    new_layers: dict[nn.Module, nn.Module] = {old: _replace(old, factory, home) for old in old_layers}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in new_layers:
                parent._modules[name] = new_layers[child]
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # "neither": the switch of its fast path
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # nested tensors exist for the fast path only
    return new_layers.get(model, model)


def _replace(old: nn.Module, factory: Callable[[int], nn.Module], home: Tensor | None) -> nn.Module:
    if isinstance(old, _TRAILING):
        channels = old.normalized_shape[0]
    else:
        channels = getattr(old, "num_channels" if hasattr(old, "num_channels") else "num_features")
    if not channels:
        raise ValueError(
            f"{type(old).__name__} does not know its number of channels yet: run one batch through the model"
        )
    new = factory(channels)
    if not isinstance(new, nn.Module):
        raise TypeError(f"factory({channels}) must return a torch.nn.Module, got {type(new).__name__}")
    own = dict(old.named_parameters(recurse=False)) | dict(old.named_buffers(recurse=False))
    like = next((t for t in own.values() if t.is_floating_point()), home)
    if like is not None:
        new.to(device=like.device, dtype=like.dtype)
    new.train(old.training)
    with torch.no_grad():
        for name, t in (*new.named_parameters(), *new.named_buffers()):
            if name in own and own[name].shape == t.shape:
                t.copy_(own[name])
                if isinstance(t, nn.Parameter):
                    t.requires_grad_(own[name].requires_grad)
    return OnTrailing(new, tuple(old.normalized_shape)) if isinstance(old, _TRAILING) else new
