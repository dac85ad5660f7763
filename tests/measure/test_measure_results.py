"""What the results of the instruments say, tabulate and draw, against fields and closed forms."""

import functools
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from measure_cases import Point, noisy_loss, noisy_net
from torch import nn

from bnlab import batch_sharpness, critical_sharpness, probe, sharpness, slice1d, slice2d, spectrum

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def nothing_is_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("a plot was shown"))
    yield
    plt.close("all")


@functools.cache
def results():
    net, loss = noisy_net(), noisy_loss()
    return {
        "probe": probe(net, loss, [0.1, 0.4, 1.6]),
        "ascent": probe(net, loss, [-0.1, 0.0, 0.1]),
        "slice1d": slice1d(net, loss, [0.5, -0.5, 0.0]),
        "slice2d": slice2d(net, loss, [-1, 0, 1], [0.0, 0.5]),
        "sharpness": sharpness(net, loss, k=3, smallest=True),
        "spectrum": spectrum(net, loss, steps=20),
        "batches": batch_sharpness(net, [noisy_loss(seed) for seed in range(3)]),
        "not finite": probe(Point(torch.ones(1)), lambda net: torch.log(net.theta).sum(), [0.5, 1.0, 2.0]),
    }


NAMES = ["probe", "ascent", "slice1d", "slice2d", "sharpness", "spectrum", "batches", "not finite"]


@pytest.mark.parametrize("name", NAMES)
def test_short_in_words_and_drawn_on_the_axes_given(name):
    result = results()[name]
    assert len(repr(result)) < 300 and repr(result).count("\n") <= 2 and "tensor" not in repr(result)
    assert not re.search(r"-\d", repr(result))  # minus signs are typographic
    assert len(result.frame()) > 0 and not result.frame().columns.duplicated().any()
    plt.close("all")
    figure = plt.figure()
    ax = figure.add_subplot()
    other = plt.figure()
    assert result.plot(ax) is ax and ax.has_data() and ax.get_xlabel() and ax.get_ylabel()
    assert plt.gcf() is other and not other.axes  # the state of pyplot is untouched
    assert len(plt.get_fignums()) == 2
    figure.canvas.draw()
    new = result.plot()
    assert new is not ax and len(plt.get_fignums()) == 3
    new.figure.canvas.draw()


def parabola(curvature=3.0):
    return Point(torch.ones(1, dtype=torch.float64)), lambda net: curvature / 2 * net.theta.square().sum()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_probe_says_what_it_found_on_a_parabola():
    found = probe(*parabola(), [0.1, 1.0])
    assert repr(found).replace("\n", " ") == (
        "Probe at 2 step sizes, 0.1 to 1: loss 1.5 becomes 0.735 to 6, "
        "the gradient (length 3) changes by up to 9, effective beta 3"
    )
    frame = found.frame()
    assert list(frame) == ["step_size", "loss", "gradient_distance", "cosine", "beta"]
    np.testing.assert_allclose(frame.loss, [1.5 * 0.7**2, 1.5 * 2**2])
    np.testing.assert_allclose(frame.beta, 3)


def test_probe_draws_beta_with_its_two_references():
    ax = probe(*parabola(), [1.0, 0.1]).plot(lr=0.5)
    beta, limit, bound = (line.get_xydata() for line in ax.lines)
    np.testing.assert_allclose(beta, [[0.1, 3], [1, 3]])  # in the order of s
    np.testing.assert_allclose(limit[:, 0] * limit[:, 1], 1)
    np.testing.assert_allclose(bound[:, 1], 4)
    assert texts(ax) == ["1/s", "2/lr"] and ax.get_xscale() == ax.get_yscale() == "log"
    loss = probe(*parabola(), [-1.0, 1.0]).plot(quantity="loss", lr=0.5)
    assert loss.get_xscale() == loss.get_yscale() == "linear" and "s = lr" in texts(loss)
    with pytest.raises(ValueError, match="quantity: expected one of loss, gradient_distance, cosine, beta"):
        probe(*parabola(), [1.0]).plot(quantity="curvature")


def test_slices_say_where_the_loss_is_lowest():
    net, loss = parabola(2.0)
    line = slice1d(net, loss, [-1.0, 0.0, 2.0], direction=[torch.ones(1)])
    assert repr(line) == "Slice1D of 3 points, alpha −1 to 2: loss 0 (lowest, at alpha −1) to 9"
    assert line.frame().to_dict("list") == {"alpha": [-1, 0, 2], "loss": [0, 1, 9]}
    assert texts(line.plot()) == ["model"]
    bowl = Point(torch.zeros(2, dtype=torch.float64))
    x, y = torch.eye(2).double()
    plane = slice2d(bowl, lambda net: net.theta.square().sum(), [0, 1], [1, 2], directions=([x], [y]))
    assert repr(plane) == "Slice2D of 2 × 2 points: loss 1 (lowest, at alpha 0, beta 1) to 5"
    frame = plane.frame()
    np.testing.assert_array_equal(frame.loss, frame.alpha**2 + frame.beta**2)
    broken = slice1d(
        Point(torch.ones(1)), lambda net: torch.log(net.theta).sum(), [-2.0], direction=[torch.ones(1)]
    )
    assert repr(broken).endswith("the loss is not finite anywhere")
    with pytest.raises(ValueError, match="plot: expected at least 2 different alphas"):
        slice2d(bowl, lambda net: net.theta.square().sum(), [0], [1, 2]).plot()


def test_sharpness_draws_eigenvalues_and_the_edge():
    diagonal = torch.tensor([-5.0, 1.0, 6.0], dtype=torch.float64)
    net = Point(torch.ones(3, dtype=torch.float64))
    found = sharpness(net, lambda net: (diagonal * net.theta**2).sum() / 2, k=2, smallest=True)
    assert repr(found) == "Sharpness: largest eigenvalues 6, 1, smallest −5 (6 Hessian products)".replace(
        "6 H", f"{found.products} H"
    )
    np.testing.assert_allclose(found.frame().eigenvalue, [6, 1])
    ax = found.plot(lr=0.4)
    assert texts(ax) == ["smallest", "2/lr"] and 5 in ax.lines[-1].get_ydata()


def test_without_matplotlib_everything_but_drawing_works():
    code = """
import sys
sys.modules["matplotlib"] = None
import torch, bnlab
net = torch.nn.Linear(2, 1)
found = bnlab.probe(net, lambda net: net.weight.square().sum(), [0.1])
print(repr(found), found.frame())
try:
    found.plot()
except ImportError as error:
    assert "pip install 'bnlab[plots]'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    code = "import sys, bnlab; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_layer_of_a_big_network_does_not_print_its_gradient():
    net = nn.Linear(300, 300)
    assert len(repr(probe(net, lambda net: net(torch.ones(2, 300)).square().mean(), [0.1]))) < 250


def test_critical_sharpness_says_its_step():
    text = repr(critical_sharpness(*parabola(), tol=1e-6))
    assert text.startswith("CriticalSharpness 3: along the update the loss rises from a step of 0.667 on")
