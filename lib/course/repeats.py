"""The rule by which a claim repeats on another machine, and the pytest plugin that applies it to notebooks.

Training is chaotic: another order of sums on another processor is another run. So numbers of runs are not
compared by their digits.

- An *exact* claim (identity, theorem, count) repeats when its verdict does and its digits are the same. The
  size of a rounding error is the processor's; that it stays inside the range is the claim.
- A *measured* claim repeats when its verdict does, and each new estimate lies inside the stored interval
  widened by a quarter of its width on each side (factors on a logarithmic scale). Half a percent of the
  estimate is always allowed.
- A *timed* claim repeats when its verdict does.
- A stored *close call*, and a setting of one, may move to the neighbouring word (supported, undecided, not
  supported), never across.

Everything else that a compared cell printed has to be the same, and a stored verdict has to be what its own
numbers say. `pytest -p course.repeats --nbval-lax chapters` compares; `--moves FILE` also writes down by how
much each estimate moved.
"""

import json
from pathlib import Path

import pytest

from bnlab.stats import Interval

from .claims import CLAIM_MIME, Claim, as_html, as_text, claim_of, number, outcome

ORDER = ("supported", "undecided", "not supported")


def differs(stored: dict, new: dict) -> str | None:
    """Why a claim did not repeat, in one sentence; None if it did."""
    claim = claim_of(stored)
    if stored["claim"] != new["claim"]:
        return f"{claim.id}: the claim itself changed since it was settled; run the notebook and save it"
    names = [[row["setting"] for row in result["settings"]] for result in (stored, new)]
    if names[0] != names[1]:
        return f"{claim.id}: settled for {names[1]}, stored for {names[0]}"
    for old, now in zip(stored["settings"], new["settings"], strict=True):
        if not _same_word(old["word"], now["word"], claim.is_close(old["low"], old["high"])):
            numbers = f"{_shown(claim, now)}, stored {_shown(claim, old)}"
            return f"{claim.id}: {now['word']}, stored {old['word']} ({numbers})"
        if claim.kind == "exact" and claim.unit != "error" and _shown(claim, old) != _shown(claim, now):
            numbers = f"{_shown(claim, now)}, stored {_shown(claim, old)}"
            return f"{claim.id}: {numbers}; an exact claim has the same digits"
        if claim.kind == "measured" and not _inside(claim, old, now["estimate"]):
            return (
                f"{claim.id}: {now['estimate']:.4g} is outside the widened interval of {_shown(claim, old)}"
            )
    if stored["verdict"] != new["verdict"] and not stored["close_call"]:
        return f"{claim.id}: {new['verdict']}, stored {stored['verdict']}"
    return None


def edited(stored: dict, text: str, html: str) -> str | None:
    """Why a stored verdict is not what its own numbers say; None if it is."""
    claim = claim_of(stored)
    found = {
        row["setting"]: Interval(
            *(row[end] for end in ("estimate", "low", "high")),
            n=row["n"],
            kind=row["kind"],
            values=row["seeds"],
        )
        for row in stored["settings"]
    }
    if outcome(claim, found) != stored or (as_text(stored), as_html(stored)) != (text, html):
        return f"{claim.id}: the stored verdict is not what its numbers say; run the notebook and save it"
    return None


def half_widths(claim: Claim, old: dict, now: dict) -> float:
    """By how many half-widths of the stored interval an estimate moved."""
    low, high, before, after = claim.scaled(old["low"], old["high"], old["estimate"], now["estimate"])
    moved = abs(after - before)
    return 2 * moved / (high - low) if high > low else (0.0 if moved == 0 else float("inf"))


def _same_word(old: str, new: str, close: bool) -> bool:
    return old == new or (close and abs(ORDER.index(old) - ORDER.index(new)) == 1)


def _inside(claim: Claim, old: dict, estimate: float) -> bool:
    if abs(estimate - old["estimate"]) <= 0.005 * abs(old["estimate"]):
        return True
    low, high, now = claim.scaled(old["low"], old["high"], estimate)
    room = (high - low) / 4
    return low - room <= now <= high + room


def _shown(claim: Claim, row: dict) -> str:
    return number(claim, row["estimate"], row["low"], row["high"])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--moves", type=Path, help="write by how much each claim's estimate moved, a JSON line each"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take settled claims out of nbval's comparison of a cell and compare them by the rule."""
    from nbval.plugin import IPyNbCell

    def compare_outputs(cell, test, ref, skip_compare=None):
        stored, new = (_claims(outputs) for outputs in (ref, test))
        problems = [edited(*stored[name]) for name in stored]
        if stored.keys() != new.keys():
            problems.append(
                f"settled: {', '.join(new) or 'nothing'}; stored: {', '.join(stored) or 'nothing'}"
            )
        else:
            problems += [differs(stored[name][0], new[name][0]) for name in stored]
            _note(config.option.moves, cell, stored, new)
        problems = [problem for problem in problems if problem]
        rest = [[output for output in outputs if not _is_claim(output)] for outputs in (test, ref)]
        same = IPyNbCell._by_digits(cell, *rest, skip_compare)
        cell.comparison_traceback += [f"\n{problem}" for problem in problems]
        return same and not problems

    IPyNbCell._by_digits = IPyNbCell.compare_outputs
    IPyNbCell.compare_outputs = compare_outputs


def _is_claim(output: dict) -> bool:
    return CLAIM_MIME in output.get("data", {})


def _claims(outputs: list) -> dict[str, tuple[dict, str, str]]:
    found = [output["data"] for output in outputs if _is_claim(output)]
    return {
        data[CLAIM_MIME]["claim"]["id"]: (data[CLAIM_MIME], data["text/plain"], data["text/html"])
        for data in found
    }


def _note(path: Path | None, cell, stored: dict, new: dict) -> None:
    if path is None:
        return
    with open(path, "a", encoding="utf-8") as file:
        for name, (old, *_) in stored.items():
            now = new[name][0]
            pairs = zip(old["settings"], now["settings"], strict=True)
            moves = [half_widths(claim_of(old), *pair) for pair in pairs]
            line = {"notebook": Path(str(cell.fspath)).stem, "claim": name, "kind": old["claim"]["kind"]}
            line |= {"stored": old["verdict"], "now": now["verdict"], "close_call": old["close_call"]}
            line |= {"half_widths": max(moves), "repeats": differs(old, now) is None}
            file.write(json.dumps(line) + "\n")
