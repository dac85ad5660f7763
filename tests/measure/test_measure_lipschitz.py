"""Lipschitz and smoothness constants known in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from bnlab.measure.lipschitz import lipschitz_estimate, smoothness_estimate


@pytest.mark.parametrize(
    ("function", "low", "high", "constant"),
    [
        (torch.abs, -1.0, 1.0, 1.0),
        (lambda x: torch.relu(1 - x), -1.0, 3.0, 1.0),
        (torch.square, -2.0, 1.0, 4.0),
        (F.softplus, -30.0, 30.0, 1.0),
        (torch.sin, -4.0, 4.0, 1.0),
        (lambda x: -7 * x, 0.0, 1.0, 7.0),
    ],
)
def test_lipschitz_constants(function, low, high, constant):
    found = lipschitz_estimate(function, low, high)
    assert found.value <= constant * (1 + 1e-9)  # never above it: a lower bound
    assert found.value == pytest.approx(constant, rel=2e-3)
    quotient = abs(function(found.x) - function(found.y)) / abs(found.x - found.y)
    assert quotient.item() == pytest.approx(found.value)


@pytest.mark.parametrize(
    ("function", "low", "high", "constant"),
    [(torch.square, -2.0, 1.0, 2.0), (F.softplus, -5.0, 5.0, 0.25), (torch.sin, -4.0, 4.0, 1.0)],
)
def test_smoothness_constants(function, low, high, constant):
    found = smoothness_estimate(function, low, high)
    assert found.value <= constant * (1 + 1e-9)
    assert found.value == pytest.approx(constant, rel=2e-3)


@pytest.mark.parametrize("function", [torch.abs, lambda x: torch.relu(1 - x) + 0 * x])
def test_a_kink_has_no_smoothness_constant(function):
    """Halving the spacing doubles the estimate."""
    coarse, fine = (smoothness_estimate(function, -2.0, 2.5, points=n).value for n in (1000, 1999))
    assert fine == pytest.approx(2 * coarse, rel=1e-6)


def test_in_a_box():
    """f = a.x has slope |a| along a, and no segment shows more; |Ax|^2/2 has the Hessian A^T A."""
    a = torch.tensor([3.0, -4.0], dtype=torch.float64)
    found = lipschitz_estimate(lambda x: x @ a, [-1, -1], [1, 1], lines=500)
    assert 4.99 < found.value <= 5.0 + 1e-12
    assert found.x.shape == (2,) and (found.x.abs() <= 1).all()
    matrix = torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    top = torch.linalg.matrix_norm(matrix, ord=2).item() ** 2
    found = smoothness_estimate(lambda x: 0.5 * (x @ matrix.T).square().sum(1), [-1, -1], [1, 1], lines=500)
    assert 0.99 * top < found.value <= top * (1 + 1e-9)
    again = lipschitz_estimate(lambda x: x @ a, [-1, -1], [1, 1], lines=500)
    assert again.value == lipschitz_estimate(lambda x: x @ a, [-1, -1], [1, 1], lines=500).value


def test_a_network_in_a_box():
    """A product of spectral norms bounds a ReLU network's Lipschitz constant from above."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    found = lipschitz_estimate(lambda x: net(x)[:, 0], [-1, -1, -1], [1, 1, 1])
    bound = math.prod(torch.linalg.matrix_norm(net[i].weight, ord=2).item() for i in (0, 2))
    assert 0 < found.value <= bound
    assert net[0].weight.grad is None


@given(st.floats(-5, 5), st.floats(0.1, 3), st.integers(2, 50))
def test_never_above_the_true_constant(low, width, points):
    assert lipschitz_estimate(torch.sin, low, low + width, points=points).value <= 1 + 1e-9


def test_nan_stays_nan():
    assert math.isnan(lipschitz_estimate(torch.log, -1.0, 1.0).value)


def test_bad_input():
    with pytest.raises(ValueError, match="low, high: expected two numbers or two points"):
        lipschitz_estimate(torch.abs, 1.0, -1.0)
    with pytest.raises(ValueError, match="low, high"):
        smoothness_estimate(torch.abs, [0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="points: expected at least 2"):
        lipschitz_estimate(torch.abs, 0.0, 1.0, points=1)
    with pytest.raises(ValueError, match="function: expected one value per point"):
        lipschitz_estimate(torch.abs, [0.0, 0.0], [1.0, 1.0])
