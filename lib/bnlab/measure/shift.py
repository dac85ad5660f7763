"""Internal covariate shift as a change of gradients: Santurkar et al. 2018, Definition 2.1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .drawing import axes, reference
from .frozen import frozen
from .gradient import (
    Loss,
    cosine,
    distance,
    norm,
    ratio,
    trainable,
    value_and_gradient,
    value_and_used_gradient,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Order = Literal["execution", "registration"]
Layers = Sequence[str | int]


@dataclass(frozen=True)
class Shift:
    """How the gradient G of one layer's weight changes to G' once all earlier parameters are updated.

    `l2` is the paper's name for it, the "l2 difference"; the same distance between the gradients of the
    whole network is the `gradient_distance` of a `Probe`.
    """

    l2: float  # |G - G'|; 0 means no shift
    cosine: float  # of the angle between G and G'; 1 means no shift
    gradient_norm: float  # |G|, to judge l2 by

    @property
    def relative(self) -> float:
        """``l2 / gradient_norm``, without a unit; NaN where the gradient is zero."""
        return ratio(self.l2, self.gradient_norm)


@dataclass(frozen=True, eq=False, repr=False)
class CovariateShift(Mapping[str, Shift]):
    """What `internal_covariate_shift` found: a mapping from the names of the layers to their `Shift`.

    Two are equal if their shifts are.
    """

    shifts: dict[str, Shift]  # by name, from the first layer to the last
    numbers: tuple[int, ...]  # of those layers among all layers of the model, from 1
    order: Order  # by which "earlier" and the numbers go

    def __getitem__(self, name: str) -> Shift:
        return self.shifts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shifts)

    def __len__(self) -> int:
        return len(self.shifts)

    def __repr__(self) -> str:
        extent = self.frame()[["l2", "cosine"]].agg(["min", "max"])  # without NaN
        l2, angle = (f"{low:.3g} to {high:.3g}" for low, high in extent.T.to_numpy())
        return f"CovariateShift({len(self)} layers in order of {self.order}: l2 {l2}, cosine {angle})"

    def frame(self) -> pd.DataFrame:
        """One row per layer: `layer` (its number, from 1), `name`, and the values of its `Shift`.

        `l2` and `gradient_norm` are in units of the gradient; `cosine` and `relative` have none.
        """
        rows = [
            {"layer": number, "name": name, **vars(shift), "relative": shift.relative}
            for number, (name, shift) in zip(self.numbers, self.items(), strict=True)
        ]
        return pd.DataFrame(rows)

    def plot(self, ax: Axes | None = None, *, quantity: str = "cosine", label: str | None = None) -> Axes:
        """One value per layer, from the first to the last: "cosine", "l2" or "relative".

        A dashed line marks what no shift is: cosine 1, or distance 0.
        """
        if quantity not in _QUANTITIES:
            raise ValueError(f"quantity: expected one of {', '.join(_QUANTITIES)}, got {quantity!r}")
        ax, frame = axes(ax), self.frame()
        ax.plot(frame["layer"], frame[quantity], marker="o", label=label)
        reference(ax, 1.0 if quantity == "cosine" else 0.0, "no shift")
        if quantity == "cosine":
            ax.set_ylim(min(-0.05, frame["cosine"].min() - 0.05), 1.1)
        ax.set_xticks(frame["layer"], [f"{n}: {name}" for n, name in zip(self.numbers, self, strict=True)])
        ax.tick_params("x", rotation=90 if len(self) > 6 else 0)
        ax.set_xlabel(f"layer, in order of {self.order}")
        ax.set_ylabel(_QUANTITIES[quantity])
        return ax


_QUANTITIES = {
    "cosine": "cosine between G and G'",
    "l2": "distance of the gradients, |G − G'|",
    "relative": "distance over length, |G − G'| / |G|",
}


def internal_covariate_shift(
    model: nn.Module,
    loss: Loss,
    step: Callable[[nn.Module], object],
    *,
    layers: Layers | None = None,
    order: Order = "execution",
) -> CovariateShift:
    r"""Internal covariate shift of every layer at one training step.

    For the weight :math:`W_i` of each linear or convolutional layer, on one mini-batch:

    .. math:: G_{t,i}&=\nabla_{W_i}L(W_1^{(t)},\dots,W_k^{(t)})\\
       G'_{t,i}&=\nabla_{W_i}L(W_1^{(t+1)},\dots,W_{i-1}^{(t+1)},W_i^{(t)},\dots,W_k^{(t)})

    The shift is :math:`\lVert G-G'\rVert_2`, in units of the gradient, and the cosine of the angle between
    the two. "Earlier" are all parameters (biases and batch-norm parameters too) before the first of the
    layer's own. What comes first has no earlier one and no shift. A weight that several layers share counts
    where it comes first: the last layer of a model whose weight is also its embedding has no shift.

    Both gradients see the same mini-batch, the same random numbers and the same buffers. Afterwards
    everything is as it was (see `frozen`), the optimizer that ``step`` uses included; a graph that waits for
    its ``backward`` may go on waiting. A compiled model is run uncompiled. Costs one forward pass per layer,
    and a backward pass from the loss down to that layer.

    Args:
        model: any module, in any mode, on any device.
        loss: takes the model, returns a scalar tensor, for one fixed mini-batch.
        step: applies the optimizer's real update to the model. When it is called, every ``.grad`` holds
            the gradient of ``loss``, so ``lambda net: optimizer.step()`` is enough. A step that calls
            ``backward`` itself must call ``zero_grad`` first, as in any training loop.
        layers: names in ``model.named_modules()``, or numbers from 1; all linear and convolutional layers if
            None. Only these are measured and cost time.
        order: "execution" goes by the first use of each parameter in the forward pass, "registration" by
            ``model.parameters()``. They differ where a layer is defined before one that runs earlier.

    Returns:
        A `CovariateShift`: one `Shift` per ``nn.Linear`` and ``nn.Conv*`` module with a trainable weight.
        The gradient of a parametrized, pruned or weight-normalized weight is taken with respect to the
        trainable parameters behind it. A cosine is NaN where a gradient is zero.

    Raises:
        TypeError: ``step`` is not callable.
        ValueError: no trainable linear or convolutional layer; ``layers`` are not of this model; ``step``
            moves nothing of this model; ``loss`` is not one differentiable number; with
            ``order="execution"``, a layer whose use cannot be seen.

    Source: Santurkar et al. 2018, Definition 2.1. It is another notion than the one of Ioffe and Szegedy
    2015, section 2, the change in the distribution of activations.

    Example:
        >>> import torch
        >>> from bnlab import internal_covariate_shift
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        >>> x = torch.randn(8, 3)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> shifts = internal_covariate_shift(net, lambda net: net(x).square().mean(),
        ...                                   lambda net: optimizer.step())
        >>> list(shifts)
        ['0', '2']
        >>> shifts["0"].l2, shifts["0"].cosine  # nothing comes before the first layer
        (0.0, 1.0)
        >>> shifts["2"].l2 > 0
        True
    """
    if not callable(step):
        raise TypeError(
            f"step: expected a callable that updates the model, such as lambda net: optimizer.step(); "
            f"got {type(step).__name__}"
        )
    if order not in get_args(Order):
        raise ValueError(f"order: expected 'execution' or 'registration', got {order!r}")
    weights = _weights(model)
    # Compiled code hides in which order it runs.
    with frozen(model) as start, torch.compiler.set_stance("force_eager"):
        with _FirstUses(model).watching() as uses:
            before = _gradients(model, loss)
        parameters = list(model.parameters()) if order == "registration" else uses.order(weights)
        position = {parameter: i for i, parameter in enumerate(parameters)}
        first = {name: min(position[p] for p in model.get_submodule(name).parameters()) for name in weights}
        names = sorted(weights, key=lambda name: first[name])
        measured = _chosen(names, layers)
        start.rewind()
        after = _update(model, step, parameters)
        start.restore()

        shifts, updated = {}, 0
        for name in measured:
            earlier = first[name]
            for parameter, value in zip(parameters[updated:earlier], after[updated:earlier], strict=True):
                parameter.data.copy_(value)
            updated = max(updated, earlier)
            g = [before[parameter] for parameter in weights[name]]
            g_shifted: Sequence[Tensor] = g
            if earlier > 0:
                start.rewind()
                _, g_shifted = value_and_gradient(model, loss, weights[name])
            shifts[name] = _compare(g, g_shifted)
    return CovariateShift(shifts, tuple(names.index(name) + 1 for name in shifts), order)


def _compare(g: Sequence[Tensor], g_shifted: Sequence[Tensor]) -> Shift:
    length, moved = norm(g), distance(g, g_shifted)
    return Shift(moved, cosine(g_shifted, g, norm(g_shifted), length, moved), length)


def _weights(model: nn.Module) -> dict[str, list[Tensor]]:
    """Of every linear and convolutional layer: the trainable parameters behind its weight."""
    weights: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | _ConvNd):
            if parametrize.is_parametrized(module, "weight"):
                behind = list(module.get_submodule("parametrizations.weight").parameters())
            else:  # pruning makes weight_orig of it, the older weight_norm weight_g and weight_v
                own = module.named_parameters(recurse=False)
                behind = [parameter for part, parameter in own if part.startswith("weight")]
            if any(parameter.requires_grad for parameter in behind):
                weights[name] = [parameter for parameter in behind if parameter.requires_grad]
    if not weights:
        raise ValueError(
            "model: expected at least one nn.Linear or nn.Conv layer whose weight has requires_grad=True, "
            "found none; the shift of Definition 2.1 is defined per layer weight"
        )
    return weights


def _chosen(names: list[str], layers: Layers | None) -> list[str]:
    """The names that `layers` stands for, in the order of `names`."""
    if layers is None:
        return names
    numbers = [names.index(layer) + 1 if layer in names else layer for layer in layers]
    if not numbers or not set(numbers) <= set(range(1, len(names) + 1)):
        raise ValueError(
            f"layers: expected names or numbers from 1 to {len(names)}, got {list(layers)}; the layers are "
            f"{', '.join(names)}"
        )
    return [name for number, name in enumerate(names, start=1) if number in numbers]


def _gradients(model: nn.Module, loss: Loss) -> dict[Tensor, Tensor]:
    """The gradient of every trainable parameter, also put into `.grad` as training would."""
    parameters = trainable(model)
    _, gradient = value_and_used_gradient(model, loss, parameters)
    gradients: dict[Tensor, Tensor] = {}
    for parameter, used in zip(parameters, gradient, strict=True):
        gradients[parameter] = torch.zeros_like(parameter) if used is None else used.to_dense()
        # A copy, since gradient clipping works in place; None where an optimizer must see None.
        parameter.grad = None if used is None else used.clone()
    return gradients


def _update(model: nn.Module, step: Callable[[nn.Module], object], parameters: list) -> list[Tensor]:
    """Let `step` move the parameters, and return where to."""
    before = [parameter.detach().clone() for parameter in parameters]
    held: set[Tensor] = set()

    def look(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        held.update(parameter for group in optimizer.param_groups for parameter in group["params"])

    hook = register_optimizer_step_pre_hook(look)
    try:
        # The caller's graph may be waiting for these values, and they come back.
        with torch.autograd._unsafe_preserve_version_counter(tuple(parameters)):
            step(model)
    finally:
        hook.remove()
    moved = any(not torch.equal(old, new) for old, new in zip(before, parameters, strict=True))
    if not moved and not held & set(parameters):
        raise ValueError(
            "step: expected it to update this model, but none of its parameters moved. "
            + (
                "The optimizer holds other parameters: make it after the model is copied, converted or moved"
                if held
                else "Does it call optimizer.step()?"
            )
        )
    return [parameter.detach().clone() for parameter in parameters]


class _FirstUses(TorchFunctionMode):
    """Watches in which order a pass first uses the parameters of a model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self._modules = list(model.modules())
        self._parameters = list(model.parameters())
        self._ids = {id(parameter) for parameter in self._parameters}
        self._depth = 0  # of calls of modules: outside of them, only a loss uses parameters, for a penalty
        self._inside: dict[Tensor, None] = {}
        self._outside: dict[Tensor, None] = {}

    @contextmanager
    def watching(self) -> Iterator[_FirstUses]:
        def count(change: int) -> Callable[..., None]:
            return lambda *_: setattr(self, "_depth", self._depth + change)

        hooks = [module.register_forward_pre_hook(count(1)) for module in self._modules]
        hooks += [module.register_forward_hook(count(-1)) for module in self._modules]
        try:
            with self:
                yield self
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_function__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        # Reading a dtype, or a detached copy, is no use.
        if any(isinstance(part, Tensor) and part.requires_grad for part in tree_leaves(result)):
            seen = self._inside if self._depth else self._outside
            for part in tree_leaves((args, kwargs)):
                if id(part) in self._ids:
                    seen.setdefault(part)
        return result

    def order(self, weights: Mapping[str, list[Tensor]]) -> list[Tensor]:
        """All parameters, first used first; what the pass did not use comes last."""
        for name, behind in weights.items():
            unseen = set(behind) - self._inside.keys() - self._outside.keys()
            if any(parameter.grad is not None for parameter in unseen):
                raise ValueError(
                    f"order: cannot see when layer {name!r} runs; give order='registration', or make its "
                    f"forward use its weight through functions of torch"
                )
        return list(dict.fromkeys([*self._inside, *self._outside, *self._parameters]))
