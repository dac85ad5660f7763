"""Exercises of chapter 3: batch normalization forward, while running, backward, on images, folded away."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import by_function
from .batches import double, normals

_normal = normals(3)


# Features of very different spread: a forgotten or misplaced eps shows in the second one.
_x = _normal(6, 3) * double([1.0, 0.05, 4.0]) + double([0.5, -1.0, 3.0])
_gamma, _beta = _normal(3), _normal(3)


def _norm(x: Tensor, gamma, beta, eps: float, dim=0, correction: int = 0) -> Tensor:
    mean, var = x.mean(dim, keepdim=True), x.var(dim, correction=correction, keepdim=True)
    return gamma * (x - mean) / (var + eps).sqrt() + beta


def _sigma(x: Tensor, eps: float) -> Tensor:
    return (x.var(0, correction=0) + eps).sqrt()


def _late_eps(x: Tensor, gamma, beta, eps: float, *, correction=0, bracket=True) -> Tensor:
    """eps added to the standard deviation or, without the bracket, to the quotient."""
    centred, sigma = x - x.mean(0), x.std(0, correction=correction)
    return gamma * (centred / (sigma + eps) if bracket else centred / sigma + eps) + beta


by_function(
    "3.1",
    cases=[(_x, _gamma, _beta, 1e-3), (_x * 3, _gamma, _beta, 1e-1)],
    solution=_norm,
    mistakes={
        "This is what eps = 0 would give. Where does eps enter, so that nothing is divided by zero?": (
            lambda x, gamma, beta, eps: _norm(x, gamma, beta, 0)
        ),
        "eps was added to the standard deviation. The paper adds it to the variance, under the root.": (
            _late_eps
        ),
        "eps was added to the quotient, which a bracket would prevent, and it belongs under the root.": (
            partial(_late_eps, bracket=False)
        ),
        "Two mistakes: the variance was divided by m - 1 (the paper: m), and eps was added to the standard "
        "deviation (the paper: to the variance, under the root).": partial(_late_eps, correction=1),
        "Two mistakes: the variance was divided by m - 1 (the paper: m), and eps was added to the quotient "
        "(the paper: to the variance, under the root).": partial(_late_eps, correction=1, bracket=False),
        "The variance was divided by m - 1, as torch does unless told otherwise. Algorithm 1 divides by m.": (
            partial(_norm, correction=1)
        ),
        "Each sample was normalized over its features. Average over the samples, one feature at a time.": (
            partial(_norm, dim=1)
        ),
        "All features share one mean and one variance here; every feature has its own.": (
            partial(_norm, dim=(0, 1))
        ),
        "The centred input was divided by the variance; a root is missing.": (
            lambda x, gamma, beta, eps: gamma * (x - x.mean(0)) / _sigma(x, eps) ** 2 + beta
        ),
        "The standardized input is right. The learned scale and shift are still missing.": (
            lambda x, gamma, beta, eps: _norm(x, 1, 0, eps)
        ),
    },
    praise="Mean beta and spread close to |gamma| for every feature, whatever came in.",
)


def _running(mean: Tensor, var: Tensor, x: Tensor, momentum: float, correction: int = 1) -> tuple:
    new = x.mean(0), x.var(0, correction=correction)
    return tuple((1 - momentum) * old + momentum * now for old, now in zip((mean, var), new, strict=True))


by_function(
    "3.2",
    cases=[(_normal(3), _normal(3).abs(), _x * scale, momentum) for scale, momentum in ((1, 0.1), (2, 0.3))],
    solution=_running,
    mistakes={
        "The mean is right. The batch variance was divided by m: too small as an estimate for all data.": (
            partial(_running, correction=0)
        ),
        "Old and new have changed places: in PyTorch's convention momentum is the weight of the new batch.": (
            lambda mean, var, x, momentum: _running(mean, var, x, 1 - momentum)
        ),
        "This is the other convention, throughout: momentum weighs the old value, and the batch variance is "
        "divided by m. In PyTorch's, momentum weighs the new batch, and its variance is divided by m - 1.": (
            lambda mean, var, x, momentum: _running(mean, var, x, 1 - momentum, correction=0)
        ),
        "The mean is right. A standard deviation was mixed into the running variance.": (
            lambda mean, var, x, momentum: (
                _running(mean, var, x, momentum)[0],
                (1 - momentum) * var + momentum * x.std(0),
            )
        ),
        "The old value kept its full weight while the new one was added: the average would grow for ever.": (
            lambda mean, var, x, momentum: (mean + momentum * x.mean(0), var + momentum * x.var(0))
        ),
        "These are the statistics of this batch alone; the old running values have been thrown away.": (
            lambda mean, var, x, momentum: (x.mean(0), x.var(0))
        ),
    },
    praise="PyTorch's BatchNorm keeps exactly these two numbers per feature.",
)


def _backward(
    grad: Tensor, x: Tensor, gamma, eps: float, by_mean=True, by_var=True, average=torch.mean
) -> Tensor:
    x_hat = _norm(x, 1, 0, eps)
    inner = grad - by_mean * average(grad, 0) - by_var * x_hat * average(grad * x_hat, 0)
    return gamma / _sigma(x, eps) * inner


by_function(
    "3.3",
    cases=[(_normal(6, 3), _x, _gamma, 1e-3), (_normal(6, 3), _x * 3, _gamma, 1e-1)],
    solution=_backward,
    mistakes={
        "Mean and variance were held constant, as if detached. Both depend on every sample of the batch.": (
            partial(_backward, by_mean=False, by_var=False)
        ),
        "The path through the mean is there; the path through the variance is missing.": (
            partial(_backward, by_var=False)
        ),
        "The path through the variance is there; the path through the mean is missing.": (
            partial(_backward, by_mean=False)
        ),
        "The projection is right, but gamma stands between y and x-hat and has been left out.": (
            lambda grad, x, gamma, eps: _backward(grad, x, 1, eps)
        ),
        "Sums stand where averages belong: the mean and the variance each bring a factor 1/m.": (
            partial(_backward, average=torch.sum)
        ),
        "This is the formula at eps = 0. The variance, also the one inside x-hat, comes with its eps.": (
            lambda grad, x, gamma, eps: _backward(grad, x, gamma, 0)
        ),
    },
    praise="Two averages and one subtraction, and equal to autograd.",
)


def _image_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, dim=(0, 2, 3), correction=0) -> Tensor:
    return _norm(x, gamma[:, None, None], beta[:, None, None], eps, dim, correction)


by_function(
    "3.4",
    cases=[(_normal(4, 3, 2, 5) * 2 + 1, _gamma, _beta, 1e-3)],
    solution=_image_norm,
    mistakes={
        "Both mistakes are still there. How many means should three channels have?": (
            partial(_image_norm, dim=0, correction=1)
        ),
        "The variance is repaired. But each pixel position still has its own mean; a channel has only one.": (
            partial(_image_norm, dim=0)
        ),
        "The axes are repaired. The variance is still divided by one less than the number of values.": (
            partial(_image_norm, correction=1)
        ),
        "Each image is now normalized by itself. The average has to run over the batch as well.": (
            partial(_image_norm, dim=(2, 3))
        ),
        "All channels now share one mean and one variance; each channel has its own.": (
            partial(_image_norm, dim=(0, 1, 2, 3))
        ),
    },
    praise="One mean and one variance per channel, over m' = N H W values.",
)


def _folded(
    weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple:
    scale = gamma / (var + eps).sqrt()
    return scale[:, None] * weight, scale * (bias - mean) + beta


def _fold_bias(rule: Callable) -> Callable[..., tuple]:
    """The weight folded rightly, with `rule(scale, bias, beta, mean)` for a bias."""

    def fold(weight, bias, gamma, beta, mean, var, eps):
        scale = gamma / (var + eps).sqrt()
        return scale[:, None] * weight, rule(scale, bias, beta, mean)

    return fold


by_function(
    "3.5",
    cases=[(_normal(3, 3), _normal(3), _gamma, _beta, _normal(3), _normal(3).abs() + 0.1, 1e-2)],
    solution=_folded,
    mistakes={
        "The weight is right. The bias that the linear layer already had is lost.": (
            _fold_bias(lambda scale, bias, beta, mean: beta - scale * mean)
        ),
        "The weight is right. The bias that the linear layer had before has to be scaled as well.": (
            _fold_bias(lambda scale, bias, beta, mean: bias - scale * mean + beta)
        ),
        "The weight is right. In the bias both the old one and the running mean have to be scaled.": (
            _fold_bias(lambda scale, bias, beta, mean: bias - mean + beta)
        ),
        "The weight is right. The bias is still the linear layer's own: the norm goes into it as well.": (
            _fold_bias(lambda scale, bias, beta, mean: bias)
        ),
        "The weight is right. In the bias two things are wrong: the linear layer's own is lost, and the "
        "running mean is not scaled.": _fold_bias(lambda scale, bias, beta, mean: beta - mean),
        "The bias is right. The weight was scaled by inputs; row j of the weight makes output j.": (
            lambda weight, bias, *norm: (_folded(weight.T, bias, *norm)[0].T, _folded(weight, bias, *norm)[1])
        ),
        "The weight is right. In the bias the running mean has to be scaled as well.": (
            _fold_bias(lambda scale, bias, beta, mean: scale * bias - mean + beta)
        ),
        "eps is missing under the root.": (
            lambda weight, bias, gamma, beta, mean, var, eps: _folded(weight, bias, gamma, beta, mean, var, 0)
        ),
        "The scale divides by the variance; a root is missing.": (
            lambda weight, bias, gamma, beta, mean, var, eps: _folded(
                weight, bias, gamma, beta, mean, (var + eps) ** 2, 0
            )
        ),
    },
    praise="Behind a linear layer, batch normalization costs nothing at test time.",
)
