"""Exercises of chapter 10: whose plateau, the far end of a probe, rescaled weights, at the edge."""

from collections.abc import Callable

from . import by_function

by_function(
    "10.1",
    cases=[(20.0, 0.1, 0.05), (2e6, 1e-6, 1e-8), (7.0, 0.3, 0.02)],
    solution=lambda plateau, lr, shortest: (plateau * lr / 2, plateau * shortest),
    mistakes={
        "The two numbers are right, in the other order: first the learning rate, then the probe.": (
            lambda plateau, lr, shortest: (plateau * shortest, plateau * lr / 2)
        ),
        "The limit of the learning rate is two over it, not one over it.": (
            lambda plateau, lr, shortest: (plateau * lr, plateau * shortest)
        ),
        "These are the limits themselves. How many times do they go into the plateau?": (
            lambda plateau, lr, shortest: (2 / lr, 1 / shortest)
        ),
        "Upside down: divide the plateau by the limits.": (
            lambda plateau, lr, shortest: (2 / lr / plateau, 1 / shortest / plateau)
        ),
        "A probe that lost its gradient gives 1 / s; there is no 2 in it.": (
            lambda plateau, lr, shortest: (plateau * lr / 2, plateau * shortest / 2)
        ),
    },
    praise="Two limits, two questions.",
)


def _far(sign: int = 1, *, walked: bool = True, mixed: bool = True) -> Callable[..., float]:
    def length(s, beta, cosine, norm):
        distance = beta * s * norm if walked else beta * s
        if not mixed:
            return abs(distance**2 - norm**2) ** 0.5
        return norm * cosine + sign * abs(distance**2 - norm**2 * (1 - cosine**2)) ** 0.5

    return length


by_function(
    "10.2",
    cases=[(0.1, 20.0, -1.0, 3.0), (0.05, 18.0, 0.5, 2.5), (0.4, 12.0, -0.3, 2.5)],
    solution=_far(),
    mistakes={
        "Of the two lengths that fit, this is the smaller one (or it is negative).": _far(-1),
        "The distance between the gradients is beta times the distance walked, which has |g| in it.": _far(
            walked=False
        ),
        "This holds for gradients at a right angle. The cosine is missing.": _far(mixed=False),
        "That is the distance between the two gradients, not the length of the second.": (
            lambda s, beta, cosine, norm: beta * s * norm
        ),
        "This adds the distance to the length, as if the gradients were parallel.": (
            lambda s, beta, cosine, norm: norm + beta * s * norm
        ),
    },
    praise="Three numbers of a probe, and the triangle is complete.",
)

by_function(
    "10.3",
    cases=[(0.1, 5.0, 3.0), (1e-7, 2e7, 0.1)],
    solution=lambda s, beta, a: (s * a**2, beta / a**2),
    mistakes={
        "The beta is right. The gradient is a times shorter and the way a times longer: what is s?": (
            lambda s, beta, a: (s, beta / a**2)
        ),
        "Only one of the two reasons is in s: the gradient is shorter, and the way is longer.": (
            lambda s, beta, a: (s * a, beta / a**2)
        ),
        "The probe is right. Curvature is a change of gradient per distance, and both have changed.": (
            lambda s, beta, a: (s * a**2, beta / a)
        ),
        "The wrong way round: longer weights, shorter gradients, flatter landscape.": (
            lambda s, beta, a: (s / a**2, beta * a**2)
        ),
        "The probe is right, and beta does change.": lambda s, beta, a: (s * a**2, beta),
    },
    praise="The same points, the same functions, another number.",
)

by_function(
    "10.4",
    cases=[((4.0, 1.0), (2.0, 5.0)), ((3.0, 30.0), (1.5, 0.5))],
    solution=lambda betas, lengths: betas[1] * lengths[1] ** 2 / (betas[0] * lengths[0] ** 2),
    mistakes={
        "This compares the betas alone; the lengths of the weights are still in it.": (
            lambda betas, lengths: betas[1] / betas[0]
        ),
        "The invariant product has the squared length.": (
            lambda betas, lengths: betas[1] * lengths[1] / (betas[0] * lengths[0])
        ),
        "Upside down: by which factor is the second one sharper?": (
            lambda betas, lengths: betas[0] * lengths[0] ** 2 / (betas[1] * lengths[1] ** 2)
        ),
        "Longer weights make beta smaller, so the squared length multiplies.": (
            lambda betas, lengths: betas[1] / lengths[1] ** 2 / (betas[0] / lengths[0] ** 2)
        ),
        "The products are right; a factor is their ratio, not their difference.": (
            lambda betas, lengths: betas[1] * lengths[1] ** 2 - betas[0] * lengths[0] ** 2
        ),
    },
    praise="A number that no common factor can change.",
)

by_function(
    "10.5",
    cases=[(0.5, 3.0, 2.0, 3), (0.1, 20.0, 1.0, 7), (0.2, 12.0, -1.5, 4)],
    solution=lambda lr, sharpness, x0, steps: x0 * (1 - lr * sharpness) ** steps,
    mistakes={
        "The size is right; every step beyond the minimum changes the sign.": (
            lambda lr, sharpness, x0, steps: x0 * abs(1 - lr * sharpness) ** steps
        ),
        "This is one step. There are more.": lambda lr, sharpness, x0, steps: x0 * (1 - lr * sharpness),
        "The gradient of this loss is lambda x, without the half.": (
            lambda lr, sharpness, x0, steps: x0 * (1 - lr * sharpness / 2) ** steps
        ),
        "Uphill: the step subtracts the gradient.": (
            lambda lr, sharpness, x0, steps: x0 * (1 + lr * sharpness) ** steps
        ),
        "The gradient changes as x does; steps multiply, they do not add.": (
            lambda lr, sharpness, x0, steps: x0 * (1 - lr * sharpness * steps)
        ),
    },
    praise="At 2 / lr it goes back and forth for ever.",
)
