"""What the README promises: its examples run, and its picture is one that a chapter measured."""

import base64
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_examples_run(example):
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


def test_the_picture_is_a_figure_of_a_chapter():
    (picture,) = re.findall(r"!\[[^]]{40,}\]\((assets/\S+)\)", README)
    figures = re.compile(r"data:image/png;base64,([\w+/=]+)")
    stored = {
        base64.b64decode(code)
        for notebook in (ROOT / "chapters").glob("*.ipynb")
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
        for code in figures.findall("".join(output.get("data", {}).get("text/html", "")))
    }
    assert (ROOT / picture).read_bytes() in stored, "copy the figure anew: python tools/readme_picture.py"


def test_every_file_that_is_named_exists():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_check_up_prints_what_the_readme_shows(capsys):
    """Its lines, whatever the last digits are on this machine."""
    shown = re.search(r"```text\n(  the same batches.*?)```", README, re.DOTALL).group(1)
    exec(compile(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0], "README.md", "exec"), {})
    printed, lines = (re.sub(r"[\d.−+]+%?| +", " ", text) for text in (capsys.readouterr().out, shown))
    for line in filter(None, lines.splitlines()):
        assert line in printed, line
