"""Wrong answers to the exercises of chapter 10: number -> name of the mistake -> an answer that makes it."""

import math


def quadratic(s, beta, cosine, norm, which):
    """Roots of |g'|^2 - 2 |g'| |g| cos + |g|^2 = (beta s |g|)^2."""
    half, constant = norm * cosine, norm**2 - (beta * s * norm) ** 2
    return half + which * math.sqrt(max(half**2 - constant, 0.0))


def walk(lr, sharpness, x0, steps, gradient):
    x = x0
    for _ in range(steps):
        x -= lr * gradient(sharpness, x)
    return x


WRONG = {
    "10.1": {
        "swapped": lambda p, lr, s: (p * s, p / (2 / lr)),
        "one over the rate": lambda p, lr, s: (p / (1 / lr), p / (1 / s)),
        "limits": lambda p, lr, s: (2 / lr, 1 / s),
        "upside down": lambda p, lr, s: (2 / (lr * p), 1 / (s * p)),
        "two over s": lambda p, lr, s: (p * lr / 2, p / (2 / s)),
        "one number": lambda p, lr, s: p * lr / 2,
    },
    "10.2": {
        "smaller root": lambda *probe: quadratic(*probe, -1),
        "distance": lambda s, beta, cosine, norm: beta * s * norm,
        "right angle": lambda s, b, c, n: math.sqrt(abs((b * s * n) ** 2 - n**2)),
        "added": lambda s, b, c, n: n * (1 + b * s),
        "old length": lambda s, b, c, n: n,
    },
    "10.3": {
        "same probe": lambda s, beta, a: (s, beta / a / a),
        "once": lambda s, beta, a: (s * a, beta / a / a),
        "beta once": lambda s, beta, a: (s * a * a, beta / a),
        "inverse": lambda s, beta, a: (s / a / a, beta * a * a),
        "beta kept": lambda s, beta, a: (s * a * a, beta),
        "nothing": lambda s, beta, a: (s, beta),
    },
    "10.4": {
        "betas": lambda b, w: b[1] / b[0],
        "first power": lambda b, w: b[1] * w[1] / b[0] / w[0],
        "upside down": lambda b, w: b[0] * w[0] ** 2 / b[1] / w[1] ** 2,
        "divided": lambda b, w: b[1] / w[1] ** 2 * w[0] ** 2 / b[0],
        "difference": lambda b, w: b[1] * w[1] ** 2 - b[0] * w[0] ** 2,
    },
    "10.5": {
        "no sign": lambda lr, h, x, n: math.copysign(abs(walk(lr, h, x, n, lambda h, x: h * x)), x),
        "one step": lambda lr, h, x, n: x - lr * h * x,
        "half": lambda *case: walk(*case, lambda h, x: h * x / 2),
        "uphill": lambda *case: walk(*case, lambda h, x: -h * x),
        "added": lambda lr, h, x, n: x - n * lr * h * x,
    },
}
