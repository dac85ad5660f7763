"""The largest eigenvalues of the Hessian of a loss, on one mini-batch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from .drawing import axes, number, reference
from .frozen import frozen
from .gradient import Loss, Parameters
from .hessian import Hessian, NotFinite, lanczos

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Up to this many parameters the Hessian is written out and diagonalised: Lanczos needs room to work in.
DENSE = 20
# Lanczos gives up after so many steps, ARPACK after so many restarts.
STEPS = 300
RESTARTS = 100


@dataclass(frozen=True, eq=False, repr=False)
class Sharpness:
    """What `sharpness` found."""

    eigenvalues: np.ndarray  # (k,) the algebraically largest, largest first
    residuals: np.ndarray  # (k,) |H v - lambda v| of the unit eigenvectors found
    converged: bool  # every residual is at most tol times the largest |eigenvalue|
    products: int  # Hessian-vector products spent
    # If asked for: the unit eigenvectors, each a `direction` to walk along, and the most negative eigenvalue.
    eigenvectors: tuple[tuple[Tensor, ...], ...] | None = None
    smallest: float | None = None

    def __repr__(self) -> str:
        values = ", ".join(number(value) for value in self.eigenvalues[:5])
        more = ", …" if len(self.eigenvalues) > 5 else ""
        many = f"s {values}{more}" if len(self.eigenvalues) > 1 else f" {values}"
        smallest = "" if self.smallest is None else f", smallest {number(self.smallest)}"
        state = "" if self.converged else ", not converged"
        return f"Sharpness: largest eigenvalue{many}{smallest}{state} ({self.products} Hessian products)"

    def frame(self) -> pd.DataFrame:
        """One row per eigenvalue, largest first.

        Columns: ``rank`` (from 1), ``eigenvalue`` and ``residual`` (loss per squared unit of weight),
        ``converged``.
        """
        ranks = np.arange(1, len(self.eigenvalues) + 1)
        values = {"rank": ranks, "eigenvalue": self.eigenvalues, "residual": self.residuals}
        return pd.DataFrame(values | {"converged": self.converged})

    def plot(self, ax: Axes | None = None, *, lr: float | None = None) -> Axes:
        """Draw the eigenvalues by rank with their residuals as whiskers, and return the Axes.

        Hollow if not converged. Given a learning rate ``lr``, the line 2/lr is the eigenvalue above which
        gradient descent is unstable.
        """
        ax = axes(ax)
        ranks = np.arange(1, len(self.eigenvalues) + 1)
        fill = None if self.converged else "white"
        ax.errorbar(ranks, self.eigenvalues, self.residuals, fmt="o", capsize=3, markerfacecolor=fill)
        if self.smallest is not None:
            ax.plot(ranks[-1] + 1, self.smallest, "v", color="C1")
            ax.annotate(
                "smallest",
                (ranks[-1] + 1, self.smallest),
                xytext=(-4, 6),
                ha="right",
                textcoords="offset points",
                color="C1",
                fontsize="small",
            )
        if lr is not None:
            reference(ax, 2 / lr, "2/lr")
        ax.set(xlabel="rank", ylabel="eigenvalue of the Hessian", xticks=ranks)
        return ax


def sharpness(
    model: nn.Module,
    loss: Loss,
    *,
    k: int = 1,
    seed: int = 0,
    tol: float = 1e-3,
    eigenvectors: bool = False,
    smallest: bool = False,
    parameters: Parameters | None = None,
    check: bool = True,
) -> Sharpness:
    r"""The k largest eigenvalues of the Hessian of the loss in the model's trainable parameters.

    :math:`H=\nabla^2_\theta L(\theta)`. "Largest" is algebraic: the directions that curve upwards most,
    which bound the stable learning rate of gradient descent by 2 / eigenvalue. The most negative one is
    another; ask for it with ``smallest``.

    One gradient with its graph is kept, each Hessian-vector product differentiates it once more (no further
    forward pass), see `hessian`. For k = 1 and for ``smallest`` Lanczos keeps three vectors as large as the
    weights; for larger k ARPACK keeps about 2 k + 10. Memory for k = 1, on a ResNet-18 with 42 MiB of weights
    and 8 images of 32 × 32 pixels: 1.35 times that of the bare products, 1.5 with ``eigenvectors``.
    Afterwards everything is as it was (see `frozen`).

    Traps: the Hessian of a ReLU network is that of the linear piece one stands on; the kinks, where the
    gradient jumps, do not show in it. Eigenvalues belong to a parametrization: rescaling the weights in
    front of a batch norm by a divides their block by a². In float32 the products are exact to about 1e-6 of
    the largest eigenvalue in size; a smaller ``tol`` wants float64.

    Args:
        model: any module, in any mode, on any device, that can be differentiated twice.
        loss: takes the model, returns a scalar tensor, for one fixed mini-batch.
        k: how many eigenvalues.
        seed: of the random vector that Lanczos starts from; torch's generators are left alone.
        tol: residual at which an eigenvalue counts as found, relative to the largest eigenvalue in size.
        eigenvectors: keep them, each as one tensor per parameter; for k = 1 that doubles the products.
        smallest: find the most negative eigenvalue, too.
        parameters: the Hessian in these only; tensors, names, or names of modules. Layer by layer:
            ``{name: sharpness(net, loss, parameters=name) for name, _ in net.named_children()}``, where each
            has trainable parameters.
        check: refuse a loss that draws a new batch at each call, seen by calling it twice.

    Returns:
        A `Sharpness`; eigenvalues in units of loss per squared parameter. Where the loss, its gradient or a
        product is not finite, or ARPACK gave an eigenvalue up, the numbers are NaN and ``converged`` is
        False.

    Raises:
        ValueError: k is not between 1 and the number of trainable parameters; ``tol`` is not positive;
            ``loss`` does not return one differentiable number, or not the same one twice.
        RuntimeError: something in the network cannot be differentiated twice; the message names a remedy.

    Source: Ghorbani et al. 2019, arXiv:1901.10159; Cohen et al. 2021, arXiv:2103.00065.

    Example:
        >>> import torch
        >>> from bnlab import sharpness
        >>> net = torch.nn.Linear(2, 1, bias=False).double()
        >>> bowl = lambda net: (net.weight ** 2 @ torch.tensor([[3.0], [1.0]]).double()).sum()
        >>> found = sharpness(net, bowl, k=2)
        >>> found.eigenvalues.round(9).tolist(), found.converged
        ([6.0, 2.0], True)
    """
    if not tol > 0:
        raise ValueError(f"tol: expected a positive number, got {tol!r}")
    with frozen(model) as start:
        operator = Hessian(model, loss, start, parameters, check)
        n = operator.shape[0]
        if not (isinstance(k, int) and 1 <= k <= n):
            raise ValueError(
                f"k: expected an integer from 1 to {n}, the number of trainable parameters, got {k!r}"
            )
        try:
            values, vectors, residuals = _largest(operator, k, seed, tol, eigenvectors)
            low = _largest(-operator, 1, seed, tol, False) if smallest else None
        except NotFinite:
            values, vectors, residuals, low = np.empty(0), [], np.empty(0), None
        size = max(np.abs(values), default=0.0)
        exact = [*residuals, *([] if low is None else low[2])]
    missing = np.full(k - len(values), np.nan)
    return Sharpness(
        eigenvalues=np.append(values, missing),
        residuals=np.append(residuals, missing),
        converged=len(values) == k and all(residual <= tol * size for residual in exact),
        products=operator.products,
        eigenvectors=tuple(operator.like_parameters(v) for v in vectors) if eigenvectors else None,
        smallest=None if low is None else -float(low[0][0]),
    )


# Eigenvalues, largest first; their unit eigenvectors (none, if not wanted); the residuals |A v - lambda v|.
Found = tuple[np.ndarray, list[np.ndarray], np.ndarray]


def _largest(operator: LinearOperator, k: int, seed: int, tol: float, wanted: bool) -> Found:
    """The k largest eigenvalues; fewer if ARPACK gave up."""
    n = operator.shape[0]
    start = np.random.default_rng(seed).standard_normal(n).astype(operator.dtype)
    if n <= max(DENSE, 2 * k + 6):
        dense = operator.matmat(np.eye(n)).astype(np.float64)
        values, vectors = np.linalg.eigh((dense + dense.T) / 2)
        values, vectors = values[-k:], vectors[:, -k:]
    elif k == 1:
        return _steepest(operator, start, tol, wanted)
    else:
        values, vectors = _arpack(operator, k, start, tol)
    order = np.argsort(values)[::-1]
    ordered = [np.ascontiguousarray(vectors[:, i], operator.dtype) for i in order]
    residuals = [_residual(operator, *pair) for pair in zip(values[order], ordered, strict=True)]
    return values[order], ordered if wanted else [], np.array(residuals)


def _residual(operator: LinearOperator, value: float, vector: np.ndarray) -> float:
    return float(np.linalg.norm(operator.matvec(vector) - operator.dtype.type(value) * vector))


def _steepest(operator: LinearOperator, start: np.ndarray, tol: float, wanted: bool) -> Found:
    """The largest eigenvalue by Lanczos, which need not keep the basis.

    A step gives the residual of its Ritz pair without the vector (Paige 1980), up to rounding, which is added
    here. The vector, if wanted, is summed up in a second pass, and its true residual taken.
    """
    alphas: list[float] = []
    betas: list[float] = []
    for _, alpha, beta in islice(lanczos(operator, start), STEPS):
        alphas.append(alpha)
        ritz, coefficients = eigh_tridiagonal(alphas, betas)
        betas.append(beta)
        size = np.abs(ritz).max()
        residual = beta * abs(coefficients[-1, -1]) + np.finfo(start.dtype).eps * size
        if residual <= 0.9 * tol * size:  # 0.9: rounding must not lift it over tol again
            break
    if not wanted:
        return ritz[-1:], [], np.array([residual])
    vector = np.zeros_like(start)
    for coefficient, (v, _, _) in zip(coefficients[:, -1], lanczos(operator, start), strict=False):
        vector += v.dtype.type(coefficient) * v
    vector /= np.linalg.norm(vector)
    return ritz[-1:], [vector], np.array([_residual(operator, ritz[-1], vector)])


def _arpack(operator: LinearOperator, k: int, start: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors in columns; fewer than k if ARPACK gave up."""
    try:
        # A small Krylov space: a product costs far more here than ARPACK's own work.
        return eigsh(operator, k=k, which="LA", v0=start, tol=tol, ncv=2 * k + 6, maxiter=RESTARTS)
    except ArpackNoConvergence as stopped:
        return stopped.eigenvalues, stopped.eigenvectors
    except ArpackError:
        if np.any(operator.matvec(start)):
            raise
        return np.zeros(k), np.eye(operator.shape[0], k)  # it takes a zero operator for an error
