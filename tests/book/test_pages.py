"""The built book, page by page, as a reader without a network finds it. Needs `make book` first."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"


def table_of_contents():
    """The pages that the table of contents promises, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    found = [toc["root"]]

    def walk(node):
        for part in node.get("parts", []):
            walk(part)
        for chapter in node.get("chapters", []) + node.get("sections", []):
            found.append(chapter["file"])
            walk(chapter)

    walk(toc)
    return found


PAGES = table_of_contents()
every_page = pytest.mark.parametrize("name", PAGES)
browser_test = pytest.mark.browser


def built(name):
    path = SITE / f"{name}.html"
    assert path.exists(), f"{name} is in the table of contents and was not built"
    return path


@browser_test
@every_page
def test_page_opens_with_the_network_cut(open_page, name):
    page = open_page(built(name))
    assert page.requests == []
    assert page.errors == []
    assert page.tab.locator("article h1").count() == 1


@browser_test
@every_page
def test_every_equation_is_typeset(open_page, name):
    tab = open_page(built(name)).tab
    written = tab.locator("article .math").count()
    typeset = tab.locator("article .math mjx-container").count()
    assert typeset >= written
    faulty = tab.locator("mjx-merror, [data-mjx-error]")
    assert [faulty.nth(i).get_attribute("data-mjx-error") for i in range(faulty.count())] == []


@browser_test
@every_page
def test_every_image_says_what_it_shows(open_page, name):
    images = open_page(built(name)).tab.locator("article img, article svg[role=img]")
    for i in range(images.count()):
        image = images.nth(i)
        alt = image.get_attribute("alt") or image.get_attribute("aria-label") or ""
        assert len(alt.split()) >= 5 and alt.rstrip().endswith("."), f"not a sentence: {alt!r}"


@browser_test
@every_page
def test_explorables_answer_to_the_keyboard(open_page, name):
    tab = open_page(built(name)).tab
    explorables = tab.locator("article [data-parameters]")
    for i in range(explorables.count()):
        explorable = explorables.nth(i)
        said = explorable.locator("[aria-live]").first
        before = said.inner_text()
        explorable.locator("input[type=range]").first.focus()
        for _ in range(3):
            tab.keyboard.press("ArrowRight")
        tab.wait_for_timeout(300)
        assert said.inner_text() != before


@browser_test
@every_page
def test_charts_are_drawn(open_page, name):
    tab = open_page(built(name)).tab
    charts = tab.locator(".bn-vega")
    for i in range(charts.count()):
        drawing = charts.nth(i).locator("svg").first
        drawing.wait_for(timeout=5000)
        assert drawing.bounding_box()["width"] > 200
    scripts = tab.evaluate("[...document.scripts].map(s => s.src).filter(s => s.includes('vega'))")
    assert bool(scripts) == bool(charts.count()), "the Vega bundle belongs on pages with charts only"


@browser_test
@pytest.mark.parametrize("theme", ["light", "dark"])
@every_page
def test_no_serious_accessibility_violation(open_page, name, theme):
    tab = open_page(built(name), theme=theme).tab
    found = Axe().run(tab).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in serious] == []


@browser_test
@every_page
def test_a_phone_does_not_scroll_sideways(open_page, name):
    tab = open_page(built(name), width=390).tab
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 390


class Anchors(HTMLParser):
    """The links of a page, and the places in it that a link can name."""

    def __init__(self, path):
        super().__init__()
        self.links, self.places = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.places.add(attributes["id"])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])


@browser_test
@every_page
def test_internal_links_lead_somewhere(name):
    page = built(name)
    for link in Anchors(page).links:
        target = urlsplit(link)
        if target.scheme or target.netloc or link == "#":
            continue
        path = (page.parent / unquote(target.path)).resolve() if target.path else page
        assert path.exists(), f"dead link {link}"
        if target.fragment and path.suffix == ".html":
            assert unquote(target.fragment) in Anchors(path).places, f"dead anchor {link}"


@browser_test
@every_page
def test_every_page_is_described(name):
    text = built(name).read_text(encoding="utf-8")
    (about,) = re.findall(r'<meta name="description" content="([^"]*)">', text)
    assert 60 < len(about) <= 210 and not about.startswith("About ")


@browser_test
def test_every_chapter_is_in_the_table_of_contents():
    chapters = {
        f"chapters/{path.stem}" for path in (ROOT / "chapters").glob("*") if path.suffix in (".ipynb", ".md")
    }
    assert chapters == set(PAGES)


@browser_test
@every_page
def test_pages_load_no_script_from_elsewhere(name):
    text = built(name).read_text(encoding="utf-8")
    assert re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?:https?:)?//[^\"]+\"", text) == []
