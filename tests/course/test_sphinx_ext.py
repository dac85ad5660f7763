"""What the Sphinx extension of the book does with its settings."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_doctree
from PIL import Image
from sphinx.errors import ConfigError

from course import sphinx_ext


def options(monkeypatch, address):
    monkeypatch.setenv("BOOK_REPOSITORY", address)
    config = SimpleNamespace(html_theme_options={"use_repository_button": False, "show_toc_level": 2})
    sphinx_ext.offer_repository(SimpleNamespace(srcdir=Path(__file__).parents[2]), config)
    return config.html_theme_options


def test_without_an_address_there_is_no_button(monkeypatch):
    assert options(monkeypatch, "") == {"use_repository_button": False, "show_toc_level": 2}


def test_an_address_turns_on_source_and_binder(monkeypatch):
    found = options(monkeypatch, "https://gitlab.com/some/group/book.git/")
    assert found["repository_url"] == "https://gitlab.com/some/group/book"
    assert found["use_repository_button"] and found["use_source_button"] and found["show_toc_level"] == 2
    assert "binderhub_url" in found["launch_buttons"]


@pytest.mark.parametrize(
    "address",
    [
        "someone/book",
        "git@github.com:someone/book.git",
        "https://github.com/someone",
        "https://github.com/someone/book/tree/main",
        "https://github.com/someone/book?a=b",
        'https://github.com/someone/"><script>',
        "https://example.org/someone/book",  # the theme knows no links to its files
    ],
)
def test_an_address_that_is_none_is_refused(monkeypatch, address):
    message = rf"BOOK_REPOSITORY must be the https address .*{re.escape(repr(address))}"
    with pytest.raises(ConfigError, match=message):
        options(monkeypatch, address)


def metatags(monkeypatch, address):
    monkeypatch.setenv("BOOK_REPOSITORY", address)
    page = {"title": "A page", "script_files": []}
    sphinx_ext.finish_page(
        None, "page", "page.html", page, publish_doctree("A paragraph of some length. " * 4)
    )
    return page["metatags"]


def test_the_social_picture_needs_the_public_address(monkeypatch):
    assert "og:image" not in metatags(monkeypatch, "")
    assert "og:image" not in metatags(monkeypatch, "https://example.org/someone/book")


def test_the_social_picture_has_its_full_address_and_is_large_enough(monkeypatch):
    tags = metatags(monkeypatch, "https://github.com/Someone/book/")
    (address,) = re.findall(r'<meta property="og:image" content="([^"]+)">', tags)
    assert address == "https://someone.github.io/book/_static/social.png"
    picture = Path(__file__).parents[2] / "assets" / "static" / "social.png"
    with Image.open(picture) as opened:
        assert opened.size == (1200, 630)
    assert picture.stat().st_size < 300_000


@pytest.mark.parametrize(
    ("repository", "public"),
    [
        ("https://github.com/someone/book/", "https://someone.github.io/book/"),
        ("https://github.com/someone/book.git", "https://someone.github.io/book/"),
        ("https://github.com/someone/someone.github.io", "https://someone.github.io/"),
        ("https://github.com/someone", ""),
        ("https://example.org/someone/book", ""),
    ],
)
def test_public_address(monkeypatch, repository, public):
    monkeypatch.setenv("BOOK_REPOSITORY", repository)
    assert sphinx_ext.public_address() == public


def test_only_wide_figures_are_marked():
    figure = '<figure class="bn-figure"><img src="data:" alt="A line." width="{}"></figure>'
    for width in (614, 650, 651, 806):
        marked = sphinx_ext.WIDE_FIGURE.sub(sphinx_ext.keep_legible, figure.format(width))
        assert f'width="{width}"' in marked
        assert (f"--width: {width}px" in marked) == (width > 650)


def test_icons_that_nothing_names_are_left_out(tmp_path):
    scripts = tmp_path / "_static" / "scripts"
    scripts.mkdir(parents=True)
    script = scripts / "fontawesome.js"
    script.write_text(
        'var p={0:[320,512,[],"30","M0 1z"],"500px":[448,512,[],"f26e","M1z"],'
        'bars:[448,512,["navicon"],"f0c9","M2z"],'
        '"circle-left":[512,512,["arrow-left"],"f0a8",["M3z","M4z"]],sun:[512,512,[],"f185","M5z"]};'
        "\n//# sourceMappingURL=fontawesome.js.map"
    )
    (tmp_path / "page.html").write_text('<i class="fas fa-arrow-left"></i><i class="fa-solid fa-sun"></i>')
    sphinx_ext.trim_icons(SimpleNamespace(outdir=tmp_path), None)
    assert script.read_text().rstrip() == (
        'var p={"circle-left":[512,512,["arrow-left"],"f0a8",["M3z","M4z"]],sun:[512,512,[],"f185","M5z"]};'
    )


def test_lines_do_not_break_where_it_hurts_and_code_stays_as_it_is():
    formula = r'<span class="math notranslate nohighlight">\(\beta\)</span>'
    assert sphinx_ext.keep_together(f"A {formula}, and ({formula}).") == (
        f'A <span class="bn-nowrap">{formula},</span> and <span class="bn-nowrap">({formula}).</span>'
    )
    assert sphinx_ext.keep_together("<strong>38</strong> % of 95 %") == (
        "<strong>38</strong>\N{NO-BREAK SPACE}% of 95\N{NO-BREAK SPACE}%"
    )
    cells = '<td style="text-align: right">{}</td>'
    assert sphinx_ext.keep_together(cells.format("1.71 [1.22, 2.20]")) == cells.format(
        '<span class="bn-nowrap">1.71</span> <span class="bn-nowrap">[1.22, 2.20]</span>'
    )
    assert sphinx_ext.keep_together(cells.format("2.2e-09")) == cells.format(
        '<span class="bn-nowrap">2.2e-09</span>'
    )
    assert sphinx_ext.keep_together(cells.format("one does not train")) == cells.format("one does not train")
    code = f'<pre>"95 % interval" {formula},</pre><script>x = 7 % 2</script>'
    assert sphinx_ext.keep_together(code) == code
