"""Internal covariate shift as a change of gradients: [2] Definition 2.1."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from .frozen import RandomState, frozen
from .gradient import Loss, cosine, distance, norm, trainable, value_and_gradient, value_and_used_gradient


@dataclass(frozen=True)
class Shift:
    """How the gradient G of one layer's weight changes to G' once all earlier parameters are updated."""

    l2: float  # |G - G'|; 0 means no shift
    cosine: float  # of the angle between G and G'; 1 means no shift
    gradient_norm: float  # |G|, to judge l2 by


def internal_covariate_shift(
    model: nn.Module, loss: Loss, step: Callable[[nn.Module], object]
) -> dict[str, Shift]:
    r"""Internal covariate shift of every layer at one training step, by [2] Definition 2.1.

    For the weight :math:`W_i` of each linear or convolutional layer, on one mini-batch:

    .. math:: G_{t,i}&=\nabla_{W_i}L(W_1^{(t)},\dots,W_k^{(t)})\\
       G'_{t,i}&=\nabla_{W_i}L(W_1^{(t+1)},\dots,W_{i-1}^{(t+1)},W_i^{(t)},\dots,W_k^{(t)})

    The shift is :math:`\lVert G-G'\rVert_2`, in units of the gradient, and the cosine of the angle between
    the two. "Earlier" is every parameter registered before the weight (biases and batch-norm parameters
    too), in the order of ``model.parameters()``. The first weight has no earlier one and no shift.

    Both gradients see the same mini-batch, the same random numbers and the same buffers. Afterwards
    everything is as it was (see `frozen`), the optimizer that ``step`` uses included.

    For a plain ``nn.Sequential`` (nested ones too) the activations in front of a layer are kept, and each
    gradient is differentiated only down to its own layer. Any other module is run in full once per layer.

    Args:
        model: any module, in any mode, on any device.
        loss: takes the model, returns a scalar tensor, for one fixed mini-batch.
        step: applies the optimizer's real update to the model. When it is called, every ``.grad`` holds
            the gradient of ``loss``, so ``lambda net: optimizer.step()`` is enough. A step that calls
            ``backward`` itself must call ``zero_grad`` first, as in any training loop.

    Returns:
        One `Shift` per ``nn.Linear`` and ``nn.Conv*`` module whose weight requires a gradient, by the
        module's name in ``model.named_modules()``. The gradient of a parametrized weight is taken with
        respect to the parameters behind it, and its layer's own bias never counts as earlier. A cosine is
        NaN where a gradient is zero.

    Raises:
        TypeError: ``step`` is not callable.
        ValueError: no trainable linear or convolutional layer; ``loss`` is not one differentiable number.

    Source: [2] Definition 2.1. It is another notion than the one of [1] §2, the change in the
    distribution of activations.

    Example:
        >>> import torch
        >>> from bnlab import internal_covariate_shift
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        >>> x = torch.randn(8, 3)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> found = internal_covariate_shift(net, lambda net: net(x).square().mean(),
        ...                                  lambda net: optimizer.step())
        >>> list(found)
        ['0', '2']
        >>> found["0"].l2, found["0"].cosine  # nothing comes before the first layer
        (0.0, 1.0)
        >>> found["2"].l2 > 0
        True
    """
    if not callable(step):
        raise TypeError(
            f"step: expected a callable that updates the model, such as lambda net: optimizer.step(); "
            f"got {type(step).__name__}"
        )
    with frozen(model) as start:
        parameters = list(model.parameters())
        position: dict[Tensor, int] = {parameter: i for i, parameter in enumerate(parameters)}
        layers = _weights(model)
        chain = _Chain(model)

        differentiable = trainable(model)
        with chain.recorded():
            _, gradient = value_and_used_gradient(model, loss, differentiable)
        before: dict[Tensor, Tensor] = {}
        for parameter, used in zip(differentiable, gradient, strict=True):
            before[parameter] = torch.zeros_like(parameter) if used is None else used
            # A copy, since gradient clipping works in place; None where an optimizer must see None.
            parameter.grad = None if used is None else used.clone()
        start.rewind()
        step(model)
        after = [parameter.detach().clone() for parameter in parameters]
        start.restore()

        shifts = {}
        updated = 0
        for name, (first, weight) in sorted(layers.items(), key=lambda layer: position[layer[1][0]]):
            earlier = position[first]
            for parameter, value in zip(parameters[updated:earlier], after[updated:earlier], strict=True):
                parameter.data.copy_(value)
            updated = max(updated, earlier)
            g = [before[parameter] for parameter in weight]
            g_shifted: Sequence[Tensor] = g
            if earlier > 0:
                start.rewind()
                chain.advance_to(first)
                start.rewind()
                with chain.tail():
                    _, g_shifted = value_and_gradient(model, loss, weight)
            length, moved = norm(g), distance(g, g_shifted)
            shifts[name] = Shift(moved, cosine(g_shifted, g, norm(g_shifted), length, moved), length)
    return {name: shifts[name] for name in layers}


def _weights(model: nn.Module) -> dict[str, tuple[Tensor, list[Tensor]]]:
    """Of every linear and convolutional layer: where it begins, and the parameters behind its weight."""
    weights: dict[str, tuple[Tensor, list[Tensor]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | _ConvNd):
            if parametrize.is_parametrized(module, "weight"):
                # Its parameters come after the layer's own bias, which is no earlier layer.
                first: Tensor = next(module.parameters())
                behind: list[Tensor] = list(module.get_submodule("parametrizations.weight").parameters())
            else:
                first = module.weight
                behind = [module.weight]
            if all(parameter.requires_grad for parameter in behind):
                weights[name] = first, behind
    if not weights:
        raise ValueError(
            "model: expected at least one nn.Linear or nn.Conv layer whose weight has requires_grad=True, "
            "found none; the shift of [2] Definition 2.1 is defined per layer weight"
        )
    return weights


class _Chain:
    """A sequential model, to be run from the middle on kept activations; any other module runs in full.

    The model's `forward` is replaced, for the time of one pass, by one that starts at the kept activation.
    A loss that uses the model's parameters or parts directly still sees the model itself.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._items = _items(model)
        self._done = 0  # items[:done] have run, with updated parameters
        self._activation: Tensor  # what they gave
        self._random: RandomState  # and left the random generators in

    @contextmanager
    def _forward(self, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
        self._model.forward = function
        try:
            yield
        finally:
            del self._model.forward

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep what the model is given in this pass, if it can be run from the middle at all."""
        if len(self._items) == 1:
            yield
            return
        inputs = []
        plain = True

        def forward(x: Tensor) -> Tensor:
            nonlocal plain
            # Something that depends on the parameters cannot be kept.
            plain = plain and isinstance(x, Tensor) and not x.requires_grad
            # A copy, since the first item may work in place.
            inputs.append((x.clone() if plain else x, RandomState()))
            for item in self._items:
                plain = plain and isinstance(x, Tensor)
                x = item(x)
            return x

        with self._forward(forward):
            yield
        # Called twice, a kept input would be wrong for one of the calls.
        if plain and len(inputs) == 1:
            self._activation, self._random = inputs[0]
        else:
            self._items = [self._model]

    @torch.no_grad()
    def advance_to(self, parameter: Tensor) -> None:
        """Run the items in front of the first that holds `parameter`, with the parameters they have now."""
        if len(self._items) == 1:
            return
        holder = next(i for i, item in enumerate(self._items) if parameter in set(item.parameters()))
        self._random.rewind()
        for item in self._items[self._done : holder]:
            self._activation = item(self._activation)
        self._random = RandomState()
        self._done = holder

    @contextmanager
    def tail(self) -> Iterator[None]:
        """Let a pass of the model start where `advance_to` stopped."""
        if len(self._items) == 1:
            yield
            return

        def forward(x: Tensor) -> Tensor:
            self._random.rewind()
            x = self._activation.clone()  # a copy: the next item may work in place
            for item in self._items[self._done :]:
                x = item(x)
            return x

        with self._forward(forward):
            yield


def _items(model: nn.Module) -> list[nn.Module]:
    """The modules that a plain (possibly nested) sequential model runs one after the other."""
    items = _flatten(model)
    buffers = [id(buffer) for item in items for buffer in item.buffers()]
    # A buffer met twice carries something from the front to the back: run such a model in full.
    return items if len(set(buffers)) == len(buffers) else [model]


def _flatten(module: nn.Module) -> list[nn.Module]:
    if (
        isinstance(module, nn.Sequential)
        and type(module).forward is nn.Sequential.forward
        and "forward" not in vars(module)
        and len(module) > 0
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
    ):
        return [item for child in module for item in _flatten(child)]
    return [module]
