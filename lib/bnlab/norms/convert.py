"""Swap the normalization layers of an existing network."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .batch import BatchNorm, LpBatchNorm, NoisyBatchNorm
from .pointwise import DynamicTanh
from .sample import GroupNorm, InstanceNorm, LayerNorm, RMSNorm

_TRAILING = (nn.LayerNorm, nn.RMSNorm)
_KINDS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, DynamicTanh, *_TRAILING)
_OURS = (BatchNorm, LpBatchNorm, NoisyBatchNorm, InstanceNorm, GroupNorm, LayerNorm, RMSNorm)
_FORWARDS = {kind.forward for kind in (*_KINDS, *_OURS, nn.SyncBatchNorm)}
_OPTIONS = ("eps", "momentum", "affine", "elementwise_affine", "track_running_stats")

Choice = Collection[str] | Callable[[str, nn.Module], bool]


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


def convert(
    model: nn.Module,
    factory: Callable[..., nn.Module],
    *,
    only: Choice | None = None,
    skip: Choice = (),
) -> list[str]:
    """Replace the normalization layers of a network, in place, by ``factory(num_features)``.

    Replaced are PyTorch's BatchNorm, InstanceNorm, GroupNorm, LayerNorm and RMSNorm, and the layers of this
    package. `num_features` is the number of channels; for a LayerNorm or RMSNorm it is the first entry of
    `normalized_shape`, and the new layer is wrapped in `OnTrailing`, which hands it each normalized slice as
    one sample: the tokens of (N, T, C) become a batch of N * T.

    A factory that is a class also gets what the old layer was made with and the class knows: ``eps``,
    ``momentum``, ``affine`` or ``elementwise_affine``, ``bias``, ``track_running_stats``; GroupNorm the
    groups, LayerNorm and RMSNorm the whole `normalized_shape`. So ``convert(net, bnlab.BatchNorm)`` computes
    the same numbers from torch's batch norms. Any other factory decides for itself.

    The new layer keeps the old one's device, dtype, train/eval mode and hooks, and takes over the very
    parameters and buffers that have the same name and shape in both; the rest starts as the factory made it.
    A layer used in two places is replaced by one layer used in two places. A subclass with a ``forward`` of
    its own is left as it is, with a warning. The fast path of ``nn.TransformerEncoderLayer``, which would
    bypass the new layer in eval mode, is turned off.

    Make the optimizer after converting: it must see new parameters. To keep the original, convert
    ``copy.deepcopy(model)``. With torch's tools:

    - ``torch.optim.swa_utils.update_bn`` takes the statistics of all batch norms of this package again.
    - ``SyncBatchNorm.convert_sync_batchnorm`` turns `BatchNorm` into torch's layer, with the same numbers. It
      does so with `GhostBatchNorm` and `NoisyBatchNorm` too, and their ghosts and noise are gone: call it
      before ``convert``. It fails on `LpBatchNorm`.
    - ``torch.nn.utils.fuse_conv_bn_eval(conv, norm)`` folds a `BatchNorm` into the convolution before it;
      fusion by patterns (``torch.fx.experimental.optimization.fuse``) finds torch's own classes only.

    Args:
        model: any network that contains normalization layers.
        factory: a class such as ``bnlab.BatchNorm``, or a function from the number of channels to a new
            layer such as ``lambda c: bnlab.GroupNorm(8, c)``; ``lambda c: nn.Identity()`` removes layers.
        only: names of layers as in ``model.named_modules()``, or a function of name and layer that says
            whether it is replaced; None for all.
        skip: names, or a function, of layers to leave as they are.

    Returns:
        the names of the layers that were replaced.

    Raises:
        ValueError: no normalization layer found, a name that is none, the model itself is a normalization
            layer, or a layer does not know its number of channels yet.
        TypeError: the factory returned something else than a module.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    >>> convert(net, lambda c: GroupNorm(4, c))
    ['1']
    >>> net[1]
    GroupNorm(4, 8, eps=1e-05, affine=True, bias=True)
    """
    chosen = _choose(model, only, skip)
    home = next(model.parameters(), None)
    # All new layers are made before the first is put in: a factory that fails leaves the model whole.
    new_layers = {old: _replace(old, factory, home) for old in chosen.values()}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in new_layers:
                parent._modules[name] = new_layers[child]
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # "neither": the switch of its fast path
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # nested tensors exist for the fast path only
    return list(chosen)


def _choose(model: nn.Module, only: Choice | None, skip: Choice) -> dict[str, nn.Module]:
    """The layers to replace, by name; a warning for those that cannot be."""
    found: dict[str, nn.Module] = {
        n: m for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, _KINDS)
    }
    if "" in found:
        raise ValueError(
            f"the model itself is a {type(model).__name__}, and nothing holds it that could be changed: "
            "convert nn.Sequential(model), or call the factory"
        )
    for choice in (only, skip):
        unknown = [] if choice is None or callable(choice) else sorted(set(choice) - set(found))
        if unknown:
            raise ValueError(f"{unknown} are no normalization layers of the model; it has {list(found)}")

    def holds(choice: Choice, name: str, layer: nn.Module) -> bool:
        return choice(name, layer) if callable(choice) else name in choice

    left = {m for n, m in found.items() if holds(skip, n, m)}
    chosen = {n: m for n, m in found.items() if m not in left and (only is None or holds(only, n, m))}
    for name in [n for n, m in chosen.items() if type(m).forward not in _FORWARDS]:
        kind = type(chosen.pop(name)).__name__
        warnings.warn(
            f"left {name!r} ({kind}) as it is: its forward is its own, and what it computes besides cannot "
            "be known; replace it by hand, or name it in skip=",
            stacklevel=3,
        )
    if not chosen:
        kinds = ", ".join(sorted({t.__name__.lstrip("_") for t in _KINDS}))
        raise ValueError(f"found no normalization layer in {type(model).__name__}; looked for {kinds}")
    return chosen


def _replace(old: nn.Module, factory: Callable[..., nn.Module], home: Tensor | None) -> nn.Module:
    new = _make(old, factory)
    own = old._parameters | old._buffers
    like = next((t for t in own.values() if t is not None and t.is_floating_point()), home)
    if like is not None:
        new.to(device=like.device, dtype=like.dtype)
    new.train(old.training)
    for tensors in (new._parameters, new._buffers):
        for name, t in tensors.items():
            mine = own.get(name)
            if t is not None and mine is not None and mine.shape == t.shape:
                tensors[name] = mine  # type: ignore[assignment]
    if isinstance(old, _TRAILING) and not isinstance(new, _TRAILING):
        new = OnTrailing(new, tuple(old.normalized_shape))
    for name, hooks in vars(old).items():
        if "hook" in name and hooks:
            setattr(new, name, hooks)
    return new


def _make(old: nn.Module, factory: Callable[..., nn.Module]) -> nn.Module:
    if isinstance(old, _TRAILING):
        channels = old.normalized_shape[0]
    else:
        channels = getattr(old, "num_channels" if hasattr(old, "num_channels") else "num_features")
    if not channels:
        raise ValueError(
            f"{type(old).__name__} does not know its number of channels yet: run one batch through the model"
        )
    sizes: tuple = (channels,)
    options = {}
    if isinstance(factory, type):
        known = set(inspect.signature(factory).parameters)
        if "kwargs" in known:  # handed on to BatchNorm
            known.update(inspect.signature(BatchNorm).parameters)
        options = {name: getattr(old, name) for name in _OPTIONS if name in known and hasattr(old, name)}
        affine = getattr(old, "weight", None) is not None
        if "bias" in known and affine:
            options["bias"] = getattr(old, "bias", None) is not None
        if issubclass(factory, _TRAILING) and isinstance(old, _TRAILING):
            sizes = (tuple(old.normalized_shape),)
        if issubclass(factory, nn.GroupNorm) and isinstance(old, nn.GroupNorm):
            sizes = (old.num_groups, old.num_channels)
    new = factory(*sizes, **options)
    if not isinstance(new, nn.Module):
        raise TypeError(f"factory({channels}) must return a torch.nn.Module, got {type(new).__name__}")
    return new
