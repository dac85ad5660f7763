"""The density of the Hessian's eigenvalues, by stochastic Lanczos quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.linalg import eigh_tridiagonal
from torch import nn

from .drawing import axes, mark, number
from .frozen import frozen
from .gradient import Loss, Parameters
from .hessian import Hessian, lanczos

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """What `spectrum` found: points on the axis of eigenvalues, and the share of them each stands for."""

    eigenvalues: np.ndarray  # (m,) ascending; those at the ends are eigenvalues, those between stand for many
    weights: np.ndarray  # (m,) they add up to 1
    parameters: int  # n, the number of eigenvalues
    products: int  # Hessian-vector products spent

    @property
    def trace(self) -> float:
        """The sum of all n eigenvalues, estimated."""
        return float(self.parameters * np.dot(self.weights, self.eigenvalues))

    def density(self, at: np.ndarray, width: float) -> np.ndarray:
        """Share of eigenvalues per unit, each point widened to a Gaussian of standard deviation ``width``."""
        z = (np.asarray(at)[:, None] - self.eigenvalues) / width
        return np.exp(-(z**2) / 2) @ self.weights / (width * np.sqrt(2 * np.pi))

    def __repr__(self) -> str:
        negative = self.weights[self.eigenvalues < 0].sum()
        return (
            f"Spectrum of {self.parameters} eigenvalues, {number(self.eigenvalues[0])} to "
            f"{number(self.eigenvalues[-1])}: about {negative:.0%} negative, "
            f"trace about {number(self.trace)} ({self.products} Hessian products)"
        )

    def frame(self) -> pd.DataFrame:
        """One row per point: ``eigenvalue`` (loss per squared unit of weight) and ``weight`` (its share)."""
        return pd.DataFrame({"eigenvalue": self.eigenvalues, "weight": self.weights})

    def plot(self, ax: Axes | None = None, *, lr: float | None = None) -> Axes:
        """Draw the density on a logarithmic axis, widened by 1 % of the range, and return the Axes.

        Given a learning rate ``lr``, a line at 2/lr.
        """
        ax = axes(ax)
        low, high = self.eigenvalues[0], self.eigenvalues[-1]
        width = (high - low) / 100 or 1.0
        at = np.linspace(low - 4 * width, high + 4 * width, 1000)
        density = self.density(at, width)
        ax.plot(at, density)
        ax.set_yscale("log")
        ax.set(xlabel="eigenvalue of the Hessian", ylabel="share of eigenvalues per unit")
        ax.set_ylim(bottom=density.max() / 1e8)
        if lr is not None:
            mark(ax, 2 / lr, "2/lr")
        return ax


def spectrum(
    model: nn.Module,
    loss: Loss,
    *,
    steps: int = 80,
    samples: int = 1,
    seed: int = 0,
    parameters: Parameters | None = None,
    check: bool = True,
) -> Spectrum:
    r"""The density of all eigenvalues of the Hessian, by stochastic Lanczos quadrature.

    From a random vector of signs :math:`v` with :math:`n` entries, m Lanczos steps give a tridiagonal matrix
    with eigenvalues :math:`\theta_j` and first components :math:`s_{1j}` of its unit eigenvectors. Then

    .. math:: \tfrac1n\operatorname{tr} f(H)\approx\tfrac1n v^\top f(H)\,v\approx\sum_j s_{1j}^2 f(\theta_j)

    so that each :math:`\theta_j` stands for the share :math:`s_{1j}^2` of the eigenvalues. The outermost
    :math:`\theta_j` are themselves eigenvalues; the bulk comes out blurred. Costs ``steps * samples``
    products, see `hessian`.

    Args:
        model, loss, parameters, check: as in `hessian`.
        steps: m, the points per sample. More resolve the bulk better.
        samples: random vectors; their results are averaged.
        seed: of these vectors; torch's generators are left alone.

    Returns:
        A `Spectrum`.

    Raises:
        ValueError: ``steps`` or ``samples`` is not a positive integer. Otherwise as in `hessian`.

    Source: Ghorbani et al. 2019, arXiv:1901.10159, section 2.

    Example:
        >>> import torch
        >>> from bnlab import spectrum
        >>> net = torch.nn.Linear(2, 1, bias=False).double()
        >>> bowl = lambda net: (net.weight ** 2 @ torch.tensor([[3.0], [1.0]]).double()).sum()
        >>> spectrum(net, bowl)
        Spectrum of 2 eigenvalues, 2 to 6: about 0% negative, trace about 8 (2 Hessian products)
    """
    for name, count in (("steps", steps), ("samples", samples)):
        if not (isinstance(count, int) and count >= 1):
            raise ValueError(f"{name}: expected a positive integer, got {count!r}")
    generator = np.random.default_rng(seed)
    points, weights = [], []
    with frozen(model) as start:
        operator = Hessian(model, loss, start, parameters, check)
        n = operator.shape[0]
        for _ in range(samples):
            signs = generator.choice([-1.0, 1.0], n).astype(operator.dtype)
            rows = [(alpha, beta) for _, alpha, beta in islice(lanczos(operator, signs), min(steps, n))]
            alphas, betas = np.array(rows).T
            values, vectors = eigh_tridiagonal(alphas, betas[:-1])
            points.append(values)
            weights.append(vectors[0] ** 2 / samples)
    eigenvalues, shares = np.concatenate(points), np.concatenate(weights)
    order = np.argsort(eigenvalues)
    return Spectrum(eigenvalues[order], shares[order], n, operator.products)
