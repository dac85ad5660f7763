"""The gradient of a loss as a tuple of tensors, and lengths and angles of such tuples."""

import math
from collections.abc import Callable, Iterable, Sequence

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


def squared_norm(a: Iterable[Tensor]) -> float:
    """Squared Euclidean length of a tuple of tensors, summed in float64."""
    return sum(torch.linalg.vector_norm(x, dtype=torch.float64).item() ** 2 for x in a)


def norm(a: Iterable[Tensor]) -> float:
    """Euclidean length of a tuple of tensors."""
    return math.sqrt(squared_norm(a))


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN where the denominator is zero."""
    return numerator / denominator if denominator != 0 else math.nan


def distance_and_cosine(
    a: Sequence[Tensor], b: Sequence[Tensor], *, squared: float | None = None
) -> tuple[float, float]:
    """Length of a - b, and cosine of the angle between a and b (NaN where one of them is zero).

    The cosine comes from the three lengths: 2 <a, b> = |a|^2 + |b|^2 - |a - b|^2. `squared` is |b|^2, where
    it is known.
    """
    between = sum(
        torch.linalg.vector_norm(x - y, dtype=torch.float64).item() ** 2 for x, y in zip(a, b, strict=True)
    )
    a2, b2 = squared_norm(a), squared_norm(b) if squared is None else squared
    # sqrt(x * x) is exactly x, so that two equal tuples have a cosine of exactly 1.
    cosine = ratio((a2 + b2 - between) / 2, math.sqrt(a2 * b2))
    return math.sqrt(between), cosine if math.isnan(cosine) else max(-1.0, min(1.0, cosine))
