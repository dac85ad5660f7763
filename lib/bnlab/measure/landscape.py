"""The loss along the gradient ([2] §3.2, Fig. 4), along a line and on a plane, on one mini-batch."""

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
    distance,
    evaluate,
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
        """Smallest and largest loss over the step sizes, [2] Fig. 4(a)."""
        return float(np.min(self.loss)), float(np.max(self.loss))

    @property
    def gradient_band(self) -> tuple[float, float]:
        """Smallest and largest gradient distance over the step sizes, [2] Fig. 4(b)."""
        return float(np.min(self.gradient_distance)), float(np.max(self.gradient_distance))

    @property
    def effective_beta(self) -> float:
        """Largest beta over the step sizes other than 0, [2] Fig. 4(c). NaN if a gradient was not finite."""
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
    steps = _step_sizes(step_sizes, "step_sizes")
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
        gradient_norm, length = norm(gradient), norm(direction)
        for s in steps:
            start.rewind()
            move(parameters, values, direction, s)
            value, there = value_and_gradient(model, loss, parameters)
            losses.append(value.item())
            distances.append(distance(there, gradient))
            cosines.append(cosine(there, gradient, norm(there), gradient_norm, distances[-1]))
            betas.append(ratio(distances[-1], abs(s) * length))
    found = Probe(
        step_sizes=np.array(steps),
        loss0=loss0.item(),
        gradient=gradient,
        gradient_norm=gradient_norm,
        loss=np.array(losses),
        gradient_distance=np.array(distances),
        cosine=np.array(cosines),
        beta=np.array(betas),
    )
    return found, advanced


@dataclass(frozen=True, eq=False)
class Slice1D:
    """What `slice1d` found."""

    alphas: np.ndarray  # (n,)
    loss: np.ndarray  # (n,) L(theta + alpha d)
    direction: tuple[Tensor, ...]  # d, one tensor per trainable parameter


@dataclass(frozen=True, eq=False)
class Slice2D:
    """What `slice2d` found."""

    alphas: np.ndarray  # (n,)
    betas: np.ndarray  # (m,)
    loss: np.ndarray  # (n, m) L(theta + alphas[i] d1 + betas[j] d2)
    directions: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # d1, d2


def random_direction(model: nn.Module, *, seed: int) -> tuple[Tensor, ...]:
    """A random direction, filter by filter as long as the model's weights: Li et al. 2018, arXiv:1712.09913.

    Each filter (each slice along dimension 0 of a parameter with at least two dimensions) is a Gaussian
    vector, scaled to the norm of the model's own filter. Biases and batch-norm parameters get direction
    zero, as by default in the authors' code: the bias of a fresh batch norm has no length to scale to.

    Args:
        model: any module with trainable parameters.
        seed: of a generator of its own, on the CPU; the same numbers on every device.

    Returns:
        One tensor per trainable parameter, ready for `slice1d`, `slice2d` and `probe`.

    Example:
        >>> import torch
        >>> from bnlab.measure.landscape import random_direction
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        >>> d = random_direction(net, seed=0)
        >>> bool(torch.allclose(d[0].norm(dim=1), net[0].weight.norm(dim=1))), [t.any().item() for t in d[1:]]
        (True, [False, False, False])
    """
    generator = torch.Generator().manual_seed(seed)
    direction = []
    for parameter in trainable(model):
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
    direction: Sequence[Tensor] | None = None,
    seed: int = 0,
) -> Slice1D:
    r"""The loss along one direction: :math:`L(\theta+\alpha d)`, on one mini-batch.

    One forward pass per point, no gradients. Every point sees the same buffers and random numbers, the mode
    the model is in is measured, and afterwards everything is as it was (see `frozen`). Note the sign: plus,
    where `probe` has minus.

    Args:
        model: any module, in any mode, on any device.
        loss: takes the model, returns a scalar tensor, for one fixed mini-batch.
        alphas: (n,) in units of ``direction``; for a `random_direction`, 1 moves every filter by its own
            length.
        direction: one tensor per trainable parameter; a `random_direction` if not given.
        seed: of that direction.

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
    steps = _step_sizes(alphas, "alphas")
    with frozen(model) as start, torch.no_grad():
        parameters = trainable(model)
        if direction is None:
            direction = random_direction(model, seed=seed)
        direction = _direction(direction, parameters)
        values = start.parameter_values()
        losses = _losses(model, loss, start, parameters, values, direction, steps)
    return Slice1D(np.array(steps), np.array(losses), direction)


def slice2d(
    model: nn.Module,
    loss: Loss,
    alphas: Sequence[float],
    betas: Sequence[float],
    *,
    directions: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    seed: int = 0,
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
        directions: two sequences of one tensor per trainable parameter; two `random_direction` with seeds
            ``seed`` and ``seed + 1`` if not given.
        seed: of those directions.

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
    rows, columns = _step_sizes(alphas, "alphas"), _step_sizes(betas, "betas")
    with frozen(model) as start, torch.no_grad():
        parameters = trainable(model)
        if directions is None:
            directions = random_direction(model, seed=seed), random_direction(model, seed=seed + 1)
        d1, d2 = (_direction(d, parameters) for d in directions)
        values = start.parameter_values()
        losses = []
        for alpha in rows:
            moved = zip(parameters, d1, strict=True)
            shifted: dict[Tensor, Tensor] = {p: torch.add(values[p], d, alpha=alpha) for p, d in moved}
            losses.append(_losses(model, loss, start, parameters, shifted, d2, columns))
    return Slice2D(np.array(rows), np.array(columns), np.array(losses), (d1, d2))


def _losses(
    model: nn.Module,
    loss: Loss,
    start: ForwardState,
    parameters: Sequence[nn.Parameter],
    values: dict[Tensor, Tensor],
    direction: Sequence[Tensor],
    steps: list[float],
) -> list[float]:
    """L(values + step * direction) for every step."""
    losses = []
    for step in steps:
        start.rewind()
        move(parameters, values, direction, -step)
        losses.append(evaluate(model, loss).item())
    return losses


def move(
    parameters: Sequence[nn.Parameter],
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


def _step_sizes(step_sizes: Sequence[float], name: str) -> list[float]:
    steps = np.asarray(step_sizes, dtype=float)
    if steps.ndim != 1 or steps.size == 0 or not np.all(np.isfinite(steps)):
        raise ValueError(
            f"{name}: expected a flat, non-empty sequence of finite numbers, got {step_sizes!r}; "
            f"for a single number s give [s]"
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
