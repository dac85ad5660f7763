"""Wrong answers to the exercises of chapter 13: number -> name of the mistake -> an answer that makes it."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy


def raw(step_sizes, distances, gradient_norm):
    return np.array(distances) / np.abs(step_sizes) / gradient_norm


def draws_every_time(batches):
    def loss(net):
        x, y = next(batches)
        return cross_entropy(net(x), y)

    return loss


def a_number(batches):
    x, _ = next(batches)
    return x.sum()


def another_network(batches):
    x, y = next(batches)
    mine = torch.nn.Linear(4, 3)
    return lambda net: cross_entropy(mine(x), y)


def detached(batches):
    x, y = next(batches)
    return lambda net: cross_entropy(net(x), y).detach()


def summed(batches):
    x, y = next(batches)
    return lambda net: cross_entropy(net(x), y, reduction="sum")


def clears_first(optimizer):
    def step(net):
        optimizer.zero_grad()
        optimizer.step()

    return step


def clears_after(optimizer):
    def step(net):
        optimizer.step()
        optimizer.zero_grad()

    return step


def by_hand(optimizer):
    def step(net):
        for p in net.parameters():
            p.data -= 0.5 * p.grad

    return step


def steps_twice(optimizer):
    def step(net):
        optimizer.step()
        optimizer.step()

    return step


def at_once(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.data += 1
    return 0


WRONG = {
    "13.1": {
        "mean": lambda *case: raw(*case).mean(),
        "smallest": lambda *case: raw(*case).min(),
        "no s": lambda s, d, g: max(d) / g,
        "no gradient norm": lambda s, d, g: (np.array(d) / s).max(),
        "largest distance": lambda s, d, g: max(d),
        "at the longest step": lambda s, d, g: raw(s, d, g)[np.argmax(s)],
    },
    "13.2": {
        "draws every time": draws_every_time,
        "a number": a_number,
        "another network": another_network,
        "detached": detached,
        "summed": summed,
    },
    "13.3": {
        "clears first": clears_first,
        "clears after": clears_after,
        "no momentum": by_hand,
        "two steps": steps_twice,
        "at once": at_once,
    },
    "13.4": {
        "own pass": lambda steps, every, points: steps + -(-steps // every) * (points + 1),
        "rounded down": lambda steps, every, points: steps + steps // every * points,
        "points alone": lambda steps, every, points: -(-steps // every) * points,
        "every step": lambda steps, every, points: steps * (points + 1),
        "nothing counted": lambda steps, every, points: steps,
    },
}
