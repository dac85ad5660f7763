"""Sphinx extension of the book: every page works with the network cut.

It brings MathJax and Vega into the build from installed packages, loads each only on the pages that use
it, writes Altair charts as labelled figures, and drops scripts that would ask another host and icons that
nothing draws.
"""

import html
import json
import os
import re
import shutil
from importlib.metadata import files
from pathlib import Path
from urllib.parse import urlsplit

import vl_convert
from docutils import nodes
from myst_nb.core.render import MimeData, MimeRenderPlugin, NbElementRenderer
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError
from sphinx.util.docutils import SphinxRole

from .figures import VEGA_MIME
from .prose import MINUS

VEGA_MARK = "bn-vega"
# A figure wider than this (CSS pixels) that shrank to the 342 of a phone would have letters under 7 pixels.
PHONE_LEGIBLE = 650
# "name":[width,height,["other name"],"code point","path"], as the theme's script of icons has them
ICON = re.compile(
    r'(?<=[{,])("[a-z0-9-]+"|[a-z0-9]+):\[\d+,\d+,(\[[^\]]*\]),"[^"]*",(?:"[^"]*"|\[[^\]]*\])\],?'
)
WIDE_FIGURE = re.compile(r'<figure class="bn-figure">(?P<opening><img [^>]*?)width="(?P<width>\d+)"')
VERBATIM = re.compile(r"(<(?:pre|script)\b.*?</(?:pre|script)>)", re.DOTALL)
# What a line must not tear apart: a formula and the comma behind it, a number of a table, 95 and its %.
FORMULA = re.compile(
    r'[(\[“]?<span class="math notranslate nohighlight">[^<]*</span>(?:[,.;:?!)\]”…]+|-\w+)?'
)
NUMBER_CELL = re.compile(
    r'(?<=<td style="text-align: right">)([-+−]?[\d.][^<[]{0,20}?)(?: (\[[^<]{1,24}\]))?(?=</td>)'
)
PERCENT = re.compile(r"(?<=\d)((?:</\w+>)*) %")
SEARCH_SCRIPT = re.compile(
    r'<script src="[^"]*\b(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\s*'
)
# The hosts for which the theme can write links to the source. A group of GitLab may hold groups.
REPOSITORY = re.compile(r"https://[\w.:-]*(?:github[\w.:-]*(?:/[\w.-]+){2}|gitlab[\w.:-]*(?:/[\w.-]+){2,})")
SOCIAL_ALT = (
    "Loss along the gradient while a network trains: a wide band without batch normalization, "
    "a narrow and lower one with it."
)
MATHJAX_PARTS = ("/tex-chtml.js", ".woff")  # the TeX input, the HTML output, and its fonts


class VegaRenderer(MimeRenderPlugin):
    """Write what only the book shows: a stored Vega-Lite chart."""

    mime_priority_overrides = (("html", VEGA_MIME, 1),)

    @staticmethod
    def handle_mime(renderer: NbElementRenderer, data: MimeData, inline: bool) -> list[nodes.Element] | None:
        if inline or data.mime_type != VEGA_MIME:
            return None
        return [nodes.raw(text=write_chart(data.content), format="html")]


def write_chart(spec: dict) -> str:
    """A labelled figure that the page itself draws."""
    label = html.escape(spec.get("description", ""), quote=True)
    stored = json.dumps(spec).replace("</", "<\\/")
    return (
        f'<div class="{VEGA_MARK}" role="group" aria-label="{label}">'
        f'<script type="application/json">{stored}</script></div>'
    )


class MeasuredRole(SphinxRole):
    """{measured}`03-batch-normalization my-key`: a number that another chapter measured and glued."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        chapter, key = self.text.split()
        path = Path(self.env.srcdir) / "chapters" / f"{chapter}.ipynb"
        self.env.note_dependency(str(path))
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if output.get("metadata", {}).get("scrapbook", {}).get("name") == key:
                    data = output["data"]
                    mime = next(mime for mime in data if mime.endswith("text/plain"))
                    number = re.sub(r"^-(?=\d)", MINUS, "".join(data[mime]).strip("'\""))
                    return [nodes.inline(text=number)], []
        message = self.inliner.reporter.warning(f"{chapter} glues no {key!r}", line=self.lineno)
        return [], [message]


def add_vendor_folder(app: Sphinx, config: Config) -> None:
    """Copy MathJax and Vega out of their packages to where Sphinx collects static files.

    Connected late: Jupyter Book puts every script of the static folders that it sees on every page.
    """
    vendor = Path(app.outdir).parent / "vendor"
    shutil.rmtree(vendor, ignore_errors=True)
    for part in files("sphinx-mathjax-offline") or ():
        name = part.as_posix()
        if name.endswith(MATHJAX_PARTS):
            target = vendor / name[name.index("mathjax/") :].removeprefix("mathjax-offline/static/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part.locate(), target)
    (vendor / "vega").mkdir()
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed; window.vega = vega;")
    # Wrapped: the bundle's top-level names collide with those of Sphinx's own scripts.
    (vendor / "vega" / "vega.js").write_text(f"(function(){{{bundle}}})();", encoding="utf-8")
    shutil.copyfile(Path(__file__).parent / "explorables" / "charts.js", vendor / "vega" / "charts.js")
    config.html_static_path.append(os.path.relpath(vendor, app.confdir))


def repository() -> str:
    """The address in BOOK_REPOSITORY, in the one form that the links need; nothing without one."""
    return os.environ.get("BOOK_REPOSITORY", "").strip().rstrip("/").removesuffix(".git")


def public_address() -> str:
    """Where GitHub publishes the book, from BOOK_REPOSITORY; nothing for a repository elsewhere."""
    address = urlsplit(repository())
    owner, _, name = address.path.strip("/").partition("/")
    if address.netloc != "github.com" or not name:
        return ""
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def offer_repository(app: Sphinx, config: Config) -> None:
    """With the address of the repository in BOOK_REPOSITORY: buttons for the source, Binder and Colab.

    Colab's appears only when the notebooks can fetch what they need there.
    """
    address = repository()
    if not address:
        return
    if not REPOSITORY.fullmatch(address):
        raise ConfigError(
            "BOOK_REPOSITORY must be the https address of a repository on GitHub or GitLab, such as "
            f"https://github.com/OWNER/NAME, got {os.environ['BOOK_REPOSITORY']!r}"
        )
    buttons = {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}
    fetch = f" {address} book"  # in the cell that tools/colab_cell.py writes
    if all(fetch in path.read_text(encoding="utf-8") for path in Path(app.srcdir).glob("chapters/*.ipynb")):
        buttons["colab_url"] = "https://colab.research.google.com"
    config.html_theme_options |= {
        "repository_url": address,
        "repository_branch": "main",
        "use_repository_button": True,
        "use_issues_button": True,
        "use_source_button": True,
        "launch_buttons": buttons,
    }


def description(doctree: nodes.document) -> str:
    """The first paragraph of running text, for search engines: at most 200 characters, whole words."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) > 60 and not isinstance(paragraph.children[0], nodes.emphasis):  # "About 70 minutes"
            return text if len(text) <= 200 else text[:200].rsplit(" ", 1)[0] + " ..."
    return ""


def keep_legible(figure: re.Match) -> str:
    """A wide figure says how wide it is: a phone scrolls it inside its box instead of shrinking it."""
    opening, width = figure["opening"], int(figure["width"])
    if width <= PHONE_LEGIBLE:
        return figure[0]
    return f'<figure class="bn-figure bn-wide" style="--width: {width}px">{opening}width="{width}"'


def keep_together(body: str) -> str:
    """The text of a page without line breaks where they hurt; code and scripts stay as they are."""
    parts = VERBATIM.split(body)
    for i in range(0, len(parts), 2):
        text = FORMULA.sub(r'<span class="bn-nowrap">\g<0></span>', parts[i])
        text = NUMBER_CELL.sub(
            lambda cell: " ".join(f'<span class="bn-nowrap">{part}</span>' for part in cell.groups() if part),
            text,
        )
        parts[i] = PERCENT.sub("\\1\N{NO-BREAK SPACE}%", text)
    return "".join(parts)


def finish_page(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Describe the page, load Vega where a chart is, drop the scripts of sphinx-thebe: they want a kernel."""
    if doctree is not None:
        title = html.escape(context["title"], quote=True)
        about = html.escape(description(doctree), quote=True)
        context["metatags"] = context.get("metatags", "") + (
            f'<meta name="description" content="{about}"><meta property="og:title" content="{title}">'
            f'<meta property="og:description" content="{about}"><meta property="og:type" content="article">'
        )
        if public_address():  # other sites fetch the picture, so its address has to be a full one
            context["metatags"] += (
                f'<meta property="og:image" content="{public_address()}_static/social.png">'
                f'<meta property="og:image:alt" content="{SOCIAL_ALT}">'
                '<meta name="twitter:card" content="summary_large_image">'
            )
    if "body" in context:
        # docutils calls a bibliography a list, whose children are then no list items, and its entries by
        # a withdrawn role; the empty corner of a table is no header. axe rightly objects.
        body = context["body"].replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )
        body = body.replace(' role="doc-biblioentry"', "")
        body = re.sub(r"<th\b[^>]*>(\s|<p>|</p>)*</th>", "<td></td>", body)
        # sphinx-exercise and sphinx-proof give the same name to several elements of a page.
        body = re.sub(r' id="(?:exercise|solution|proof)-content"', "", body)
        body = re.sub(r'<p class="admonition-title" id="[^"]*"', '<p class="admonition-title"', body)
        # The space before the name of an exercise belongs to the sentence, not to the link.
        body = re.sub(r"Solution to(<a [^>]*>) ", r"Solution to \1", body)
        context["body"] = WIDE_FIGURE.sub(keep_legible, keep_together(body))
    context["script_files"][:] = [
        script
        for script in context["script_files"]
        if "thebe" not in str(getattr(script, "filename", "") or "")
        and "THEBE_JS_URL" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]
    for script in context["script_files"]:  # none of them is needed to show the page
        name = str(getattr(script, "filename", "") or "")
        if page == "search":  # its own scripts continue these, and all pages share one list
            script.attributes.pop("defer", None)
        elif name and not name.endswith(
            "documentation_options.js"
        ):  # a script in the page continues this one
            script.attributes["defer"] = "defer"
    if VEGA_MARK in context.get("body", ""):
        app.add_js_file("vega/vega.js", loading_method="defer")
        app.add_js_file("vega/charts.js", loading_method="defer")


def drop_search_index(app: Sphinx, exception: Exception | None) -> None:
    """Load the index of the search where the search is: the theme loads it everywhere, to no use."""
    for page in Path(app.outdir).rglob("*.html"):
        if not exception and page.name != "search.html":
            text = page.read_text(encoding="utf-8")
            page.write_text(SEARCH_SCRIPT.sub("", text), encoding="utf-8")


def trim_icons(app: Sphinx, exception: Exception | None) -> None:
    """Keep of the theme's script of all icons those that a page or another script names: 20 kB for 540."""
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if exception or not script.exists():
        return
    named: set[str] = set()
    for path in (*Path(app.outdir).rglob("*.html"), *script.parent.parent.rglob("*.js")):
        if path != script:
            named.update(re.findall(r"\bfa-([a-z0-9-]+)", path.read_text(encoding="utf-8")))
    text = script.read_text(encoding="utf-8")
    trimmed = ICON.sub(
        lambda icon: icon[0] if named & set(re.findall('[^][",]+', icon[1] + icon[2])) else "", text
    )
    script.write_text(trimmed.partition("//# sourceMappingURL")[0], encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.add_role("measured", MeasuredRole())
    app.connect("config-inited", offer_repository, priority=940)
    app.connect("config-inited", add_vendor_folder, priority=950)
    app.connect("html-page-context", finish_page, priority=900)
    app.connect("build-finished", drop_search_index)
    app.connect("build-finished", trim_icons)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
