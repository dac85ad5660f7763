"""Every checker accepts the published solution, and names each of a catalogue of mistakes differently."""

import ast
import contextlib
import importlib
import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from course import check, exercises
from course.exercises import register

CHAPTERS = Path(__file__).parents[2] / "chapters"


def said(number, answer):
    """What `check` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        check(number, answer)
    return " ".join(printed.getvalue().split())


# Number -> name of the mistake -> a wrong answer; the catalogue of chapter NN is mistakes_NN.py.
WRONG = {}
for path in sorted(Path(__file__).parent.glob("mistakes_*.py")):
    WRONG |= importlib.import_module(path.stem).WRONG


def published_solutions():
    """Exercise number -> the code of the folded solution, from every chapter."""
    found = {}
    for path in sorted(CHAPTERS.glob("[0-9][0-9]-*.ipynb")):
        label = None
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if opened := re.search(r"\{solution-start\} ex-(\d+)-(\d+)", source):
                label = ".".join(opened.groups())
            elif label and cell["cell_type"] == "code":
                found[label] = found.get(label, "") + source + "\n"
            if "{solution-end}" in source:
                label = None
    return found


SOLUTIONS = published_solutions()


def test_every_published_exercise_has_a_catalogue_of_mistakes():
    assert sorted(SOLUTIONS) == sorted(WRONG)
    assert all(len(mistakes) >= 3 for mistakes in WRONG.values())


@pytest.mark.parametrize("number", SOLUTIONS)
def test_the_published_solution_is_accepted(number):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(SOLUTIONS[number], {"torch": torch, "check": check})
    assert printed.getvalue().startswith(f"Exercise {number}: correct.")
    assert printed.getvalue().count("Exercise") == 1


@pytest.mark.parametrize("number", WRONG)
def test_every_mistake_is_rejected_with_a_message_of_its_own(number):
    messages = {name: said(number, answer) for name, answer in WRONG[number].items()}
    for name, message in messages.items():
        assert message.startswith(f"Exercise {number}: keep working."), f"{name}: {message}"
    assert len(set(messages.values())) == len(messages)


@pytest.mark.parametrize("number", WRONG)
def test_an_empty_answer_is_not_called_wrong(number):
    def empty(*_): ...

    def later(*_):
        raise NotImplementedError

    for answer in (..., None, empty, later):
        assert said(number, answer).startswith(f"Exercise {number}: not answered yet.")


@pytest.mark.parametrize("number", WRONG)
def test_code_that_raises_is_reported(number):
    def broken(*_):
        raise IndexError("two\nlines")

    assert said(number, broken) == f"Exercise {number}: keep working. Your code raised IndexError: two lines"
    assert "takes 0 positional arguments" in said(number, lambda: None)
    assert said(number, lambda *_: "a word").startswith(f"Exercise {number}: keep working.")


def test_a_solution_that_overwrites_its_input_does_no_harm():
    def in_place(x, gamma, beta, eps):
        x -= x.mean(0)
        x /= torch.sqrt(x.square().mean(0) + eps)
        return x.mul_(gamma).add_(beta)

    assert said("3.1", in_place).startswith("Exercise 3.1: correct.")
    assert said("3.1", in_place).startswith("Exercise 3.1: correct.")


TWO_AT_ONCE = {
    ("3.1", "eps added to the quotient"): ("quotient", "under the root"),
    ("3.1", "m - 1, and eps outside the root"): ("m - 1", "added to the standard deviation"),
    ("3.1", "m - 1, and eps added to the quotient"): ("m - 1", "added to the quotient"),
    ("3.2", "both: the convention of CS231n"): ("weighs the old value", "divided by m."),
    ("3.5", "bias of the layer not scaled"): ("had before has to be scaled",),
    ("3.5", "nothing in the bias scaled"): ("both the old one and the running mean",),
    ("3.5", "bias not folded"): ("still the linear layer's own",),
    ("3.5", "bias of the layer lost and mean not scaled"): ("own is lost", "mean is not scaled"),
}


@pytest.mark.parametrize(("number", "name"), TWO_AT_ONCE)
def test_what_readers_of_the_forums_got_wrong_is_named(number, name):
    message = said(number, WRONG[number][name])
    assert all(words in message for words in TWO_AT_ONCE[number, name]), message


def test_a_number_is_given_to_one_exercise_only():
    check("3.1", None)
    with pytest.raises(ValueError, match="registered already"):
        register("3.1", lambda answer: None, praise="")


def test_the_checkers_need_nothing_but_torch_and_of_that_no_networks():
    for path in sorted(Path(exercises.__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # what a function imports comes later
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = {node.module}
            else:
                continue
            needed = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
            assert needed <= {"torch"}, path.name


def test_an_unknown_exercise_is_an_error_of_the_chapter():
    with pytest.raises(ValueError, match=r"number='3\.99': there is no such exercise; known are .*3\.1"):
        check("3.99", None)
    with pytest.raises(ValueError, match="no such exercise"):
        check("98.1", None)


def test_every_exercise_is_listed_once_with_time_and_difficulty():
    page = (CHAPTERS / "exercises.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \[(\d+\.\d+) .+\]\(#ex-(\d+)-(\d+)\) \| \d+ \| (?:easy|medium|hard) \|$", page, re.M
    )
    assert sorted(number for number, *_ in rows) == sorted(SOLUTIONS)
    assert all(number == f"{chapter}.{place}" for number, chapter, place in rows)
