"""The largest eigenvalues of the Hessian of a loss, on one mini-batch."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh
from torch import nn

from .frozen import frozen
from .gradient import Loss, trainable, value_and_gradient

# Up to this many parameters the Hessian is written out and diagonalised: Lanczos needs room to work in.
DENSE = 20
# Lanczos gives up after so many restarts, each of about k + 6 products.
RESTARTS = 100


@dataclass(frozen=True, eq=False)
class Sharpness:
    """What `sharpness` found."""

    eigenvalues: np.ndarray  # (k,) the algebraically largest, largest first
    residuals: np.ndarray  # (k,) |H v - lambda v| of the unit eigenvectors found
    converged: bool  # every residual is at most tol times the largest |eigenvalue|
    products: int  # Hessian-vector products spent


def sharpness(model: nn.Module, loss: Loss, *, k: int = 1, seed: int = 0, tol: float = 1e-3) -> Sharpness:
    r"""The k largest eigenvalues of the Hessian of the loss in the model's trainable parameters.

    :math:`H=\nabla^2_\theta L(\theta)`. "Largest" is algebraic: the directions that curve upwards most,
    which bound the stable learning rate of gradient descent by 2 / eigenvalue. A strongly negative
    eigenvalue is not among them.

    One gradient with its graph is kept, each Hessian-vector product differentiates it once more (no further
    forward pass), and ARPACK's Lanczos iteration does the rest. Train-mode batch norm is differentiated
    through its batch statistics; dropout and noise keep the numbers they drew once. Afterwards everything is
    as it was (see `frozen`).

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

    Returns:
        A `Sharpness`; eigenvalues in units of loss per squared parameter. Where the loss, its gradient or a
        product is not finite, or ARPACK gave an eigenvalue up, the numbers are NaN and ``converged`` is
        False.

    Raises:
        ValueError: k is not between 1 and the number of trainable parameters; ``tol`` is not positive;
            ``loss`` does not return one differentiable number.

    Source: [2] does not measure it; Ghorbani et al. 2019 and Cohen et al. 2021 do.

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
    with frozen(model):
        hessian = _Hessian(model, loss)
        n = hessian.shape[0]
        if not (isinstance(k, int) and 1 <= k <= n):
            raise ValueError(
                f"k: expected an integer from 1 to {n}, the number of trainable parameters, got {k!r}"
            )
        try:
            values, vectors = _largest(hessian, k, seed, tol)
            found = zip(values, vectors.T, strict=True)
            residuals = np.array([np.linalg.norm(hessian.matvec(v) - value * v) for value, v in found])
        except _NotFinite:
            values = residuals = np.empty(0)
    missing = np.full(k - len(values), np.nan)
    return Sharpness(
        eigenvalues=np.append(values, missing),
        residuals=np.append(residuals, missing),
        converged=len(values) == k and bool(np.all(residuals <= tol * np.abs(values).max())),
        products=hessian.products,
    )


class _NotFinite(ArithmeticError):
    """A Hessian-vector product is NaN or infinite."""


class _Hessian(LinearOperator):
    """The Hessian as an operator on flat vectors of the parameters' precision.

    A vector holds each parameter's numbers in the order in which they lie in memory: it is used as it is.
    """

    def __init__(self, model: nn.Module, loss: Loss):
        self._parameters = trainable(model)
        _, gradient = value_and_gradient(model, loss, self._parameters, create_graph=True)
        # Where the gradient is constant (a linear loss, an unused parameter) the Hessian is zero.
        self._varies = [i for i, g in enumerate(gradient) if g.requires_grad]
        self._gradient = [gradient[i] for i in self._varies]
        self._layouts = [(p.shape, torch.empty_like(p).stride()) for p in self._parameters]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self.products = 0
        self.zero = True  # so far; ARPACK takes a zero operator for an error
        double = any(parameter.dtype == torch.float64 for parameter in self._parameters)
        super().__init__(np.float64 if double else np.float32, (sum(self._sizes),) * 2)

    def pieces(self, vector: np.ndarray) -> list[torch.Tensor]:
        """The vector as tensors like the parameters, on the same memory."""
        flat = torch.from_numpy(vector).split(self._sizes)
        return [piece.as_strided(*layout) for piece, layout in zip(flat, self._layouts, strict=True)]

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        self.products += 1
        found = np.zeros(self.shape[0], self.dtype)
        if not self._gradient:
            return found
        pieces = self.pieces(np.ascontiguousarray(vector.ravel()))
        v = [piece.to(p) for piece, p in zip(pieces, self._parameters, strict=True)]
        product = torch.autograd.grad(
            self._gradient,
            self._parameters,
            grad_outputs=[v[i] for i in self._varies],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        for piece, part in zip(self.pieces(found), product, strict=True):
            piece.copy_(part)
        largest = max(found.max(), -found.min())  # NaN if one is NaN
        if not math.isfinite(largest):
            raise _NotFinite
        self.zero = self.zero and bool(largest == 0)
        return found


def _largest(hessian: _Hessian, k: int, seed: int, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues, largest first, and eigenvectors in columns; fewer if ARPACK gave up."""
    n = hessian.shape[0]
    if n <= max(DENSE, 2 * k + 6):
        dense = hessian.matmat(np.eye(n)).astype(np.float64)
        values, vectors = np.linalg.eigh((dense + dense.T) / 2)
        values, vectors = values[-k:], vectors[:, -k:]
    else:
        start = np.random.default_rng(seed).standard_normal(n).astype(hessian.dtype)
        try:
            # A small Krylov space: a product costs far more here than ARPACK's own work.
            values, vectors = eigsh(
                hessian, k=k, which="LA", v0=start, tol=tol, ncv=2 * k + 6, maxiter=RESTARTS
            )
        except ArpackNoConvergence as stopped:
            values, vectors = stopped.eigenvalues, stopped.eigenvectors
        except ArpackError:
            if not hessian.zero:
                raise
            values, vectors = np.zeros(k), np.eye(n, k)
    order = np.argsort(values)[::-1]
    return values[order].astype(np.float64), vectors[:, order].astype(np.float64)
