"""Claims and their verdicts: the interval decides, by one rule, written down before the run.

`chapters/claims.yml` lists every claim: who makes it and where, what we measure, and the range of that number
for which the claim would be true. An interval inside the range supports the claim, one outside does not, and
one that crosses an edge leaves it undecided. A claim about several settings is mixed when it is true in one
of them and false in another.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import yaml
from IPython.display import display

from bnlab.stats import KINDS, Interval

from .prose import MINUS

CLAIM_MIME = "application/vnd.bnlab.claim+json"
UNITS = {"": ("", ""), "factor": ("×", ""), "%": ("", " %"), "points": ("", " points"), "error": ("", "")}
KIND = ("exact", "measured", "timed")


@dataclass(frozen=True)
class Claim:
    """One claim of `claims.yml`."""

    id: str
    says: str  # the claim, in our words
    by: str  # BibTeX key of the paper, or "notes" for the lecture notes
    where: str  # section, figure, equation
    chapter: str  # file of the chapter that measures it
    measure: str  # the number that decides
    true_if: tuple[
        float | None, float | None
    ]  # range for which the claim would be true; None where it has no edge
    kind: str  # exact: an identity, theorem or count; measured: runs over seeds; timed: seconds of a machine
    unit: str = ""  # one of UNITS
    after_a_look: bool = (
        False  # the claim, its range or its wording was settled after a first look at the numbers
    )

    def __post_init__(self):
        for name, known in (("kind", KIND), ("unit", tuple(UNITS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{self.id}: {name} must be one of {known}, got {getattr(self, name)!r}")
        if len(self.true_if) != 2 or self.true_if == (None, None):
            raise ValueError(
                f"{self.id}: true_if must have two ends, one of them a number; got {self.true_if}"
            )

    @property
    def edges(self) -> list[float]:
        """The ends of the range that are numbers."""
        return [edge for edge in self.true_if if edge is not None]

    def word(self, low: float, high: float) -> str:
        """`supported`, `undecided` or `not supported`, from one interval alone; a NaN decides nothing."""
        floor = -math.inf if self.true_if[0] is None else self.true_if[0]
        ceiling = math.inf if self.true_if[1] is None else self.true_if[1]
        if floor <= low and high <= ceiling:
            return "supported"
        if high < floor or low > ceiling:
            return "not supported"
        return "undecided"

    def is_close(self, low: float, high: float) -> bool:
        """Whether an end of the interval lies within a quarter of its half-width of an edge of the range."""
        low, high, *edges = self.scaled(low, high, *self.edges)
        near = (high - low) / 8
        return near > 0 and any(abs(end - edge) < near for end in (low, high) for edge in edges)

    def scaled(self, *numbers: float) -> list[float]:
        """Numbers on the scale on which their distances count: for factors that of the logarithm."""
        log = self.unit == "factor" and min(numbers) > 0
        return [math.log(number) if log else float(number) for number in numbers]

    def rule(self) -> str:
        """The range in words: "true if at least ×2"."""
        low, high = (None if edge is None else self._edge(edge) for edge in self.true_if)
        if low == high:
            return f"true if exactly {low}"
        if low is None:
            return f"true if at most {high}"
        if high is None:
            return f"true if at least {low}"
        return f"true if between {low} and {high}"

    def _edge(self, edge: float) -> str:
        before, after = UNITS[self.unit]
        shown = (
            f"{edge:,.15g}" if 0.0001 < abs(edge) < 1e6 or edge == 0 else f"{edge:.3g}".replace("e-0", "e-")
        )
        return f"{before}{shown}{after}".replace("-", MINUS)


def verdict(words: list[str]) -> str:
    """One word for a claim about several settings: mixed where it is true in one and false in another."""
    if "supported" in words and "not supported" in words:
        return "mixed"
    return "undecided" if "undecided" in words else words[0]


def number(claim: Claim, estimate: float, low: float, high: float) -> str:
    """The estimate and its interval, in the unit and with as many digits as the interval is worth."""
    before, after = UNITS[claim.unit]
    if claim.unit == "error":
        shown = f"≤ {_rounded_up(estimate)}" if estimate > 0 else "0"
    elif not high > low:
        shown = f"{before}{estimate:.3g}{after}"
    else:
        mean, least, most = _worth(claim.unit, estimate, low, high)
        shown = f"{before}{mean}{after} [{least}, {most}]"
    return shown.replace("-", MINUS)


def _worth(unit: str, *ends: float) -> list[str]:
    """Numbers with the digits that their interval is worth: two, or as many as tell its ends apart."""
    size = max(map(abs, ends))
    if unit == "factor" and (size < 0.01 or size >= 1e6):
        return [f"{end:.0e}".replace("e-0", "e-").replace("e+0", "e") for end in ends]
    if unit == "factor" and max(ends) > 3 * min(ends):  # each end on its own scale
        digits = [1 - math.floor(math.log10(abs(end) or 1)) for end in ends]
    else:
        digits = [1 - math.floor(math.log10(max(ends) - min(ends)))] * len(ends)
    return [f"{round(end, place):z,.{max(place, 0)}f}" for end, place in zip(ends, digits, strict=True)]


def _rounded_up(error: float) -> str:
    """One significant digit, and no smaller than the error: 3e-15."""
    power = math.floor(math.log10(error))
    return f"{math.ceil(error / 10.0**power * (1 - 1e-12)) * 10.0**power:.0e}".replace("e-0", "e-")


def basis(row: dict) -> str:
    """On what an estimate rests, in words."""
    if row["low"] == row["high"] and row["kind"] != "value":
        return f"the same in all {row['n']} seeds"
    return f"{KINDS[row['kind']]}, {'1 seed' if row['n'] == 1 else str(row['n']) + ' seeds'}"


def load_claims(path: str | Path = "claims.yml") -> dict[str, Claim]:
    """The claims of a `claims.yml`, by id. Notebooks run in its folder, so the name alone will do there."""
    claims = {}
    for entry in yaml.safe_load(Path(path).read_text(encoding="utf-8")):
        claim = Claim(**{**entry, "true_if": tuple(entry["true_if"])})
        if claim.id in claims:
            raise ValueError(f"{path}: the id {claim.id!r} is used twice; every claim has its own")
        claims[claim.id] = claim
    return claims


def settle(claim_id: str, found: Interval | Mapping[str, Interval]) -> None:
    """Publish the verdict on a claim, as its rule draws it from the interval over seeds.

    A claim about several settings is given an interval for each, by its name. The numbers are stored beside
    the sentence and the drawing, for the ledger and for the comparison of a later run.
    """
    claims = load_claims()
    if claim_id not in claims:
        raise ValueError(f"claim_id={claim_id!r} is not in claims.yml; it has {', '.join(claims)}")
    result = outcome(claims[claim_id], found)
    display(
        {"text/plain": as_text(result), "text/html": as_html(result), CLAIM_MIME: result},
        raw=True,
    )


def outcome(claim: Claim, found: Interval | Mapping[str, Interval]) -> dict:
    """What is stored of a settled claim: the claim, its settings with their numbers, and the verdict."""
    settings = found if isinstance(found, Mapping) else {"": found}
    rows: list[dict] = []
    for name, part in settings.items():
        if not isinstance(part, Interval):
            raise TypeError(
                f"found: expected an Interval from interval(), ratio() or largest_of(), got {part!r}"
            )
        estimate, low, high = (_significant(end) for end in part)
        if not low <= estimate <= high and estimate == estimate:
            raise ValueError(f"found: {estimate} lies outside its interval [{low}, {high}]")
        seeds = [] if part.values is None or part.kind != "t" or len(part.values) > 5 else list(part.values)
        rows.append(
            {"setting": name, "estimate": estimate, "low": low, "high": high, "n": part.n, "kind": part.kind}
            | {"seeds": [_significant(value) for value in seeds]}
        )
    words = [claim.word(row["low"], row["high"]) for row in rows]
    return {
        "claim": {**vars(claim), "true_if": list(claim.true_if)},
        "settings": [row | {"word": word} for row, word in zip(rows, words, strict=True)],
        "verdict": verdict(words),
        "close_call": any(claim.is_close(row["low"], row["high"]) for row in rows),
    }


def _significant(value: float) -> float:
    """Six significant digits are stored."""
    return float(f"{float(value):.6g}") + 0.0


def claim_of(result: dict) -> Claim:
    """The claim as it was when it was settled."""
    return Claim(**{**result["claim"], "true_if": tuple(result["claim"]["true_if"])})


def flags(result: dict) -> str:
    """What a reader must know beside the verdict: a close call, a range settled after a look."""
    said = ["close call"] * result["close_call"] + ["settled after a look"] * result["claim"]["after_a_look"]
    return ", ".join(said)


def as_text(result: dict) -> str:
    """The verdict as plain text."""
    claim = claim_of(result)
    said = f" ({flags(result)})" if flags(result) else ""
    lines = [f"{result['verdict'].capitalize()}{said}: {claim.says}"]
    for row in result["settings"]:
        name = f"{row['setting']}: " if row["setting"] else ""
        numbers = number(claim, row["estimate"], row["low"], row["high"])
        word = f", {row['word']}" if row["setting"] else ""
        lines.append(f"{name}{numbers} ({basis(row)}){word}")
    lines.append(f"Measured: {claim.measure}; {claim.rule()}.")
    return "\n".join(lines)


def as_html(result: dict) -> str:
    """The verdict as a box with an address of its own: number, rule, and the rule drawn."""
    claim = claim_of(result)
    said = f" <small>({flags(result)})</small>" if flags(result) else ""
    rows = []
    for row in result["settings"]:
        name = f"{escape(row['setting'])}: " if row["setting"] else ""
        word = f", {row['word']}" if row["setting"] else ""
        numbers = number(claim, row["estimate"], row["low"], row["high"])
        rows.append(
            f"<p>{name}<strong>{numbers}</strong> <small>{basis(row)}</small>{word} {bar(claim, row)}</p>"
        )
    return (
        f'<div class="bn-claim" id="claim-{claim.id}"><p><strong>{result["verdict"].capitalize()}</strong>'
        f"{said}: {escape(claim.says)}</p>{''.join(rows)}"
        f"<p><small>{escape(claim.measure)}; {claim.rule()}</small></p></div>"
    )


def bar(claim: Claim, row: dict) -> str:
    """The range of the rule, the interval, and up to five seeds, on one line; its text says the same."""
    points = [row["low"], row["high"], row["estimate"], *row["seeds"]]
    if claim.kind == "exact" or not all(map(math.isfinite, points)):
        return ""
    ends = claim.scaled(*points, *claim.edges)
    margin = 0.15 * (max(ends) - min(ends)) or 1.0
    left, right = min(ends) - margin, max(ends) + margin
    places = [round(200 * (end - left) / (right - left), 1) for end in ends]
    low, high, middle, *seeds = places[: len(points)]
    edges = iter(places[len(points) :])
    floor, ceiling = (
        side if edge is None else next(edges) for edge, side in zip(claim.true_if, (0, 200), strict=True)
    )
    dots = "".join(f'<circle cx="{x}" cy="7" r="2.2"/>' for x in seeds)
    dots = dots or f'<circle cx="{middle}" cy="7" r="3"/>'
    wide = max(ceiling - floor, 1)
    return (
        '<svg class="bn-bar" viewBox="0 0 200 14" width="200" height="14" aria-hidden="true">'
        f'<rect x="{floor}" y="1" width="{wide:.1f}" height="12" fill="#009e73" opacity="0.3"/>'
        f'<g fill="currentColor" stroke="currentColor"><path d="M{low} 7H{high}M{low} 3v8M{high} 3v8"/>'
        f"{dots}</g></svg>"
    )
