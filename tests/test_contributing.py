"""CONTRIBUTING.md to the letter: its recipe for a chapter makes one, and what its recipes name exists."""

import pkgutil
import re
import shlex
import subprocess
from pathlib import Path

import nbformat
import pytest
from checkout import Checkout

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## (Add an? \w+)\n(.*?)(?=^## )", TEXT, re.DOTALL | re.MULTILINE))
NEW = "chapters/14-my-question"


def test_there_are_five_recipes_of_five_steps():
    kinds = ("a chapter", "a claim", "a layer", "an exercise", "an instrument")
    assert sorted(RECIPES) == [f"Add {kind}" for kind in kinds]
    for recipe in RECIPES.values():
        assert re.findall(r"^(\d)\. ", recipe, re.MULTILINE) == list("12345")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_file_that_a_recipe_names_exists(recipe):
    prose = re.sub(r"```.*?```", "", RECIPES[recipe], flags=re.DOTALL)
    named = [span for span in re.findall(r"`([^`\n]+)`", prose) if re.fullmatch(r"[\w./-]*[./][\w/]+", span)]
    files = [name for name in named if not name.startswith((NEW, "bnlab."))]
    assert files
    for name in files:
        assert list(ROOT.glob(name.replace("NN", "01"))), name


def test_every_name_of_the_library_exists():
    names = set(re.findall(r"\bbnlab(?:\.\w+)+", TEXT))
    blocks = re.findall(r"from (bnlab\S*) import (.+)", TEXT)
    names |= {f"{module}.{name.strip()}" for module, listed in blocks for name in listed.split(",")}
    assert names
    for name in names:
        assert pkgutil.resolve_name(name), name


def blocks_of(recipe: str, language: str) -> list[str]:
    """The code blocks of a language, in order, without the indent of the list they stand in."""
    found = re.findall(rf"^   ```{language}\n(.*?)^   ```$", RECIPES[recipe], re.DOTALL | re.MULTILINE)
    return [re.sub(r"^ {3}", "", block, flags=re.MULTILINE) for block in found]


def notebook() -> nbformat.NotebookNode:
    """The recipe's cells, each where the recipe says, with the tag that it asks for."""
    (prose,) = blocks_of("Add a chapter", "markdown")
    experiment, *measured = (block.strip() for block in blocks_of("Add a chapter", "python"))
    below = {"## Experiment": [experiment], "## What we measured": measured}
    cells = []
    for line in filter(None, prose.splitlines()):
        cells.append(nbformat.v4.new_markdown_cell(line))
        cells += [nbformat.v4.new_code_cell(source) for source in below.get(line, [])]
    compared = next(cell for cell in cells if cell.source == measured[1])
    compared.metadata["tags"] = ["nbval-check-output"]
    assert sum(cell.cell_type == "code" for cell in cells) == 3
    return nbformat.v4.new_notebook(cells=cells)


def test_the_recipe_makes_a_chapter(tmp_path):
    """All but its last line, `make test`, of which this is a part; of that, the new notebook is compared."""
    checkout = Checkout(tmp_path / "project")
    checkout.keep_titles_only()  # of the chapters that are there: the new one stays whole
    assert checkout.make("env").returncode == 0
    nbformat.write(notebook(), checkout.folder / f"{NEW}.ipynb")

    (entry,) = blocks_of("Add a chapter", "yaml")
    toc = checkout.folder / "_toc.yml"
    before, last, after = re.split(r"(  - file: chapters/13-.*\n)", toc.read_text(encoding="utf-8"))
    toc.write_text(before + last + entry + after, encoding="utf-8")

    commands = [line for block in blocks_of("Add a chapter", "console") for line in block.splitlines()]
    assert commands[-1] == "make test"
    compare = f".venv/bin/python -m pytest -q --nbval-lax --nbval-current-env {NEW}.ipynb"
    for command in [*commands[:-1], compare]:
        words = shlex.split(command)
        if words[0] == "make":
            done = checkout.make(*words[1:])
        else:
            done = subprocess.run(words, cwd=checkout.folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    page = (checkout.folder / f"_build/html/{NEW}.html").read_text(encoding="utf-8")
    assert re.search(r'alt="Two histograms: [^"]+"', page)
    assert "largest mean of a channel: 0.00" in page
