"""The page on the library lists what the library offers."""

import re
from pathlib import Path

import pytest

from bnlab import measure, norms

PAGE = (Path(__file__).parents[1] / "chapters" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*norms.__all__, *measure.__all__])
def test_every_public_name_is_on_the_page(name):
    assert re.search(rf"auto(class|function|module):: (bnlab\.measure\.)?{name}\b", PAGE), name
