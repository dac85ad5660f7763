"""Exercises that answer at once: `check("3.1", answer)` says missing, keep working, or correct.

The exercises of chapter NN live in `chapter_NN.py`, each registered by `by_function` or `register`. Every
answer is a function; a checker turns it into None (correct) or into a message for this very mistake.
"""

import copy
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Checker = Callable[[Callable], str | None]

_CHECKERS: dict[str, tuple[Checker, str]] = {}


class Unanswered(Exception):
    """The reader has not written an answer yet."""


def answered(given: Any) -> Any:
    """What the reader gave, if it is anything: None and ... raise `Unanswered`."""
    if given is None or given is ...:
        raise Unanswered
    return given


def check(number: str, answer: Any) -> None:
    """Say whether an exercise is not answered yet, needs more work, or is solved.

    What the reader's code raises is reported, not raised.

    >>> check("3.1", ...)
    Exercise 3.1: not answered yet. Replace the dots and run the cell again.
    """
    checker, praise = _find(number)
    try:
        message = checker(answer) if callable(answered(answer)) else _no_function(answer)
        verdict = f"keep working. {message}" if message else f"correct. {praise}"
    except (Unanswered, NotImplementedError):
        verdict = "not answered yet. Replace the dots and run the cell again."
    except Exception as error:
        reason = " ".join(str(error).split())
        verdict = f"keep working. Your code raised {type(error).__name__}: {reason}"
    print(f"Exercise {number}: {verdict}")


def register(number: str, checker: Checker, *, praise: str) -> None:
    """Add an exercise whose checker returns None for a right function, else a message."""
    if number in _CHECKERS:
        raise ValueError(f"number={number!r} is registered already; every exercise has its own number")
    _CHECKERS[number] = checker, praise


def by_function(
    number: str,
    *,
    cases: Sequence[tuple],
    solution: Callable,
    mistakes: Mapping[str, Callable],
    praise: str,
    tolerance: float = 1e-9,
) -> None:
    """Register an exercise answered by a function that must agree with `solution` on every tuple of `cases`.

    `mistakes` maps a message to the mistaken function that earns it: one that agrees with it on all cases.
    """

    def results(function: Callable) -> list[tuple]:
        return [_as_tuple(function(*copy.deepcopy(case))) for case in cases]

    def checker(answer: Callable) -> str | None:
        given, wanted = results(answer), results(solution)
        if _agree(given, wanted, tolerance):
            return None
        for message, mistaken in mistakes.items():
            if _agree(given, results(mistaken), tolerance):
                return message
        return _describe(given, wanted, tolerance)

    register(number, checker, praise=praise)


def _no_function(answer: Any) -> str:
    return f"A function is expected, not {type(answer).__name__}: pass its name, without calling it."


def _find(number: str) -> tuple[Checker, str]:
    if number not in _CHECKERS and "." in str(number):
        chapter = str(number).split(".")[0].zfill(2)
        if importlib.util.find_spec(f"{__name__}.chapter_{chapter}"):
            importlib.import_module(f"{__name__}.chapter_{chapter}")
    if number not in _CHECKERS:
        known = ", ".join(sorted(_CHECKERS)) or "none yet"
        raise ValueError(f"number={number!r}: there is no such exercise; known are {known}")
    return _CHECKERS[number]


def _as_tuple(result: Any) -> tuple:
    """One result or several as a tuple; a missing one means that the reader has not answered."""
    parts = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    return tuple(torch.as_tensor(answered(part)).detach() for part in parts)


def _agree(given: list[tuple], wanted: list[tuple], tolerance: float) -> bool:
    return all(
        len(g) == len(w) and all(_close(a, b, tolerance) for a, b in zip(g, w, strict=True))
        for g, w in zip(given, wanted, strict=True)
    )


def _close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    """Equal up to `tolerance` relative to the largest entry of the wanted tensor."""
    if a.shape != b.shape:
        return False
    if not b.isfinite().all():  # "never" is infinite, and only infinity is close to it
        return torch.equal(a.double(), b.double())
    return bool((a.double() - b.double()).abs().max() <= tolerance * b.double().abs().max().clamp_min(1e-300))


def _describe(given: list[tuple], wanted: list[tuple], tolerance: float) -> str:
    """What can be said of a wrong answer that is none of the known mistakes."""
    for g, w in zip(given, wanted, strict=True):
        if len(g) != len(w):
            return f"{len(w)} result(s) expected, {len(g)} returned."
        for place, (a, b) in enumerate(zip(g, w, strict=True), 1):
            which = f"Result {place}" if len(w) > 1 else "The result"
            if a.shape != b.shape:
                return f"{which} has shape {tuple(a.shape)}; {tuple(b.shape)} is expected."
            if not a.double().isfinite().all():
                return f"{which} holds infinities or NaN."
            if _close(-a, b, tolerance):
                return f"{which} has the wrong sign; everything else about it is right."
            if not _close(a, b, tolerance):
                worst = float((a.double() - b.double()).abs().max())
                return f"{which} has the right shape, but is off by up to {worst:.2g}."
    return "The results differ from what is expected."
