"""When a claim repeats on another machine, and what the comparison of a notebook must catch."""

import json
import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from bnlab.stats import Interval, largest_of
from course import claims, repeats

CLAIM = claims.Claim(
    id="two",
    says="it is twice as fast.",
    by="notes",
    where="page 1",
    chapter="04",
    measure="ratio of steps",
    true_if=(2, None),
    kind="measured",
    unit="factor",
)
STORED = (3.0, 2.5, 3.5)


def result(ends, claim=CLAIM, kind="t"):
    return claims.outcome(claim, Interval(*ends, n=5, kind=kind))


def kind(kind, unit="", true_if=(None, 1e-10)):
    return claims.Claim(**{**vars(CLAIM), "kind": kind, "unit": unit, "true_if": true_if})


@pytest.mark.parametrize(
    ("new", "same"),
    [
        (STORED, True),
        ((3.8, 3.3, 4.3), True),  # up to 3.5 * (3.5 / 2.5) ** 0.25 = 3.807
        ((3.81, 3.3, 4.3), False),
        ((2.3, 2.2, 2.4), True),  # down to 2.5 / (3.5 / 2.5) ** 0.25 = 2.298
        ((2.29, 2.2, 2.4), False),
        ((2.4, 1.9, 2.9), False),  # another word, and the stored one was no close call
    ],
)
def test_a_measured_claim_repeats_inside_the_widened_interval(new, same):
    assert (repeats.differs(result(STORED), result(new)) is None) is same


def test_a_close_call_may_become_its_neighbour_and_no_more():
    stored = result((3.0, 2.1, 3.9))
    assert stored["close_call"] and stored["verdict"] == "supported"
    assert repeats.differs(stored, result((2.8, 1.9, 3.7))) is None  # undecided
    assert "not supported, stored supported" in repeats.differs(stored, result((1.5, 1.2, 1.9)))


def test_exact_claims_have_the_same_digits():
    count = kind("exact", true_if=(4, 4))
    stored = claims.outcome(count, largest_of(4, n=5))
    assert repeats.differs(stored, claims.outcome(count, largest_of(4, n=5))) is None
    rank = kind("exact", true_if=(0, 9))
    stored, other = (claims.outcome(rank, largest_of(value, n=5)) for value in (4, 5))
    assert "same digits" in repeats.differs(stored, other)


def test_the_size_of_a_rounding_error_is_the_processors():
    identity = kind("exact", "error")
    stored, other, wrong = (claims.outcome(identity, largest_of(e, n=5)) for e in (3e-15, 8e-14, 1e-3))
    assert repeats.differs(stored, other) is None
    assert "not supported, stored supported" in repeats.differs(stored, wrong)


def test_of_a_time_only_the_word_repeats():
    timed = kind("timed", "factor", (1, None))
    stored, slower = result((4.5, 4.4, 4.6), timed), result((9.0, 8.0, 10.0), timed)
    assert repeats.differs(stored, slower) is None


def test_a_claim_settled_for_other_settings_or_changed_does_not_repeat():
    stored = claims.outcome(CLAIM, {"a": Interval(*STORED, n=5, kind="t")})
    other = claims.outcome(CLAIM, {"b": Interval(*STORED, n=5, kind="t")})
    assert "settled for ['b'], stored for ['a']" in repeats.differs(stored, other)
    harder = claims.Claim(**{**vars(CLAIM), "true_if": (1.9, None)})
    assert "the claim itself changed" in repeats.differs(result(STORED), result(STORED, harder))


def test_moves_are_counted_in_half_widths():
    plain = kind("measured", "", (2, None))
    stored, new = (result(ends, plain)["settings"][0] for ends in (STORED, (3.25, 2.75, 3.75)))
    assert repeats.half_widths(plain, stored, new) == pytest.approx(0.5)
    stored, new = (result(ends)["settings"][0] for ends in ((10, 1, 100), (100, 10, 1000)))
    assert repeats.half_widths(CLAIM, stored, new) == pytest.approx(1)


NOTEBOOK = """
import pathlib
from bnlab.stats import interval
from course.claims import settle
settle("two", interval([{}]))
print("digits", 4)
"""


EDITS = {
    "outside the widened interval": ("source", "2.5, 3.0, 3.5, 3.0, 3.1", "5.5, 6.0, 6.5, 6.0, 6.1"),
    "the stored verdict is not what its numbers say": ("text/plain", "Supported", "Mixed"),
    "two: the stored verdict is not what": ("text/html", "×3.0", "×3.1"),
    "digits 5": ("text", "digits 4", "digits 5"),
}


def test_a_notebook_repeats_and_every_edit_is_found(tmp_path):
    """One notebook: first a cell that repeats, then one for each kind of edit."""
    entry = {**vars(CLAIM), "true_if": list(CLAIM.true_if)}
    (tmp_path / "claims.yml").write_text(json.dumps([entry]))
    source = NOTEBOOK.format("2.5, 3.0, 3.5, 3.0, 3.1")
    cells = [nbformat.v4.new_code_cell(source) for _ in range(1 + len(EDITS))]
    for cell in cells:
        cell.metadata["tags"] = ["nbval-check-output"]
    made = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(made, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell, (where, old, new) in zip(cells[1:], EDITS.values(), strict=True):
        holders = [cell, *cell.outputs, *(output.get("data", {}) for output in cell.outputs)]
        holder = next(h for h in holders if where in h and old in h[where])
        holder[where] = holder[where].replace(old, new)
    nbformat.write(made, tmp_path / "chapter.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "course.repeats", "-p", "no:cacheprovider"]
    command += ["--nbval-lax", "--nbval-current-env", "--moves", "moves.jsonl", "chapter.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "4 failed, 1 passed" in done.stdout, done.stdout
    reports = re.split(r"_+ chapter\.ipynb::Cell \d _+", done.stdout)[1:]
    assert len(reports) == len(EDITS)
    for said, report in zip(EDITS, reports, strict=True):
        assert said in report, report
    moves = [json.loads(line) for line in (tmp_path / "moves.jsonl").read_text().splitlines()]
    assert [move["repeats"] for move in moves] == [True, False, True, True, True]
    assert moves[0]["half_widths"] == 0
