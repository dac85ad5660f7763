"""The rule that turns an interval into a verdict."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course import claims
from course.ledger import findings
from course.sphinx_ext import write_claim

CHAPTERS = Path(__file__).parents[2] / "chapters"

AT_LEAST_TWO = {
    "id": "two",
    "says": "it is twice as fast.",
    "by": "notes",
    "where": "page 1",
    "chapter": "04",
    "measure": "ratio of steps",
    "true_if": [2, None],
    "digits": 1,
}


def write(folder, *entries):
    (folder / "claims.yml").write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(2.1, 3, "supported"), (2, 2, "supported"), (1, 1.9, "not supported"), (1.5, 2.5, "mixed")],
)
def test_the_interval_decides(low, high, verdict):
    claim = claims.Claim(**AT_LEAST_TWO)
    assert claim.verdict(low, high) == verdict


def test_nothing_follows_from_nan():
    assert claims.Claim(**AT_LEAST_TWO).verdict(math.nan, math.nan) == "mixed"


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(-5, 5), st.floats(0, 5))
def test_a_wider_interval_never_turns_one_verdict_into_its_opposite(low, width, floor, room):
    claim = claims.Claim(**{**AT_LEAST_TWO, "true_if": (floor, floor + room)})
    narrow, wide = claim.verdict(low, low + width), claim.verdict(low - 1, low + width + 1)
    assert {narrow, wide} != {"supported", "not supported"}


def test_settle_prints_the_verdict_and_stores_the_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, AT_LEAST_TWO)
    stored = []
    monkeypatch.setattr(claims, "display", lambda data, raw: stored.append(data))
    claims.settle("two", 2.49, 2.21, 2.77, seeds=5)
    assert stored[0]["text/plain"] == (
        "Supported: it is twice as fast.\nratio of steps: 2.5, 95 % interval 2.2 to 2.8 over 5 seeds."
    )
    assert stored[0][claims.CLAIM_MIME]["verdict"] == "supported"
    assert stored[0][claims.CLAIM_MIME]["low"] == 2.2


@pytest.mark.parametrize(
    ("numbers", "seeds", "printed"),
    [
        ((2.49, 2.21, 2.77), 5, "95 % interval 2.2 to 2.8 over 5 seeds"),
        ((2.5, 2.499, 2.501), 5, "95 % interval narrower than the last digit over 5 seeds"),
        ((2.77, 2.21, 2.77), 5, "range 2.2 to 2.8 over 5 seeds"),
        ((2.5, 2.5, 2.5), 5, "one number for all 5 seeds, so no interval"),
        ((2.5, 2.5, 2.5), 1, "one value, so no interval over seeds"),
    ],
)
def test_a_verdict_says_on_what_it_rests(tmp_path, monkeypatch, numbers, seeds, printed):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, AT_LEAST_TWO)
    stored = []
    monkeypatch.setattr(claims, "display", lambda data, raw: stored.append(data))
    claims.settle("two", *numbers, seeds=seeds)
    assert stored[0]["text/plain"].endswith(f", {printed}.")
    assert f"</strong>, {printed}.</p>" in write_claim(stored[0][claims.CLAIM_MIME])


def test_the_book_prints_a_minus_sign():
    numbers = {"estimate": -2.5, "low": -2.8, "high": 2.2, "basis": "95 % interval -2.8 to 2.2 over 5 seeds"}
    shown = write_claim({**AT_LEAST_TWO, **numbers, "seeds": 5, "verdict": "not supported"})
    assert "<strong>−2.5</strong>, 95 % interval −2.8 to 2.2 over 5 seeds.</p>" in shown


def test_unknown_claims_and_impossible_intervals_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, AT_LEAST_TWO)
    with pytest.raises(ValueError, match=r"not in claims\.yml; it has two"):
        claims.settle("three", 1, 0, 2, seeds=5)
    with pytest.raises(ValueError, match="outside its interval"):
        claims.settle("two", 3, 0, 2, seeds=5)
    write(tmp_path, AT_LEAST_TWO, AT_LEAST_TWO)
    with pytest.raises(ValueError, match="used twice"):
        claims.load_claims()


def test_every_claim_of_the_book_is_measured_by_the_rule():
    for finding in findings(CHAPTERS):
        assert finding.seeds >= 3 or finding.low == finding.high
