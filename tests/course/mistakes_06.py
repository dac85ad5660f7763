"""Wrong answers to the exercises of chapter 6: number -> name of the mistake -> an answer that makes it."""

import torch


def autograd(weights, x, t):
    """Gradients of the chain's loss, by autograd."""
    weights = [torch.as_tensor(w, dtype=torch.float64).clone().requires_grad_() for w in weights]
    y = torch.as_tensor(x, dtype=torch.float64)
    for weight in weights:
        y = weight * y
    return torch.stack(torch.autograd.grad((y - t).square() / 2, weights))


def two(w1, w2, x, t, lr, moved=(True, False), sign=-1, factor=1):
    g = factor * autograd([w1, w2], x, t)
    new = [w + sign * lr * step if go else w for w, step, go in zip((w1, w2), g, moved, strict=True)]
    return g[1], factor * autograd(new, x, t)[1]


def chain(weights, x, t, lr, moves):
    """`moves(j, i)` says whether weight j has moved when weight i is asked."""
    g = autograd(weights, x, t)
    shifts = []
    for i in range(len(weights)):
        now = [w - lr * g[j] if moves(j, i) else w for j, w in enumerate(weights)]
        shifts.append((g[i] - autograd(now, x, t)[i]).abs())
    return torch.stack(shifts)


def in_turn(weights, x, t, lr):
    g, now, shifts = autograd(weights, x, t), list(weights), []
    for i in range(len(weights)):
        fresh = autograd(now, x, t)[i]
        shifts.append((g[i] - fresh).abs())
        now[i] = now[i] - lr * fresh
    return torch.stack(shifts)


def flat(g, h):
    return g.flatten(), h.flatten()


def read(g, h, by=None, cosine=None):
    g, h = flat(g, h)
    length = torch.dist(g, h)
    whole = torch.cosine_similarity(g, h, dim=0)
    return length, length / (g if by is None else by).norm(), whole if cosine is None else cosine


WRONG = {
    "6.1": {
        "both moved": lambda *a: two(*a, moved=(True, True)),
        "second moved": lambda *a: two(*a, moved=(False, True)),
        "uphill": lambda *a: two(*a, sign=1),
        "no one half": lambda *a: two(*a, factor=2),
        "first layer": lambda w1, w2, x, t, lr: (
            autograd([w1, w2], x, t)[0],
            autograd([w1 - lr * autograd([w1, w2], x, t)[0], w2], x, t)[0],
        ),
        "old input": lambda w1, w2, x, t, lr: (
            two(w1, w2, x, t, lr)[0],
            two(w1, w2, x, t, lr)[1] * w1 / (w1 - lr * autograd([w1, w2], x, t)[0]),
        ),
        "unchanged": lambda *a: two(*a, moved=(False, False)),
    },
    "6.2": {
        "neighbour only": lambda *a: chain(*a, moves=lambda j, i: j == i - 1),
        "all moved": lambda *a: chain(*a, moves=lambda j, i: True),
        "own moved": lambda *a: chain(*a, moves=lambda j, i: j <= i),
        "all others": lambda *a: chain(*a, moves=lambda j, i: j != i),
        "later ones": lambda *a: chain(*a, moves=lambda j, i: j > i),
        "one after the other": in_turn,
        "first left out": lambda *a: chain(*a, moves=lambda j, i: j < i)[1:],
    },
    "6.3": {
        "divided by the new": lambda g, h: read(g, h, by=h),
        "squared": lambda g, h: (read(g, h)[0] ** 2, read(g, h)[1] ** 2, read(g, h)[2]),
        "inner product": lambda g, h: read(g, h, cosine=torch.dot(*flat(g, h))),
        "difference of lengths": lambda g, h: (
            abs(g.norm() - h.norm()),
            abs(1 - h.norm() / g.norm()),
            read(g, h)[2],
        ),
        "by rows": lambda g, h: read(g, h, cosine=torch.cosine_similarity(g, h, dim=1).mean()),
        "cosine with the difference": lambda g, h: read(
            g, h, cosine=torch.cosine_similarity(*flat(g, g - h), dim=0)
        ),
        "two numbers": lambda g, h: read(g, h)[:2],
    },
    "6.4": {
        "times a": lambda d, r, cos, c, a: (d * c * a, r, cos),
        "c cancels": lambda d, r, cos, c, a: (d / a, r, cos),
        "relative too": lambda d, r, cos, c, a: (d * c / a, r * c / a, cos),
        "a forgotten": lambda d, r, cos, c, a: (d * c, r, cos),
        "a twice": lambda d, r, cos, c, a: (d * c / a**2, r, cos),
        "nothing changes": lambda d, r, cos, c, a: (d, r, cos),
        "cosine too": lambda d, r, cos, c, a: (d * c / a, r, cos * c / a),
    },
}
