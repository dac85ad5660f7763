"""The gradient of a loss as a tuple of tensors, and lengths and angles of such tuples."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from .frozen import ForwardState

Loss = Callable[[nn.Module], Tensor]
Parameters = str | Iterable[Tensor | str]

# What torch says, and what helps.
REMEDIES = {
    "torch.utils.checkpoint": "with reentrant checkpointing there are no gradients with respect to chosen "
    "parameters; call torch.utils.checkpoint.checkpoint(..., use_reentrant=False)",
    "derivative for aten::_scaled_dot_product": "this attention kernel cannot be differentiated twice; "
    "compute the loss inside `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`",
    "does not currently support double backward": "a compiled module cannot be differentiated twice; "
    "hand over the uncompiled one (compiled._orig_mod)",
    "derivative for": "an operation of the network cannot be differentiated twice; write it with others, for "
    "example hardsigmoid as (x / 6 + 0.5).clamp(0, 1)",
    "marked with @once_differentiable": "a function of the network is marked once_differentiable: "
    "its second derivative is not defined",
    "Inference tensors": "a tensor was made inside torch.inference_mode and has no gradient; "
    "make it under torch.no_grad instead, or use tensor.clone()",
}


@contextmanager
def explained() -> Iterator[None]:
    """Errors of torch with the remedy in front."""
    try:
        yield
    except RuntimeError as error:
        for words, remedy in REMEDIES.items():
            if words in str(error):
                raise RuntimeError(f"loss: {remedy}. torch says: {error}") from error
        raise


def trainable(model: nn.Module, parameters: Parameters | None = None) -> list[Tensor]:
    """The parameters with ``requires_grad``, each once, in the order of ``model.parameters()``.

    With ``parameters`` only those: tensors, names of parameters, or names of modules, which stand for all
    trainable parameters below them. They come in the order in which they are named.
    """
    if parameters is None:
        found: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not found:
            raise ValueError(
                "model: expected at least one parameter with requires_grad=True, found none; there is no "
                "gradient to measure. Unfreeze some parameters first"
            )
    else:
        wanted = [parameters] if isinstance(parameters, str | Tensor) else list(parameters)
        found = list(dict.fromkeys(parameter for one in wanted for parameter in _chosen(model, one)))
        if not found:
            raise ValueError("parameters: expected at least one parameter or name, got none")
    if any(parameter.is_complex() for parameter in found):
        raise TypeError(
            "model: expected real parameters, found complex ones; gradients and curvature are measured over "
            "real numbers. Keep real and imaginary part as two parameters and join them with torch.complex"
        )
    if any(parameter.is_inference() for parameter in found):
        raise RuntimeError(
            "model: expected parameters with gradients, found some made inside torch.inference_mode; "
            "build or load the model outside of it"
        )
    return found


def _chosen(model: nn.Module, choice: Tensor | str) -> list[Tensor]:
    named: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    if isinstance(choice, str):
        below = [p for name, p in named.items() if name.startswith(f"{choice}.") and p.requires_grad]
        found = [named[choice]] if choice in named else below
        if not found:
            some = ", ".join(list(named)[:4])
            raise ValueError(
                f"parameters: no trainable parameter is named {choice!r} or lies in a module of that name; "
                f"names of this model: {some}{', …' if len(named) > 4 else ''}"
            )
    else:
        found = [p for p in model.parameters() if p is choice]
        if not found:
            kind = f"a tensor of shape {tuple(choice.shape)}" if isinstance(choice, Tensor) else repr(choice)
            raise ValueError(f"parameters: expected parameters of the model or their names, got {kind}")
    if not all(p.requires_grad for p in found):
        raise ValueError(
            f"parameters: {choice if isinstance(choice, str) else 'one'} has requires_grad=False"
        )
    return found


def evaluate(model: nn.Module, loss: Loss) -> Tensor:
    """``loss(model)``, checked to be one number, for the weights the model has now."""
    if not callable(loss) or isinstance(loss, nn.Module):
        kind = "a tensor, computed already" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(
            f"loss: expected a callable that takes the model and returns a scalar tensor, such as "
            f"lambda net: cross_entropy(net(x), y); got {kind}"
        )
    torch.clear_autocast_cache()  # inside torch.autocast it holds copies of the weights as they were
    with explained():
        value = loss(model)
    if not isinstance(value, Tensor):
        if isinstance(value, tuple | dict):
            hint = "that is a model's output: compute the loss from it (some models carry it: output.loss)"
        else:
            hint = "leave out .item() or float()"
        raise TypeError(f"loss: expected it to return a tensor, got {type(value).__name__}; {hint}")
    if value.numel() != 1:
        raise ValueError(
            f"loss: expected it to return one number, got shape {tuple(value.shape)}; take the mean or the "
            f"sum over the batch, and if this is the model's output, compute the loss from it first"
        )
    return value


def preview(model: nn.Module, loss: Loss, state: ForwardState) -> Tensor:
    """The loss before anything has moved, for `expect_same`; what the pass changed is put back."""
    value = evaluate(model, loss).detach()
    state.rewind()
    return value


def expect_same(first: Tensor, again: Tensor) -> None:
    """Refuse a loss that gives two values at the same weights: it draws a new batch at each call."""
    before, now = first.item(), again.item()
    tolerance = 1e-2 if again.dtype in (torch.float16, torch.bfloat16) else 1e-5
    if not math.isclose(before, now, rel_tol=tolerance) and not (math.isnan(before) and math.isnan(now)):
        raise ValueError(
            f"loss: called twice at the same weights it gave {before:.6g} and {now:.6g}; it has to "
            f"use the same mini-batch and the same random numbers at every call. Draw the batch outside of "
            f"it, or say check=False to measure all the same"
        )


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
    value, gradient = value_and_graph(model, loss, parameters, create_graph=create_graph)
    return value.detach(), gradient


def value_and_graph(
    model: nn.Module, loss: Loss, parameters: Sequence[Tensor], *, create_graph: bool = False
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """As `value_and_used_gradient`, and the loss still knows how it was computed."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError("torch.inference_mode: there are no gradients inside of it; use torch.no_grad")
    with torch.enable_grad():
        value = evaluate(model, loss)
        if not value.requires_grad:
            raise ValueError(
                "loss: expected a value that depends on the model's trainable parameters; this one has no "
                "gradient. Look for .detach(), torch.no_grad() or .item() inside the loss"
            )
        with explained():
            found = torch.autograd.grad(value, parameters, create_graph=create_graph, allow_unused=True)
    if any(g is None for g in found) and any(
        node.name() == "CheckpointFunctionBackward" for node in nodes(value)
    ):
        raise RuntimeError(
            "loss: layers in a reentrant checkpoint get no gradient here; call "
            "torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )
    return value, tuple(None if g is None else g.to_dense() for g in found)


def nodes(value: Tensor) -> set[Node]:
    """Everything in the graph that led to `value`."""
    found: set[Node] = set()
    waiting = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting.extend(above for above, _ in node.next_functions)
    return found


@contextmanager
def reentrant_refused() -> Iterator[None]:
    """Refuse reentrant checkpoints of the input in this pass: their layers would get gradient zero."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="None of the inputs have requires_grad=True")
        try:
            yield
        except UserWarning as warning:
            raise RuntimeError(
                f"loss: layers in a reentrant checkpoint whose input needs no gradient get none either; call "
                f"torch.utils.checkpoint.checkpoint(..., use_reentrant=False). torch says: {warning}"
            ) from warning


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
