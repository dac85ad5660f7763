"""The browser that opens the built book, with the network cut."""

import os
import shutil

import pytest

PATIENCE = 120_000  # milliseconds that a busy machine may need; each wait ends as soon as its state is there
MAC_CHROME = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Some time after a change of size, the theme lets the keyboard reach what scrolls, and nothing else; after a
# change of theme, charts are drawn anew in the colour of the text, and other colours move to their new value.
SETTLED = """([width, theme]) => {
    const scrollers = document.querySelectorAll(
        "pre, .nboutput > .output_area, .cell_output > .output, .jp-RenderedHTMLCommon, "
        + ".pst-scrollable-table-container");
    const scrolls = e => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight;
    const ink = getComputedStyle(document.body).color;
    const inked = chart => [...chart.querySelectorAll("svg .role-axis text")].map(
        text => getComputedStyle(text).fill);
    return innerWidth === width
        && document.documentElement.dataset.theme === theme
        && [...scrollers].every(e => e.tabIndex === (scrolls(e) ? 0 : -1))
        && [...document.querySelectorAll(".bn-vega")].every(
            chart => inked(chart).length && inked(chart).every(color => color === ink))
        && !document.getAnimations().some(a => a instanceof CSSTransition && a.playState === "running");
}"""


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium. Without one the tests are skipped, except where CI asks for them."""
    names = ("chromium", "chromium-browser", "google-chrome", MAC_CHROME)
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        sentence = "no Chromium on this machine: the built book is not tested in a browser"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        yield chromium
        chromium.close()


class Page:
    """One page of the book as a reader sees it, with everything it asked for and complained about."""

    # sphinx-thebe declares a constant twice on every page; the theme's scripts, not ours.
    KNOWN = ("THEBE_JS_URL",)

    def __init__(self, context):
        self.requests, self.files, self.errors = [], set(), []
        context.route("**/*", self._only_files)
        self.tab = context.new_page()
        self.tab.on("console", lambda message: message.type == "error" and self._note(message.text))
        self.tab.on("pageerror", lambda error: self._note(str(error)))
        self.tab.on("requestfailed", lambda request: self._note(f"{request.url} did not load"))

    def _note(self, text):
        if not any(known in text for known in self.KNOWN):
            self.errors.append(text)

    def _only_files(self, route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            self.files.add(route.request.url)
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

    def open(self, path):
        self.tab.goto(path.as_uri())
        self.tab.wait_for_function("!window.MathJax || window.MathJax.startup?.promise")
        self.tab.evaluate("window.MathJax?.startup?.promise")
        self.tab.wait_for_load_state("load")
        return self

    def show(self, width, theme):
        """Turn the open page to another width and theme, and wait until it has settled there."""
        self.tab.set_viewport_size({"width": width, "height": 900})
        self.tab.emulate_media(color_scheme=theme)
        self.tab.wait_for_function(SETTLED, arg=[width, theme])
        return self.tab


def offline_window(browser, width=1280, theme="light"):
    size = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=theme, offline=True)
    context.set_default_timeout(PATIENCE)
    return context


@pytest.fixture
def open_page(browser):
    """A function that opens a file in a fresh, offline browser window of a given size and theme."""
    contexts = []

    def opener(path, width=1280, theme="light"):
        contexts.append(offline_window(browser, width, theme))
        return Page(contexts[-1]).open(path)

    yield opener
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def page(browser, request):
    """The page that the test names, opened once for all tests of the module: opening takes long."""
    context = offline_window(browser)
    yield Page(context).open(request.param)
    context.close()
