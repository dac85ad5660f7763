"""Numbers in tables and prose: rounded as told, or to what they are worth, with minus signs."""

import math

import numpy as np
import pytest
import torch

from course import Interval, interval, publish, typeset


def between(mean, low, high):
    return Interval(mean, low, high, n=5, kind="t")


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (-3.26, ".1f", "−3.3"),
        (-0.04, ".1f", "0.0"),
        (0.0, "", "0"),
        (41.63, "", "42"),
        (0.08456, "", "0.085"),
        (12345.6, "", "12,346"),
        (-3e-7, "", "−3.0e−07"),
        (193, "", "193"),
        (np.float32(-0.5), "", "−0.50"),
        (np.int64(-7), "", "−7"),
        (torch.tensor(-2.5), ".1f", "−2.5"),
        (True, "", "yes"),
        (np.bool_(False), "", "no"),
        (math.nan, ".1f", "–"),
        (None, "", "–"),
        (-math.inf, ".1f", "−∞"),
        ("-12.5 %", "", "−12.5 %"),
        ("from -3", "", "from -3"),
        ("2026-11-29", "", "2026-11-29"),
        (between(6.91, 5.08, 9.33), "", "6.9 [5.1, 9.3]"),
        (between(12.04, 11.896, 12.184), "", "12.04 [11.90, 12.18]"),
        (between(-1530.0, -1900.0, -1160.0), "", "−1,530 [−1,900, −1,160]"),
        (between(-0.25, -1.0, 0.5), ".2f", "−0.25 [−1.00, 0.50]"),
        (between(2.0, 2.0, 2.0), "", "2.0 [2.0, 2.0]"),
        (between(math.nan, math.nan, math.nan), "", "–"),
    ],
)
def test_typeset(value, spec, text):
    assert typeset(value, spec) == text


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match=r"a number, a text, or an Interval is expected, got list"):
        typeset([1.0])
    with pytest.raises(TypeError, match="give one entry of it"):
        typeset(interval(np.ones((3, 2))))


def test_publish_gives_the_prose_a_number_and_the_parts_of_an_interval(monkeypatch):
    glued = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, text, display: glued.update({name: (text, display)}))
    publish(".1f", gain=between(-6.91, -9.33, -5.08), loss=torch.tensor(0.25))
    publish(spec=400, winner="group norm")  # "spec" is a name like any other
    assert all(display is False for _, display in glued.values())
    assert {name: text for name, (text, _) in glued.items()} == {
        "gain": "−6.9 [−9.3, −5.1]",
        "gain_mean": "−6.9",
        "gain_low": "−9.3",
        "gain_high": "−5.1",
        "loss": "0.2",
        "spec": "400",
        "winner": "group norm",
    }
