"""Saturation: where an activation's output hardly changes when its input does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .distribution import per_unit
from .drawing import axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Saturation:
    """How steep an activation is where its inputs are."""

    slope: np.ndarray  # (units,) mean |f'(z)| over the batch
    saturated: np.ndarray  # (units,) share of inputs where |f'(z)| < threshold * steepest
    steepest: float  # the largest |f'| met, on [-10, 10], beside 0 and on the inputs

    @property
    def mean_slope(self) -> float:
        """Mean :math:`|f'(z)|` over all units, the factor by which the activation shrinks a gradient."""
        return float(np.mean(self.slope))

    @property
    def share(self) -> float:
        """Share of all inputs at which the activation is saturated, 0 to 1."""
        return float(np.mean(self.saturated))

    @property
    def dead(self) -> float:
        """Share of units that are saturated for the whole batch, 0 to 1."""
        return float(np.mean(self.saturated == 1))

    def __repr__(self) -> str:
        return (
            f"Saturation({len(self.slope)} units: {self.share:.1%} of the inputs saturated, mean slope "
            f"{self.mean_slope:.3g}, {self.dead:.1%} of the units dead)"
        )

    def frame(self) -> pd.DataFrame:
        """One row per unit: `unit`; `slope`, in output per input; `saturated`, a share from 0 to 1."""
        return pd.DataFrame(
            {"unit": range(len(self.slope)), "slope": self.slope, "saturated": self.saturated}
        )

    def plot(self, ax: Axes | None = None, *, label: str | None = None) -> Axes:
        """The share of saturated inputs of every unit, most saturated units first.

        Draw the same layer at its start into the same Axes to see what training changed.
        """
        ax = axes(ax)
        units = 100 * (np.arange(len(self.saturated)) + 0.5) / len(self.saturated)
        ax.step(units, 100 * np.sort(self.saturated)[::-1], where="mid", label=label)
        ax.set_xlim(0, 100)
        ax.set_ylim(-2, 102)
        ax.set_xlabel("units, most saturated first (%)")
        ax.set_ylabel("inputs where it is saturated (%)")
        return ax


def saturation(
    pre_activation: Tensor,
    activation: Callable[[Tensor], Tensor],
    *,
    threshold: float = 0.1,
    channel_dim: int = 1,
) -> Saturation:
    r"""Slope of an activation function at the inputs it gets, and the share where it is saturated.

    An input z is saturated where :math:`|f'(z)|<\text{threshold}\cdot\max|f'|`: for the sigmoid beyond
    :math:`|z|\approx3.6`, for tanh beyond 1.8, for ReLU below 0, for ELU and SELU below -2.3 (with the
    threshold 0.1). Saturated is about the slope and not about the output: a linear function never is.

    Args:
        pre_activation: (m, units) or (m, units, ...) inputs z; for images, pixels count as samples.
        activation: acts on each element alone, such as ``torch.sigmoid`` or an ``nn.ELU()``. Of a function
            that mixes elements (softmax) the numbers would be meaningless.
        threshold: between 0 and 1.
        channel_dim: the dimension of the units; -1 for tokens (n, tokens, channels). All others count as
            samples.

    Returns:
        A `Saturation`. A NaN input gives a NaN slope, and counts as not saturated.

    Raises:
        TypeError: ``pre_activation`` is no tensor; of a layer that returns a tuple, give the first.
        ValueError: ``pre_activation`` is no float tensor of at least two dimensions, ``activation``
            changes the shape, or ``threshold`` is not between 0 and 1.

    Source: Ioffe and Szegedy 2015, sections 1 and 4.1, on the saturated regime; the threshold is ours.

    Example:
        >>> import torch
        >>> from bnlab import saturation
        >>> z = torch.tensor([[0.0, 9.0], [1.0, -9.0]])
        >>> state = saturation(z, torch.sigmoid)
        >>> state.saturated.tolist(), state.dead
        ([0.0, 1.0], 0.5)
        >>> state
        Saturation(2 units: 50.0% of the inputs saturated, mean slope 0.112, 50.0% of the units dead)
        >>> saturation(z, torch.relu).slope.tolist()
        [0.5, 0.5]
    """
    if not isinstance(pre_activation, Tensor):
        raise TypeError(
            f"pre_activation: expected a tensor, got {type(pre_activation).__name__}; of a layer with "
            f"several outputs, give the one that the activation receives"
        )
    if pre_activation.ndim < 2 or not pre_activation.is_floating_point():
        raise ValueError(
            f"pre_activation: expected a floating-point tensor (m, units, ...), got {pre_activation.dtype} "
            f"{tuple(pre_activation.shape)}"
        )
    if not 0 < threshold < 1:
        raise ValueError(f"threshold: expected a number between 0 and 1, got {threshold!r}")
    slope = per_unit(_slope(pre_activation, activation), channel_dim, "pre_activation")
    step = torch.finfo(pre_activation.dtype).eps  # to either side of 0, where many activations have a kink
    everywhere = torch.cat([torch.linspace(-10, 10, 2001), torch.tensor([-step, step])])
    everywhere = _slope(everywhere.to(pre_activation), activation)
    steepest = max(everywhere.max().item(), torch.nan_to_num(slope).max().item())
    return Saturation(
        slope=slope.double().mean(0).cpu().numpy(),
        saturated=(slope < threshold * steepest).double().mean(0).cpu().numpy(),
        steepest=steepest,
    )


def _slope(z: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """|f'(z)|, element by element."""
    z = z.detach().clone().requires_grad_()
    with torch.enable_grad():
        # A clone, so that an activation that works in place is allowed.
        output = activation(z.clone())
        if output.shape != z.shape:
            raise ValueError(
                f"activation: expected an element-by-element function, but it turned shape {tuple(z.shape)} "
                f"into {tuple(output.shape)}"
            )
        (slope,) = torch.autograd.grad(output.sum(), z)
    return slope.abs()
