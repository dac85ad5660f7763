"""The ledger refuses what was not measured, and shows what was."""

import copy
import json
from pathlib import Path

import pytest

from course import ledger
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
    "digits": 1,
}
RESULT = CLAIM | {
    "estimate": 2.5,
    "low": 2.2,
    "high": 2.8,
    "seeds": 5,
    "basis": "95 % interval 2.2 to 2.8 over 5 seeds",
    "verdict": "supported",
}


@pytest.fixture
def book(tmp_path):
    """Write claims.yml and a chapter with the given settled claims; return the folder."""

    def write(*results, claims=(CLAIM,)):
        outputs = [{"output_type": "display_data", "data": {CLAIM_MIME: r}, "metadata": {}} for r in results]
        cells = [{"cell_type": "code", "outputs": outputs}, {"cell_type": "markdown"}]
        (tmp_path / "01-speed.ipynb").write_text(json.dumps({"cells": cells}))
        (tmp_path / "claims.yml").write_text(json.dumps(claims))
        return tmp_path

    return write


def test_a_finding_carries_the_measured_numbers(book):
    (found,) = ledger.findings(book(RESULT))
    assert (found.verdict, found.numbers, found.seeds) == ("supported", "2.5 [2.2, 2.8]", 5)


def test_a_row_says_on_what_its_number_rests(book, monkeypatch):
    shown = []
    monkeypatch.setattr(ledger, "display", lambda data, raw: shown.append(data["text/html"]))
    ledger.ledger(ledger.findings(book(RESULT)))
    assert "<td>2.5 [2.2, 2.8]<br><small>ratio of steps; 5 seeds</small></td>" in shown[0]
    single = {"low": 2.5, "high": 2.5, "basis": "one number for all 5 seeds, so no interval"}
    ledger.ledger(ledger.findings(book(RESULT | single)))
    assert f"<td>2.5<br><small>ratio of steps; {single['basis']}</small></td>" in shown[1]


def test_a_claim_without_a_measurement_is_refused(book):
    with pytest.raises(ValueError, match="twice: to be settled once in 01-speed, was 0 times"):
        ledger.findings(book())
    with pytest.raises(ValueError, match="was 2 times"):
        ledger.findings(book(RESULT, RESULT))
    folder = book(RESULT)
    (folder / "01-speed.ipynb").unlink()
    with pytest.raises(ValueError, match="was 0 times"):
        ledger.findings(folder)


@pytest.mark.parametrize("change", [{"says": "it is faster."}, {"true_if": [1, None]}, {"digits": 2}])
def test_a_claim_changed_after_its_run_is_refused(book, change):
    with pytest.raises(ValueError, match=f"twice: {next(iter(change))} is .* run the chapter again"):
        ledger.findings(book(RESULT, claims=[CLAIM | change]))


@pytest.mark.parametrize("change", [{"low": 1.9}, {"low": 1, "high": 1.5}, {"verdict": "mixed"}])
def test_a_verdict_that_does_not_follow_is_refused(book, change):
    with pytest.raises(ValueError, match=r"twice: .* makes it"):
        ledger.findings(book(RESULT | change))


def test_the_tables_show_every_finding_once(book, monkeypatch):
    other = copy.deepcopy(RESULT) | {"id": "other", "by": "someone2020", "says": "x < y"}
    claims = [CLAIM, {key: other[key] for key in CLAIM}]
    found = ledger.findings(book(RESULT, other, claims=claims))
    shown = []
    monkeypatch.setattr(ledger, "display", lambda data, raw: shown.append(data["text/html"]))
    ledger.ledger(found)
    for result in (RESULT, other):
        assert shown[0].count(f'href="01-speed.html#claim-{result["id"]}"') == 1
    assert "x &lt; y" in shown[0] and shown[0].count("2.5 [2.2, 2.8]") == 2


def test_the_book_has_a_ledger_worth_the_name():
    found = ledger.findings(CHAPTERS)
    assert len(found) >= 25
    assert sum(finding.verdict != "supported" for finding in found) >= 3


def test_the_ledger_page_shows_what_the_chapters_measured():
    page = (CHAPTERS / "verdicts.ipynb").read_text(encoding="utf-8")
    cells = json.loads(page)["cells"]
    shown = "".join(
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in cells
        for output in cell.get("outputs", [])
    )
    for finding in ledger.findings(CHAPTERS):
        row = shown.split(f'#claim-{finding.claim.id}">')
        assert len(row) == 2, f"{finding.claim.id} is to be shown once; run verdicts.ipynb again"
        assert finding.numbers in row[0].split("<tr>")[-1], f"{finding.claim.id}: run verdicts.ipynb again"
        assert row[1].startswith(f"{finding.verdict}<")
