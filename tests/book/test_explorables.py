"""The explorables' arithmetic, moved by keyboard in a browser without network, against the library."""

import pytest
import torch

from bnlab import BatchNorm
from bnlab.book import explorables


@pytest.fixture
def mounted(open_page, tmp_path):
    """A function that opens a minimal page holding one explorable and returns that page."""

    def mount(explorable, **how):
        path = tmp_path / "page.html"
        path.write_text(
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>One explorable</title>'
            f"<main><h1>One explorable</h1>{explorable._repr_html_()}</main></html>",
            encoding="utf-8",
        )
        return open_page(path, **how)

    return mount


def set_controls(tab, settings):
    for name, value in settings.items():
        control = tab.locator(f"[name={name}]")
        if isinstance(value, str):
            control.select_option(value)
        else:
            control.fill(str(value))


def numbers(tab):
    return tab.evaluate("document.querySelector('[data-parameters]').numbers")


BATCH_NORM_SETTINGS = [
    {"shift": 2, "scale": 1.5, "gamma": 1, "beta": 0, "log_eps": -5, "mode": "train", "steps": 5},
    {"shift": -3.1, "scale": 0.1, "gamma": 2.5, "beta": -1.5, "log_eps": 0, "mode": "train", "steps": 0},
    {"shift": 0.7, "scale": 3, "gamma": 0, "beta": 4, "log_eps": -2.5, "mode": "test", "steps": 12},
    {"shift": 4, "scale": 0.4, "gamma": 1.2, "beta": 0.3, "log_eps": -3, "mode": "test", "steps": 0},
    {"shift": -0.6, "scale": 2.2, "gamma": 0.9, "beta": -4, "log_eps": -1, "mode": "test", "steps": 60},
]


@pytest.mark.browser
@pytest.mark.parametrize("settings", BATCH_NORM_SETTINGS)
def test_batch_norm_explorable_computes_what_the_layer_computes(mounted, settings):
    values = torch.randn(64, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    explorable = explorables.batch_norm(values)
    tab = mounted(explorable).tab
    set_controls(tab, settings)
    found = numbers(tab)

    x = (
        settings["shift"]
        + settings["scale"] * torch.tensor(explorable.parameters["values"]).double()[:, None]
    )
    layer = BatchNorm(1, eps=10 ** settings["log_eps"]).double()
    with torch.no_grad():
        layer.weight.fill_(settings["gamma"])
        layer.bias.fill_(settings["beta"])
        for _ in range(settings["steps"]):
            layer(x)
        running = layer.running_mean.item(), layer.running_var.item()
        y = layer.train(settings["mode"] == "train")(x)
    wanted = {
        "batch_mean": x.mean(),
        "batch_std": x.std(correction=0),
        "running_mean": running[0],
        "running_var": running[1],
        "output_mean": y.mean(),
        "output_std": y.std(correction=0),
    }
    for name, value in wanted.items():
        assert found[name] == pytest.approx(float(value), abs=1e-6), name
    assert found["after"] == pytest.approx(y.squeeze().tolist(), abs=1e-6)


@pytest.mark.browser
def test_arrow_keys_move_a_slider_and_the_spoken_sentence_follows(mounted):
    page = mounted(explorables.batch_norm(torch.linspace(-1, 1, 32)))
    sentence = page.tab.locator("[aria-live]")
    before = sentence.text_content()
    page.tab.get_by_label("input shift").press("ArrowRight")
    assert "mean 2.00" in before and "mean 2.10" in sentence.text_content()
    assert page.errors == [] and page.requests == []


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_explorable_fits_a_phone(mounted, theme):
    tab = mounted(explorables.batch_norm(torch.linspace(-1, 1, 32)), width=360, theme=theme).tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.browser
def test_two_copies_of_an_explorable_live_on_one_page(open_page, tmp_path):
    html = explorables.batch_norm(torch.linspace(-1, 1, 32))._repr_html_()
    path = tmp_path / "two.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>Two</title>{html}{html}", encoding="utf-8")
    page = open_page(path)
    assert page.tab.locator("[aria-live]").count() == 2
    assert page.errors == []


def test_an_explorable_has_a_text_alternative_and_asks_no_other_host():
    html = explorables.batch_norm(torch.linspace(-1, 1, 32))._repr_html_()
    assert "An interactive figure stands here" in html
    assert "http" not in html and "import " not in html


def test_batch_norm_explorable_refuses_a_matrix():
    with pytest.raises(ValueError, match=r"values: shape \(4, 3\)"):
        explorables.batch_norm(torch.zeros(4, 3))
