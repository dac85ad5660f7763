"""What the Sphinx extension of the book does with its settings."""

from types import SimpleNamespace

import pytest
from sphinx.errors import ConfigError

from bnlab.book import sphinx_ext


def options(monkeypatch, address):
    monkeypatch.setenv("BOOK_REPOSITORY", address)
    config = SimpleNamespace(html_theme_options={"use_repository_button": False, "show_toc_level": 2})
    sphinx_ext.offer_repository(None, config)
    return config.html_theme_options


def test_without_an_address_there_is_no_button(monkeypatch):
    assert options(monkeypatch, "") == {"use_repository_button": False, "show_toc_level": 2}


def test_an_address_turns_on_source_binder_and_colab(monkeypatch):
    found = options(monkeypatch, "https://example.org/someone/book/")
    assert found["repository_url"] == "https://example.org/someone/book"
    assert found["use_repository_button"] and found["use_source_button"] and found["show_toc_level"] == 2
    assert {"binderhub_url", "colab_url"} <= set(found["launch_buttons"])


def test_an_address_that_is_none_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"BOOK_REPOSITORY must be an https address .*'someone/book'"):
        options(monkeypatch, "someone/book")
