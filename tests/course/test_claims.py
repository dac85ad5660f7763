"""The rule that turns an interval into a verdict, and how a verdict is shown."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnlab.stats import Interval, interval, largest_of
from course import claims

AT_LEAST_TWO = {
    "id": "two",
    "says": "it is twice as fast.",
    "by": "notes",
    "where": "page 1",
    "chapter": "04",
    "measure": "ratio of steps",
    "true_if": [2, None],
    "kind": "measured",
    "unit": "factor",
}
CLAIM = claims.Claim(**{**AT_LEAST_TWO, "true_if": (2, None)})


def write(folder, *entries):
    (folder / "claims.yml").write_text(json.dumps(entries))


def found(mean, low, high, n=5, kind="t", values=None):
    return Interval(mean, low, high, n=n, kind=kind, values=values)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(2.1, 3, "supported"), (2, 2, "supported"), (1, 1.9, "not supported"), (1.5, 2.5, "undecided")],
)
def test_the_interval_decides(low, high, word):
    assert CLAIM.word(low, high) == word


def test_nothing_follows_from_nan():
    assert CLAIM.word(math.nan, math.nan) == "undecided"


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(-5, 5), st.floats(0, 5))
def test_a_wider_interval_never_turns_one_verdict_into_its_opposite(low, width, floor, room):
    claim = claims.Claim(**{**AT_LEAST_TWO, "true_if": (floor, floor + room)})
    narrow, wide = claim.word(low, low + width), claim.word(low - 1, low + width + 1)
    assert {narrow, wide} != {"supported", "not supported"}


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "not supported", "undecided"], "mixed"),
        (["supported", "undecided"], "undecided"),
        (["not supported", "undecided"], "undecided"),
        (["not supported"], "not supported"),
    ],
)
def test_a_claim_about_all_settings_is_mixed_where_they_disagree(words, word):
    assert claims.verdict(words) == word


@pytest.mark.parametrize(
    ("low", "high", "close"),
    [
        (2.2, 4.2, True),  # half-width 1: the edge at 2 is nearer than 0.25
        (2.3, 4.3, False),
        (1.8, 3.8, True),
        (0, 1.9, True),
        (1.5, 3.5, False),
        (2, 2, False),  # no width, no quarter of it
    ],
)
def test_an_interval_that_ends_near_an_edge_is_a_close_call(low, high, close):
    assert claims.Claim(**{**vars(CLAIM), "unit": ""}).is_close(low, high) is close


@pytest.mark.parametrize(
    ("unit", "ends", "shown"),
    [
        ("factor", (6.91, 5.11, 9.34), "×6.9 [5.1, 9.3]"),
        ("factor", (4168, 692, 25119), "×4,200 [690, 25,000]"),
        ("factor", (1.2081, 1.2061, 1.2101), "×1.2081 [1.2061, 1.2101]"),
        ("factor", (3e-18, 1e-18, 9e-18), "×3e−18 [1e−18, 9e−18]"),
        ("%", (10.2, 7.1, 13.9), "10.2 % [7.1, 13.9]"),
        ("points", (-3.6, -4.4, -2.7), "−3.6 points [−4.4, −2.7]"),
        ("", (0.5, 0.5, 0.5), "0.5"),
        ("error", (2.1e-15, 1e-16, 2.1e-15), "≤ 3e−15"),
        ("error", (0.0, 0.0, 0.0), "0"),
    ],
)
def test_numbers_carry_their_unit_and_the_digits_that_the_interval_is_worth(unit, ends, shown):
    claim = claims.Claim(**{**AT_LEAST_TWO, "unit": unit})
    assert claims.number(claim, *ends) == shown


@given(st.floats(1e-20, 1e-1))
def test_an_error_is_never_rounded_down(error):
    shown = claims.number(claims.Claim(**{**AT_LEAST_TWO, "unit": "error"}), error, 0, error)
    assert float(shown.removeprefix("≤ ").replace("−", "-")) >= error * (1 - 1e-9)


@pytest.mark.parametrize(
    ("true_if", "rule"),
    [
        ((2, None), "true if at least ×2"),
        ((None, 2), "true if at most ×2"),
        ((0.5, 2), "true if between ×0.5 and ×2"),
        ((2, 2), "true if exactly ×2"),
        ((1000, None), "true if at least ×1,000"),
        ((None, 1e-10), "true if at most ×1e−10"),
    ],
)
def test_the_range_is_said(true_if, rule):
    assert claims.Claim(**{**AT_LEAST_TWO, "true_if": true_if}).rule() == rule


def test_settle_shows_the_verdict_its_rule_and_the_seeds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, AT_LEAST_TWO | {"after_a_look": True})
    stored = []
    monkeypatch.setattr(claims, "display", lambda data, raw: stored.append(data))
    claims.settle("two", interval([2.5, 3.0, 3.5]))
    (data,) = stored
    # Student's t: 3 -+ 4.303 * 0.5 / sqrt(3)
    assert data["text/plain"] == (
        "Undecided (settled after a look): it is twice as fast.\n"
        "×3.0 [1.8, 4.2] (95 % interval, 3 seeds)\nMeasured: ratio of steps; true if at least ×2."
    )
    result = data[claims.CLAIM_MIME]
    assert result["settings"][0]["seeds"] == [2.5, 3.0, 3.5] and result["settings"][0]["n"] == 3
    assert data["text/html"].count("<circle") == 3 and "true if at least ×2" in data["text/html"]
    assert 'id="claim-two"' in data["text/html"]


def test_the_bar_is_drawn_to_scale():
    drawn = claims.bar(
        claims.Claim(**{**AT_LEAST_TWO, "unit": "", "true_if": (2, 3)}),
        {"low": 1, "high": 2.5, "estimate": 2, "seeds": []},
    )
    left, right = map(float, re.search(r'<path d="M([\d.]+) 7H([\d.]+)', drawn).groups())
    x, width = map(float, re.search(r'<rect x="([\d.]+)".*? width="([\d.]+)"', drawn).groups())
    unit = (right - left) / 1.5
    assert x - left == pytest.approx(unit, abs=0.3) and width == pytest.approx(unit, abs=0.3)


def test_each_setting_has_its_own_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, AT_LEAST_TWO)
    stored = []
    monkeypatch.setattr(claims, "display", lambda data, raw: stored.append(data))
    claims.settle("two", {"slow": found(3, 2.5, 3.5), "fast": found(1.2, 1, 1.5)})
    assert stored[0]["text/plain"].splitlines()[:3] == [
        "Mixed: it is twice as fast.",
        "slow: ×3.0 [2.5, 3.5] (95 % interval, 5 seeds), supported",
        "fast: ×1.20 [1.00, 1.50] (95 % interval, 5 seeds), not supported",
    ]


def test_what_it_rests_on_is_said():
    rows = [claims.outcome(CLAIM, found)["settings"][0] for found in (largest_of([1, 2]), largest_of(3))]
    assert [claims.basis(row) for row in rows] == ["range, 2 seeds", "one number, 1 seed"]
    (row,) = claims.outcome(CLAIM, interval([3.0, 3.0, 3.0]))["settings"]
    assert claims.basis(row) == "the same in all 3 seeds"


def test_edges_of_factors_are_near_on_a_logarithmic_scale():
    claim = claims.Claim(**{**AT_LEAST_TWO, "true_if": (None, 1)})
    assert not claim.is_close(600, 36_000) and claim.is_close(1.1, 36_000)
    assert not claims.Claim(**{**vars(claim), "unit": ""}).is_close(30_000, 36_000)


def test_unknown_claims_and_impossible_intervals_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, AT_LEAST_TWO)
    with pytest.raises(ValueError, match=r"not in claims\.yml; it has two"):
        claims.settle("three", found(1, 0, 2))
    with pytest.raises(ValueError, match="outside its interval"):
        claims.settle("two", found(3, 0, 2))
    with pytest.raises(TypeError, match="expected an Interval from"):
        claims.settle("two", 3.0)
    write(tmp_path, AT_LEAST_TWO, AT_LEAST_TWO)
    with pytest.raises(ValueError, match="used twice"):
        claims.load_claims()
    for field, value in (("kind", "certain"), ("unit", "miles"), ("true_if", [None, None])):
        write(tmp_path, AT_LEAST_TWO | {field: value})
        with pytest.raises(ValueError, match=f"two: {field} must"):
            claims.load_claims()
