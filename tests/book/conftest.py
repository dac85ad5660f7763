"""The browser that opens the built book, with the network cut."""

import os
import shutil

import pytest

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


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium. Without one the tests are skipped, except where CI asks for them."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
        self.requests, self.errors = [], []
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


@pytest.fixture
def open_page(browser):
    """A function that opens a file in a fresh, offline browser window of a given size and theme."""
    contexts = []

    def opener(path, width=1280, theme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, offline=True
        )
        contexts.append(context)
        return Page(context).open(path)

    yield opener
    for context in contexts:
        context.close()
