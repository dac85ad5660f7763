"""Wrong answers to the exercises of chapter 8: number -> name of the mistake -> an answer that makes it."""

import numpy as np
import torch


def edges(losses):
    values = torch.stack([torch.as_tensor(loss) for loss in losses])
    return values.min().item(), values.max().item()


def moves(gradient, gradients):
    """Length of each change of the gradient, by numpy."""
    return np.array([np.linalg.norm(np.asarray(there) - np.asarray(gradient)) for there in gradients])


def length(gradient):
    return np.linalg.norm(np.asarray(gradient))


WRONG = {
    "8.1": {
        "uphill": lambda loss, theta, g, steps: edges([loss(theta + s * g) for s in steps]),
        "steps add up": lambda loss, theta, g, steps: edges([loss(theta - s * g) for s in np.cumsum(steps)]),
        "unit gradient": lambda loss, theta, g, steps: edges(
            [loss(theta - s * torch.nn.functional.normalize(g, dim=0)) for s in steps]
        ),
        "first and last": lambda loss, theta, g, steps: (
            loss(theta - steps[0] * g).item(),
            loss(theta - steps[-1] * g).item(),
        ),
        "unmoved point": lambda loss, theta, g, steps: edges([loss(theta - s * g) for s in (0, *steps)]),
        "width": lambda loss, theta, g, steps: float(np.ptp([loss(theta - s * g).item() for s in steps])),
    },
    "8.2": {
        "not divided": lambda steps, g, others: moves(g, others).max(),
        "divided by s": lambda steps, g, others: (moves(g, others) / steps).max(),
        "divided by the length": lambda steps, g, others: moves(g, others).max() / length(g),
        "difference of lengths": lambda steps, g, others: max(
            abs(length(there) - length(g)) / (s * length(g)) for s, there in zip(steps, others, strict=True)
        ),
        "smallest": lambda steps, g, others: (moves(g, others) / steps).min() / length(g),
        "mean": lambda steps, g, others: (moves(g, others) / steps).mean() / length(g),
        "last": lambda steps, g, others: moves(g, others)[-1] / steps[-1] / length(g),
    },
    "8.3": {
        "no root": lambda ratio, cosine: (1 - ratio) ** 2 + 2 * ratio * (1 - cosine),
        "product once": lambda ratio, cosine: np.sqrt(1 + ratio * (ratio - cosine)),
        "sum": lambda ratio, cosine: np.hypot(1 + ratio * cosine, ratio * np.sqrt(1 - cosine**2)),
        "no stretching": lambda ratio, cosine: 2 * np.sin(np.arccos(cosine) / 2),
        "right angle": lambda ratio, cosine: np.hypot(1, ratio),
        "lengths only": lambda ratio, cosine: abs(1 - ratio),
    },
    "8.4": {
        "learning rate": lambda lr, multiples: 2**0.5 / lr,
        "longest probe": lambda lr, multiples: 2**0.5 / (lr * sorted(multiples)[-1]),
        "one over s": lambda lr, multiples: 1 / (lr * sorted(multiples)[0]),
        "opposite": lambda lr, multiples: 2 / (lr * sorted(multiples)[0]),
        "two over lr": lambda lr, multiples: 2 / lr,
        "multiples only": lambda lr, multiples: 2**0.5 / sorted(multiples)[0],
    },
}
