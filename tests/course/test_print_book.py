"""The whole book as one page, from which `make pdf` prints. Needs `make book` first."""

from collections import Counter
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("print")]  # one process assembles it, once


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        import print_book

        patch.setattr(print_book, "WHOLE", tmp_path_factory.mktemp("print") / "book.html")
        print_book.assemble()
        return BeautifulSoup(print_book.WHOLE.read_text(encoding="utf-8"), "html.parser")


def test_every_page_is_in_it_once(whole):
    promised = [
        line.split(":")[1].strip() for line in (ROOT / "_toc.yml").read_text().splitlines() if "/" in line
    ]
    assert [f"chapters/{page['id']}" for page in whole.select(".page[id]")] == promised


def test_names_are_unique_and_links_lead_to_them(whole):
    names = Counter(element["id"] for element in whole.find_all(id=True))
    assert [name for name, times in names.items() if times > 1] == []
    links = [link["href"] for link in whole.find_all("a", href=True)]
    assert [link for link in links if link.startswith("#") and link[1:] not in names] == []
    assert [link for link in links if not link.startswith(("#", "http:", "https:", "mailto:"))] == []


def test_everything_is_open_and_figures_are_numbered(whole):
    assert all("open" in part.attrs for part in whole.find_all("details"))
    labels = [caption.strong.get_text() for caption in whole.select("figcaption, .bn-caption")]
    assert len(labels) == len(set(labels)) and all(label.startswith("Figure ") for label in labels)
