"""The built book, page by page, as a reader without a network finds it. Needs `make book` first."""

import csv
import gzip
import re
import threading
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

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


# What axe finds in the theme itself, by rule and element: its logo is outside all landmarks (moderate).
THEMES_OWN = {"region": (".only-light", ".only-dark")}
MAX_WEIGHT = 1_300_000  # bytes, gzipped
SMALLEST_LETTER = 7  # pixels

PAGES = table_of_contents()
every_page = pytest.mark.parametrize("name", PAGES)
# The same page in one tab for all of these tests: they leave it at another width, in another theme.
# With several processes (`--dist loadgroup`), a page stays in one of them.
every_open_page = pytest.mark.parametrize(
    "page",
    [pytest.param(SITE / f"{name}.html", id=name, marks=pytest.mark.xdist_group(name)) for name in PAGES],
    indirect=True,
    scope="module",
)
browser_test = pytest.mark.browser


def built(name):
    path = SITE / f"{name}.html"
    assert path.exists(), f"{name} is in the table of contents and was not built"
    return path


@browser_test
@every_open_page
def test_page_opens_with_the_network_cut(page):
    assert page.requests == []
    assert page.errors == []
    assert page.tab.locator("article h1").count() == 1


@browser_test
@every_open_page
def test_a_page_is_light_with_all_that_it_loads(page):
    files = [Path(unquote(urlsplit(address).path)) for address in page.files if address.startswith("file:")]
    weight = {path.name: len(gzip.compress(path.read_bytes())) for path in files}
    assert sum(weight.values()) < MAX_WEIGHT, sorted(weight.items(), key=lambda part: -part[1])[:5]


@browser_test
@every_open_page
def test_every_icon_is_drawn(page):
    icons = page.tab.locator("svg[data-icon]")
    assert icons.count() > 0
    assert page.tab.locator("svg[data-icon] path").count() >= icons.count()
    assert page.tab.locator("svg[data-icon] .missing, i[class*=fa-]").count() == 0


@browser_test
@every_open_page
def test_every_equation_is_typeset(page):
    written = page.tab.locator("article .math").count()
    typeset = page.tab.locator("article .math mjx-container").count()
    assert typeset >= written
    faulty = page.tab.locator("mjx-merror, [data-mjx-error]")
    assert [faulty.nth(i).get_attribute("data-mjx-error") for i in range(faulty.count())] == []


@browser_test
@every_open_page
def test_every_image_says_what_it_shows(page):
    images = page.tab.locator("article img, article svg[role=img]")
    for i in range(images.count()):
        image = images.nth(i)
        alt = image.get_attribute("alt") or image.get_attribute("aria-label") or ""
        assert len(alt.split()) >= 5 and alt.rstrip().endswith("."), f"not a sentence: {alt!r}"


@browser_test
@every_open_page
def test_charts_are_drawn(page):
    charts = page.tab.locator(".bn-vega")
    for i in range(charts.count()):
        drawing = charts.nth(i).locator("svg").first
        drawing.wait_for()
        assert drawing.bounding_box()["width"] > 200
    scripts = page.tab.evaluate("[...document.scripts].map(s => s.src).filter(s => s.includes('vega'))")
    assert bool(scripts) == bool(charts.count()), "the Vega bundle belongs on pages with charts only"


def violations(tab, everything):
    """What axe finds: on the whole page, or around its article only.

    The width decides what is shown and how it is laid out, the theme decides colours; no rule but that on
    contrast asks for the theme, and the article's colours do not change with the width. So the article is
    looked at once at each width and once in each theme, and what frames it in all four.
    """
    options = {"resultTypes": ["violations"]}
    context = None if everything else {"exclude": [["article"]]}
    return Axe().run(tab, context=context, options=options).response["violations"]


def is_mathematics(tab, node):
    """A header that is nothing but an equation: axe does not read MathML, screen readers do."""
    return tab.locator(node["target"][0]).locator("mjx-assistive-mml").count() > 0


@browser_test
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@every_open_page
def test_no_accessibility_violation(page, width, theme):
    tab = page.show(width, theme)
    found = violations(tab, everything=(width, theme) in {(1280, "light"), (390, "dark")})
    ours = {
        (violation["id"], violation["impact"], node["html"][:200])
        for violation in found
        for node in violation["nodes"]
        if not any(selector in str(node["target"]) for selector in THEMES_OWN.get(violation["id"], ()))
        and not (violation["id"] == "empty-table-header" and is_mathematics(tab, node))
    }
    assert ours == set()


@browser_test
@every_open_page
def test_a_phone_does_not_scroll_sideways(page):
    tab = page.show(390, "light")
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 390


@browser_test
@every_open_page
def test_figures_are_legible_on_a_phone(page):
    tab = page.show(390, "light")
    scales = tab.evaluate(
        """[...document.querySelectorAll('figure.bn-figure img')].map(
            image => image.clientWidth / image.getAttribute('width'))"""
    )
    # The style of the figures writes 10 points.
    assert all(scale * 10 * 96 / 72 >= SMALLEST_LETTER for scale in scales), scales
    letters = tab.evaluate(
        """[...document.querySelectorAll('article svg text')].filter(t => t.textContent.trim()).map(t => {
            const {c, d} = t.getScreenCTM();
            return [parseFloat(getComputedStyle(t).fontSize) * Math.hypot(c, d), t.textContent];
        })"""
    )
    assert [letter for letter in letters if letter[0] < SMALLEST_LETTER] == []


@browser_test
@every_open_page
def test_explorables_answer_to_the_keyboard(page):
    explorables = page.tab.locator("article [data-parameters]")
    for i in range(explorables.count()):
        explorable = explorables.nth(i)
        said = explorable.locator("[aria-live]").first
        before = said.inner_text()
        explorable.locator("input[type=range]").first.focus()
        for _ in range(3):
            page.tab.keyboard.press("ArrowRight")
        page.tab.wait_for_function(
            "([said, before]) => said.innerText !== before", arg=[said.element_handle(), before]
        )


class Anchors(HTMLParser):
    """The links of a page, and the places in it that a link can name."""

    def __init__(self, path):
        super().__init__()
        self.links, self.places, self.twice = [], set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            (self.twice if attributes["id"] in self.places else self.places).add(attributes["id"])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])


@cache
def anchors(path):
    return Anchors(path)


@browser_test
@every_page
def test_internal_links_lead_somewhere(name):
    page = built(name)
    assert anchors(page).twice == set(), "two places of one name: a link finds the first"
    for link in anchors(page).links:
        target = urlsplit(link)
        if target.scheme or target.netloc or link == "#":
            continue
        path = (page.parent / unquote(target.path)).resolve() if target.path else page
        assert path.exists(), f"dead link {link}"
        if target.fragment and path.suffix == ".html":
            assert unquote(target.fragment) in anchors(path).places, f"dead anchor {link}"


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


@browser_test
def test_every_external_link_is_listed_with_the_date_it_was_last_seen():
    linked = {
        link
        for path in SITE.rglob("*.html")
        for link in anchors(path).links
        if link.startswith(("http:", "https:"))
    }
    with (ROOT / "tools" / "external-links.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["link"] for row in rows} == linked, "run `python tools/external_links.py`"
    assert all(re.fullmatch(r"(\d{4}-\d\d-\d\d)?", row["last_seen"]) for row in rows)


class Host(SimpleHTTPRequestHandler):
    """A host of static pages, which answers what it does not have with the page 404.html of the book."""

    def send_error(self, code, *_):
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write((SITE / "404.html").read_bytes())

    def log_message(self, *_):
        pass


@pytest.fixture
def hosted(tmp_path):
    """The address of the book on a host that keeps it below its root."""
    (tmp_path / "book").symlink_to(SITE)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Host, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/book/"
        server.shutdown()


@browser_test
@pytest.mark.parametrize("missing", ["gone.html", "chapters/gone.html", "chapters/a/b/c/gone.html"])
def test_a_missing_page_leads_back_to_the_book(browser, hosted, missing):
    context = browser.new_context()
    tab = context.new_page()
    assert tab.goto(hosted + missing).status == 404
    tab.wait_for_function("document.baseURI !== location.href")
    links = tab.evaluate("[...document.links].map(link => link.href)")
    assert hosted + "chapters/index.html" in links
    for link in links:
        assert tab.request.get(link).status == 200
    context.close()


@browser_test
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_for_missing_pages_is_accessible_and_works_from_a_folder(open_page, theme):
    page = open_page(SITE / "404.html", width=390, theme=theme)
    assert page.requests == [] and page.errors == []
    assert Axe().run(page.tab).response["violations"] == []
    links = [
        Path(unquote(urlsplit(link).path))
        for link in page.tab.evaluate("[...document.links].map(l => l.href)")
    ]
    assert links and all(link.exists() for link in links)


@browser_test
def test_the_search_finds_without_a_server(open_page):
    tab = open_page(SITE / "search.html").tab
    tab.goto(f"{(SITE / 'search.html').as_uri()}?q=hinge")
    tab.locator("#search-results li").first.wait_for()
    found = tab.locator("#search-results li a").evaluate_all(
        "links => links.map(link => link.getAttribute('href'))"
    )
    assert any("07-lipschitz-and-smooth" in link for link in found)


@browser_test
def test_what_an_address_asks_the_search_for_stays_text(open_page):
    tab = open_page(SITE / "search.html").tab
    asked = "hinge <img src=x onerror=document.title='run'>"
    tab.goto(f"{(SITE / 'search.html').as_uri()}?q={quote(asked)}")
    tab.locator("#search-results .search-summary, #search-results > p").first.wait_for()
    assert tab.locator("input[name=q]").first.input_value() == asked  # it was read
    assert tab.locator("img[src=x]").count() == 0 and tab.title() != "run"


@browser_test
@every_open_page
def test_code_can_be_copied_and_asides_folded(page):
    blocks = page.tab.locator("article div.highlight pre")
    assert page.tab.locator("article .copybtn").count() == blocks.count()
    folded = page.tab.locator("article .admonition.dropdown")
    assert folded.count() == page.tab.locator("article .admonition.dropdown .toggle-button").count()
