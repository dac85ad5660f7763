"""Exercises of chapter 13: the effective beta, a loss of one batch, an optimizer's step, the cost."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch

from . import Unanswered, answered, by_function, register


def _ratios(step_sizes, distances, gradient_norm, *, walked=True, norm=True) -> list[float]:
    length = gradient_norm if norm else 1.0
    return [
        d / ((abs(s) if walked else 1.0) * length)
        for s, d in zip(step_sizes, distances, strict=True)
        if s != 0
    ]


def _largest(step_sizes, distances, gradient_norm, **left_out) -> float:
    return max(_ratios(step_sizes, distances, gradient_norm, **left_out))


def _at_longest(step_sizes, distances, gradient_norm) -> float:
    return max(zip(map(abs, step_sizes), _ratios(step_sizes, distances, gradient_norm), strict=False))[1]


by_function(
    "13.1",
    cases=[
        ([0.05, 0.1, 0.2, 0.4], [0.9, 1.4, 2.6, 3.9], 2.0),
        ([0.1, 0.4, 0.2], [0.3, 2.4, 0.9], 0.5),
    ],
    solution=_largest,
    mistakes={
        "This is a relative gradient distance. Divide by the distance walked, which has s in it.": partial(
            _largest, walked=False
        ),
        "Divided by s only. The point is s times the gradient away, so its length belongs to the distance.": (
            partial(_largest, norm=False)
        ),
        "This is the largest gradient distance. What was it divided by?": partial(
            _largest, walked=False, norm=False
        ),
        "The ratios are right; the effective beta is their largest, not their mean.": (
            lambda *case: sum(_ratios(*case)) / len(_ratios(*case))
        ),
        "This is the ratio at the longest step. The largest may be elsewhere.": _at_longest,
    },
    praise="With its step sizes stated, this is a number others can compare with.",
)


class _Batches:
    """An iterator of small batches that counts how many were drawn."""

    def __init__(self):
        self._random = torch.Generator().manual_seed(13)
        self.drawn = []

    def __iter__(self):
        return self

    def __next__(self):
        x = torch.randn(6, 4, generator=self._random)
        self.drawn.append((x, torch.arange(6) % 3))
        return self.drawn[-1]


def _one_batch(make_loss: Callable) -> str | None:
    from torch import nn  # here, so that the other exercises run where torch has no networks

    batches = _Batches()
    loss = answered(make_loss(batches))
    if not callable(loss):
        return (
            "It returns a number. An instrument needs a function of the network, to call it at every point."
        )
    nets = [nn.Linear(4, 3), nn.Linear(4, 3)]
    first, again, other = loss(nets[0]), loss(nets[0]), loss(nets[1])
    if len(batches.drawn) > 1 and not torch.equal(first, again):
        return (
            "Called twice on the same network it gives two losses: it still draws a new batch at every call."
        )
    if torch.equal(first, other):
        return "It ignores the network it is given, and measures another one."
    if not first.requires_grad:
        return "The loss has no gradient: it was detached, or turned into a number, on the way."
    x, y = batches.drawn[0]
    if not torch.allclose(first, nn.functional.cross_entropy(nets[0](x), y)):
        return "It is one loss of one network, but not the mean cross-entropy of the first batch."
    return None


register("13.2", _one_batch, praise="The same batch at every point: now differences are the network's.")


def _optimizer_step(make_step: Callable) -> str | None:
    from torch import nn

    net = nn.Linear(2, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    step = make_step(optimizer)
    if step is ... or (step is None and torch.equal(net.weight, torch.ones(1, 2))):
        raise Unanswered
    if not callable(step):
        return (
            "The step was made when the function was made. Return a function that makes it when it is called."
        )
    moved = [net.weight.detach().clone()]
    for _ in range(2):
        net.weight.grad = torch.ones_like(net.weight)
        step(net)
        moved.append(net.weight.detach().clone())
    first, second = (a - b for a, b in pairwise(moved))
    if torch.equal(first, torch.zeros_like(first)):
        return "Nothing moved: the gradients were cleared before the step, or the optimizer was not asked."
    if torch.allclose(first, second):
        return "The second step is as long as the first: the optimizer's momentum is missing."
    if net.weight.grad is None or not net.weight.grad.any():
        return "The gradients are gone after the step; the instrument still needs them."
    if not torch.allclose(second, torch.full_like(second, 0.95)):
        return "It moves the network, but not by the optimizer's step."
    return None


register("13.3", _optimizer_step, praise="The step of your optimizer, momentum and all.")


def _passes(steps, every, points, *, own=0, up=True, first=1) -> int:
    probed = -(-steps // every) if up else steps // every
    return steps * first + probed * (points + own)


by_function(
    "13.4",
    cases=[(100, 10, 4), (95, 10, 3), (7, 1, 2), (11, 4, 5)],
    solution=_passes,
    mistakes={
        "The probe's own gradient was counted as an extra pass; it is the training step's.": partial(
            _passes, own=1
        ),
        "Right for whole multiples only: step 0 is probed, so the number of probes is rounded up.": partial(
            _passes, up=False
        ),
        "These are the probes' points alone. Every step makes a pass of its own, too.": partial(
            _passes, first=0
        ),
        "This probes at every step.": lambda steps, every, points: steps * (1 + points),
    },
    praise="Four points at every tenth step: 40 % more passes.",
)
