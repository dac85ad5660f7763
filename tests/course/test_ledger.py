"""The ledger refuses what was not measured, and shows what was."""

import json
from pathlib import Path

import pytest

from bnlab.stats import Interval
from course import claims, ledger
from course.claims import CLAIM_MIME

CHAPTERS = Path(__file__).parents[2] / "chapters"

CLAIM = {
    "id": "twice",
    "says": "it is twice as fast.",
    "by": "notes",
    "where": "page 1",
    "chapter": "01-speed",
    "measure": "ratio of steps",
    "true_if": [2, None],
    "kind": "measured",
    "unit": "factor",
    "after_a_look": False,
}


def settled(**changes):
    """What `settle` leaves in a notebook."""
    claim = claims.Claim(**{**CLAIM, **changes, "true_if": (2, None)})
    result = claims.outcome(claim, Interval(2.5, 2.2, 2.8, n=5, kind="t"))
    return {CLAIM_MIME: result, "text/plain": claims.as_text(result), "text/html": claims.as_html(result)}


@pytest.fixture
def book(tmp_path):
    """Write claims.yml and a chapter with the given settled claims; return the folder."""

    def write(*outputs, claims=(CLAIM,)):
        stored = [{"output_type": "display_data", "data": data, "metadata": {}} for data in outputs]
        cells = [{"cell_type": "code", "outputs": stored}, {"cell_type": "markdown"}]
        (tmp_path / "01-speed.ipynb").write_text(json.dumps({"cells": cells}))
        (tmp_path / "claims.yml").write_text(json.dumps(claims))
        return tmp_path

    return write


def test_a_finding_carries_the_measured_numbers(book):
    (found,) = ledger.findings(book(settled()))
    assert found["verdict"] == "supported"
    assert [found["settings"][0][key] for key in ("estimate", "low", "high", "n")] == [2.5, 2.2, 2.8, 5]


def test_a_row_shows_the_number_its_rule_and_the_flags(book, monkeypatch):
    shown = []
    monkeypatch.setattr(ledger, "display", lambda data, raw: shown.append(data["text/html"]))
    looked = {**CLAIM, "after_a_look": True}
    ledger.ledger(ledger.findings(book(settled(after_a_look=True), claims=[looked])))
    assert "×2.50 [2.20, 2.80]" in shown[0] and "95 % interval, 5 seeds" in shown[0]
    assert "ratio of steps; true if at least ×2" in shown[0]
    assert "settled after a look" in shown[0] and '<svg class="bn-bar"' in shown[0]


def test_a_claim_without_a_measurement_is_refused(book):
    with pytest.raises(ValueError, match="twice: to be settled once in 01-speed, was 0 times"):
        ledger.findings(book())
    with pytest.raises(ValueError, match="was 2 times"):
        ledger.findings(book(settled(), settled()))
    folder = book(settled())
    (folder / "01-speed.ipynb").unlink()
    with pytest.raises(ValueError, match="was 0 times"):
        ledger.findings(folder)


@pytest.mark.parametrize("change", [{"says": "it is faster."}, {"true_if": [1, None]}, {"unit": "points"}])
def test_a_claim_changed_after_its_run_is_refused(book, change):
    with pytest.raises(ValueError, match=f"twice: {next(iter(change))} in .* run the chapter again"):
        ledger.findings(book(settled(), claims=[CLAIM | change]))


@pytest.mark.parametrize(
    "change", [{"low": 1.9}, {"low": 1.0, "estimate": 1.2, "high": 1.5}, {"word": "mixed"}]
)
def test_a_verdict_that_does_not_follow_is_refused(book, change):
    stored = settled()
    stored[CLAIM_MIME]["settings"][0].update(change)
    with pytest.raises(ValueError, match="twice: the stored verdict is not what its numbers say"):
        ledger.findings(book(stored))


def test_the_tables_show_every_finding_once(book, monkeypatch):
    other = {"id": "other", "by": "someone2020", "says": "x < y"}
    found = ledger.findings(book(settled(), settled(**other), claims=[CLAIM, CLAIM | other]))
    shown = []
    monkeypatch.setattr(ledger, "display", lambda data, raw: shown.append(data["text/html"]))
    ledger.ledger(found)
    for name in ("twice", "other"):
        assert shown[0].count(f'href="01-speed.html#claim-{name}"') == 1
    assert "x &lt; y" in shown[0]


def test_the_count_says_how_many_intervals_may_miss(book, monkeypatch):
    shown = []
    monkeypatch.setattr(ledger, "table", lambda *table, caption: shown.append(caption))
    ledger.count(ledger.findings(book(settled())) * 40)
    assert "rest on 40 intervals at 95 %, of which about 2 are" in shown[0]


def test_a_list_without_claims_says_so(monkeypatch):
    shown = []
    monkeypatch.setattr(ledger, "display", lambda data, raw: shown.append(data["text/html"]))
    ledger.ledger([])
    assert shown == ["<p>None at the moment.</p>"]


def test_the_book_has_a_ledger_worth_the_name():
    found = ledger.findings(CHAPTERS)
    assert len(found) >= 150
    verdicts = {result["verdict"] for result in found}
    assert {"supported", "undecided", "not supported"} <= verdicts <= set(ledger.VERDICTS)
    for result in found:
        assert all(row["n"] >= 3 or row["low"] == row["high"] for row in result["settings"])


def test_the_ledger_page_shows_what_the_chapters_measured():
    page = (CHAPTERS / "verdicts.ipynb").read_text(encoding="utf-8")
    cells = json.loads(page)["cells"]
    shown = "".join(
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in cells
        for output in cell.get("outputs", [])
    )
    for result in ledger.findings(CHAPTERS):
        claim = claims.claim_of(result)
        row = shown.split(f'#claim-{claim.id}">')
        assert len(row) == 2, f"{claim.id} is to be shown once; run verdicts.ipynb again"
        assert row[1].startswith(f"{result['verdict']}<"), f"{claim.id}: run verdicts.ipynb again"
        mine = row[0].split("<tr>")[-1]
        assert claim.rule() in mine, claim.id
        for part in result["settings"]:
            assert claims.number(claim, *(part[k] for k in ("estimate", "low", "high"))) in mine, claim.id


def test_no_number_of_the_ledger_is_empty_or_impossible():
    for result in ledger.findings(CHAPTERS):
        text = claims.as_text(result)
        assert "0.00000" not in text and "nan" not in text, text
        claim = claims.claim_of(result)
        for part in result["settings"]:
            ends = part["low"], part["high"]
            if claim.unit == "%":
                assert (min(ends) >= 0 and max(ends) <= 100) or claim.id == "fixed-output-distribution", text
            if claim.unit == "factor":
                assert min(ends) > 0, text
            if claim.unit == "points":
                assert min(ends) >= -100 and max(ends) <= 100, text
