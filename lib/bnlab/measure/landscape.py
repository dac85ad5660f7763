"""The loss and its gradient along a direction, on one mini-batch: Santurkar et al. 2018, section 3.2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .drawing import axes, direct_label, mark, number, reference
from .frozen import frozen
from .gradient import (
    Loss,
    Parameters,
    cosine,
    distance,
    expect_same,
    norm,
    preview,
    ratio,
    reentrant_refused,
    trainable,
    value_and_gradient,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Direction = Sequence[Tensor] | Mapping[str, Tensor]

LABELS = {
    "loss": "loss",
    "gradient_distance": "change of the gradient",
    "cosine": "cosine of the angle to the first gradient",
    "beta": "effective β",
}


@dataclass(frozen=True, eq=False, repr=False)
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
        """Smallest and largest loss over the step sizes: Santurkar et al. 2018, Figure 4(a)."""
        return float(np.min(self.loss)), float(np.max(self.loss))

    @property
    def gradient_band(self) -> tuple[float, float]:
        """Smallest and largest gradient distance over the step sizes: the same, Figure 4(b)."""
        return float(np.min(self.gradient_distance)), float(np.max(self.gradient_distance))

    @property
    def effective_beta(self) -> float:
        """Largest beta over the step sizes other than 0: the same, Figure 4(c).

        NaN if a gradient was not finite.
        """
        beta = self.beta[self.step_sizes != 0]
        return float(np.max(beta)) if beta.size else math.nan

    def __repr__(self) -> str:
        steps, (low, high) = self.step_sizes, self.loss_band
        return (
            f"Probe at {len(steps)} step sizes, {number(steps.min())} to {number(steps.max())}: "
            f"loss {number(self.loss0)} becomes {number(low)} to {number(high)},\n"
            f"the gradient (length {number(self.gradient_norm)}) changes by up to "
            f"{number(self.gradient_band[1])}, effective beta {number(self.effective_beta)}"
        )

    def frame(self) -> pd.DataFrame:
        """One row per step size, in the order given.

        Columns: ``step_size`` (in units of the learning rate), ``loss`` (units of the loss),
        ``gradient_distance`` (loss per unit of weight), ``cosine`` (no unit) and ``beta`` (loss per squared
        unit of weight).
        """
        return pd.DataFrame({"step_size": self.step_sizes} | {name: getattr(self, name) for name in LABELS})

    def plot(self, ax: Axes | None = None, *, quantity: str = "beta", lr: float | None = None) -> Axes:
        """Draw one quantity over the step size, and return the Axes.

        With ``beta`` goes the curve 1/s, where beta lies when the two gradients have nothing in common. Given
        a learning rate ``lr``, the line 2/lr is the curvature above which steps of gradient descent no
        longer settle; for the other quantities the line stands at s = lr.

        Args:
            ax: to draw on; a new figure if not given.
            quantity: "beta", "loss", "gradient_distance" or "cosine".
            lr: the learning rate in use.
        """
        if quantity not in LABELS:
            raise ValueError(f"quantity: expected one of {', '.join(LABELS)}, got {quantity!r}")
        ax = axes(ax)
        order = np.argsort(self.step_sizes, kind="stable")
        s, values = self.step_sizes[order], getattr(self, quantity)[order]
        ax.plot(s, values, marker="o", markersize=4)
        if (s > 0).all():
            ax.set_xscale("log")
        if quantity in ("beta", "gradient_distance") and (values[np.isfinite(values)] > 0).all():
            ax.set_yscale("log")
        ax.set(xlabel="step size s", ylabel=LABELS[quantity])
        if quantity == "loss":
            reference(ax, self.loss0, "loss at s = 0")
        if quantity == "beta" and (s > 0).any():
            positive = np.geomspace(s[s > 0].min(), s.max(), 50)
            ax.plot(positive, 1 / positive, color="0.6", linewidth=1, linestyle=":")
            direct_label(ax, positive[0], 1 / positive[0], "1/s", "0.4")
        if lr is not None and quantity == "beta":
            reference(ax, 2 / lr, "2/lr")
        elif lr is not None:
            mark(ax, lr, "s = lr")
        return ax


def probe(
    model: nn.Module,
    loss: Loss,
    step_sizes: Sequence[float],
    *,
    direction: Direction | None = None,
    parameters: Parameters | None = None,
    check: bool = True,
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
    passes for k step sizes, and one forward pass for the check.

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
        direction: one tensor per trainable parameter, in the order of ``model.parameters()``, or a dict by
            parameter name, in which a parameter that is not named stays where it is.
        parameters: move and differentiate only these, given as tensors, names, or names of modules (for all
            trainable parameters below them). Everything then refers to them: g, d and beta.
        check: refuse a loss that draws a new batch at each call, seen by calling it twice at theta.

    Returns:
        A `Probe`. A loss or gradient that is not finite is reported as it is. ``beta`` is NaN at s = 0,
        where no distance is moved; a cosine is NaN where a gradient is zero. A parameter that the loss
        does not use has gradient zero.

    Raises:
        TypeError, ValueError: ``step_sizes`` is empty, not flat or not finite; ``loss`` does not return
            one differentiable number, or not the same one twice; ``direction`` or ``parameters`` do not fit;
            no parameter requires a gradient.
        RuntimeError: the loss uses reentrant checkpointing, or stands inside torch.inference_mode.

    Source: Santurkar et al. 2018, section 3.2, who leave open the sign of s and whether to divide by the
    distance moved.

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
    steps = numbers(step_sizes, "step_sizes")
    losses, distances, cosines, betas = [], [], [], []
    with frozen(model) as start:
        chosen = trainable(model, parameters)
        given = None if direction is None else as_direction(direction, chosen, model)
        values = start.parameter_values()
        with torch.enable_grad(), reentrant_refused():
            first = preview(model, loss, start) if check else None
            loss0, gradient = value_and_gradient(model, loss, chosen)
        if first is not None:
            expect_same(first, loss0)
        d = gradient if given is None else given
        gradient_norm, length = norm(gradient), norm(d)
        for s in steps:
            start.rewind()
            move(chosen, values, d, s)
            value, there = value_and_gradient(model, loss, chosen)
            losses.append(value.item())
            distances.append(distance(there, gradient))
            cosines.append(cosine(there, gradient, norm(there), gradient_norm, distances[-1]))
            betas.append(ratio(distances[-1], abs(s) * length))
    return Probe(
        step_sizes=np.array(steps),
        loss0=loss0.item(),
        gradient=gradient,
        gradient_norm=gradient_norm,
        loss=np.array(losses),
        gradient_distance=np.array(distances),
        cosine=np.array(cosines),
        beta=np.array(betas),
    )


def move(
    parameters: Sequence[Tensor],
    values: dict[Tensor, Tensor],
    direction: Sequence[Tensor],
    step_size: float,
) -> None:
    """Write values - step_size * direction into the parameters."""
    for parameter, d in zip(parameters, direction, strict=True):
        if step_size == 0:  # exactly the start, even where the direction is not finite
            parameter.data.copy_(values[parameter])
        else:
            torch.sub(values[parameter], d, alpha=step_size, out=parameter.data)


def numbers(step_sizes: Sequence[float], name: str) -> list[float]:
    steps = np.asarray(step_sizes, dtype=float)
    if steps.ndim != 1 or steps.size == 0 or not np.all(np.isfinite(steps)):
        raise ValueError(
            f"{name}: expected a flat, non-empty sequence of finite numbers, got {step_sizes!r}; "
            f"for a single number s give [s]"
        )
    return steps.tolist()


def as_direction(direction: Direction, parameters: Sequence[Tensor], model: nn.Module) -> tuple[Tensor, ...]:
    """A direction as one tensor per parameter, of the parameters' precision and on their device."""
    if isinstance(direction, Mapping):
        named: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        for name in direction:
            if not any(named.get(name) is parameter for parameter in parameters):
                raise ValueError(
                    f"direction: {name!r} is not the name of a parameter to move; leave out buffers (such as "
                    f"running statistics) and frozen parameters"
                )
        given = {named[name]: tensor for name, tensor in direction.items()}
        direction = [given.get(parameter, torch.zeros_like(parameter)) for parameter in parameters]
    found = tuple(torch.as_tensor(tensor) for tensor in direction)
    expected, got = ([tuple(tensor.shape) for tensor in tensors] for tensors in (parameters, found))
    if got != expected:
        few = slice(0, 6)
        raise ValueError(
            f"direction: expected one tensor per trainable parameter ({len(expected)}, with shapes "
            f"{str(expected[few])[1:-1]}{', …' if len(expected) > 6 else ''}), got {len(got)} with shapes "
            f"{str(got[few])[1:-1]}{', …' if len(got) > 6 else ''}"
        )
    return tuple(d.detach().to(p) for d, p in zip(found, parameters, strict=True))
