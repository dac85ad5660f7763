"""Exercises of chapter 7: a quotient of slopes, a smoothness constant, a promise, two speed limits."""

import torch
from torch import Tensor

from . import by_function
from .batches import double, normals

_normal = normals(7)


def _grid(n: int) -> Tensor:
    return _normal(n).cumsum(0).exp().cumsum(0)  # increasing, uneven


by_function(
    "7.1",
    cases=[(_grid(9), _normal(9)), (_grid(14) - 3, -_normal(14).square().cumsum(0))],
    solution=lambda x, slope: (slope.diff() / x.diff()).abs().max(),
    mistakes={
        "The steepest fall is overlooked: take the absolute value before the maximum.": (
            lambda x, slope: (slope.diff() / x.diff()).max()
        ),
        "This is the quotient of the two ends. Beta has to do for every pair, also for the worst.": (
            lambda x, slope: (slope[-1] - slope[0]).abs() / (x[-1] - x[0])
        ),
        "This is the mean over the pairs. A constant that has to do for every pair is a maximum.": (
            lambda x, slope: (slope.diff() / x.diff()).abs().mean()
        ),
        "This is the largest slope: what bounds the values. Beta bounds how fast the slope changes.": (
            lambda x, slope: slope.abs().max()
        ),
        "Largest difference over smallest distance: these two need not be of the same pair.": (
            lambda x, slope: slope.diff().abs().max() / x.diff().min()
        ),
        "The differences are there; divide each by its own distance.": (
            lambda x, slope: slope.diff().abs().max()
        ),
    },
    praise="On a line, neighbours are enough: the quotient of a distant pair is an average of theirs.",
)


def _top(x: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(x.T @ x)[-1]


by_function(
    "7.2",
    cases=[(_normal(12, 3) * 2,), (_normal(7, 5) + 1,)],
    solution=lambda x: _top(x) / (4 * len(x)),
    mistakes={
        "The factor 1/4 is missing: it is the largest slope of the sigmoid.": lambda x: _top(x) / len(x),
        "The loss is a mean over the samples: divide by n.": lambda x: _top(x) / 4,
        "This is the largest singular value of X. It enters squared.": lambda x: (
            _top(x).sqrt() / (4 * len(x))
        ),
        "This is the trace of X'X. It is a bound as well, but not the smallest one.": lambda x: (
            x.square().sum() / (4 * len(x))
        ),
        "This bounds the gradient: a Lipschitz constant of the loss. Beta bounds the Hessian.": lambda x: (
            x.norm(dim=1).mean()
        ),
    },
    praise="One number for all weights: no step up to its inverse can disappoint.",
)


by_function(
    "7.3",
    cases=[(_normal(5), 0.3, 4.0), (_normal(3) * 2, 1.5, 1.0)],
    solution=lambda g, eta, beta: eta * (1 - eta * beta / 2) * g.square().sum(),
    mistakes={
        "This is what the linear model promises. The curvature takes some of it back.": (
            lambda g, eta, beta: eta * g.square().sum()
        ),
        "The half in front of beta is lost.": lambda g, eta, beta: eta * (1 - eta * beta) * g.square().sum(),
        "The length of the gradient enters squared.": lambda g, eta, beta: (
            eta * (1 - eta * beta / 2) * g.norm()
        ),
        "The curvature may take away from the decrease, it adds nothing to what is certain.": (
            lambda g, eta, beta: eta * (1 + eta * beta / 2) * g.square().sum()
        ),
        "This is the promise for the best step, 1 / beta. Another eta was asked for.": (
            lambda g, eta, beta: g.square().sum() / (2 * beta)
        ),
    },
    praise="A promise that no beta-smooth loss breaks.",
)


def _spread(*eigenvalues: float) -> Tensor:
    q = torch.linalg.qr(_normal(len(eigenvalues), len(eigenvalues)))[0]
    return q @ torch.diag(double(eigenvalues)) @ q.T


def _ends(a: Tensor) -> tuple[Tensor, Tensor]:
    values = torch.linalg.eigvalsh(a)
    return values[0], values[-1]


def _steps(a: Tensor, limit: float = 2, best: float = 2) -> tuple[Tensor, Tensor]:
    low, high = _ends(a)
    return limit / high, best / (low + high)


by_function(
    "7.4",
    cases=[(_spread(0.5, 1.0, 4.0),), (_spread(0.02, 0.3, 0.7, 1.1),)],
    solution=_steps,
    mistakes={
        "The first is 1 / beta: the limit is twice that, where the fast direction lands mirrored.": (
            lambda a: _steps(a, limit=1)
        ),
        "The limit is set by the fastest direction, the largest eigenvalue, not by the smallest.": (
            lambda a: (2 / _ends(a)[0], _steps(a)[1])
        ),
        "The trace is the sum of all eigenvalues; the limit knows only the largest.": (
            lambda a: (2 / a.trace(), _steps(a)[1])
        ),
        "The limit is right. 1 / beta settles the fast direction at once; the slow one gains by more.": (
            lambda a: (_steps(a)[0], 1 / _ends(a)[1])
        ),
        "The limit is right. For the best step both ends should shrink by the same factor in size.": (
            lambda a: _steps(a, best=1)
        ),
        "The two answers are swapped.": lambda a: _steps(a)[::-1],
    },
    praise="The ratio of the two eigenvalues decides how long it takes.",
)


by_function(
    "7.5",
    cases=[(_spread(0.5, 1.0, 4.0), _normal(3)), (_spread(0.02, 0.3, 0.7, 1.1), _normal(4))],
    solution=lambda a, x: 2 * (a @ x) @ (a @ x) / ((a @ x) @ a @ (a @ x)),
    mistakes={
        "This is where the loss is lowest on the way. It is back at its old height at twice that.": (
            lambda a, x: (a @ x) @ (a @ x) / ((a @ x) @ a @ (a @ x))
        ),
        "This is the limit for many steps. From this point a single one may be longer.": (
            lambda a, x: 2 / _ends(a)[1]
        ),
        "The curvature that counts is the one along the gradient, not along x itself.": (
            lambda a, x: 2 * x @ x / (x @ a @ x)
        ),
        "This is one over the curvature times a length: the numerator is the squared gradient.": (
            lambda a, x: 2 * (a @ x).norm() / ((a @ x) @ a @ (a @ x))
        ),
    },
    praise="The curvature along the gradient decides on one step; the largest curvature decides on many.",
)
