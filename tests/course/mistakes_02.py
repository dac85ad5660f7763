"""Wrong answers to the exercises of chapter 2: number -> name of the mistake -> an answer that makes it."""

import numpy as np
import torch
from scipy.stats import wasserstein_distance


def wasserstein(before, after, divide_by):
    """SciPy's distance, one unit at a time."""
    columns = zip(before.T.numpy(), after.T.numpy(), strict=True)
    return torch.tensor([wasserstein_distance(a, b) for a, b in columns]) / divide_by


def biased(x):
    return (x - x.mean(0)).square().mean(0).sqrt()


def covariance(x, correction=0):
    return torch.tensor(np.cov(x.T.numpy(), ddof=correction))


def root(matrix, power):
    """A power of a symmetric matrix, by singular values instead of eigenvalues."""
    left, scale, right = torch.linalg.svd(matrix)
    return left @ torch.diag(scale**power) @ right


WRONG = {
    "2.1": {
        "not sorted": lambda a, b: (a - b).abs().mean(0) / biased(a),
        "units sorted": lambda a, b: (a.sort(1).values - b.sort(1).values).abs().mean(0) / biased(a),
        "distance of the means": lambda a, b: (a.mean(0) - b.mean(0)).abs() / biased(a),
        "not divided": lambda a, b: wasserstein(a, b, 1),
        "spread after": lambda a, b: wasserstein(a, b, biased(b)),
        "spread of m - 1": lambda a, b: wasserstein(a, b, a.std(0)),
        "summed": lambda a, b: len(a) * wasserstein(a, b, biased(a)),
        "squared": lambda a, b: (a.sort(0).values - b.sort(0).values).pow(2).mean(0).sqrt() / biased(a),
        "one number for all units": lambda a, b: wasserstein(a, b, biased(a)).mean(),
        "not a function": 1.0,
    },
    "2.2": {
        "nothing moved": lambda x: x.clone(),
        "raised": lambda x: x + 1,
        "units exchanged": lambda x: x.flip(1),
        "mirrored": lambda x: 2 * x.mean(0) - x,
        "only one unit": lambda x: torch.cat([x[:, :1].flip(0), x[:, 1:]], dim=1),
        "one pair exchanged": lambda x: torch.cat([x[:2].flip(0), x[2:]]),
        "turned": lambda x: x.T,
    },
    "2.3": {
        "sign": lambda b0, y, lr, steps: b0 - steps * lr * y.mean(),
        "one step": lambda b0, y, lr, steps: b0 + lr * y.mean(),
        "settles": lambda b0, y, lr, steps: y.mean() + (b0 - y.mean()) * (1 - lr) ** steps,
        "inside the gradient": lambda b0, y, lr, steps: b0,
        "summed": lambda b0, y, lr, steps: b0 + steps * lr * y.sum(),
        "starts at zero": lambda b0, y, lr, steps: steps * lr * y.mean(),
    },
    "2.4": {
        "each unit by itself": lambda x: (x - x.mean(0)) / biased(x),
        "m - 1": lambda x: (x - x.mean(0)) @ root(covariance(x, 1), -0.5),
        "not centred": lambda x: x @ root(x.T @ x / len(x), -0.5),
        "root missing": lambda x: (x - x.mean(0)) @ root(covariance(x), -1),
        "not inverted": lambda x: (x - x.mean(0)) @ root(covariance(x), 0.5),
        "not turned back": lambda x: (
            (x - x.mean(0))
            @ torch.linalg.eigh(covariance(x)).eigenvectors
            @ torch.diag(torch.linalg.eigvalsh(covariance(x)) ** -0.5)
        ),
        "Cholesky": lambda x: (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(covariance(x))).T,
    },
    "2.5": {
        "mean not counted": lambda m, d: max(0, d - m),
        "the other directions": lambda m, d: min(d, m - 1),
        "negative": lambda m, d: d - m + 1,
        "all or nothing": lambda m, d: d * (m <= d),
        "images without a unit": lambda m, d: max(0, m - 1 - d),
        "half": lambda m, d: d / 2,
    },
}
