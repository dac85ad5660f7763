"""Wrong answers to the exercises of chapter 1, each to be met by a message of its own."""

import math

import torch
from scipy.stats import norm


def sigmoid(z):
    return 1 / (1 + torch.exp(-z))


def cdf(t):
    return float(norm.cdf(t))


WRONG = {
    "1.1": {
        "the function itself": sigmoid,
        "slope of tanh": lambda z: 1 - torch.tanh(z) ** 2,
        "input for output": lambda z: sigmoid(z) * (1 - z),
        "squared": lambda z: sigmoid(z) ** 2,
        "tanh's rule on a sigmoid": lambda z: 1 - sigmoid(z) ** 2,
        "wrong sign": lambda z: sigmoid(z) * (sigmoid(z) - 1),
        "one number": lambda z: (sigmoid(z) * (1 - sigmoid(z))).mean(),
    },
    "1.2": {
        "share of 1": lambda share: math.log((1 + math.sqrt(1 - 4 * share)) / (1 - math.sqrt(1 - 4 * share))),
        "edge of tanh": lambda share: math.atanh(math.sqrt(1 - share)),
        "output close to 1": lambda share: math.log((1 - share) / share),
        "exponential tail": lambda share: math.log(1 / share),
        "exponential tail, share of 1/4": lambda share: math.log(4 / share),
        "the lower edge": lambda share: -2 * math.atanh(math.sqrt(1 - share)),
    },
    "1.3": {
        "ReLU's": lambda m, s: cdf(m / s),
        "sides exchanged": lambda m, s: cdf(-m / s) + math.exp(-m + s * s / 2) * cdf(m / s - s),
        "no spread in the exponent": lambda m, s: cdf(m / s) + math.exp(m) * cdf(-m / s - s),
        "mean not moved": lambda m, s: cdf(m / s) + math.exp(m + s * s / 2) * cdf(-m / s),
        "part above zero forgotten": lambda m, s: math.exp(m + s * s / 2) * cdf(-m / s - s),
        "slope at the mean": lambda m, s: math.exp(min(m, 0)),
    },
    "1.4": {
        "mean instead of root mean square": lambda z, w: w * (1 - torch.tanh(z) ** 2).mean(),
        "root forgotten": lambda z, w: w**2 * ((1 - torch.tanh(z) ** 2) ** 2).mean(),
        "weights forgotten": lambda z, w: ((1 - torch.tanh(z) ** 2) ** 2).mean() ** 0.5,
        "outputs for slopes": lambda z, w: w * (torch.tanh(z) ** 2).mean() ** 0.5,
        "slope of the sigmoid": lambda z, w: w * ((sigmoid(z) * (1 - sigmoid(z))) ** 2).mean() ** 0.5,
        "one factor a unit": lambda z, w: w * ((1 - torch.tanh(z) ** 2) ** 2).mean(0) ** 0.5,
    },
    "1.5": {
        "one layer too many": lambda depth, w, slope: (w * slope) ** depth,
        "weights forgotten": lambda depth, w, slope: slope ** (depth - 1),
        "added": lambda depth, w, slope: (depth - 1) * w * slope,
        "mean square": lambda depth, w, slope: (w * slope) ** (2 * depth - 2),
        "upside down": lambda depth, w, slope: (w * slope) ** (1 - depth),
    },
}
