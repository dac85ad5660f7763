"""`saturation` against derivatives known in closed form."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

import bnlab
from bnlab.measure.saturation import saturation

Z = torch.linspace(-6, 6, 48, dtype=torch.float64).view(12, 4)

DERIVATIVES = [
    (torch.sigmoid, lambda z: 1 / (2 + 2 * np.cosh(z)), 0.25),
    (torch.tanh, lambda z: 1 / np.cosh(z) ** 2, 1.0),
    (nn.ReLU(), lambda z: (z > 0) * 1.0, 1.0),
    (nn.ReLU(inplace=True), lambda z: (z > 0) * 1.0, 1.0),
    (nn.ELU(), lambda z: np.minimum(np.exp(z), 1), 1.0),
    (nn.LeakyReLU(0.3), lambda z: np.where(z > 0, 1, 0.3), 1.0),
    (lambda z: -3 * z, lambda z: 3 + 0 * z, 3.0),
]


@pytest.mark.parametrize(("activation", "derivative", "steepest"), DERIVATIVES)
def test_slope_in_closed_form(activation, derivative, steepest):
    found = saturation(Z, activation)
    slope = derivative(Z.numpy())
    np.testing.assert_allclose(found.slope, slope.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.saturated, (slope < 0.1 * steepest).mean(0))
    assert found.steepest == pytest.approx(steepest)
    assert found.mean_slope == pytest.approx(slope.mean())
    assert found.share == pytest.approx((slope < 0.1 * steepest).mean())


def test_the_edges_stated_in_the_docstring():
    for activation, edge in ((torch.sigmoid, 3.6), (torch.tanh, 1.8), (torch.relu, 0.0)):
        inside, outside = torch.full((1, 1), edge - 0.05), torch.full((1, 1), edge + 0.05)
        if activation is torch.relu:
            inside, outside = -outside, -inside
            assert saturation(inside, activation).share == 1 and saturation(outside, activation).share == 0
        else:
            assert saturation(inside, activation).share == 0 and saturation(outside, activation).share == 1
    for activation in (nn.ELU(), nn.SELU()):
        assert saturation(torch.full((1, 1), -2.25), activation).share == 0
        assert saturation(torch.full((1, 1), -2.35), activation).share == 1


def test_a_slope_that_is_steepest_beside_a_kink():
    """SELU's is lambda * alpha at 0-, whatever the framework says at 0 itself; its mirror image's at 0+."""
    steepest = 1.0507009873554804934193349852946 * 1.6732632423543772848170429916717
    for dtype in (torch.float32, torch.float64):
        far = torch.full((2, 1), 5.0, dtype=dtype)
        for activation in (nn.SELU(), bnlab.SELU(), lambda z: -F.selu(-z)):
            assert saturation(far, activation).steepest == pytest.approx(steepest, rel=1e-6)


def test_dead_units_and_pixels():
    z = torch.randn(6, 3, 2, 2)
    z[:, 1] = -z[:, 1].abs() - 0.1
    found = saturation(z, torch.relu)
    assert found.slope.shape == (3,) and found.saturated[1] == 1
    assert found.dead == pytest.approx(1 / 3)


def test_nan_stays_nan_and_input_is_untouched():
    z = torch.tensor([[1.0, math.nan], [2.0, 1.0]])
    copy = z.clone()
    found = saturation(z, nn.ReLU(inplace=True))
    assert math.isfinite(found.slope[0])
    found = saturation(z, torch.sigmoid)
    assert math.isnan(found.slope[1]) and math.isnan(found.mean_slope)
    assert torch.equal(z.nan_to_num(7), copy.nan_to_num(7)) and not z.requires_grad


def test_bad_input():
    with pytest.raises(ValueError, match="pre_activation: expected a floating-point tensor"):
        saturation(torch.ones(3), torch.tanh)
    with pytest.raises(ValueError, match="threshold: expected a number between 0 and 1"):
        saturation(Z, torch.tanh, threshold=1.0)
    with pytest.raises(ValueError, match="activation: expected an element-by-element function"):
        saturation(Z, lambda z: z.sum(1))
    with pytest.raises(TypeError, match="pre_activation: expected a tensor, got tuple"):
        saturation((Z, Z), torch.tanh)
    with pytest.raises(ValueError, match="channel_dim=3"):
        saturation(Z, torch.tanh, channel_dim=3)


def test_tokens_have_their_units_last():
    tokens = Z.view(3, 4, 4)
    assert (
        saturation(tokens, torch.tanh, channel_dim=-1).slope.tolist()
        == saturation(Z, torch.tanh).slope.tolist()
    )
    assert saturation(tokens, torch.tanh).slope.shape == (4,)


def test_the_result_shows_itself():
    state = saturation(Z, torch.sigmoid)
    assert repr(state).startswith(f"Saturation(4 units: {100 * state.share:.1f}% of the inputs saturated")
    frame = state.frame()
    assert list(frame) == ["unit", "slope", "saturated"] and frame["slope"].tolist() == state.slope.tolist()
    ax = Figure().subplots()
    assert state.plot(ax, label="trained") is ax
    line = ax.lines[0]
    assert line.get_ydata().tolist() == sorted(100 * state.saturated, reverse=True)
    assert line.get_xdata().tolist() == [12.5, 37.5, 62.5, 87.5] and line.get_label() == "trained"
