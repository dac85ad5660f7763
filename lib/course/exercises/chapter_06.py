"""Exercises of chapter 6: a network of two numbers, what "earlier" means, three readings, units."""

from collections.abc import Callable

import torch
from torch import Tensor

from . import by_function
from .batches import double, normals

_normal = normals(6)


def _gradients(weights: Tensor, x: float, t: float) -> Tensor:
    """Of (w_k ... w_1 x - t)^2 / 2, with respect to each weight."""
    others = torch.stack([torch.cat([weights[:i], weights[i + 1 :]]).prod() for i in range(len(weights))])
    return (weights.prod() * x - t) * x * others


def _two(w1: float, w2: float, x: float, t: float, w1_new: float, w2_new: float) -> tuple[float, float]:
    return (w2 * w1 * x - t) * w1 * x, (w2_new * w1_new * x - t) * w1_new * x


def _g1(w1: float, w2: float, x: float, t: float) -> float:
    return (w2 * w1 * x - t) * w2 * x


def _g2(w1: float, w2: float, x: float, t: float) -> float:
    return (w2 * w1 * x - t) * w1 * x


by_function(
    "6.1",
    cases=[(1.0, 2.0, 1.0, 4.0, 0.1), (0.5, -1.5, 2.0, 1.0, 0.3), (1.2, 0.7, 0.5, -1.0, 0.6)],
    solution=lambda w1, w2, x, t, lr: _two(w1, w2, x, t, w1 - lr * _g1(w1, w2, x, t), w2),
    mistakes={
        "The second weight has moved too. Definition 2.1 keeps it, and asks for its gradient there.": (
            lambda w1, w2, x, t, lr: _two(
                w1, w2, x, t, w1 - lr * _g1(w1, w2, x, t), w2 - lr * _g2(w1, w2, x, t)
            )
        ),
        "This is the gradient after the second weight's own step. It is the first that moves.": (
            lambda w1, w2, x, t, lr: _two(w1, w2, x, t, w1, w2 - lr * _g2(w1, w2, x, t))
        ),
        "The first weight went uphill. A step goes against the gradient.": (
            lambda w1, w2, x, t, lr: _two(w1, w2, x, t, w1 + lr * _g1(w1, w2, x, t), w2)
        ),
        "The loss has a factor 1/2; these are the gradients without it.": (
            lambda w1, w2, x, t, lr: tuple(
                2 * g for g in _two(w1, w2, x, t, w1 - 2 * lr * _g1(w1, w2, x, t), w2)
            )
        ),
        "These are the gradients of the first weight. It has no earlier one; layer 2 was asked for.": (
            lambda w1, w2, x, t, lr: (_g1(w1, w2, x, t), _g1(w1 - lr * _g1(w1, w2, x, t), w2, x, t))
        ),
        "Only the error was computed anew. The gradient of layer 2 holds its input, and that moved too.": (
            lambda w1, w2, x, t, lr: (
                _g2(w1, w2, x, t),
                (w2 * (w1 - lr * _g1(w1, w2, x, t)) * x - t) * w1 * x,
            )
        ),
    },
    tolerance=1e-6,  # plain numbers are compared in single precision
    praise="One number a layer, and it is the whole definition.",
)


def _shifts(weights: Tensor, x: float, t: float, lr: float, mixed: Callable[[Tensor, Tensor, int], Tensor]):
    """All shifts, if `mixed(old, new, i)` gives the weights at which layer i is asked again."""
    before = _gradients(weights, x, t)
    new = weights - lr * before
    after = [_gradients(mixed(weights, new, i), x, t)[i] for i in range(len(weights))]
    return (before - torch.stack(after)).abs()


def _one_after_the_other(weights: Tensor, x: float, t: float, lr: float) -> Tensor:
    before = _gradients(weights, x, t)
    now, shifts = weights.clone(), []
    for i in range(len(weights)):
        gradient = _gradients(now, x, t)[i]
        shifts.append((before[i] - gradient).abs())
        now[i] -= lr * gradient
    return torch.stack(shifts)


def _chain(mixed: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    return lambda weights, x, t, lr: _shifts(weights, x, t, lr, mixed)


by_function(
    "6.2",
    cases=[
        (double([1.0, 2.0, -0.5, 1.5]), 1.0, 2.0, 0.1),
        (double([0.8, 1.1, 1.3]), -1.5, 0.7, 0.3),
    ],
    solution=_chain(lambda old, new, i: torch.cat([new[:i], old[i:]])),
    mistakes={
        "Only the layer just before has moved. Earlier means all of them.": (
            _chain(lambda old, new, i: torch.cat([old[: max(i - 1, 0)], new[max(i - 1, 0) : i], old[i:]]))
        ),
        "All layers have moved, the later ones too. They stay where they were.": _chain(
            lambda old, new, i: new
        ),
        "The layer's own weight has moved with the earlier ones. It stays.": (
            _chain(lambda old, new, i: torch.cat([new[: i + 1], old[i + 1 :]]))
        ),
        "All the other layers have moved. Those behind the layer are later, not earlier.": (
            _chain(lambda old, new, i: torch.cat([new[:i], old[i : i + 1], new[i + 1 :]]))
        ),
        "The later layers have moved and the earlier ones not: turn it round.": (
            _chain(lambda old, new, i: torch.cat([old[: i + 1], new[i + 1 :]]))
        ),
        "The layers moved one after the other, each by a fresh gradient. A real step moves all at once.": (
            _one_after_the_other
        ),
    },
    praise="All earlier layers, at once, and nobody else.",
)


def _cosine(g: Tensor, h: Tensor) -> Tensor:
    return (g * h).sum() / (g.norm() * h.norm())


by_function(
    "6.3",
    cases=[(_normal(3, 4), _normal(3, 4)), (2 * _normal(2, 3), 0.5 * _normal(2, 3))],
    solution=lambda g, h: ((g - h).norm(), (g - h).norm() / g.norm(), _cosine(g, h)),
    mistakes={
        "The relative distance is divided by the new gradient. The old one is the measure.": (
            lambda g, h: ((g - h).norm(), (g - h).norm() / h.norm(), _cosine(g, h))
        ),
        "The distance is still squared: a root is missing.": (
            lambda g, h: ((g - h).square().sum(), (g - h).square().sum() / g.square().sum(), _cosine(g, h))
        ),
        "The third number is an inner product. Divide by both lengths to get a cosine.": (
            lambda g, h: ((g - h).norm(), (g - h).norm() / g.norm(), (g * h).sum())
        ),
        "This is the difference of two lengths. Take the length of the difference.": (
            lambda g, h: (
                (g.norm() - h.norm()).abs(),
                (g.norm() - h.norm()).abs() / g.norm(),
                _cosine(g, h),
            )
        ),
        "The cosine was taken row by row and averaged. The gradient is one long vector.": (
            lambda g, h: (
                (g - h).norm(),
                (g - h).norm() / g.norm(),
                ((g * h).sum(1) / (g.norm(dim=1) * h.norm(dim=1))).mean(),
            )
        ),
        "The cosine is that of G and the difference. It belongs to G and G'.": (
            lambda g, h: ((g - h).norm(), (g - h).norm() / g.norm(), _cosine(g, g - h))
        ),
    },
    praise="Three questions, three numbers: how far, how far for its length, how much turned.",
)

by_function(
    "6.4",
    cases=[(3.0, 0.4, 0.9, 5.0, 2.0), (0.2, 1.1, -0.3, 0.1, 7.0)],
    solution=lambda distance, relative, cosine, c, a: (distance * c / a, relative, cosine),
    mistakes={
        "Longer weights get shorter gradients: divide by a.": (
            lambda distance, relative, cosine, c, a: (distance * c * a, relative, cosine)
        ),
        "The learning rate is divided by c, but the gradients are c times as long, and so the steps are "
        "what they were. The distance between gradients is c times as large.": (
            lambda distance, relative, cosine, c, a: (distance / a, relative, cosine)
        ),
        "The distance is right. The relative one is a quotient of two lengths that changed alike.": (
            lambda distance, relative, cosine, c, a: (distance * c / a, relative * c / a, cosine)
        ),
        "The weights behind batch normalization do matter: their gradient is a times as short.": (
            lambda distance, relative, cosine, c, a: (distance * c, relative, cosine)
        ),
        "Once by a, not twice: the gradient is short, and no step of this layer is taken.": (
            lambda distance, relative, cosine, c, a: (distance * c / a**2, relative, cosine)
        ),
        "The distance is a length and has the unit of the loss; it did change.": (
            lambda distance, relative, cosine, c, a: (distance, relative, cosine)
        ),
    },
    tolerance=1e-6,
    praise="No measurement was needed, and that is the trouble with the distance.",
)
