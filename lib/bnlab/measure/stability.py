"""Two measures of curvature as the update feels it: critical sharpness and batch sharpness."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from .drawing import axes, number, reference
from .frozen import frozen
from .gradient import Loss, Parameters, evaluate, expect_same, preview, trainable, value_and_gradient
from .hessian import Hessian
from .landscape import Direction, as_direction, move

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The search gives up this many doublings away from the first guess.
DOUBLINGS = 40


@dataclass(frozen=True)
class CriticalSharpness:
    """What `critical_sharpness` found."""

    value: float  # 2 / step
    step: float  # eta_c, where the loss starts to rise above that of the start
    bracket: tuple[float, float]  # the loss has not risen at the first and has risen at the second
    passes: int  # forward passes spent

    def __repr__(self) -> str:
        return (
            f"CriticalSharpness {number(self.value)}: along the update the loss rises from a step of "
            f"{number(self.step)} on ({self.passes} forward passes)"
        )


def critical_sharpness(
    model: nn.Module,
    loss: Loss,
    *,
    update: Direction | None = None,
    guess: float = 0.1,
    tol: float = 0.05,
    parameters: Parameters | None = None,
    check: bool = True,
) -> CriticalSharpness:
    r"""Two over the step along the update at which the loss starts to rise, by forward passes only.

    With the update :math:`\Delta` of the optimizer, so that a training step is
    :math:`\theta-\eta\,\Delta`:

    .. math:: \lambda_c=2/\eta_c,\qquad
       \eta_c=\min\{\eta>0:\;L(\theta-\eta\,\Delta)>L(\theta)\}

    On a parabola it is :math:`\Delta^\top H\Delta/(\Delta^\top g)`, and along the gradient that is the
    curvature in its direction, never above the largest eigenvalue. The step is doubled or halved from
    ``guess`` until the loss changes sides, then bisected: with a guess within a factor of two about eight
    forward passes. Where the loss is not finite it has risen.

    Trap: the search assumes that the loss falls and then rises along the update. Where it goes up and down
    several times, it finds one of the crossings.

    Args:
        model, loss: as in `probe`.
        update: the direction subtracted, one tensor per trainable parameter or a dict by name: for Adam
            its update divided by the learning rate. The gradient, if not given (one backward pass).
        guess: where to start, in units of the learning rate; the rate in use is a good one.
        tol: how far apart the ends of the bracket may lie, relative to the lower one.
        parameters: move only these; tensors, names, or names of modules.
        check: refuse a loss that draws a new batch at each call, seen by calling it twice.

    Returns:
        A `CriticalSharpness`; ``step`` is the geometric mean of the bracket. If the loss rises at once
        (the update does not descend) the value is inf; if it never does, 0.

    Raises:
        TypeError, ValueError: ``guess`` or ``tol`` is not positive; otherwise as in `probe`.

    Source: Kalra et al. 2026, arXiv:2601.16979.

    Example:
        >>> import torch
        >>> from bnlab import critical_sharpness
        >>> net = torch.nn.Linear(1, 1, bias=False).double()
        >>> parabola = lambda net: 1.5 * (net.weight ** 2).sum()
        >>> round(critical_sharpness(net, parabola, tol=1e-6).value, 4)
        3.0
    """
    for name, given in (("guess", guess), ("tol", tol)):
        if not given > 0:
            raise ValueError(f"{name}: expected a positive number, got {given!r}")
    passes = 0
    with frozen(model) as start, torch.no_grad():
        chosen = trainable(model, parameters)
        values = start.parameter_values()
        first = preview(model, loss, start) if check else None
        if update is None:
            base, direction = value_and_gradient(model, loss, chosen)
        else:
            base, direction = evaluate(model, loss), as_direction(update, chosen, model)
        if first is not None:
            expect_same(first, base)

        def rises(step: float) -> bool:
            nonlocal passes
            passes += 1
            start.rewind()
            move(chosen, values, direction, step)
            return not evaluate(model, loss) <= base

        low, high = _bracket(rises, guess, tol)
    step = math.sqrt(low * high) if low > 0 and high < math.inf else (0.0 if low == 0 else math.inf)
    value = 2 / step if step > 0 else math.inf
    return CriticalSharpness(value, step, (low, high), passes + 1 + int(check))


def _bracket(rises: Callable[[float], bool], guess: float, tol: float) -> tuple[float, float]:
    """Two steps around the one from which on the loss has risen; 0 or inf where there is none."""
    risen = rises(guess)
    low = high = guess
    for _ in range(DOUBLINGS):
        if risen:
            high, low = low, low / 2
        else:
            low, high = high, high * 2
        if rises(low if risen else high) != risen:
            break
    else:
        return (0.0, low) if risen else (high, math.inf)
    while high > low * (1 + tol):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rises(middle) else (middle, high)
    return low, high


@dataclass(frozen=True, eq=False, repr=False)
class BatchSharpness:
    """What `batch_sharpness` found."""

    value: float  # the mean of the curvatures
    curvatures: np.ndarray  # (b,) g' H g / |g|^2 of each mini-batch; NaN where its gradient is zero
    gradient_norms: np.ndarray  # (b,) |g|

    def __repr__(self) -> str:
        low, high = self.curvatures.min(), self.curvatures.max()
        return (
            f"BatchSharpness {number(self.value)}: the mean over {len(self.curvatures)} mini-batches, "
            f"whose curvatures lie from {number(low)} to {number(high)}"
        )

    def frame(self) -> pd.DataFrame:
        """One row per mini-batch, in their order.

        Columns: ``batch`` (from 0), ``curvature`` (loss per squared unit of weight), ``gradient_norm`` (loss
        per unit of weight).
        """
        columns = {"batch": np.arange(len(self.curvatures)), "curvature": self.curvatures}
        return pd.DataFrame(columns | {"gradient_norm": self.gradient_norms})

    def plot(self, ax: Axes | None = None, *, lr: float | None = None) -> Axes:
        """Draw the curvature of every mini-batch and their mean; with ``lr`` the line 2/lr."""
        ax = axes(ax)
        ax.plot(self.curvatures, "o", markersize=4)
        reference(ax, self.value, "mean")
        if lr is not None:
            reference(ax, 2 / lr, "2/lr")
        ax.set(xlabel="mini-batch", ylabel="curvature along its own gradient")
        return ax


def batch_sharpness(
    model: nn.Module,
    losses: Iterable[Loss],
    *,
    parameters: Parameters | None = None,
    check: bool = True,
) -> BatchSharpness:
    r"""How curved the loss of a mini-batch is along its own gradient, averaged over mini-batches.

    With the gradient :math:`g_B` and the Hessian :math:`H_B` of the loss of the same mini-batch, at the
    weights the model has:

    .. math:: \operatorname{E}_B\left[\frac{g_B^\top H_B\,g_B}{\lVert g_B\rVert^2}\right]

    the mean of ratios, not the ratio of means. Mini-batch SGD with the learning rate lr is said to hold it
    near 2 / lr. Costs one forward pass and about three backward passes per mini-batch.

    Args:
        model: any module, in any mode, on any device, that can be differentiated twice.
        losses: one callable per mini-batch, each takes the model and returns a scalar tensor:
            ``[lambda net, x=x, y=y: cross_entropy(net(x), y) for x, y in batches]``. Every mini-batch sees
            the same buffers and random numbers.
        parameters: differentiate in these only; tensors, names, or names of modules.
        check: refuse losses that draw a new batch at each call, seen by calling the first one twice.

    Returns:
        A `BatchSharpness`.

    Raises:
        TypeError: ``losses`` is a single callable.
        ValueError: ``losses`` is empty. Otherwise as in `hessian`.

    Source: Andreyev and Beneventano 2024, arXiv:2412.20553.

    Example:
        >>> import torch
        >>> from bnlab import batch_sharpness
        >>> net = torch.nn.Linear(1, 1, bias=False).double()
        >>> losses = [lambda net, a=a: a / 2 * (net.weight ** 2).sum() for a in (1.0, 5.0)]
        >>> batch_sharpness(net, losses)
        BatchSharpness 3: the mean over 2 mini-batches, whose curvatures lie from 1 to 5
    """
    if callable(losses):
        raise TypeError(
            "losses: expected an iterable with one callable per mini-batch, got a single callable"
        )
    curvatures: list[float] = []
    lengths: list[float] = []
    with frozen(model) as start:
        for loss in losses:
            start.rewind()
            operator = Hessian(model, loss, start, parameters, check and not curvatures)
            gradient = operator.vector(operator.gradient())
            product = operator.matvec(gradient).astype(np.float64)
            square = float(np.dot(gradient.astype(np.float64), gradient))
            curvatures.append(float(np.dot(gradient, product)) / square if square else math.nan)
            lengths.append(math.sqrt(square))
    if not curvatures:
        raise ValueError("losses: expected at least one mini-batch, got none")
    return BatchSharpness(float(np.mean(curvatures)), np.array(curvatures), np.array(lengths))
