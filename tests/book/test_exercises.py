"""Every checker accepts the published solution, and names each of a catalogue of mistakes differently."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch

from bnlab.book import check
from bnlab.book.exercises import by_value, register

CHAPTERS = Path(__file__).parents[2] / "chapters"


def said(number, answer):
    """What `check` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        check(number, answer)
    return printed.getvalue()


def standardized(x, eps, dim=0, **kwargs):
    return (x - x.mean(dim)) / torch.sqrt(x.var(dim, **kwargs) + eps)


def through_autograd(grad, x, gamma, eps, *, detach_mean=False, detach_var=False):
    """dL/dx by automatic differentiation, with the statistics cut out of the graph on demand."""
    x = x.clone().requires_grad_()
    mean = x.mean(0).detach() if detach_mean else x.mean(0)
    var = ((x - x.mean(0)) ** 2).mean(0)
    var = var.detach() if detach_var else var
    y = gamma * (x - mean) / torch.sqrt(var + eps)
    return torch.autograd.grad(y, x, grad)[0]


def image_norm(x, gamma, beta, eps, dims, correction=0):
    mean, var = x.mean(dims, keepdim=True), x.var(dims, correction=correction, keepdim=True)
    return gamma.view(-1, 1, 1) * (x - mean) / (var + eps) ** 0.5 + beta.view(-1, 1, 1)


def fold(weight, bias, gamma, beta, mean, var, eps):
    scale = gamma * (var + eps) ** -0.5
    return torch.diag(scale) @ weight, scale * (bias - mean) + beta


WRONG = {
    "3.1": {
        "eps forgotten": lambda x, g, b, eps: g * standardized(x, 0, correction=0) + b,
        "eps outside the root": lambda x, g, b, eps: g * (x - x.mean(0)) / (x.std(0, correction=0) + eps) + b,
        "variance divided by m - 1": lambda x, g, b, eps: g * standardized(x, eps) + b,
        "averaged over features": lambda x, g, b, eps: g * standardized(x.T, eps, correction=0).T + b,
        "one mean for all features": lambda x, g, b, eps: (
            g * (x - x.mean()) / (x.var(correction=0) + eps).sqrt() + b
        ),
        "divided by the variance": lambda x, g, b, eps: (
            g * (x - x.mean(0)) / (x.var(0, correction=0) + eps) + b
        ),
        "scale and shift forgotten": lambda x, g, b, eps: standardized(x, eps, correction=0),
        "sign": lambda x, g, b, eps: -g * standardized(x, eps, correction=0) - b,
        "one column": lambda x, g, b, eps: (g * standardized(x, eps, correction=0) + b)[:, :1],
        "not a function": 3.0,
    },
    "3.2": {
        "biased running variance": lambda mean, var, x, w: (
            mean + w * (x.mean(0) - mean),
            var + w * (x.var(0, correction=0) - var),
        ),
        "momentum is the weight of the old": lambda mean, var, x, w: (
            w * mean + (1 - w) * x.mean(0),
            w * var + (1 - w) * x.var(0),
        ),
        "standard deviation stored": lambda mean, var, x, w: (
            mean + w * (x.mean(0) - mean),
            var + w * (x.std(0) - var),
        ),
        "old value not faded": lambda mean, var, x, w: (mean + w * x.mean(0), var + w * x.var(0)),
        "old value dropped": lambda mean, var, x, w: (x.mean(0), x.var(0)),
        "only the mean returned": lambda mean, var, x, w: mean + w * (x.mean(0) - mean),
    },
    "3.3": {
        "detached statistics": lambda *a: through_autograd(*a, detach_mean=True, detach_var=True),
        "detached mean": lambda *a: through_autograd(*a, detach_mean=True),
        "detached variance": lambda *a: through_autograd(*a, detach_var=True),
        "gamma forgotten": lambda grad, x, g, eps: through_autograd(grad, x, torch.ones(3), eps),
        "eps forgotten": lambda grad, x, g, eps: through_autograd(grad, x, g, 0),
        "sums for means": lambda grad, x, g, eps: (
            g
            / (x.var(0, correction=0) + eps).sqrt()
            * (
                grad
                - grad.sum(0)
                - standardized(x, eps, correction=0) * (grad * standardized(x, eps, correction=0)).sum(0)
            )
        ),
        "wrong sign": lambda *a: -through_autograd(*a),
    },
    "3.4": {
        "nothing repaired": lambda x, g, b, eps: image_norm(x, g, b, eps, (0,), 1),
        "only the variance repaired": lambda x, g, b, eps: image_norm(x, g, b, eps, (0,)),
        "only the axes repaired": lambda x, g, b, eps: image_norm(x, g, b, eps, (0, 2, 3), 1),
        "each image by itself": lambda x, g, b, eps: image_norm(x, g, b, eps, (2, 3)),
        "all channels together": lambda x, g, b, eps: image_norm(x, g, b, eps, (0, 1, 2, 3)),
        "layout turned": lambda x, g, b, eps: image_norm(x, g, b, eps, (0, 2, 3)).permute(0, 2, 3, 1),
    },
    "3.5": {
        "bias of the layer lost": lambda w, b, *rest: fold(w, torch.zeros(3), *rest),
        "columns scaled": lambda w, b, g, beta, mean, var, eps: (
            w * (g * (var + eps) ** -0.5),
            fold(w, b, g, beta, mean, var, eps)[1],
        ),
        "mean not scaled": lambda w, b, g, beta, mean, var, eps: (
            fold(w, b, g, beta, mean, var, eps)[0],
            g * (var + eps) ** -0.5 * b + beta - mean,
        ),
        "eps forgotten": lambda *a: fold(*a[:-1], 0.0),
        "divided by the variance": lambda w, b, g, beta, mean, var, eps: (
            torch.diag(g / (var + eps)) @ w,
            g / (var + eps) * (b - mean) + beta,
        ),
    },
}


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
        assert message.count("\n") == 1
    assert len(set(messages.values())) == len(messages)


@pytest.mark.parametrize("number", WRONG)
def test_an_empty_answer_is_not_called_wrong(number):
    def empty(*_): ...

    def later(*_):
        raise NotImplementedError

    for answer in (..., None, empty, later):
        assert said(number, answer).startswith(f"Exercise {number}: not answered yet.")


@pytest.mark.parametrize("number", WRONG)
def test_code_that_raises_is_reported_in_one_line(number):
    def broken(*_):
        raise IndexError("two\nlines")

    assert (
        said(number, broken) == f"Exercise {number}: keep working. Your code raised IndexError: two lines\n"
    )
    assert "takes 0 positional arguments" in said(number, lambda: None)
    assert said(number, lambda *_: "a word").startswith(f"Exercise {number}: keep working.")


def test_a_solution_that_overwrites_its_input_does_no_harm():
    def in_place(x, gamma, beta, eps):
        x -= x.mean(0)
        x /= torch.sqrt(x.square().mean(0) + eps)
        return x.mul_(gamma).add_(beta)

    assert said("3.1", in_place).startswith("Exercise 3.1: correct.")
    assert said("3.1", in_place).startswith("Exercise 3.1: correct.")


def test_a_number_or_a_word_can_be_the_answer(monkeypatch):
    monkeypatch.setattr("bnlab.book.exercises._CHECKERS", {})
    by_value("99.1", solution=2.0, mistakes={"Twice that.": 1.0}, otherwise="Think of m.", praise="Yes.")
    assert said("99.1", 2.0001) == "Exercise 99.1: correct. Yes.\n"
    assert said("99.1", 1) == "Exercise 99.1: keep working. Twice that.\n"
    assert said("99.1", 7) == "Exercise 99.1: keep working. Think of m.\n"
    by_value("99.2", solution="biased", mistakes={"Look again.": "unbiased"}, otherwise="?", praise="Yes.")
    assert said("99.2", " Biased ") == "Exercise 99.2: correct. Yes.\n"
    with pytest.raises(ValueError, match="registered already"):
        register("99.2", lambda answer: None, praise="")


def test_an_unknown_exercise_is_an_error_of_the_chapter():
    with pytest.raises(ValueError, match=r"number='3\.99': there is no such exercise; known are 3\.1"):
        check("3.99", None)
    with pytest.raises(ValueError, match="no such exercise"):
        check("98.1", None)
