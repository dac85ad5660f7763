"""Wrong answers to the exercises of chapter 12: number -> name of the mistake -> an answer that makes it."""

import numpy as np
import torch

SQUARED = np.pi / (np.pi - 1)


def grow(length, lr, gradients):
    for gradient in gradients:
        length = (length**2 + (lr * gradient(length)) ** 2) ** 0.5
    return length


def pooled(n, mean, var, ddof=0):
    """Mean and variance of the joint batch by way of its raw moments."""
    first, second = (n * mean).sum() / n.sum(), (n * (var + mean**2)).sum() / n.sum()
    return first, (second - first**2) * n.sum() / (n.sum() - ddof)


WRONG = {
    "12.1": {
        "squared": lambda depth: SQUARED**depth,
        "added": lambda depth: depth * SQUARED**0.5,
        "upside down": lambda depth: (1 / SQUARED) ** (depth / 2),
        "one layer": lambda depth: SQUARED**0.5,
        "no growth": lambda depth: 1.0,
        "another number": lambda depth: 1.5**depth,
    },
    "12.2": {
        "constant gradient": lambda length, lr, g, steps: grow(length, lr, [lambda w: g] * steps),
        "length at the start": lambda length, lr, g, steps: grow(length, lr, [lambda w: g / length] * steps),
        "squared length": lambda length, lr, g, steps: grow(length, lr, [lambda w: g / w**2] * steps),
        "grows": lambda length, lr, g, steps: grow(length, lr, [lambda w: g * w] * steps),
        "one step": lambda length, lr, g, steps: grow(length, lr, [lambda w: g / w]),
    },
    "12.3": {
        "spread of the means": lambda n, mean, var: (pooled(n, mean, var)[0], (n * var).sum() / n.sum()),
        "not weighted": lambda n, mean, var: (
            mean.mean(),
            (var + mean**2).mean() - mean.mean() ** 2,
        ),
        "plain averages": lambda n, mean, var: (mean.mean(), var.mean()),
        "second moment": lambda n, mean, var: (
            pooled(n, mean, var)[0],
            (n * (var + mean**2)).sum() / n.sum(),
        ),
        "unbiased": lambda n, mean, var: pooled(n, mean, var, ddof=1),
        "one number": lambda n, mean, var: torch.tensor(0.0),
    },
    "12.4": {
        "starts at zero": lambda step, steps, top: np.interp(step, [0, steps], [0, top]),
        "never ends": lambda step, steps, top: top / steps * (step + 1),
        "falls to zero after": lambda step, steps, top: top / steps * (step + 1) * (step < steps),
        "falls": lambda step, steps, top: np.interp(step, [0, steps], [top, 0]),
        "no warm-up": lambda step, steps, top: top,
    },
}
