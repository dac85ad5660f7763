"""The loss along a line, on one mini-batch: [2] §3.2, Fig. 4."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .frozen import ForwardState, frozen
from .gradient import (
    Loss,
    cosine,
    difference,
    norm,
    ratio,
    trainable,
    value_and_gradient,
)


@dataclass(frozen=True, eq=False)
class Probe:
    """What `probe` found at the points theta - s * direction; see there for the definitions."""

    step_sizes: np.ndarray  # (k,) s, as given
    loss0: float  # L(theta)
    gradient: tuple[Tensor, ...]  # g(theta), one tensor per trainable parameter
    gradient_norm: float  # |g(theta)|
    loss: np.ndarray  # (k,) L(theta - s d)
    gradient_distance: np.ndarray  # (k,) |g(theta - s d) - g(theta)|
    cosine: np.ndarray  # (k,) of the angle between g(theta - s d) and g(theta)
    beta: np.ndarray  # (k,) gradient_distance / (|s| |d|); NaN at s = 0

    @property
    def loss_band(self) -> tuple[float, float]:
        """Smallest and largest loss over the step sizes: [2] Fig. 4(a)."""
        return float(np.min(self.loss)), float(np.max(self.loss))

    @property
    def gradient_band(self) -> tuple[float, float]:
        """Smallest and largest gradient distance over the step sizes: [2] Fig. 4(b)."""
        return float(np.min(self.gradient_distance)), float(np.max(self.gradient_distance))

    @property
    def effective_beta(self) -> float:
        """Largest beta over the step sizes other than 0: [2] Fig. 4(c). NaN if a gradient was not finite."""
        beta = self.beta[self.step_sizes != 0]
        return float(np.max(beta)) if beta.size else math.nan


def probe(
    model: nn.Module, loss: Loss, step_sizes: Sequence[float], *, direction: Sequence[Tensor] | None = None
) -> Probe:
    r"""Walk along the gradient on one mini-batch, and measure loss and gradient on the way.

    With parameters :math:`\theta`, gradient :math:`g(\theta)=\nabla L(\theta)` and direction :math:`d`
    (the gradient, unless given), at each point :math:`\theta_s=\theta-s\,d`:

    .. math:: \text{loss}=L(\theta_s),\quad \text{gradient\_distance}=\lVert g(\theta_s)-g(\theta)\rVert_2,
       \quad \beta(s)=\frac{\lVert g(\theta_s)-g(\theta)\rVert_2}{|s|\,\lVert d\rVert_2}

    and the cosine between :math:`g(\theta_s)` and :math:`g(\theta)`. A positive ``s`` descends.

    Every point sees what the first one saw: buffers and random generators are reset, so that dropout and
    noise layers draw the same numbers. The mode the model is in is the mode that is measured. Afterwards
    everything is as it was (see `frozen`), also when ``loss`` raises. Costs k + 1 forward and backward
    passes for k step sizes; one of them is the training step's own, if you hand ``gradient`` to the
    optimizer.

    Traps: ``beta`` saturates: where the two gradients are unrelated it is about ``1 / s``, whatever the
    curvature, so report it with its step sizes. It is no invariant: rescaling a scale-invariant weight
    changes it and not the function. In float32 a move shorter than about 1e-7 of a weight is lost to
    rounding, and beta at such an ``s`` is noise; use float64 there.

    Args:
        model: any module, in any mode, on any device.
        loss: takes the model, returns a scalar tensor, for one fixed mini-batch:
            ``lambda net: cross_entropy(net(x), y)``.
        step_sizes: (k,) the values of s, in units of the learning rate. Any order; duplicates, zero
            and negative values (ascent) are measured as they come.
        direction: one tensor per trainable parameter, in the order of ``model.parameters()``.

    Returns:
        A `Probe`. A loss or gradient that is not finite is reported as it is. ``beta`` is NaN at s = 0,
        where no distance is moved; a cosine is NaN where a gradient is zero. A parameter that the loss
        does not use has gradient zero.

    Raises:
        TypeError, ValueError: ``step_sizes`` is empty, not flat or not finite; ``loss`` does not return
            one differentiable number; ``direction`` does not fit; no parameter requires a gradient.

    Source: [2] §3.2; the sign of s and the division by the distance moved are ours to state.

    Example:
        On a parabola with curvature 3, beta is 3 at every step size.

        >>> import torch
        >>> from bnlab import probe
        >>> net = torch.nn.Linear(1, 1, bias=False).double()
        >>> parabola = lambda net: 1.5 * (net.weight ** 2).sum()
        >>> result = probe(net, parabola, [0.1, 1.0])
        >>> result.beta.round(12).tolist()
        [3.0, 3.0]
    """
    return probe_and_advance(model, loss, step_sizes, direction=direction)[0]


def probe_and_advance(
    model: nn.Module, loss: Loss, step_sizes: Sequence[float], *, direction: Sequence[Tensor] | None = None
) -> tuple[Probe, ForwardState]:
    """A `probe`, and the state the model is in after the one forward pass at theta.

    A training loop that hands ``gradient`` to the optimizer makes no forward pass of its own. `rewind` of
    that state gives it what the pass would have left: running statistics updated once, random numbers drawn
    once. So training goes on exactly as if nobody had looked.
    """
    steps = _step_sizes(step_sizes)
    losses, distances, cosines, betas = [], [], [], []
    with frozen(model) as start:
        parameters = trainable(model)
        if direction is not None:
            direction = _direction(direction, parameters)
        values = start.parameter_values()
        loss0, gradient = value_and_gradient(model, loss, parameters)
        advanced = ForwardState(model)
        if direction is None:
            direction = gradient
        length = norm(direction)
        for s in steps:
            start.rewind()
            move(parameters, values, direction, s)
            value, there = value_and_gradient(model, loss, parameters)
            distance = norm(difference(there, gradient))
            losses.append(value.item())
            distances.append(distance)
            cosines.append(cosine(there, gradient))
            betas.append(ratio(distance, abs(s) * length))
    found = Probe(
        step_sizes=np.array(steps),
        loss0=loss0.item(),
        gradient=gradient,
        gradient_norm=norm(gradient),
        loss=np.array(losses),
        gradient_distance=np.array(distances),
        cosine=np.array(cosines),
        beta=np.array(betas),
    )
    return found, advanced


def move(
    parameters: Sequence[nn.Parameter],
    values: dict[nn.Parameter, Tensor],
    direction: Sequence[Tensor],
    step_size: float,
) -> None:
    """Write values - step_size * direction into the parameters."""
    for parameter, d in zip(parameters, direction, strict=True):
        if step_size == 0:  # exactly the start, even where the direction is not finite
            parameter.data.copy_(values[parameter])
        else:
            torch.sub(values[parameter], d, alpha=step_size, out=parameter.data)


def _step_sizes(step_sizes: Sequence[float]) -> list[float]:
    steps = np.asarray(step_sizes, dtype=float)
    if steps.ndim != 1 or steps.size == 0 or not np.all(np.isfinite(steps)):
        raise ValueError(
            f"step_sizes: expected a flat, non-empty sequence of finite numbers, got {step_sizes!r}; "
            f"for a single step size s give [s]"
        )
    return steps.tolist()


def _direction(direction: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    direction = tuple(direction)
    expected = [tuple(parameter.shape) for parameter in parameters]
    got = [tuple(tensor.shape) for tensor in direction]
    if got != expected:
        raise ValueError(
            f"direction: expected one tensor per trainable parameter with shapes {expected}, got {got}"
        )
    return direction
