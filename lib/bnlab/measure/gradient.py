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
    value, gradient = value_and_used_gradient(model, loss, parameters, create_graph=create_graph)
    pairs = zip(gradient, parameters, strict=True)
    return value, tuple(torch.zeros_like(p) if g is None else g for g, p in pairs)


def value_and_used_gradient(
    model: nn.Module, loss: Loss, parameters: Sequence[Tensor], *, create_graph: bool = False
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The loss and its gradient; None for a parameter that the loss does not use, as after ``backward``."""
    with torch.enable_grad():
        value = evaluate(model, loss)
        if not value.requires_grad:
            raise ValueError(
                "loss: expected a value that depends on the model's trainable parameters; this one has no "
                "gradient. Look for .detach(), torch.no_grad() or .item() inside the loss"
            )
        gradient = torch.autograd.grad(value, parameters, create_graph=create_graph, allow_unused=True)
    return value.detach(), gradient


def norm(a: Iterable[Tensor]) -> float:
    """Euclidean length of a tuple of tensors, summed in float64."""
    return math.sqrt(sum(torch.linalg.vector_norm(x, dtype=torch.float64).item() ** 2 for x in a))


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """|a - b|."""
    return norm(x - y for x, y in zip(a, b, strict=True))


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN where the denominator is zero."""
    return numerator / denominator if denominator != 0 else math.nan


def cosine(a: Sequence[Tensor], b: Sequence[Tensor], norm_a: float, norm_b: float, apart: float) -> float:
    """Cosine of the angle between a and b, given their lengths and distance; NaN where a length is zero.

    1 - |a/|a| - b/|b||^2 / 2: exactly 1 for equal tuples.
    """
    scale = ratio(norm_a, norm_b)
    if 0.25 < scale < 4:  # the square is (|a - b|^2 - (|a| - |b|)^2) / (|a| |b|)
        longer = norm_a - norm_b
        square = (apart - longer) / norm_a * ((apart + longer) / norm_b)
    else:  # of lengths far apart that difference keeps no digit
        square = ratio(norm(torch.sub(x, y, alpha=scale) for x, y in zip(a, b, strict=True)), norm_a) ** 2
    return math.nan if math.isnan(square) else min(1.0, max(-1.0, 1 - square / 2))
