"""Numbers as a reader sees them: as many digits as they are worth, minus signs, and into the prose."""

import math
import re
from collections.abc import Sequence
from typing import Any

from bnlab.stats import Interval

MINUS = "\N{MINUS SIGN}"  # as pages print it, where Python prints a hyphen
_NUMERIC = re.compile(r"(?:[-\d\s.,;:%±×·<>≤≥≈()\[\]/+−∞–]|(?<=\d)e(?=[-+]?\d)|to|inf|nan)*")
_SIGN = re.compile(r"(?<![\w.)\]])-(?=[\d.∞i])|(?<=\de)-(?=\d)")


def typeset(value: Any, spec: str = "") -> str:
    """A number or an interval as text: rounded by the format `spec`, with minus signs instead of hyphens.

    Without `spec` a float has two significant digits; the three numbers of an interval have as many digits
    as its width is worth, two. None and NaN are a dash, True and False yes and no. A string stays, with minus
    signs if it is numeric.

    Raises TypeError for what is none of these, and for an interval of arrays.

    >>> typeset(-0.1234), typeset(Interval(6.91, 5.08, 9.33, n=5, kind="t")), typeset(-3.26, ".1f")
    ('−0.12', '6.9 [5.1, 9.3]', '−3.3')
    >>> typeset("-3 to 4"), typeset("ResNet-18")
    ('−3 to 4', 'ResNet-18')
    """
    if isinstance(value, Interval):
        return typeset_interval(value, spec)
    if getattr(value, "ndim", None) == 0:
        value = value.item()  # a number of NumPy or torch
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return _number(value, spec)
    if not isinstance(value, str):
        raise TypeError(f"value: a number, a text, or an Interval is expected, got {type(value).__name__}")
    return _SIGN.sub(MINUS, value) if _NUMERIC.fullmatch(value) else value


def typeset_interval(ends: Sequence[float], spec: str = "") -> str:
    """An interval as text, from its mean, low and high end; a dash if there is no mean.

    >>> typeset_interval([0.5, -0.25, 1.25])
    '0.5 [−0.2, 1.2]'
    """
    mean, low, high = _ends(ends, spec)
    return mean if mean == "–" else f"{mean} [{low}, {high}]"


def publish(spec: str = "", /, **values: float | str | Interval) -> None:
    """Make numbers known to the prose, where {glue:text}`NAME` prints them as `typeset` writes them.

    An interval is published four times: whole as NAME, and its numbers as NAME_mean, NAME_low and NAME_high.

    >>> publish(".1f", gain=interval([2.0, 3.0, 4.0]), steps=400)  # doctest: +SKIP
    """
    from myst_nb import glue  # here, as only the book needs it

    for name, value in values.items():
        glue(name, typeset(value, spec), display=False)
        if isinstance(value, Interval):
            for end, text in zip(("mean", "low", "high"), _ends(value, spec), strict=True):
                glue(f"{name}_{end}", text, display=False)


def _ends(ends: Sequence[float], spec: str) -> list[str]:
    """Mean, low and high as text; without `spec`, with the digits that tell the ends apart by two."""
    if getattr(ends[0], "ndim", 0):
        raise TypeError(f"value: {ends!r} holds several; give one entry of it, value.at(i)")
    width = ends[2] - ends[1]
    if not spec and 0 < width < math.inf:
        spec = f",.{max(1 - math.floor(math.log10(width)), 0)}f"
    return [_number(end, spec) for end in ends]


def _number(value: float | None, spec: str) -> str:
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{value:{spec}}" if spec or isinstance(value, int) else f"{value:{_two_digits(value)}}"
    return _SIGN.sub(MINUS, re.sub(r"^-(?=[0.]*%?$)", "", text))


def _two_digits(value: float) -> str:
    """The format of two significant digits."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return ".1e"
    return f",.{max(1 - math.floor(math.log10(abs(value))), 0) if value else 0}f"
