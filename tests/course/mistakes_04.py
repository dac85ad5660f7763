"""Wrong answers to the exercises of chapter 4: number -> name of the mistake -> an answer that makes it."""

import numpy as np
import torch
from scipy.stats import norm


def reach(steps, accuracies, target, between=np.interp, never=np.inf):
    """Where the curve first reaches the target, by numpy's interpolation between the looks around it."""
    reached = np.flatnonzero(np.asarray(accuracies) >= target)
    if not len(reached):
        return never
    two = slice(reached[0] - 1, reached[0] + 1)
    return float(between(target, accuracies[two], steps[two]))


def gaussian_percentiles(gamma, beta, q=(0.15, 0.5, 0.85)):
    return torch.tensor(norm(beta, abs(gamma)).ppf(q))


WRONG = {
    "4.1": {
        "later look": lambda *run: reach(*run, between=lambda target, accuracies, steps: steps[1]),
        "earlier look": lambda *run: reach(*run, between=lambda target, accuracies, steps: steps[0]),
        "wrong side": lambda *run: reach(
            *run, between=lambda target, accuracies, steps: sum(steps) - np.interp(target, accuracies, steps)
        ),
        "halfway": lambda *run: reach(*run, between=lambda target, accuracies, steps: sum(steps) / 2),
        "never counted as the end": lambda steps, *run: reach(steps, *run, never=steps[-1]),
        "last crossing": lambda steps, accuracies, target: reach(steps[3:], accuracies[3:], target),
        "the accuracy there": lambda steps, accuracies, target: target,
    },
    "4.2": {
        "the whole way": lambda plain, alone, together: (plain / alone, plain / together),
        "factors subtracted": lambda plain, alone, together: (
            plain / alone,
            plain / together - plain / alone,
        ),
        "steps saved": lambda plain, alone, together: (plain - alone, alone - together),
        "upside down": lambda plain, alone, together: (alone / plain, together / alone),
        "order": lambda plain, alone, together: (alone / together, plain / alone),
        "one number": lambda plain, alone, together: plain / together,
    },
    "4.3": {
        "length not squared": lambda lr, weight: lr / torch.linalg.vector_norm(weight, dim=1),
        "whole layer": lambda lr, weight: lr / torch.linalg.matrix_norm(weight) ** 2,
        "columns": lambda lr, weight: lr / (weight.T**2).sum(1),
        "multiplied": lambda lr, weight: lr * (weight**2).sum(1),
        "mean of squares": lambda lr, weight: lr / (weight**2).mean(1),
    },
    "4.4": {
        "straight outwards": lambda length, lr, gradients: length + sum(lr * g for g in gradients),
        "learning rate not squared": lambda length, lr, gradients: (
            (length**2 + lr * np.square(gradients).sum()) ** 0.5
        ),
        "root missing": lambda length, lr, gradients: length**2 + np.square(lr * np.array(gradients)).sum(),
        "shorter": lambda length, lr, gradients: (
            abs(length**2 - np.square(lr * np.array(gradients)).sum()) ** 0.5
        ),
        "gradients added first": lambda length, lr, gradients: np.hypot(length, lr * sum(gradients)),
    },
    "4.5": {
        "sign of gamma": lambda gamma, beta: gaussian_percentiles(gamma, beta)[:: 1 if gamma > 0 else -1],
        "beta forgotten": lambda gamma, beta: gaussian_percentiles(gamma, 0),
        "gamma squared": lambda gamma, beta: gaussian_percentiles(gamma**2, beta),
        "one standard deviation": lambda gamma, beta: torch.tensor(
            [beta - abs(gamma), beta, beta + abs(gamma)]
        ),
        "nothing learned": lambda gamma, beta: gaussian_percentiles(1, 0),
        "5, 50 and 95": lambda gamma, beta: gaussian_percentiles(gamma, beta, (0.05, 0.5, 0.95)),
    },
}
