"""Claims and their verdicts: the interval decides, by one rule, written down before the run.

`chapters/claims.yml` lists every claim: who makes it and where, what we measure, and the range of that number
for which the claim would be true. An interval inside the range supports the claim, one outside does not, and
one that crosses its edge is mixed.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from IPython.display import display

CLAIM_MIME = "application/vnd.bnlab.claim+json"
MINUS = "\N{MINUS SIGN}"  # as pages print it, where Python prints a hyphen


@dataclass(frozen=True)
class Claim:
    """One claim of `claims.yml`."""

    id: str
    says: str  # the claim, in our words
    by: str  # BibTeX key of the paper, or "notes" for the lecture notes
    where: str  # section, figure, equation
    chapter: str  # file of the chapter that measures it
    measure: str  # the number that decides
    true_if: tuple[float | None, float | None]  # range of that number for which the claim would be true
    digits: int  # decimals to which the number repeats on another machine

    def verdict(self, low: float, high: float) -> str:
        """`supported`, `mixed` or `not supported`, from the interval alone; a NaN decides nothing."""
        floor = -float("inf") if self.true_if[0] is None else self.true_if[0]
        ceiling = float("inf") if self.true_if[1] is None else self.true_if[1]
        if floor <= low and high <= ceiling:
            return "supported"
        if high < floor or low > ceiling:
            return "not supported"
        return "mixed"


def load_claims(path: str | Path = "claims.yml") -> dict[str, Claim]:
    """The claims of a `claims.yml`, by id. Notebooks run in its folder, so the name alone will do there."""
    claims = {}
    for entry in yaml.safe_load(Path(path).read_text(encoding="utf-8")):
        claim = Claim(**{**entry, "true_if": tuple(entry["true_if"])})
        if claim.id in claims:
            raise ValueError(f"{path}: the id {claim.id!r} is used twice; every claim has its own")
        claims[claim.id] = claim
    return claims


def basis(estimate: float, low: float, high: float, digits: int, seeds: int) -> str:
    """On what an estimate rests, in words: an interval, a range of which it is an end, or a single number."""
    if seeds == 1:
        return "one value, so no interval over seeds"
    if low == high:
        return f"one number for all {seeds} seeds, so no interval"
    kind = "range" if estimate in (low, high) else "95 % interval"
    ends = f"{low:z.{digits}f}", f"{high:z.{digits}f}"
    extent = "narrower than the last digit" if ends[0] == ends[1] else " to ".join(ends)
    return f"{kind} {extent} over {seeds} seeds"


def settle(claim_id: str, estimate: float, low: float, high: float, *, seeds: int) -> None:
    """Print the verdict on a claim, as its rule draws it from the 95 % interval [low, high] over seeds.

    Where the claim is about the largest or the smallest of the seeds, [low, high] is their range, or only
    that one number. The same numbers, rounded to the claim's digits, are stored beside the sentence, for
    the ledger.
    """
    claims = load_claims()
    if claim_id not in claims:
        raise ValueError(f"claim_id={claim_id!r} is not in claims.yml; it has {', '.join(claims)}")
    claim = claims[claim_id]
    if not low <= estimate <= high and estimate == estimate:
        raise ValueError(f"estimate={estimate} lies outside its interval [{low}, {high}]")
    verdict = claim.verdict(low, high)
    rests_on = basis(estimate, low, high, claim.digits, seeds)
    estimate, low, high = (round(float(number), claim.digits) + 0.0 for number in (estimate, low, high))
    sentence = (
        f"{verdict.capitalize()}: {claim.says}\n{claim.measure}: {estimate:.{claim.digits}f}, {rests_on}."
    )
    result = {
        **asdict(claim),
        "estimate": estimate,
        "low": low,
        "high": high,
        "seeds": seeds,
        "basis": rests_on,
        "verdict": verdict,
    }
    display({"text/plain": sentence, CLAIM_MIME: result}, raw=True)
