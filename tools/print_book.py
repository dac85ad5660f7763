"""Print the built book into one tagged PDF: page after page, everything open, every link inside."""

import re
import shutil
import sys
from pathlib import Path, PurePosixPath

import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
WHOLE = ROOT / "_build" / "print" / "book.html"
PDF = ROOT / "_build" / "batch-normalization-measured.pdf"
NAMES = (
    "id",
    "for",
    "aria-labelledby",
    "aria-describedby",
    "aria-controls",
)  # attributes that name an element
A4_WIDTH, A4_MARGIN = 794, 68  # CSS pixels


def pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(entry["file"] for entry in toc["chapters"])]


def anchor(page: str, place: str = "") -> str:
    """The name that a place of a page has in the whole book, where names of pages must not collide."""
    return f"{PurePosixPath(page).name}--{place}" if place else PurePosixPath(page).name


def chapter_number(page: str) -> str:
    found = re.match(r"\d+", PurePosixPath(page).name)
    return str(int(found[0])) if found else ""


def article(page: str, book: list[str]) -> tuple[str, str]:
    """The title of a page, and what it says, with names and links made those of the whole book."""
    path = SITE / f"{page}.html"
    content = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one("article.bd-article")
    for surplus in content.select("a.headerlink, script[type='text/x-thebe-config'], .thebe-launch-button"):
        surplus.decompose()
    title = content.h1.get_text().strip()
    for element in content.find_all(True):
        for attribute in NAMES:
            if attribute in element.attrs:
                value = element[attribute]
                names = value if isinstance(value, list) else value.split()
                element[attribute] = " ".join(anchor(page, name) for name in names)
        if element.name == "details":
            element["open"] = ""
        if element.name == "a" and "href" in element.attrs:
            element["href"] = inner_link(element["href"], path, page, book)
        if element.name == "img" and not element.get("src", "").startswith("data:"):
            element["src"] = (path.parent / element["src"]).resolve().as_uri()
    for figure, caption in enumerate(content.select("figcaption, .bn-caption"), start=1):
        label = ".".join(filter(None, (chapter_number(page), str(figure))))
        caption.insert(0, BeautifulSoup(f"<strong>Figure {label}.</strong> ", "html.parser"))
    return title, f'<div class="page" id="{anchor(page)}">{content.decode_contents()}</div>'


def inner_link(link: str, path: Path, page: str, book: list[str]) -> str:
    """A link to a page of the book becomes one to its place in the whole."""
    if re.match(r"[a-z]+:", link):
        return link
    target, _, place = link.partition("#")
    if not target:
        return "#" + anchor(page, place)
    found = (path.parent / target).resolve().relative_to(SITE).with_suffix("").as_posix()
    return "#" + anchor(found, place) if found in book else link


def assemble() -> None:
    book = pages()
    head = BeautifulSoup((SITE / f"{book[0]}.html").read_text(encoding="utf-8"), "html.parser").head
    styles = [link["href"].split("?")[0] for link in head.select("link[rel=stylesheet]")]
    root = SITE.as_uri()
    parts = [article(page, book) for page in book]
    contents = "".join(
        f'<li><a href="#{anchor(page)}">{chapter_number(page)} {title}</a></li>'
        for page, (title, _) in zip(book, parts, strict=True)
    )
    WHOLE.parent.mkdir(parents=True, exist_ok=True)
    WHOLE.write_text(
        f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head><meta charset="utf-8"><title>Batch Normalization, Measured</title>
{"".join(f'<link rel="stylesheet" href="{root}/chapters/{style}">' for style in styles)}
<link rel="stylesheet" href="{Path(__file__).with_name("print.css").as_uri()}">
<script>window.MathJax = {{options: {{processHtmlClass: "mathjax_process|math|output_area"}}}}</script>
<script defer src="{root}/_static/mathjax/tex-chtml.js"></script>
<script defer src="{root}/_static/vega/vega.js"></script>
<script defer src="{root}/_static/vega/charts.js"></script>
</head>
<body><main class="bd-article">
<div class="cover">{(ROOT / "assets" / "logo.svg").read_text(encoding="utf-8")}
<p class="title">Batch Normalization, Measured</p>
<p>A course that measures every claim on the way.</p></div>
<div class="page contents"><h2>Contents</h2><ol>{contents}</ol></div>
{"".join(text for _, text in parts)}
</main></body></html>""",
        encoding="utf-8",
    )


def printed(executable: str) -> list[str]:
    """Print the assembled book; returns what sticks out of the paper."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--headless", "--no-sandbox"])
        tab = chromium.new_context(
            offline=True, viewport={"width": A4_WIDTH - 2 * A4_MARGIN, "height": 900}
        ).new_page()
        tab.set_default_timeout(180_000)
        tab.emulate_media(media="print", color_scheme="light")
        tab.goto(WHOLE.as_uri())
        tab.wait_for_function("window.MathJax?.startup?.promise")
        tab.evaluate("MathJax.startup.promise")
        for chart in tab.locator(".bn-vega").all():
            chart.locator("svg").first.wait_for()
        wide = tab.evaluate(
            """() => [...document.querySelectorAll("main *")]
                .filter(e => !e.closest("svg, mjx-assistive-mml") && e.getClientRects().length)
                .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 2)
                .map(e => [e.closest(".page")?.id, e.localName, e.className, e.textContent.slice(0, 60)])
                .map(words => words.join(" "))"""
        )
        tab.pdf(
            path=PDF,
            prefer_css_page_size=True,
            print_background=True,
            tagged=True,
            outline=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template='<p style="width:100%;text-align:center;font-size:8px" class="pageNumber"></p>',
        )
        chromium.close()
    return wide


def main() -> None:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("print_book: no Chromium on this machine; it is what prints")
    assemble()
    wide = printed(executable)
    for line in wide:
        print("sticks out of the paper:", line, file=sys.stderr)
    if wide:
        raise SystemExit(1)
    print("The book:", PDF.as_uri())


if __name__ == "__main__":
    main()
