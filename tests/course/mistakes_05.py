"""Wrong answers to the exercises of chapter 5: number -> name of the mistake -> an answer that makes it."""

import torch
from torch.nn.functional import batch_norm, layer_norm


def normalized(x):
    """By torch's own function."""
    return batch_norm(x, None, None, training=True, eps=1e-30)


def spread(a):
    """Biased."""
    return a.var(0, correction=0) ** 0.5


WRONG = {
    "5.1": {
        "only the units": lambda a, mu, sigma, u, v: torch.addcmul(mu, sigma, a),
        "only the samples": lambda a, mu, sigma, u, v: a + v * a + u,
        "shift stretched": lambda a, mu, sigma, u, v: sigma * (a + mu + u) + v * (a + mu + u),
        "one too many": lambda a, mu, sigma, u, v: (1 + sigma + v) * a + mu + u,
        "scales multiplied": lambda a, mu, sigma, u, v: a * v * sigma + (mu + u),
        "nothing": lambda a, mu, sigma, u, v: a,
    },
    "5.2": {
        "shift kept": lambda x, shift, scale: normalized(x) + shift,
        "scale kept": lambda x, shift, scale: normalized(x) * scale,
        "both kept": lambda x, shift, scale: normalized(x) * scale + shift,
        "only centred": lambda x, shift, scale: x - sum(x) / len(x),
        "m - 1": lambda x, shift, scale: (x - x.mean(0)) / x.var(0).sqrt(),
        "over the units": lambda x, shift, scale: layer_norm(x, x.shape[1:], eps=0),
    },
    "5.3": {
        "one layer": lambda n_sigma, depth: 1 / (0.5 + n_sigma / 2),
        "largest scale": lambda n_sigma, depth: 1 / n_sigma**depth,
        "upside down": lambda n_sigma, depth: (0.5 + n_sigma / 2) ** depth,
        "added up": lambda n_sigma, depth: 1 - depth + depth / (0.5 + n_sigma / 2),
        "uniform from 0": lambda n_sigma, depth: (2 / n_sigma) ** depth,
    },
    "5.4": {
        "as in the paper": lambda a, shift, scale: torch.addcmul(shift, scale, a),
        "scale moves the mean": lambda a, shift, scale: scale * a + shift * spread(a),
        "absolute shift": lambda a, shift, scale: a + (scale - 1) * (a - a.mean(0)) + shift,
        "whole layer": lambda a, shift, scale: (
            a + (scale - 1) * (a - a.mean(0)) + shift * a.var(correction=0) ** 0.5
        ),
        "mean lost": lambda a, shift, scale: spread(a) * (scale * normalized(a) + shift),
        "normalized": lambda a, shift, scale: scale * normalized(a) + shift,
    },
}
