"""Wrong answers to the exercises of chapter 11: number -> name of the mistake -> an answer that makes it."""

import numpy as np
import torch
from torch.nn import functional


def norm_over(x, dims, correction=0):
    return (x - x.mean(dims, keepdim=True)) / x.var(dims, correction=correction, keepdim=True).sqrt()


def lp(x, p, inner=None, total=torch.mean, root=True):
    powers = total((x if inner is None else inner).abs() ** p, 0)
    return (x - x.mean(0)) / (powers ** (1 / p) if root else powers)


def left_beside(m, size):
    """The spread that m - 1 values of spread 1 keep, by computing it from such values."""
    others = torch.ones(m - 1, dtype=torch.float64)
    others[: (m - 1) // 2] = -1
    others[-1] = 0  # m - 1 is odd: one value stays in the middle
    others *= ((m - 1) / (others**2).sum()).sqrt()
    batch = torch.cat([others, torch.tensor([size], dtype=torch.float64)])
    return float(1 / batch.std(correction=0)), 1 / size


def weight_norm_gradient(grad, v, g):
    g, v = torch.tensor(g, dtype=v.dtype, requires_grad=True), v.clone().requires_grad_()
    (g * v / v.norm()).backward(grad)
    return g.grad, v.grad


WRONG = {
    "11.1": {
        "positions missing": lambda n, c, hw, groups, ghost: (n, ghost, c, c / groups, 1),
        "channels together": lambda n, c, hw, groups, ghost: (
            n * c * hw,
            ghost * hw,
            c * hw,
            c / groups * hw,
            hw,
        ),
        "number of groups": lambda n, c, hw, groups, ghost: (n * hw, ghost * hw, c * hw, groups * hw, hw),
        "number of ghosts": lambda n, c, hw, groups, ghost: (
            n * hw,
            n / ghost * hw,
            c * hw,
            c / groups * hw,
            hw,
        ),
        "layer norm over the batch": lambda n, c, hw, groups, ghost: (
            n * hw,
            ghost * hw,
            n * c * hw,
            c / groups * hw,
            hw,
        ),
        "groups across the batch": lambda n, c, hw, groups, ghost: (
            n * hw,
            ghost * hw,
            c * hw,
            n * c / groups * hw,
            hw,
        ),
        "one number": lambda n, c, hw, groups, ghost: n * hw,
    },
    "11.2": {
        "norm after the shift": lambda x, p: lp(x, p, inner=x - x.mean(0)),
        "sum": lambda x, p: lp(x, p, total=torch.sum),
        "no root": lambda x, p: lp(x, p, root=False),
        "signed powers": lambda x, p: (x - x.mean(0)) / (x**p).mean(0).abs() ** (1 / p),
        "mean kept": lambda x, p: x / (x.abs() ** p).mean(0) ** (1 / p),
        "batch norm": lambda x, p: norm_over(x, (0,)),
    },
    "11.3": {
        "over the batch": lambda x, groups: torch.cat(
            [norm_over(part, (0, 1, 2)) for part in x.chunk(groups, 1)], 1
        ),
        "instance": lambda x, groups: functional.instance_norm(x, eps=0),
        "positions apart": lambda x, groups: torch.cat(
            [norm_over(part, (1,)) for part in x.chunk(groups, 1)], 1
        ),
        "layer": lambda x, groups: functional.group_norm(x, 1, eps=0),
        "interleaved": lambda x, groups: torch.stack(
            [norm_over(x[:, i::groups], (1, 2)) for i in range(groups)], 2
        ).flatten(1, 2),
        "unbiased": lambda x, groups: torch.cat(
            [norm_over(part, (1, 2), correction=1) for part in x.chunk(groups, 1)], 1
        ),
        "only centred": lambda x, groups: torch.cat(
            [part - part.mean((1, 2), keepdim=True) for part in x.chunk(groups, 1)], 1
        ),
        "nothing done": lambda x, groups: x,
    },
    "11.4": {
        "about zero": lambda m, size: (1 / np.sqrt((m - 1 + size**2) / m), 1 / size),
        "others forgotten": lambda m, size: (1 / np.sqrt(size**2 / m - (size / m) ** 2), 1 / size),
        "no root": lambda m, size: (left_beside(m, size)[0] ** 2, 1 / size),
        "divisors": lambda m, size: tuple(1 / kept for kept in left_beside(m, size)),
        "averaged maximum": lambda m, size: (left_beside(m, size)[0], m / size),
        "order": lambda m, size: left_beside(m, size)[::-1],
    },
    "11.5": {
        "no projection": lambda grad, v, g: (grad @ v / v.norm(), g * grad / v.norm()),
        "no unit direction": lambda grad, v, g: (grad @ v, weight_norm_gradient(grad, v, g)[1]),
        "g forgotten": lambda grad, v, g: (
            grad @ v / v.norm(),
            weight_norm_gradient(grad, v, 1.0)[1],
        ),
        "not divided": lambda grad, v, g: (
            grad @ v / v.norm(),
            weight_norm_gradient(grad, v, g)[1] * v.norm(),
        ),
        "divided twice": lambda grad, v, g: (
            grad @ v / v.norm(),
            weight_norm_gradient(grad, v, g)[1] / v.norm(),
        ),
        "order": lambda grad, v, g: weight_norm_gradient(grad, v, g)[::-1],
        "only g": lambda grad, v, g: grad @ v / v.norm(),
    },
}
