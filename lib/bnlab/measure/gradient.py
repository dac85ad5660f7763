"""The gradient of a loss as a tuple of tensors, and lengths and angles of such tuples."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters with ``requires_grad``, each once, in the order of ``model.parameters()``."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            "model: expected at least one parameter with requires_grad=True, found none; there is no "
            "gradient to measure. Unfreeze some parameters first"
        )
    return parameters


def evaluate(model: nn.Module, loss: Loss) -> Tensor:
    """``loss(model)``, checked to be one number."""
    if not callable(loss):
        raise TypeError(
            f"loss: expected a callable that takes the model and returns a scalar tensor, such as "
            f"lambda net: cross_entropy(net(x), y); got {type(loss).__name__}"
        )
    value = loss(model)
    if not isinstance(value, Tensor):
        raise TypeError(
            f"loss: expected it to return a tensor, got {type(value).__name__}; leave out .item() or float()"
        )
    if value.numel() != 1:
        raise ValueError(
            f"loss: expected it to return one number, got shape {tuple(value.shape)}; "
            f"take the mean or the sum over the batch"
        )
    return value


def value_and_gradient(
    model: nn.Module, loss: Loss, parameters: Sequence[Tensor], *, create_graph: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss and its gradient; a parameter that the loss does not use has gradient zero."""
    with torch.enable_grad():
        value = evaluate(model, loss)
        if not value.requires_grad:
            raise ValueError(
                "loss: expected a value that depends on the model's trainable parameters; this one has no "
                "gradient. Look for .detach(), torch.no_grad() or .item() inside the loss"
            )
        gradient = torch.autograd.grad(
            value, parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    return value.detach(), gradient


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Inner product of two tuples of tensors, summed in float64."""
    return sum(torch.sum(x.double() * y.double()).item() for x, y in zip(a, b, strict=True))


def norm(a: Sequence[Tensor]) -> float:
    """Euclidean length of a tuple of tensors."""
    return math.sqrt(inner(a, a))


def difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    """a − b."""
    return [x - y for x, y in zip(a, b, strict=True)]


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN where the denominator is zero."""
    return numerator / denominator if denominator != 0 else math.nan


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Cosine of the angle between two tuples of tensors; NaN where one of them is zero."""
    # sqrt(x * x) is exactly x, so that two equal tuples have a cosine of exactly 1.
    quotient = ratio(inner(a, b), math.sqrt(inner(a, a) * inner(b, b)))
    return quotient if math.isnan(quotient) else max(-1.0, min(1.0, quotient))
