"""Exercises of chapter 9: the squared gradient, a bound to repair, the curvature, the nearest optimum."""

from functools import partial

from torch import Tensor

from . import by_function
from .batches import double, normals

_normal = normals(9)


def _standardized(m: int) -> Tensor:
    y = _normal(m)
    return (y - y.mean()) / y.std(correction=0)


def _squared(g, y, gamma, *, one=1.0, along=1.0, power=2, correction=0, order=1.0) -> Tensor:
    m, sigma = len(y), y.std(0, correction=correction)
    y_hat = (y - y.mean(0)) / sigma
    inner = g.square().sum(0) - one * g.sum(0) ** 2 / m - along * (g * y_hat).sum(0) ** 2 / m**order
    return (gamma / sigma) ** power * inner


by_function(
    "9.1",
    cases=[
        (_normal(7, 3), 3 * _normal(7, 3) + 1, _normal(3)),
        (_normal(12, 2) + 1, _normal(12, 2), _normal(2)),
    ],
    solution=_squared,
    mistakes={
        "This is the right side as printed, with one over the root of m. How long is y-hat?": (
            partial(_squared, order=0.5)
        ),
        "The part of g along y-hat is still in it: the gradient knows about the division by sigma.": (
            partial(_squared, along=0.0)
        ),
        "The part of g along the vector of ones is still in it: the gradient knows about the mean.": (
            partial(_squared, one=0.0)
        ),
        "Only the factor is there: this is the gradient with mean and sigma held constant.": (
            partial(_squared, one=0.0, along=0.0)
        ),
        "The bracket is right. For the squared length the factor in front is squared as well.": (
            partial(_squared, power=1)
        ),
        "The standard deviation was divided by m - 1; batch norm divides by m.": partial(
            _squared, correction=1
        ),
    },
    praise="An equality, for any gradient that arrives from above.",
)


def _bound(g, y_hat, gamma, sigma, lam, *, first=1, mean=1, last=1.0) -> Tensor:
    m = len(g)
    worst = lam**2 * g.square().sum()
    parts = (lam**2 if mean else 1) * m * g.mean() ** 2 + lam**2 * (g @ y_hat) ** 2 / m**last
    return (gamma / sigma) ** 2 * (worst**first - parts)


by_function(
    "9.2",
    cases=[
        (_normal(8) + 0.5, _standardized(8), 1.3, 0.7, 2.5),
        (_normal(5), _standardized(5), 0.4, 2.0, 0.3),
    ],
    solution=_bound,
    mistakes={
        "This is still the printed bound. Multiply g by ten: which terms grow a hundredfold, which do not?": (
            partial(_bound, first=2, mean=0, last=0.0)
        ),
        "The first term is repaired. The other two still lack something: lambda squared, or one over m.": (
            partial(_bound, mean=0, last=0.0)
        ),
        "Units agree now. But in the last term y-hat has length root m, so something divides.": (
            partial(_bound, last=0.0)
        ),
        "One over the root of m is the misprint of 4.1, carried over. It is one over m.": partial(
            _bound, last=0.5
        ),
        "The middle term does not grow with the input yet: it is a squared gradient in weights, too.": (
            partial(_bound, mean=0)
        ),
        "The first term is still a fourth power of the gradient: it is a square already, do not square it.": (
            partial(_bound, first=2)
        ),
    },
    praise="Every term is a squared weight gradient now, and both sides agree.",
)


def _curvature(v, hessian, g, y_hat, gamma, sigma, *, sign=1, separation=1, scale=2, weight=1) -> Tensor:
    first = (gamma / sigma) ** scale * (v @ hessian @ v)
    length = v @ v if weight else 1.0
    return first - sign * separation * gamma / (len(v) * sigma**2) * (g @ y_hat) * length


def _matrix(m: int) -> Tensor:
    root = _normal(m, m)
    return root @ root.T


by_function(
    "9.3",
    cases=[
        (_normal(6), _matrix(6), _normal(6), _standardized(6), 1.4, 0.6),
        (_normal(9), _matrix(9), _normal(9), _standardized(9), -0.5, 2.0),
    ],
    solution=_curvature,
    mistakes={
        "Only the rescaled curvature is there; the second term, with the inner product, is missing.": (
            partial(_curvature, separation=0)
        ),
        "The second term has the wrong sign: a positive inner product makes the curvature smaller.": (
            partial(_curvature, sign=-1)
        ),
        "The second term is not multiplied by the squared length of v.": partial(_curvature, weight=0),
        "The factor of the first term is squared: gamma and sigma enter once for each of the two v.": (
            partial(_curvature, scale=1)
        ),
        "The first term lacks its factor.": partial(_curvature, scale=0),
    },
    praise="Two terms, and the sign of the inner product decides whether the second one helps.",
)


def _nearest(w0: Tensor, w_star: Tensor) -> Tensor:
    return (w0 @ w_star / (w_star @ w_star)).clamp_min(0) * w_star


by_function(
    "9.4",
    cases=[
        (double([1.0, 2.0, -1.0]), double([3.0, 1.0, 1.0])),
        (double([1.0, -2.0, 0.5]), double([-1.0, 1.0, 2.0])),
    ],
    solution=_nearest,
    mistakes={
        "Right where the inner product is positive. But the ray has an end: see the second case.": (
            lambda w0, w_star: w0 @ w_star / (w_star @ w_star) * w_star
        ),
        "This is the old optimum itself. Every positive multiple of it will do as well; which is nearest?": (
            lambda w0, w_star: w_star
        ),
        "Divided by the squared length of W0. The foot of the perpendicular needs that of W*.": (
            lambda w0, w_star: (w0 @ w_star / (w0 @ w0)).clamp_min(0) * w_star
        ),
        "Divided by the length of W*, once. W* appears twice, so it is the squared length.": (
            lambda w0, w_star: (w0 @ w_star / w_star.norm()).clamp_min(0) * w_star
        ),
        "This point has the length of W0. That is a fair choice of scale, but it is not the nearest point.": (
            lambda w0, w_star: w0.norm() / w_star.norm() * w_star
        ),
    },
    praise="A ray is nearer than a point on it, whatever the network.",
)


by_function(
    "9.5",
    cases=[(1.0, 1.3, 0.1, 100), (2.0, 1.5, 0.02, 50)],
    solution=lambda start, end, lr, steps: (start - end) / (lr * steps),
    mistakes={
        "The sign is turned: gradient descent subtracts the gradient.": (
            lambda start, end, lr, steps: (end - start) / (lr * steps)
        ),
        "The learning rate is missing: a step moves gamma by lr times the gradient.": (
            lambda start, end, lr, steps: (start - end) / steps
        ),
        "This is the sum over all steps; the average is asked for.": lambda start, end, lr, steps: (
            (start - end) / lr
        ),
        "The learning rate multiplies where it should divide.": (
            lambda start, end, lr, steps: lr * (start - end) / steps
        ),
    },
    praise="A gamma that has grown has had a negative inner product on average.",
)
