"""The loss along a line and on a plane through the weights, on one mini-batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .drawing import axes, mark, number
from .frozen import ForwardState, frozen
from .gradient import Loss, evaluate, expect_same, preview
from .landscape import Direction, as_direction, move, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Slice1D:
    """What `slice1d` found."""

    alphas: np.ndarray  # (n,)
    loss: np.ndarray  # (n,) L(theta + alpha d)
    direction: tuple[Tensor, ...]  # d, one tensor per parameter moved

    def __repr__(self) -> str:
        return (
            f"Slice1D of {len(self.alphas)} points, alpha {number(self.alphas.min())} to "
            f"{number(self.alphas.max())}: {_lowest(self.loss, self.alphas)}"
        )

    def frame(self) -> pd.DataFrame:
        """One row per point: ``alpha`` (in units of the direction) and ``loss`` (units of the loss)."""
        return pd.DataFrame({"alpha": self.alphas, "loss": self.loss})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss over alpha, with a line where the model stands, and return the Axes."""
        ax = axes(ax)
        order = np.argsort(self.alphas, kind="stable")
        ax.plot(self.alphas[order], self.loss[order], marker="o", markersize=3)
        if self.alphas.min() <= 0 <= self.alphas.max():
            mark(ax, 0, "model")
        ax.set(xlabel="α, in lengths of the direction", ylabel="loss")
        return ax


@dataclass(frozen=True, eq=False, repr=False)
class Slice2D:
    """What `slice2d` found."""

    alphas: np.ndarray  # (n,)
    betas: np.ndarray  # (m,)
    loss: np.ndarray  # (n, m) L(theta + alphas[i] d1 + betas[j] d2)
    directions: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # d1, d2

    def __repr__(self) -> str:
        alphas, betas = np.meshgrid(self.alphas, self.betas, indexing="ij")
        return (
            f"Slice2D of {len(self.alphas)} × {len(self.betas)} points: "
            f"{_lowest(self.loss.ravel(), alphas.ravel(), betas.ravel())}"
        )

    def frame(self) -> pd.DataFrame:
        """One row per point: ``alpha``, ``beta`` (units of the directions), ``loss`` (units of the loss)."""
        alphas, betas = np.meshgrid(self.alphas, self.betas, indexing="ij")
        return pd.DataFrame({"alpha": alphas.ravel(), "beta": betas.ravel(), "loss": self.loss.ravel()})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw labelled contours of the loss, with a cross where the model stands, and return the Axes.

        Where the loss is positive and spans more than a factor of 20, the contours are those of its
        logarithm: equal factors apart.

        Raises:
            ValueError: fewer than two different values of alpha or beta, or of the loss.
        """
        a, rows = np.unique(self.alphas, return_index=True)
        b, columns = np.unique(self.betas, return_index=True)
        loss = np.ma.masked_invalid(self.loss[np.ix_(rows, columns)])
        if len(a) < 2 or len(b) < 2 or not loss.min() < loss.max():
            raise ValueError(
                f"plot: expected at least 2 different alphas, betas and losses, got {len(a)} alphas and "
                f"{len(b)} betas; draw .frame() for a single line"
            )
        low, high = loss.min(), loss.max()
        steep = low > 0 and high > 20 * low
        levels = np.geomspace(low, high, 12)[1:-1] if steep else np.linspace(low, high, 12)[1:-1]
        ax = axes(ax)
        lines = ax.contour(a, b, loss.T, levels=levels)
        ax.clabel(lines, fontsize="small", fmt=number)
        if a[0] <= 0 <= a[-1] and b[0] <= 0 <= b[-1]:
            ax.plot(0, 0, marker="x", color="black")
        ax.set(xlabel="α, in lengths of the first direction", ylabel="β, in lengths of the second")
        return ax


def _lowest(loss: np.ndarray, *places: np.ndarray) -> str:
    """The finding in words: the range of the loss, and where it is lowest."""
    if not np.isfinite(loss).any():
        return "the loss is not finite anywhere"
    best = np.nanargmin(np.where(np.isfinite(loss), loss, np.nan))
    at = ", ".join(
        f"{name} {number(place[best])}" for name, place in zip(("alpha", "beta"), places, strict=False)
    )
    high = loss[np.isfinite(loss)].max()
    broken = int((~np.isfinite(loss)).sum())
    end = f", {broken} not finite" if broken else ""
    return f"loss {number(loss[best])} (lowest, at {at}) to {number(high)}{end}"


def movable(model: nn.Module) -> list[Tensor]:
    """The trainable parameters; all of them, if the model is frozen as a whole."""
    found: list[Tensor] = list(model.parameters())
    if not found:
        raise ValueError("model: expected at least one parameter, found none; there is nothing to move")
    return [parameter for parameter in found if parameter.requires_grad] or found


def random_direction(model: nn.Module, *, seed: int) -> tuple[Tensor, ...]:
    """A random direction, filter by filter as long as the model's weights: Li et al. 2018, arXiv:1712.09913.

    Each filter (each slice along dimension 0 of a parameter with at least two dimensions) is a Gaussian
    vector, scaled to the norm of the model's own filter. Biases and batch-norm parameters get direction
    zero, as by default in the authors' code: the bias of a fresh batch norm has no length to scale to.

    Args:
        model: any module with trainable parameters.
        seed: of a generator of its own, on the CPU; the same numbers on every device.

    Returns:
        One tensor per trainable parameter (per parameter, if all are frozen), ready for `slice1d`,
        `slice2d` and `probe`.

    Example:
        >>> import torch
        >>> from bnlab.measure import random_direction
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        >>> d = random_direction(net, seed=0)
        >>> bool(torch.allclose(d[0].norm(dim=1), net[0].weight.norm(dim=1))), [t.any().item() for t in d[1:]]
        (True, [False, False, False])
    """
    generator = torch.Generator().manual_seed(seed)
    direction = []
    for parameter in movable(model):
        weight = parameter.detach()
        d = torch.randn(weight.shape, dtype=weight.dtype, generator=generator).to(weight.device)
        if weight.ndim < 2:
            d.zero_()
        else:
            dims = tuple(range(1, weight.ndim))
            length, random_length = (torch.linalg.vector_norm(t, dim=dims, keepdim=True) for t in (weight, d))
            d *= length / random_length
        direction.append(d)
    return tuple(direction)


def slice1d(
    model: nn.Module,
    loss: Loss,
    alphas: Sequence[float],
    *,
    direction: Direction | None = None,
    seed: int = 0,
    check: bool = True,
) -> Slice1D:
    r"""The loss along one direction: :math:`L(\theta+\alpha d)`, on one mini-batch.

    One forward pass per point and one for the check, no gradients. Every point sees the same buffers and
    random numbers, the mode the model is in is measured, and afterwards everything is as it was (see
    `frozen`). Note the sign: plus, where `probe` has minus.

    Trap: between two trained networks buffers do not move. In eval mode the far end is the other network
    with the running statistics of this one; measure in train mode, or load both kinds of state by hand.

    Args:
        model: any module, in any mode, on any device.
        loss: takes the model, returns a scalar tensor, for one fixed mini-batch.
        alphas: (n,) in units of ``direction``; for a `random_direction`, 1 moves every filter by its own
            length.
        direction: one tensor per trainable parameter (per parameter, if all are frozen), or a dict by
            parameter name, frozen ones included, in which what is not named stays where it is; a
            `random_direction` if not given.
        seed: of that direction.
        check: refuse a loss that draws a new batch at each call, seen by calling it twice at one point.

    Returns:
        A `Slice1D`. A loss that is not finite is reported as it is.

    Raises:
        TypeError, ValueError: as in `probe`.

    Source: Goodfellow et al. 2015, arXiv:1412.6544; normalization from Li et al. 2018.

    Example:
        >>> import torch
        >>> from bnlab import slice1d
        >>> net = torch.nn.Linear(1, 1, bias=False).double()
        >>> parabola = lambda net: (net.weight ** 2).sum()
        >>> d = [1 - net.weight.detach()]  # to the point 1
        >>> float(slice1d(net, parabola, [0.0, 1.0], direction=d).loss[1])
        1.0
    """
    steps = numbers(alphas, "alphas")
    with frozen(model) as start, torch.no_grad():
        if direction is None:
            direction = random_direction(model, seed=seed)
        parameters, (d,) = _moved(model, direction)
        values = start.parameter_values()
        losses = _losses(model, loss, start, parameters, values, d, steps, check)
    return Slice1D(np.array(steps), np.array(losses), d)


def slice2d(
    model: nn.Module,
    loss: Loss,
    alphas: Sequence[float],
    betas: Sequence[float],
    *,
    directions: tuple[Direction, Direction] | None = None,
    seed: int = 0,
    check: bool = True,
) -> Slice2D:
    r"""The loss on a plane: :math:`L(\theta+\alpha d_1+\beta d_2)`, on one mini-batch.

    As `slice1d`, with one forward pass per point of the grid. Each point is computed from theta itself, so
    rounding does not pile up along the grid.

    Trap: two random directions out of millions show little, and how sharp the picture looks depends on the
    length of the directions. Compare networks with the same normalization of directions only.

    Args:
        model, loss: as in `slice1d`.
        alphas: (n,) along the first direction.
        betas: (m,) along the second.
        directions: two directions as in `slice1d`; two `random_direction` with seeds ``seed`` and
            ``seed + 1`` if not given.
        seed: of those directions.
        check: as in `slice1d`.

    Returns:
        A `Slice2D`.

    Raises:
        TypeError, ValueError: as in `probe`.

    Source: Li et al. 2018, arXiv:1712.09913.

    Example:
        >>> import torch
        >>> from bnlab import slice2d
        >>> net = torch.nn.Linear(2, 1, bias=False).double()
        >>> _ = net.weight.data.zero_()
        >>> bowl = lambda net: (net.weight ** 2).sum()
        >>> d1, d2 = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
        >>> slice2d(net, bowl, [0, 1], [0, 1, 2], directions=([d1], [d2])).loss.tolist()
        [[0.0, 1.0, 4.0], [1.0, 2.0, 5.0]]
    """
    rows, columns = numbers(alphas, "alphas"), numbers(betas, "betas")
    with frozen(model) as start, torch.no_grad():
        if directions is None:
            directions = random_direction(model, seed=seed), random_direction(model, seed=seed + 1)
        parameters, (d1, d2) = _moved(model, *directions)
        values = start.parameter_values()
        losses: list[list[float]] = []
        for alpha in rows:
            moved = zip(parameters, d1, strict=True)
            shifted: dict[Tensor, Tensor] = {p: torch.add(values[p], d, alpha=alpha) for p, d in moved}
            first = check and not losses
            losses.append(_losses(model, loss, start, parameters, shifted, d2, columns, first))
    return Slice2D(np.array(rows), np.array(columns), np.array(losses), (d1, d2))


def _moved(model: nn.Module, *directions: Direction) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
    """The parameters that move, and the directions as one tensor for each."""
    named = any(isinstance(direction, Mapping) for direction in directions)
    parameters: list[Tensor] = list(model.parameters()) if named else movable(model)
    return parameters, [as_direction(direction, parameters, model) for direction in directions]


def _losses(
    model: nn.Module,
    loss: Loss,
    start: ForwardState,
    parameters: Sequence[Tensor],
    values: dict[Tensor, Tensor],
    direction: Sequence[Tensor],
    steps: list[float],
    check: bool,
) -> list[float]:
    """L(values + step * direction) for every step; with `check`, the first one twice."""
    losses = []
    for i, step in enumerate(steps):
        start.rewind()
        move(parameters, values, direction, -step)
        first = preview(model, loss, start) if check and i == 0 else None
        value = evaluate(model, loss)
        if first is not None:
            expect_same(first, value)
        losses.append(value.item())
    return losses
