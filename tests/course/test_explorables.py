"""The explorables' arithmetic, moved by keyboard in a browser without network, against the library."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from scipy.integrate import quad
from scipy.stats import norm

from bnlab import BatchNorm, lipschitz_estimate, probe, saturation, smoothness_estimate
from course import explorables, interval
from course.experiments import ALTERNATIVES
from course.recordings import load

ROOT = Path(__file__).parents[2]


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


SATURATION_SETTINGS = [
    {"mean": 0, "spread": 1, "activation": "sigmoid"},
    {"mean": 5.7, "spread": 0.4, "activation": "sigmoid"},
    {"mean": -0.9, "spread": 3.3, "activation": "tanh"},
    {"mean": 1.2, "spread": 6, "activation": "relu"},
    {"mean": -2.3, "spread": 0.7, "activation": "elu"},
    {"mean": -6, "spread": 2.8, "activation": "selu"},
]


@pytest.mark.browser
@pytest.mark.parametrize("settings", SATURATION_SETTINGS)
def test_saturation_explorable_computes_what_the_instrument_measures(mounted, settings):
    explorable = explorables.saturation(torch.special.ndtri(torch.linspace(0.01, 0.99, 99).double()))
    tab = mounted(explorable).tab
    set_controls(tab, settings)
    found = numbers(tab)

    z = settings["mean"] + settings["spread"] * torch.tensor(explorable.parameters["values"]).double()
    activation = getattr(torch.nn.functional, settings["activation"])
    measured = saturation(z[:, None], activation)
    assert found["mean_slope"] == pytest.approx(measured.mean_slope, abs=1e-6)
    assert found["share"] == pytest.approx(measured.share, abs=1e-6)
    assert found["outputs"] == pytest.approx(activation(z).tolist(), abs=1e-6)
    assert found["output_mean"] == pytest.approx(activation(z).mean().item(), abs=1e-6)
    assert found["output_std"] == pytest.approx(activation(z).std(correction=0).item(), abs=1e-6)


DEPTH_SETTINGS = [
    {"activation": "sigmoid", "log_scale": 0, "depth": 30},
    {"activation": "sigmoid", "log_scale": 3.3, "depth": 12},
    {"activation": "centred", "log_scale": 2, "depth": 30},
    {"activation": "tanh", "log_scale": 1.4, "depth": 8},
    {"activation": "relu", "log_scale": 0.5, "depth": 30},
    {"activation": "elu", "log_scale": -0.7, "depth": 20},
    {"activation": "selu", "log_scale": 0, "depth": 30},
]


def gaussian_average(function):
    """E[function(z)] of a standard Gaussian z by adaptive integration: not the rule the page uses."""
    density = norm.pdf
    sides = [quad(lambda z: function(z) * density(z), *side, epsabs=1e-13) for side in ((-12, 0), (0, 12))]
    return sum(value for value, _ in sides)


@pytest.mark.browser
@pytest.mark.parametrize("settings", DEPTH_SETTINGS)
def test_depth_explorable_follows_the_recursion(mounted, settings):
    half, weights = (torch.tensor(part) for part in leggauss(80))
    half = 4.5 * (half + 1)
    weights = 4.5 * weights * torch.exp(-half.square() / 2) / (2 * torch.pi) ** 0.5
    tab = mounted(explorables.depth(torch.cat([-half, half]), torch.cat([weights, weights]))).tab
    set_controls(tab, settings)
    found = numbers(tab)

    name, scale = settings["activation"], 2 ** settings["log_scale"]
    torchs = getattr(torch.nn.functional, "sigmoid" if name == "centred" else name)

    def activation(z):
        return torchs(torch.tensor(z, dtype=torch.float64)).item() - 0.5 * (name == "centred")

    def slope(z):
        z = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(torchs(z), z)[0].item()

    spread, gain = [scale], []
    for _ in range(settings["depth"]):
        s = spread[-1]
        gain.append(scale * gaussian_average(lambda z, s=s: slope(s * z) ** 2) ** 0.5)
        spread.append(scale * gaussian_average(lambda z, s=s: activation(s * z) ** 2) ** 0.5)
    gradient = [math.prod(gain[layer:-1]) for layer in range(settings["depth"])]
    assert found["weight_scale"] == pytest.approx(scale, rel=1e-12)
    assert found["spread"] == pytest.approx(spread[:-1], rel=1e-6)
    assert found["factor"] == pytest.approx(gain, rel=1e-6)
    assert found["gradient"] == pytest.approx(gradient, rel=1e-6)


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["saturation", "depth", "smoothness"])
def test_explorables_fit_a_phone_and_answer_the_keyboard(mounted, name, theme):
    made = {
        "saturation": lambda: explorables.saturation(torch.linspace(-1, 1, 32)),
        "depth": lambda: explorables.depth(torch.tensor([-1.0, 1.0]), torch.tensor([0.5, 0.5])),
        "smoothness": explorables.smoothness,
    }
    page = mounted(made[name](), width=360, theme=theme)
    sentence = page.tab.locator("[aria-live]")
    before = sentence.text_content()
    page.tab.locator("input[type=range]").first.press("ArrowRight")
    assert sentence.text_content() != before
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.errors == [] and page.requests == []


def test_explorables_that_share_activations_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match=r"values: shape \(1,\)"):
        explorables.saturation(torch.zeros(1))
    with pytest.raises(ValueError, match=r"nodes, weights: shapes \(3,\) and \(2,\)"):
        explorables.depth(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"weights: their sum is 0\.5"):
        explorables.depth(torch.zeros(1), torch.tensor([0.5]))


SMOOTHNESS_SETTINGS = [
    {"name": "abs", "x": -1, "y": 1.5, "step": 0.5, "beta": 1},
    {"name": "hinge", "x": 0.95, "y": 1.05, "step": 2.35, "beta": 20},
    {"name": "square", "x": 2, "y": -2.95, "step": 1.1, "beta": 2},
    {"name": "softplus", "x": 0.05, "y": -0.05, "step": 3, "beta": 0.25},
    {"name": "wave", "x": 0.55, "y": 0.5, "step": 0.65, "beta": 3.2},
    {"name": "wave", "x": 1.5, "y": 1.5, "step": 2.5, "beta": 0.3},
]
PLAIN_FUNCTIONS = {
    "abs": torch.abs,
    "hinge": lambda x: torch.relu(1 - x),
    "square": torch.square,
    "softplus": torch.nn.functional.softplus,
    "wave": lambda x: torch.sin(3 * x) / 3 + x.square() / 10,
}


@pytest.mark.browser
@pytest.mark.parametrize("settings", SMOOTHNESS_SETTINGS)
def test_smoothness_explorable_computes_what_the_estimates_and_the_probe_find(mounted, settings):
    tab = mounted(explorables.smoothness()).tab
    set_controls(tab, settings)
    found = numbers(tab)

    f = PLAIN_FUNCTIONS[settings["name"]]
    low, high = sorted((settings["x"], settings["y"]))
    if low < high:  # with two points the estimate on an interval is the quotient of its ends
        wanted = [
            estimate(f, low, high, points=2).value for estimate in (lipschitz_estimate, smoothness_estimate)
        ]
    else:
        wanted = [None, None]
    assert found["of_values"] == (wanted[0] and pytest.approx(wanted[0], abs=1e-6))
    assert found["of_slopes"] == (wanted[1] and pytest.approx(wanted[1], abs=1e-6))

    point = torch.nn.Linear(1, 1, bias=False).double()
    point.weight.data.fill_(settings["x"])
    walked = probe(point, lambda net: f(net.weight).sum(), [settings["step"]])
    gradient = walked.gradient[0].item()
    assert found["value"] == pytest.approx(walked.loss0, abs=1e-6)
    assert found["gradient"] == pytest.approx(gradient, abs=1e-6)
    assert found["landing"] == pytest.approx(settings["x"] - settings["step"] * gradient, abs=1e-6)
    assert found["came"] == pytest.approx(walked.loss0 - walked.loss[0], abs=1e-6)
    promised = settings["step"] * (1 - settings["step"] * settings["beta"] / 2) * gradient**2
    assert found["promised"] == pytest.approx(promised, abs=1e-6)
    assert found["kept"] == (walked.loss0 - walked.loss[0] >= promised - 1e-12)


@pytest.mark.browser
def test_smoothness_explorable_remembers_the_largest_quotients_of_each_function(mounted):
    page = mounted(explorables.smoothness())
    set_controls(page.tab, {"name": "square", "x": 3, "y": 2})
    set_controls(page.tab, {"x": 0, "y": 0.5})
    assert numbers(page.tab)["of_values"] == pytest.approx(0.5)
    assert numbers(page.tab)["largest_values"] == pytest.approx(5)
    assert numbers(page.tab)["largest_slopes"] == pytest.approx(2)
    set_controls(page.tab, {"name": "hinge"})
    assert numbers(page.tab)["largest_values"] == pytest.approx(1)
    set_controls(page.tab, {"x": 0.95, "y": 1})
    assert numbers(page.tab)["largest_slopes"] == pytest.approx(20)
    assert page.errors == [] and page.requests == []


RACE_SETTINGS = [
    {"batch": "32 images", "first": "batchnorm", "second": "standard", "log_rate": -1},
    {"batch": "4 images", "first": "groupnorm", "second": "batchnorm", "log_rate": -2.5},
    {"batch": "256 images", "first": "linf", "second": "l1", "log_rate": 0.5},
    {"batch": "32 images", "first": "elu", "second": "dynamictanh", "log_rate": -0.5},
    {"batch": "4 images", "first": "weightnorm", "second": "selu", "log_rate": 0},
]


@pytest.fixture(scope="module")
def race():
    """The recorded race: names, batch sizes, learning rates, and the rows of a run's end."""
    columns, _ = load(ROOT / "recordings" / "alternatives")
    end = {name: values[columns["kind"] == "end"].to_numpy() for name, values in columns.items()}
    names, sizes, rates = list(ALTERNATIVES), [4, 32, 256], sorted(set(end["lr"]))
    accuracy = np.array([[[recorded(end, n, b, r) for r in rates] for n in names] for b in sizes])
    return explorables.race(names, sizes, rates, accuracy), end


def recorded(end, network, batch, lr):
    """Percent right of the three runs at one setting."""
    which = (end["network"] == network) & (end["batch_size"] == batch) & (end["lr"] == lr)
    return 100 * end["test_accuracy"][which]


@pytest.mark.browser
@pytest.mark.parametrize("settings", RACE_SETTINGS)
def test_race_explorable_shows_the_recording(mounted, race, settings):
    explorable, end = race
    tab = mounted(explorable).tab
    set_controls(tab, settings)
    found = numbers(tab)

    batch = int(settings["batch"].split()[0])
    rates = sorted(set(end["lr"]))
    lr = rates[round(2 * (settings["log_rate"] + 2.5))]
    assert found["learning_rate"] == lr == pytest.approx(10 ** settings["log_rate"], rel=0.02)
    for which in ("first", "second"):
        mean, low, high = interval(recorded(end, settings[which], batch, lr))
        assert found[which] == pytest.approx({"mean": mean, "low": low, "high": high}, abs=1e-6)
        means = [recorded(end, settings[which], batch, rate).mean() for rate in rates]
        assert found[f"{which}_best"] == rates[int(np.argmax(means))]
    ends = {name: recorded(end, name, batch, lr).mean() for name in ALTERNATIVES}
    assert ends[found["leader"]] == pytest.approx(max(ends.values()), abs=1e-6)


@pytest.mark.browser
def test_race_explorable_moves_by_keyboard_and_fits_a_phone(mounted, race):
    page = mounted(race[0], width=360)
    sentence = page.tab.locator("[aria-live]")
    assert "learning rate 0.1:" in sentence.text_content()
    page.tab.locator("[name=log_rate]").press("ArrowRight")
    assert "learning rate 0.32:" in sentence.text_content()
    page.tab.locator("[name=second]").select_option("selu")
    assert "SELU" in sentence.text_content()
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.errors == [] and page.requests == []


def test_race_explorable_refuses_numbers_that_do_not_fit():
    with pytest.raises(ValueError, match=r"accuracy: shape \(1, 2, 3, 1\); \(1, 2, 3\)"):
        explorables.race(["a", "b"], [4], [0.1, 0.2, 0.3], np.zeros((1, 2, 3, 1)))


LANDSCAPE_SETTINGS = [
    {"step": 0, "quantity": "loss", "network": "standard"},
    {"step": 40, "quantity": "gradient_distance", "network": "l1"},
    {"step": 480, "quantity": "relative_distance", "network": "standard"},
    {"step": 720, "quantity": "cosine", "network": "linf"},
    {"step": 960, "quantity": "beta", "network": "standard"},
    {"step": 200, "quantity": "beta", "network": "l2"},
]


@pytest.fixture(scope="module")
def vgg_columns():
    frame, _ = load(ROOT / "recordings" / "vgg-cifar10")
    return {name: column.to_numpy() for name, column in frame.items()}


@pytest.fixture(scope="module")
def landscape_explorable(vgg_columns):
    return explorables.landscape(vgg_columns, lr=0.1, networks=["standard", "l1", "l2", "linf"])


@pytest.mark.browser
@pytest.mark.parametrize("settings", LANDSCAPE_SETTINGS)
def test_landscape_explorable_shows_what_was_recorded(mounted, landscape_explorable, vgg_columns, settings):
    tab = mounted(landscape_explorable).tab
    set_controls(tab, settings)
    found = numbers(tab)
    c = vgg_columns
    for network in ("batchnorm", settings["network"]):
        here = (c["kind"] == "landscape") & (c["network"] == network) & (c["lr"] == 0.1)
        here &= c["step"] == settings["step"]
        row = {name: c[name][here].reshape(3, 4) for name in ("loss0", "gradient_norm", "step_size")}
        row |= {name: c[name][here].reshape(3, 4) for name in ("loss", "gradient_distance", "cosine", "beta")}
        recorded = {
            "loss": lambda row: np.column_stack([row["loss0"][:, 0], row["loss"]]),
            "relative_distance": lambda row: row["beta"] * row["step_size"],  # beta is recorded itself
        }.get(settings["quantity"], lambda row: row[settings["quantity"]])(row)
        wanted = {"low": recorded.min(0), "middle": np.median(recorded, 0), "high": recorded.max(0)}
        for edge, values in wanted.items():  # the page carries four digits
            assert found["shown"][network][edge] == pytest.approx(values, rel=2e-3, abs=1e-6), (network, edge)


@pytest.mark.browser
@pytest.mark.parametrize("settings", LANDSCAPE_SETTINGS)
def test_landscape_explorable_computes_from_its_data_to_the_last_digit(
    mounted, landscape_explorable, settings
):
    tab = mounted(landscape_explorable).tab
    set_controls(tab, settings)
    found, data = numbers(tab), landscape_explorable.parameters
    look, s = data["steps"].index(settings["step"]), np.array(data["step_sizes"])
    for network in ("batchnorm", settings["network"]):
        runs = data["networks"][network]
        part = {name: np.array([run[name][look] for run in runs]) for name in runs[0]}
        relative = part["gradient_distance"] / part["gradient_norm"][:, None]
        part |= {"relative_distance": relative, "beta": relative / s}
        values = part[settings["quantity"]]
        if settings["quantity"] == "loss":
            values = np.column_stack([part["loss0"], values])
        assert found["shown"][network]["middle"] == pytest.approx(np.median(values, 0), rel=1e-6, abs=1e-6)
        assert found["shown"][network]["low"] == pytest.approx(values.min(0), rel=1e-6, abs=1e-6)
        assert found["shown"][network]["high"] == pytest.approx(values.max(0), rel=1e-6, abs=1e-6)


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_landscape_explorable_fits_a_phone_and_answers_the_keyboard(mounted, landscape_explorable, theme):
    page = mounted(landscape_explorable, width=360, theme=theme)
    sentence = page.tab.locator("[aria-live]")
    assert "Training step 480, loss" in sentence.text_content()
    page.tab.get_by_label("training step", exact=True).press("ArrowRight")
    assert "Training step 520, loss" in sentence.text_content()
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.errors == [] and page.requests == []


def test_landscape_explorable_is_small_and_refuses_what_was_not_recorded(vgg_columns, landscape_explorable):
    assert len(landscape_explorable._repr_html_()) < 60_000
    with pytest.raises(ValueError, match=r"no run of 'standard' at lr 0\.5 with all of the steps"):
        explorables.landscape(vgg_columns, lr=0.5, networks=["standard"])
