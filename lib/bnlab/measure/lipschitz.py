"""Lipschitz and smoothness constants of a plain function, estimated from below on a grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class SlopeEstimate:
    """The largest slope between two points, and the points that give it."""

    value: float  # |f(x) - f(y)| / |x - y|, or of the gradients
    x: Tensor = field(repr=False)  # () or (d,)
    y: Tensor = field(repr=False)  # () or (d,)


def lipschitz_estimate(
    function: Function,
    low: float | Sequence[float],
    high: float | Sequence[float],
    *,
    points: int = 1001,
    lines: int = 64,
    seed: int = 0,
) -> SlopeEstimate:
    r"""The largest slope of a function between neighbouring points: a lower bound of its Lipschitz constant.

    f is L-Lipschitz if :math:`|f(x)-f(y)|\le L\lVert x-y\rVert` for all x and y. On an interval, the largest
    quotient over all pairs of grid points is that of two neighbours, so one pass over the grid finds it. In
    a box, the grid lies on random segments.

    Trap: an estimate on a grid is always finite. Refine it (``points``): if the value keeps growing, there
    is no constant to converge to.

    Args:
        function: torch operations; takes (n,) for an interval or (n, d) for a box, returns (n,).
        low, high: ends of the interval, or corners of the box.
        points: on each segment, at least 2. The spacing on an interval is (high - low) / (points - 1).
        lines: how many random segments, in a box.
        seed: of the segments.

    Returns:
        A `SlopeEstimate`, in units of f per unit of x, computed in float64. NaN if f is NaN somewhere.

    Raises:
        ValueError: low is not below high, less than two points, or a function that returns another shape.

    Source: the definition; Santurkar et al. 2018, section 3, use it for the loss.

    Example:
        >>> from bnlab import lipschitz_estimate
        >>> lipschitz_estimate(torch.abs, -1, 1).value
        1.0
        >>> [round(lipschitz_estimate(torch.square, -r, r).value) for r in (1, 10, 100)]  # no global constant
        [2, 20, 200]
    """
    x = _segments(low, high, points, lines, seed)
    return _steepest(x, _values(function, x).unsqueeze(-1))


def smoothness_estimate(
    function: Function,
    low: float | Sequence[float],
    high: float | Sequence[float],
    *,
    points: int = 1001,
    lines: int = 64,
    seed: int = 0,
) -> SlopeEstimate:
    r"""The largest slope of a function's gradient: a lower bound of its smoothness constant beta.

    f is beta-smooth if :math:`\lVert\nabla f(x)-\nabla f(y)\rVert\le\beta\lVert x-y\rVert`. Gradient descent
    with a learning rate below 2 / beta descends.

    Trap: at a kink the gradient jumps, and the estimate is the jump divided by the spacing. If halving the
    spacing doubles the value, the function is not smooth for any beta: the hinge and every ReLU network.

    Arguments, result and errors as in `lipschitz_estimate`; the gradient is taken by autograd.

    Example:
        >>> from bnlab import smoothness_estimate
        >>> round(smoothness_estimate(torch.square, -5, 5).value, 9)
        2.0
        >>> hinge = lambda x: torch.relu(1 - x)
        >>> [round(smoothness_estimate(hinge, 0, 3, points=n).value) for n in (302, 602, 1202)]
        [100, 200, 400]
    """
    x = _segments(low, high, points, lines, seed).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(_values(function, x).sum(), x)
    x = x.detach()
    return _steepest(x, gradient.reshape(*x.shape[:2], -1))


def _segments(
    low: float | Sequence[float], high: float | Sequence[float], points: int, lines: int, seed: int
) -> Tensor:
    """Grids on segments: (1, points) on an interval, (lines, points, d) in a box."""
    a, b = (torch.as_tensor(end, dtype=torch.float64) for end in (low, high))
    if a.shape != b.shape or a.ndim > 1 or not torch.all(a < b):
        raise ValueError(f"low, high: expected two numbers or two points with low < high, got {low}, {high}")
    if points < 2:
        raise ValueError(f"points: expected at least 2 on a segment, got {points}")
    if a.ndim == 0:
        return torch.linspace(a.item(), b.item(), points, dtype=torch.float64)[None]
    generator = torch.Generator().manual_seed(seed)
    ends = a + (b - a) * torch.rand(2, lines, 1, len(a), dtype=torch.float64, generator=generator)
    t = torch.linspace(0, 1, points, dtype=torch.float64)[:, None]
    return ends[0] + t * (ends[1] - ends[0])


def _values(function: Function, x: Tensor) -> Tensor:
    """f at every grid point: (lines, points)."""
    flat = x.flatten(0, 1)
    values = function(flat)
    if values.shape != flat.shape[:1]:
        raise ValueError(
            f"function: expected one value per point, shape {tuple(flat.shape[:1])}, from an input of shape "
            f"{tuple(flat.shape)}; got {tuple(values.shape)}"
        )
    return values.reshape(x.shape[:2])


def _steepest(x: Tensor, values: Tensor) -> SlopeEstimate:
    """The steepest pair of neighbours; `values` is (lines, points, k)."""
    moved = x.diff(dim=1).reshape(x.shape[0], x.shape[1] - 1, -1)
    quotient = torch.linalg.vector_norm(values.detach().diff(dim=1), dim=-1) / torch.linalg.vector_norm(
        moved, dim=-1
    )
    where = int(quotient.argmax())  # argmax takes a NaN for the largest
    line, point = divmod(where, quotient.shape[1])
    return SlopeEstimate(quotient.flatten()[where].item(), x[line, point], x[line, point + 1])
