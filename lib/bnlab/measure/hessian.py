"""The Hessian of a loss as a linear operator, and the Lanczos recurrence on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .frozen import ForwardState, frozen
from .gradient import (
    Loss,
    Parameters,
    expect_same,
    explained,
    nodes,
    preview,
    reentrant_refused,
    trainable,
    value_and_graph,
)

# Every function that this decorator returns has the same code.
ONCE = once_differentiable(print).__code__


class NotFinite(ArithmeticError):
    """A Hessian-vector product is NaN or infinite."""


def hessian(
    model: nn.Module, loss: Loss, *, parameters: Parameters | None = None, check: bool = True
) -> Hessian:
    r"""The Hessian :math:`\nabla^2_\theta L(\theta)` of the loss, as an operator on flat vectors.

    It is a ``scipy.sparse.linalg.LinearOperator`` of shape (n, n) for n trainable parameters: multiply with
    ``@`` or ``matvec``, or hand it to SciPy's solvers. One gradient with its graph is kept, and a product
    differentiates it once more (about two forward and backward passes). Train-mode batch norm is
    differentiated through its batch statistics; dropout and noise keep the numbers they drew once. It
    belongs to the weights at which it was made. The model is left as it was (see `frozen`).

    A vector holds the parameters' numbers one after the other, each parameter in the order in which it lies
    in memory; the operator's ``tensors`` and ``vector`` lead there and back.

    Args:
        model: any module, in any mode, on any device, that can be differentiated twice.
        loss: takes the model, returns a scalar tensor, for one fixed mini-batch.
        parameters: differentiate in these only; tensors, names, or names of modules. With the name of one
            layer it is that layer's block on the diagonal.
        check: refuse a loss that draws a new batch at each call, seen by calling it twice.

    Raises:
        TypeError, ValueError: as in `probe`.
        RuntimeError: something in the network cannot be differentiated twice; the message names a remedy.
        NotFinite: (an ArithmeticError) from a product that is NaN or infinite.

    Source: Pearlmutter 1994, "Fast exact multiplication by the Hessian".

    Example:
        >>> import numpy as np, torch
        >>> from bnlab import hessian
        >>> net = torch.nn.Linear(2, 1, bias=False).double()
        >>> bowl = lambda net: (net.weight ** 2 @ torch.tensor([[3.0], [1.0]]).double()).sum()
        >>> operator = hessian(net, bowl)
        >>> operator.shape, (operator @ np.array([1.0, 1.0])).tolist()
        ((2, 2), [6.0, 2.0])
    """
    with frozen(model) as start:
        return Hessian(model, loss, start, parameters, check)


class Hessian(LinearOperator):
    """What `hessian` makes: a SciPy operator that knows the parameters it belongs to."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        start: ForwardState,
        parameters: Parameters | None = None,
        check: bool = True,
    ):
        self._parameters = trainable(model, parameters)
        with torch.enable_grad(), reentrant_refused():
            first = preview(model, loss, start) if check else None
            value, gradient = value_and_graph(model, loss, self._parameters, create_graph=True)
        if first is not None:
            expect_same(first, value.detach())
        refuse_once_differentiable(value)
        # Where the gradient is constant (a linear loss, an unused parameter) the Hessian is zero.
        self._varies = [i for i, g in enumerate(gradient) if g is not None and g.requires_grad]
        self._gradient = [g for g in gradient if g is not None and g.requires_grad]
        self._layouts = [(p.shape, torch.empty_like(p).stride()) for p in self._parameters]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self.products = 0  #: how many have been computed
        double = any(parameter.dtype == torch.float64 for parameter in self._parameters)
        super().__init__(np.float64 if double else np.float32, (sum(self._sizes),) * 2)

    def gradient(self) -> list[Tensor]:
        """The gradient at the same point, one tensor per parameter."""
        found = [torch.zeros_like(parameter) for parameter in self._parameters]
        for i, g in zip(self._varies, self._gradient, strict=True):
            found[i] = g.detach()
        return found

    def tensors(self, vector: np.ndarray) -> list[Tensor]:
        """The vector as tensors shaped like the parameters, on the same memory (on the CPU)."""
        flat = torch.from_numpy(vector).split(self._sizes)
        return [piece.as_strided(*layout) for piece, layout in zip(flat, self._layouts, strict=True)]

    def like_parameters(self, vector: np.ndarray) -> tuple[Tensor, ...]:
        """The vector as a direction: tensors with the parameters' shapes, precision and device."""
        pieces = zip(self.tensors(vector), self._parameters, strict=True)
        return tuple(piece.to(parameter) for piece, parameter in pieces)

    def vector(self, tensors: Sequence[Tensor]) -> np.ndarray:
        """One tensor per parameter as a flat vector."""
        flat = np.zeros(self.shape[0], self.dtype)
        for piece, tensor in zip(self.tensors(flat), tensors, strict=True):
            piece.copy_(tensor)
        return flat

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        self.products += 1
        found = np.zeros(self.shape[0], self.dtype)
        if not self._gradient:
            return found
        pieces = self.tensors(np.ascontiguousarray(vector.ravel(), dtype=self.dtype))
        v = [piece.to(p) for piece, p in zip(pieces, self._parameters, strict=True)]
        with explained():
            product = list(
                torch.autograd.grad(
                    self._gradient,
                    self._parameters,
                    grad_outputs=[v[i] for i in self._varies],
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
        for piece in reversed(self.tensors(found)):
            piece.copy_(
                product.pop().to_dense()
            )  # pop: its memory is free before the next page of `found` is used
        largest = max(found.max(), -found.min())  # NaN if one is NaN
        if not math.isfinite(largest):
            raise NotFinite("a product with the Hessian is NaN or infinite; is the loss finite here?")
        return found

    _rmatvec = _matvec  # it is symmetric


def refuse_once_differentiable(value: Tensor) -> None:
    """Functions so marked pass second derivatives off as zero where the loss is linear in their output."""
    for node in nodes(value):
        function = getattr(type(node), "_forward_cls", type(None))
        if getattr(getattr(function, "backward", None), "__code__", None) is ONCE:
            raise RuntimeError(
                f"loss: {function.__name__} is marked once_differentiable and has no second derivative; "
                f"write its backward with differentiable operations and take the mark off"
            )


def lanczos(operator: LinearOperator, start: np.ndarray) -> Iterator[tuple[np.ndarray, float, float]]:
    """The Lanczos recurrence, without end: unit vector v_j, its alpha_j = v_j' A v_j, and beta_j.

    In the basis of the v_j the operator is the tridiagonal matrix with alpha on the diagonal and beta beside
    it. Three vectors are kept, none is orthogonalized again: rounding makes copies of eigenvalues that have
    converged, and the extreme ones stay right (Paige 1976). Ends where beta is zero.
    """
    v = start / np.linalg.norm(start)
    before, beta = np.zeros(0, v.dtype), 0.0
    while True:
        w = operator.matvec(v)
        if beta:
            before *= beta
            w -= before
        alpha = float(np.dot(v, w))
        before = v * v.dtype.type(alpha)
        w -= before
        beta = float(np.linalg.norm(w))
        yield v, alpha, beta
        if beta <= np.finfo(v.dtype).eps * abs(alpha):
            return
        before, v = v, w
        v /= v.dtype.type(beta)
