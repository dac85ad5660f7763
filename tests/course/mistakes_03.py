"""Wrong answers to the exercises of chapter 3: number -> name of the mistake -> an answer that makes it."""

import torch


def standardized(x, eps, dim=0, **kwargs):
    return (x - x.mean(dim)) / torch.sqrt(x.var(dim, **kwargs) + eps)


def through_autograd(grad, x, gamma, eps, *, detach_mean=False, detach_var=False):
    """dL/dx by automatic differentiation, with the statistics cut out of the graph on demand."""
    x = x.clone().requires_grad_()
    mean = x.mean(0).detach() if detach_mean else x.mean(0)
    var = ((x - x.mean(0)) ** 2).mean(0)
    var = var.detach() if detach_var else var
    y = gamma * (x - mean) / torch.sqrt(var + eps)
    return torch.autograd.grad(y, x, grad)[0]


def image_norm(x, gamma, beta, eps, dims, correction=0):
    mean, var = x.mean(dims, keepdim=True), x.var(dims, correction=correction, keepdim=True)
    return gamma.view(-1, 1, 1) * (x - mean) / (var + eps) ** 0.5 + beta.view(-1, 1, 1)


def fold_weight(*layer):
    return fold(*layer)[0]


def fold(weight, bias, gamma, beta, mean, var, eps):
    scale = gamma * (var + eps) ** -0.5
    return torch.diag(scale) @ weight, scale * (bias - mean) + beta


WRONG = {
    "3.1": {
        "eps forgotten": lambda x, g, b, eps: g * standardized(x, 0, correction=0) + b,
        "eps outside the root": lambda x, g, b, eps: g * (x - x.mean(0)) / (x.std(0, correction=0) + eps) + b,
        "variance divided by m - 1": lambda x, g, b, eps: g * standardized(x, eps) + b,
        "eps added to the quotient": lambda x, g, b, eps: g * (standardized(x, 0, correction=0) + eps) + b,
        "m - 1, and eps outside the root": lambda x, g, b, eps: g * (x - x.mean(0)) / (x.std(0) + eps) + b,
        "m - 1, and eps added to the quotient": lambda x, g, b, eps: (
            g * ((x - x.mean(0)) / x.std(0) + eps) + b
        ),
        "averaged over features": lambda x, g, b, eps: g * standardized(x.T, eps, correction=0).T + b,
        "one mean for all features": lambda x, g, b, eps: (
            g * (x - x.mean()) / (x.var(correction=0) + eps).sqrt() + b
        ),
        "divided by the variance": lambda x, g, b, eps: (
            g * (x - x.mean(0)) / (x.var(0, correction=0) + eps) + b
        ),
        "scale and shift forgotten": lambda x, g, b, eps: standardized(x, eps, correction=0),
        "sign": lambda x, g, b, eps: -g * standardized(x, eps, correction=0) - b,
        "one column": lambda x, g, b, eps: (g * standardized(x, eps, correction=0) + b)[:, :1],
        "not a function": 3.0,
    },
    "3.2": {
        "biased running variance": lambda mean, var, x, w: (
            mean + w * (x.mean(0) - mean),
            var + w * (x.var(0, correction=0) - var),
        ),
        "momentum is the weight of the old": lambda mean, var, x, w: (
            w * mean + (1 - w) * x.mean(0),
            w * var + (1 - w) * x.var(0),
        ),
        "both: the convention of CS231n": lambda mean, var, x, w: (
            w * mean + (1 - w) * x.mean(0),
            w * var + (1 - w) * x.var(0, correction=0),
        ),
        "standard deviation stored": lambda mean, var, x, w: (
            mean + w * (x.mean(0) - mean),
            var + w * (x.std(0) - var),
        ),
        "old value not faded": lambda mean, var, x, w: (mean + w * x.mean(0), var + w * x.var(0)),
        "old value dropped": lambda mean, var, x, w: (x.mean(0), x.var(0)),
        "only the mean returned": lambda mean, var, x, w: mean + w * (x.mean(0) - mean),
    },
    "3.3": {
        "detached statistics": lambda *a: through_autograd(*a, detach_mean=True, detach_var=True),
        "detached mean": lambda *a: through_autograd(*a, detach_mean=True),
        "detached variance": lambda *a: through_autograd(*a, detach_var=True),
        "gamma forgotten": lambda grad, x, g, eps: through_autograd(grad, x, torch.ones(3), eps),
        "eps forgotten": lambda grad, x, g, eps: through_autograd(grad, x, g, 0),
        "sums for means": lambda grad, x, g, eps: (
            g
            / (x.var(0, correction=0) + eps).sqrt()
            * (
                grad
                - grad.sum(0)
                - standardized(x, eps, correction=0) * (grad * standardized(x, eps, correction=0)).sum(0)
            )
        ),
        "wrong sign": lambda *a: -through_autograd(*a),
    },
    "3.4": {
        "nothing repaired": lambda x, g, b, eps: image_norm(x, g, b, eps, (0,), 1),
        "only the variance repaired": lambda x, g, b, eps: image_norm(x, g, b, eps, (0,)),
        "only the axes repaired": lambda x, g, b, eps: image_norm(x, g, b, eps, (0, 2, 3), 1),
        "each image by itself": lambda x, g, b, eps: image_norm(x, g, b, eps, (2, 3)),
        "all channels together": lambda x, g, b, eps: image_norm(x, g, b, eps, (0, 1, 2, 3)),
        "layout turned": lambda x, g, b, eps: image_norm(x, g, b, eps, (0, 2, 3)).permute(0, 2, 3, 1),
    },
    "3.5": {
        "bias of the layer lost": lambda w, b, *rest: fold(w, torch.zeros(3), *rest),
        "bias of the layer not scaled": lambda w, b, g, beta, mean, var, eps: (
            fold_weight(w, b, g, beta, mean, var, eps),
            b + beta - g * mean / (var + eps).sqrt(),
        ),
        "nothing in the bias scaled": lambda w, b, g, beta, mean, var, eps: (
            fold_weight(w, b, g, beta, mean, var, eps),
            b - mean + beta,
        ),
        "bias not folded": lambda w, b, *rest: (fold_weight(w, b, *rest), b),
        "bias of the layer lost and mean not scaled": lambda w, b, g, beta, mean, var, eps: (
            fold_weight(w, b, g, beta, mean, var, eps),
            beta - mean,
        ),
        "columns scaled": lambda w, b, g, beta, mean, var, eps: (
            w * (g * (var + eps) ** -0.5),
            fold(w, b, g, beta, mean, var, eps)[1],
        ),
        "mean not scaled": lambda w, b, g, beta, mean, var, eps: (
            fold(w, b, g, beta, mean, var, eps)[0],
            g * (var + eps) ** -0.5 * b + beta - mean,
        ),
        "eps forgotten": lambda *a: fold(*a[:-1], 0.0),
        "divided by the variance": lambda w, b, g, beta, mean, var, eps: (
            torch.diag(g / (var + eps)) @ w,
            g / (var + eps) * (b - mean) + beta,
        ),
    },
}
