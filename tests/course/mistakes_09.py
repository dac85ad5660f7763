"""Wrong answers to the exercises of chapter 9: number -> name of the mistake -> an answer that makes it."""

import torch


def normalized(y, **kwargs):
    return (y - y.mean(0)) / torch.sqrt(y.var(0, **kwargs))


def through_autograd(g, y, gamma, *, detach_mean=False, detach_sigma=False):
    """|dL^/dy|^2 by automatic differentiation, with the statistics cut out of the graph on demand."""
    y = y.clone().requires_grad_()
    mean, sigma = y.mean(0), (y - y.mean(0)).square().mean(0).sqrt()
    mean = mean.detach() if detach_mean else mean
    sigma = sigma.detach() if detach_sigma else sigma
    return torch.autograd.grad(gamma * (y - mean) / sigma, y, g)[0].square().sum(0)


def printed_41(g, y, gamma):
    m = y.shape[0]
    along = torch.einsum("mu,mu->u", g, normalized(y, correction=0))
    bracket = (g * g).sum(0) - g.sum(0) ** 2 / m - along**2 / m**0.5
    return gamma**2 / y.var(0, correction=0) * bracket


def terms_44(g, y_hat, gamma, sigma, lam):
    m = g.numel()
    return gamma**2 / sigma**2, lam**2 * (g**2).sum(), g.sum() ** 2 / m, lam**2 * torch.dot(g, y_hat) ** 2


def unbiased(g, y, gamma):
    y_hat = normalized(y, correction=1)
    m = len(y)
    bracket = g.square().sum(0) - m * g.mean(0) ** 2 - m * (g * y_hat).mean(0) ** 2
    return gamma**2 / y.var(0) * bracket


def bound(build):
    """A wrong answer to 9.2 from the factor and the three terms of the printed bound, m and lambda."""
    return lambda g, y_hat, gamma, sigma, lam: build(*terms_44(g, y_hat, gamma, sigma, lam), g.numel(), lam)


WRONG = {
    "9.1": {
        "as printed": printed_41,
        "sigma constant": lambda *a: through_autograd(*a, detach_sigma=True),
        "both constant": lambda *a: through_autograd(*a, detach_mean=True, detach_sigma=True),
        "factor not squared": lambda g, y, gamma: (
            through_autograd(g, y, gamma) * y.std(0, correction=0) / gamma
        ),
        "unbiased sigma": unbiased,
        "no factor": lambda g, y, gamma: through_autograd(g, y, torch.ones_like(gamma)),
        "of all units together": lambda *a: through_autograd(*a).sum(),
    },
    "9.2": {
        "as printed": bound(lambda f, first, mean, last, m, lam: f * (first**2 - mean - last)),
        "only the square removed": bound(lambda f, first, mean, last, m, lam: f * (first - mean - last)),
        "no 1/m": bound(lambda f, first, mean, last, m, lam: f * (first - lam**2 * mean - last)),
        "root of m": bound(lambda f, first, mean, last, m, lam: f * (first - lam**2 * mean - last / m**0.5)),
        "mean without lambda": bound(lambda f, first, mean, last, m, lam: f * (first - mean - last / m)),
        "no factor": bound(lambda f, first, mean, last, m, lam: first - lam**2 * mean - last / m),
    },
    "9.3": {
        "first term only": lambda v, h, g, y_hat, gamma, sigma: gamma**2 / sigma**2 * (v @ h @ v),
        "added": lambda v, h, g, y_hat, gamma, sigma: (
            gamma**2 / sigma**2 * (v @ h @ v) + gamma / (len(v) * sigma**2) * (g @ y_hat) * (v @ v)
        ),
        "length forgotten": lambda v, h, g, y_hat, gamma, sigma: (
            gamma**2 / sigma**2 * (v @ h @ v) - gamma / (len(v) * sigma**2) * (g @ y_hat)
        ),
        "factor not squared": lambda v, h, g, y_hat, gamma, sigma: (
            gamma / sigma * (v @ h @ v) - gamma / (len(v) * sigma**2) * (g @ y_hat) * (v @ v)
        ),
        "1/m forgotten": lambda v, h, g, y_hat, gamma, sigma: (
            gamma**2 / sigma**2 * (v @ h @ v) - gamma / sigma**2 * (g @ y_hat) * (v @ v)
        ),
    },
    "9.4": {
        "line instead of ray": lambda w0, w: (w0 * w).sum() / (w * w).sum() * w,
        "the old optimum": lambda w0, w: w.clone(),
        "wrong length": lambda w0, w: max((w0 * w).sum() / (w0 * w0).sum(), torch.tensor(0.0).double()) * w,
        "one length too few": lambda w0, w: torch.relu((w0 * w).sum()) / torch.linalg.vector_norm(w) * w,
        "same length as W0": lambda w0, w: w / torch.linalg.vector_norm(w) * torch.linalg.vector_norm(w0),
        "the start": lambda w0, w: w0.clone(),
    },
    "9.5": {
        "sign": lambda start, end, lr, steps: (end - start) / lr / steps,
        "no learning rate": lambda start, end, lr, steps: (start - end) / steps,
        "sum": lambda start, end, lr, steps: (start - end) / lr,
        "multiplied": lambda start, end, lr, steps: (start - end) * lr / steps,
        "no steps in it": lambda start, end, lr, steps: start - end,
    },
}
