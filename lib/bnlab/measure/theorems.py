r"""Theorems about batch norm with both sides as numbers.

They are those of Santurkar et al. 2018 (arXiv:1805.11604), section 4, and of Ioffe and Szegedy 2015,
section 3.3.

Setting of Santurkar et al. 2018, section 4.1, for one batch norm with batch statistics and eps = 0:

.. math:: y=Wx,\quad \hat y_j=(y_j-\mu_j)/\sigma_j,\quad z_j=\gamma_j\hat y_j+\beta_j,\quad
   \hat L(y)=L(z)

:math:`y_j\in\mathbb R^m` is unit j over the mini-batch; for a convolution, m counts pixels too. gamma and
beta are constants. Here "the gradient of the network without batch norm", :math:`\nabla_{y_j}L` or
:math:`\hat g_j`, means :math:`\partial L/\partial z_j` at z, the identification that the proofs in
their appendix C make. The gradient of a network that feeds y itself to the loss is another one, and for it
the statements do not hold in general.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ActivationLoss = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class GradientIdentity:
    """Both sides of Santurkar et al. 2018, Theorem 4.1, one entry per unit."""

    left: np.ndarray  # (units,) |grad_{y_j} L^|^2, by autograd through the batch norm
    right: np.ndarray  # (units,) the right side with the coefficient 1/m on its last term
    printed: np.ndarray  # (units,) the right side with 1/sqrt(m) there, as printed in v3
    gradient_squared: np.ndarray  # (units,) |grad_{y_j} L|^2, before scaling by gamma^2 / sigma^2
    mean_part: np.ndarray  # (units,) <1, grad>^2 / m, what subtracting the mean takes away
    aligned_part: np.ndarray  # (units,) <grad, y^>^2 / m, what dividing by sigma takes away


def gradient_identity(y: Tensor, gamma: Tensor, beta: Tensor, loss: ActivationLoss) -> GradientIdentity:
    r"""Theorem 4.1: batch norm's effect on the gradient with respect to the activations.

    .. math:: \lVert\nabla_{y_j}\hat L\rVert^2 = \frac{\gamma_j^2}{\sigma_j^2}\Big(
       \lVert\nabla_{y_j}L\rVert^2-\tfrac1m\langle 1,\nabla_{y_j}L\rangle^2
       -\tfrac1m\langle\nabla_{y_j}L,\hat y_j\rangle^2\Big)

    An equality, since batch norm's Jacobian is gamma / sigma times a projection. Version 3 of the paper
    prints an inequality with :math:`1/\sqrt m` in front of the last term, a slip in its step from eq. 8 to
    eq. 9, because :math:`\lVert\hat y_j\rVert=\sqrt m`; a later version has :math:`1/m`. With the slip the
    right side can be negative.

    Args:
        y: (m, units) or (m, units, ...) input of the batch norm; float64 for exact comparisons.
        gamma: (units,) its scale.
        beta: (units,) its shift.
        loss: takes z, of y's shape, and returns a scalar tensor: the rest of the network.

    Returns:
        A `GradientIdentity`, squared gradients of the loss per unit of y. NaN for a unit whose y does not
        vary over the batch.

    Raises:
        ValueError: shapes do not fit, or ``loss`` is not one differentiable number.

    Source: Santurkar et al. 2018, Theorem 4.1 and appendix C.2.

    Example:
        >>> import torch
        >>> from bnlab import theorems
        >>> y = torch.tensor([[1.0], [2.0], [3.0], [6.0]]).double()
        >>> one, zero = torch.ones(1).double(), torch.zeros(1).double()
        >>> identity = theorems.gradient_identity(y, one, zero, lambda z: (z ** 3).sum())
        >>> bool(abs(identity.left - identity.right).max() < 1e-12)
        True
        >>> bool(identity.left[0] <= identity.printed[0])
        False
    """
    layer = _Normalized(y, gamma, beta, loss)
    mean_part = layer.per_unit(layer.g) ** 2 / layer.m
    alignment = layer.per_unit(layer.g * layer.normalized) ** 2
    squared = layer.per_unit(layer.g**2)
    return GradientIdentity(
        left=_numpy(layer.per_unit(layer.v**2)),
        right=_numpy(layer.scale**2 * (squared - mean_part - alignment / layer.m)),
        printed=_numpy(layer.scale**2 * (squared - mean_part - alignment / layer.m**0.5)),
        gradient_squared=_numpy(squared),
        mean_part=_numpy(mean_part),
        aligned_part=_numpy(alignment / layer.m),
    )


@dataclass(frozen=True, eq=False)
class CurvatureIdentity:
    """Both sides of Santurkar et al. 2018, Theorem 4.2, one entry per unit."""

    left: np.ndarray  # (units,) v^T (d^2 L^ / dy_j^2) v with v = grad_{y_j} L^, by double backward
    right: np.ndarray  # (units,) curvature - separation
    curvature: np.ndarray  # (units,) gamma^2 / sigma^2 * v^T H_jj v
    separation: np.ndarray  # (units,) gamma / (m sigma^2) * <g^_j, y^_j> |v|^2; helps only where positive
    second_form: np.ndarray  # (units,) the theorem's second right side, with g^^T H_jj g^ for v^T H_jj v


def curvature_identity(y: Tensor, gamma: Tensor, beta: Tensor, loss: ActivationLoss) -> CurvatureIdentity:
    r"""Theorem 4.2: batch norm's effect on the curvature along the gradient, for each unit alone.

    With :math:`v=\nabla_{y_j}\hat L` and :math:`H_{jj}=\partial^2L/\partial z_j\partial z_j`:

    .. math:: v^\top\frac{\partial^2\hat L}{\partial y_j\partial y_j}v
       =\frac{\gamma_j^2}{\sigma_j^2}v^\top H_{jj}v
       -\frac{\gamma_j}{m\sigma_j^2}\langle\hat g_j,\hat y_j\rangle\lVert v\rVert^2

    An equality too, printed as an inequality. It lowers the curvature only where
    :math:`\langle\hat g_j,\hat y_j\rangle>0`, which nothing guarantees. It speaks of one unit and one
    direction, and not of the largest eigenvalue. ``second_form`` replaces the first term by
    :math:`\hat g_j^\top H_{jj}\hat g_j`, which the paper allows "if :math:`H_{jj}` preserves the relative
    norms".

    Arguments, errors as in `gradient_identity`. Costs two Hessian-vector products per unit for each side.

    Returns:
        A `CurvatureIdentity`.

    Source: Santurkar et al. 2018, Theorem 4.2 and appendix C.2.

    Example:
        >>> import torch
        >>> from bnlab import theorems
        >>> y = torch.tensor([[1.0], [2.0], [3.0], [6.0]]).double()
        >>> one, zero = torch.ones(1).double(), torch.zeros(1).double()
        >>> identity = theorems.curvature_identity(y, one, zero, lambda z: (z ** 3).sum())
        >>> bool(abs(identity.left - identity.right).max() < 1e-12)
        True
    """
    layer = _Normalized(y, gamma, beta, loss)
    v_squared = layer.per_unit(layer.v**2)
    curvature = layer.scale**2 * layer.quadratic_forms(layer.g, layer.z, layer.v)
    separation = (
        layer.scale**2 / layer.gamma / layer.m * layer.per_unit(layer.g * layer.normalized) * v_squared
    )
    along_g = layer.scale**2 * layer.quadratic_forms(layer.g, layer.z, layer.g)
    return CurvatureIdentity(
        left=_numpy(layer.quadratic_forms(layer.v, layer.y, layer.v)),
        right=_numpy(curvature - separation),
        curvature=_numpy(curvature),
        separation=_numpy(separation),
        second_form=_numpy(along_g - separation),
    )


@dataclass(frozen=True, eq=False)
class WeightGradientBound:
    """Both sides of Santurkar et al. 2018, Theorem 4.4, one entry per unit.

    Lambda is the spectral norm of the given input.
    """

    actual: np.ndarray  # (units,) |grad_{W_j} L^|^2 for the given input
    left: np.ndarray  # (units,) g^_j, the largest it could be over inputs with spectral norm <= lambda
    right: np.ndarray  # (units,) the bound, in its dimensionally consistent form
    printed: np.ndarray  # (units,) the bound as printed


def weight_gradient_bound(
    x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, loss: ActivationLoss
) -> WeightGradientBound:
    r"""Theorem 4.4: the worst-case gradient with respect to a layer's weights.

    The layer is :math:`y_j=XW_j`, so :math:`\nabla_{W_j}=X^\top\nabla_{y_j}` and the maximum over
    :math:`\lVert X\rVert_2\le\lambda` is :math:`\lambda^2\lVert\nabla_{y_j}\rVert^2`. With
    :math:`g_j=\lambda^2\lVert\nabla_{y_j}L\rVert^2`,
    :math:`\hat g_j=\lambda^2\lVert\nabla_{y_j}\hat L\rVert^2` and :math:`\mu_g` the mean of
    :math:`\nabla_{y_j}L` over the batch, the paper's eqs. 17 and 18 give (with the 1/m of
    `gradient_identity`)

    .. math:: \hat g_j=\frac{\gamma_j^2}{\sigma_j^2}\Big(g_j-\lambda^2m\mu_g^2
       -\tfrac{\lambda^2}{m}\langle\nabla_{y_j}L,\hat y_j\rangle^2\Big)

    Printed is :math:`g_j^2-m\mu_g^2-\lambda^2\langle\cdot\rangle^2`, whose terms have different units: scale
    the loss by c and the left side grows by c², the first term by c⁴. The maximum holds gradient and
    statistics fixed while X varies, though all of them depend on X.

    Args:
        x: (m, inputs) the layer's input.
        weight: (units, inputs) the layer's weight, as in ``nn.Linear``.
        gamma, beta, loss: as in `gradient_identity`.

    Returns:
        A `WeightGradientBound`; ``actual <= left`` always, ``left == right`` up to rounding.

    Raises:
        ValueError: shapes do not fit, or ``loss`` is not one differentiable number.

    Source: Santurkar et al. 2018, Theorem 4.4 and appendix C.2.

    Example:
        >>> import torch
        >>> from bnlab import theorems
        >>> x, weight = torch.eye(4).double(), torch.tensor([[1.0, 2.0, 3.0, 6.0]]).double()
        >>> one, zero = torch.ones(1).double(), torch.zeros(1).double()
        >>> bound = theorems.weight_gradient_bound(x, weight, one, zero, lambda z: (z ** 3).sum())
        >>> bool(bound.actual <= bound.left + 1e-12), bool(abs(bound.left - bound.right) < 1e-12)
        (True, True)
    """
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"x, weight: expected shapes (m, inputs) and (units, inputs), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    x = x.detach()
    layer = _Normalized(x @ weight.detach().T, gamma, beta, loss)
    lam = torch.linalg.matrix_norm(x, ord=2)
    mean = layer.per_unit(layer.g) / layer.m
    alignment = layer.per_unit(layer.g * layer.normalized) ** 2
    g = lam**2 * layer.per_unit(layer.g**2)
    return WeightGradientBound(
        actual=_numpy((x.T @ layer.v).square().sum(0)),
        left=_numpy(lam**2 * layer.per_unit(layer.v**2)),
        right=_numpy(layer.scale**2 * (g - lam**2 * layer.m * mean**2 - lam**2 / layer.m * alignment)),
        printed=_numpy(layer.scale**2 * (g**2 - layer.m * mean**2 - lam**2 * alignment)),
    )


@dataclass(frozen=True)
class InitialisationLemma:
    """Both sides of Santurkar et al. 2018, Lemma 4.5."""

    left: float  # |W_0 - W^*|^2, to the nearest optimum of the network with batch norm
    right: float  # |W_0 - W*|^2 - (|W*|^2 - <W*, W_0>)^2 / |W*|^2
    distance_squared: float  # |W_0 - W*|^2, to the optimum of the network without
    scale: float  # k > 0, with W^* = k W*


def initialisation_lemma(w0: Tensor, w_star: Tensor) -> InitialisationLemma:
    r"""Lemma 4.5: the nearest optimum is no farther with batch norm than without.

    If :math:`W^*` is an optimum of a scale-invariant network, so is every :math:`kW^*` with k > 0. The one
    nearest to :math:`W_0` is :math:`\hat W^*=kW^*` with
    :math:`k=\langle W^*,W_0\rangle/\lVert W^*\rVert^2`, and

    .. math:: \lVert W_0-\hat W^*\rVert^2=\lVert W_0-W^*\rVert^2
       -\frac{(\lVert W^*\rVert^2-\langle W^*,W_0\rangle)^2}{\lVert W^*\rVert^2}

    An equality, and true of any ray that replaces a point. It assumes that :math:`W^*` is an optimum of
    both networks.

    Args:
        w0: the initial weights, any shape.
        w_star: the optimum, of the same shape.

    Raises:
        ValueError: the shapes differ, or :math:`\langle W_0,W^*\rangle\le 0`, where the nearest point of
            the ray is its end and the lemma says nothing.

    Source: Santurkar et al. 2018, Lemma 4.5 and appendix C.2.

    Example:
        >>> import torch
        >>> from bnlab import theorems
        >>> theorems.initialisation_lemma(torch.tensor([1.0, 1.0]), torch.tensor([4.0, 0.0]))
        InitialisationLemma(left=1.0, right=1.0, distance_squared=10.0, scale=0.25)
    """
    if w0.shape != w_star.shape:
        raise ValueError(f"w0, w_star: expected one shape, got {tuple(w0.shape)} and {tuple(w_star.shape)}")
    w0, w_star = w0.detach(), w_star.detach()
    inner, squared = (w0 * w_star).sum(), w_star.square().sum()
    if not inner > 0:
        raise ValueError(
            f"w0, w_star: expected a positive inner product, as the lemma does, got {inner.item():g}"
        )
    scale = inner / squared
    distance = (w0 - w_star).square().sum()
    return InitialisationLemma(
        left=(w0 - scale * w_star).square().sum().item(),
        right=(distance - (squared - inner) ** 2 / squared).item(),
        distance_squared=distance.item(),
        scale=scale.item(),
    )


@dataclass(frozen=True, eq=False)
class ScaleInvariance:
    """Both sides of Ioffe and Szegedy 2015, section 3.3: once with the weight W, once with a W."""

    output: np.ndarray  # (m, units) BN(W u)
    output_scaled: np.ndarray  # (m, units) BN((a W) u), equal
    input_gradient: np.ndarray  # (m, inputs) with respect to u
    input_gradient_scaled: np.ndarray  # (m, inputs) equal
    weight_gradient: np.ndarray  # (units, inputs) with respect to W
    weight_gradient_scaled: np.ndarray  # (units, inputs) with respect to a W: 1/a times that
    radial: np.ndarray  # (units,) <W_j, gradient with respect to W_j>: zero


def scale_invariance(
    u: Tensor, weight: Tensor, loss: ActivationLoss, *, scale: float, eps: float = 0.0
) -> ScaleInvariance:
    r"""Batch norm makes a layer blind to the length of its weights.

    .. math:: BN((aW)u)=BN(Wu),\quad \frac{\partial BN((aW)u)}{\partial u}=\frac{\partial BN(Wu)}{\partial u},
       \quad \frac{\partial BN((aW)u)}{\partial(aW)}=\frac1a\frac{\partial BN(Wu)}{\partial W}

    shown through the gradients of one loss. It follows that
    :math:`\langle W_j,\nabla_{W_j}\rangle=0`: a gradient step never shortens the weights. True for a > 0
    and eps = 0; a < 0 flips the sign of the output, and eps > 0 leaves an error of relative size about
    :math:`\varepsilon/2\sigma^2`.

    Args:
        u: (m, inputs) the layer's input.
        weight: (units, inputs) its weight, as in ``nn.Linear``.
        loss: takes the normalized output (m, units), returns a scalar tensor.
        scale: a.
        eps: as in batch norm; 0 for the exact statement.

    Returns:
        A `ScaleInvariance`.

    Raises:
        ValueError: shapes do not fit, or ``loss`` is not one differentiable number.

    Source: Ioffe and Szegedy 2015, section 3.3.

    Example:
        >>> import torch
        >>> from bnlab import theorems
        >>> _ = torch.manual_seed(0)
        >>> u, weight = torch.randn(8, 3).double(), torch.randn(2, 3).double()
        >>> both = theorems.scale_invariance(u, weight, lambda z: (z ** 3).sum(), scale=5.0)
        >>> bool(abs(both.weight_gradient / both.weight_gradient_scaled - 5).max() < 1e-9)
        True
    """
    if u.ndim != 2 or weight.ndim != 2 or u.shape[1] != weight.shape[1]:
        raise ValueError(
            f"u, weight: expected shapes (m, inputs) and (units, inputs), got {tuple(u.shape)} and "
            f"{tuple(weight.shape)}"
        )

    def layer(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs, weight = (t.detach().clone().requires_grad_() for t in (u, weight))
        with torch.enable_grad():
            y = inputs @ weight.T
            output = (y - y.mean(0)) / torch.sqrt(y.var(0, correction=0) + eps)
            of_inputs, of_weight = torch.autograd.grad(_scalar(loss(output)), [inputs, weight])
        return output, of_inputs, of_weight

    output, input_gradient, weight_gradient = layer(weight)
    output_scaled, input_gradient_scaled, weight_gradient_scaled = layer(scale * weight)
    return ScaleInvariance(
        output=_numpy(output),
        output_scaled=_numpy(output_scaled),
        input_gradient=_numpy(input_gradient),
        input_gradient_scaled=_numpy(input_gradient_scaled),
        weight_gradient=_numpy(weight_gradient),
        weight_gradient_scaled=_numpy(weight_gradient_scaled),
        radial=_numpy((weight.detach() * weight_gradient).sum(1)),
    )


class _Normalized:
    """One batch norm between y and the loss, with the gradients on both sides of it and their graphs."""

    def __init__(self, y: Tensor, gamma: Tensor, beta: Tensor, loss: ActivationLoss):
        if y.ndim < 2 or not y.is_floating_point():
            raise ValueError(
                f"y: expected a floating-point tensor (m, units, ...), got {y.dtype} {tuple(y.shape)}"
            )
        units = y.shape[1]
        if gamma.shape != (units,) or beta.shape != (units,):
            raise ValueError(
                f"gamma, beta: expected shape ({units},), one number per unit of y {tuple(y.shape)}, got "
                f"{tuple(gamma.shape)} and {tuple(beta.shape)}"
            )
        self.dims = (0, *range(2, y.ndim))
        self.m = y.numel() // units
        self.gamma = gamma.detach()
        shape = (1, units, *(1 for _ in y.shape[2:]))
        with torch.enable_grad():
            self.y = y.detach().clone().requires_grad_()
            centred = self.y - self.y.mean(self.dims, keepdim=True)
            deviation = centred.square().mean(self.dims, keepdim=True).sqrt()
            normalized = centred / deviation
            self.z = self.gamma.view(shape) * normalized + beta.detach().view(shape)
            value = _scalar(loss(self.z))
            # g = dL/dz, the "vanilla" gradient of the paper; v = dL^/dy, through the batch norm.
            (self.g,) = torch.autograd.grad(value, self.z, create_graph=True)
            (self.v,) = torch.autograd.grad(value, self.y, create_graph=True)
        self.normalized = normalized.detach()
        self.scale = self.gamma / deviation.detach().flatten()  # gamma / sigma, (units,)

    def per_unit(self, values: Tensor) -> Tensor:
        """(units,) sums over the batch (and pixels)."""
        return values.detach().sum(self.dims)

    def quadratic_forms(self, gradient: Tensor, variable: Tensor, direction: Tensor) -> Tensor:
        """(units,) d_j^T H_jj d_j, with H the derivative of `gradient` in `variable`, each unit alone."""
        forms = torch.zeros_like(self.gamma)
        if gradient.requires_grad:
            direction = direction.detach()
            for j in range(len(forms)):
                d = torch.zeros_like(direction)
                d[:, j] = direction[:, j]
                product = torch.autograd.grad(
                    gradient, variable, d, retain_graph=True, allow_unused=True, materialize_grads=True
                )[0]
                forms[j] = (product * d).sum()
        return forms


def _scalar(value: Tensor) -> Tensor:
    if value.numel() != 1 or not value.requires_grad:
        raise ValueError(
            f"loss: expected one number that depends on its argument, got shape {tuple(value.shape)} "
            f"{'with' if value.requires_grad else 'without'} a gradient"
        )
    return value


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
