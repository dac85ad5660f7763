"""Notebooks in Colab: one command gives them a cell that fetches what they need."""

import os
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from checkout import Checkout

from course import sphinx_ext

ADDRESS = "https://github.com/someone/book"
# Colab as far as the cell can see: Python with the packages of others, and no bnlab.
COLAB = """
import sys
from IPython.core.interactiveshell import InteractiveShell

sys.path[:] = [path for path in sys.path if not path.endswith("lib")]
sys.path.append({target!r})
shell = InteractiveShell.instance()
for _ in range(2):  # the second time, nothing is left to do
    shell.run_cell({source!r}).raise_error()
import importlib.util, os
found = [importlib.util.find_spec(name).origin for name in ("bnlab", "course")]
print(*found, os.getcwd(), os.path.exists("claims.yml"), sep="\\n")
"""


def notebooks(checkout):
    paths = sorted((checkout.folder / "chapters").glob("*.ipynb"))
    return {path.name: nbformat.read(path, as_version=4) for path in paths}


def add_cells(checkout, address):
    return subprocess.run(
        [sys.executable, "tools/colab_cell.py"],
        cwd=checkout.folder,
        env={**os.environ, "BOOK_REPOSITORY": address},
        capture_output=True,
        text=True,
    )


def offers_colab(checkout, monkeypatch, address):
    monkeypatch.setenv("BOOK_REPOSITORY", address)
    config = SimpleNamespace(html_theme_options={})
    sphinx_ext.offer_repository(SimpleNamespace(srcdir=checkout.folder), config)
    return "colab_url" in config.html_theme_options["launch_buttons"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("colab") / "project")
    for path in (checkout.folder / "chapters").glob("*.ipynb"):
        if path.name not in ("01-saturation.ipynb", "recordings.ipynb"):  # two will do
            path.unlink()
    return checkout


def test_an_address_that_colab_cannot_read_is_refused(checkout):
    before = notebooks(checkout)
    for address in ("", "someone/book", "https://example.org/someone/book"):
        answer = add_cells(checkout, address)
        assert answer.returncode == 1
        assert answer.stderr.startswith("colab_cell: set BOOK_REPOSITORY to the address of the repository")
        assert len(answer.stderr.splitlines()) == 1
    assert notebooks(checkout) == before


def test_every_notebook_gets_the_cell_once_and_the_book_then_offers_colab(checkout, monkeypatch):
    before = notebooks(checkout)
    assert not offers_colab(checkout, monkeypatch, ADDRESS)
    for address in ("https://github.com/someone/old", ADDRESS + "/", ADDRESS):
        assert add_cells(checkout, address).returncode == 0
    after = notebooks(checkout)
    for name, notebook in after.items():
        title, cell, *rest = notebook.cells
        assert title.source.startswith("# ") and [title, *rest] == before[name].cells
        assert f"git clone --quiet --depth 1 {ADDRESS} book\n" in cell.source
        assert cell.metadata.tags == ["remove-cell"]
    assert offers_colab(checkout, monkeypatch, ADDRESS)
    assert not offers_colab(checkout, monkeypatch, "https://github.com/someone/else")
    names = [f"chapters/{name}" for name in after]
    subprocess.run([sys.executable, "tools/lint_notebooks.py", *names], cwd=checkout.folder, check=True)


def test_the_cell_installs_the_library_where_it_is_missing(checkout, tmp_path):
    assert add_cells(checkout, ADDRESS).returncode == 0
    source = notebooks(checkout)["01-saturation.ipynb"].cells[1].source
    for command in ("init --quiet", "add .", "-c user.name=a -c user.email=a@b.c commit --quiet -m all"):
        subprocess.run(["git", *command.split()], cwd=checkout.folder, check=True)
    home, packages = tmp_path / "content", tmp_path / "packages"
    home.mkdir()
    packages.mkdir()
    environment = {
        **os.environ,
        # the address answers from this machine, and nothing is asked of a package registry
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{checkout.folder.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one the other way round
        "PIP_TARGET": str(packages),
        "IPYTHONDIR": str(tmp_path),
    }
    environment.pop("PYTHONPATH", None)
    environment.pop("COVERAGE_PROCESS_CONFIG", None)  # the coverage of the copy does not count
    program = COLAB.format(source=source, target=str(packages))
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=home, env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    *modules, folder, has_claims = answer.stdout.splitlines()[-4:]
    assert modules == [str(packages / name / "__init__.py") for name in ("bnlab", "course")]
    assert (folder, has_claims) == (str(home / "book" / "chapters"), "True")
