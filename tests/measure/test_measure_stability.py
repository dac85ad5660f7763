"""The Hessian operator, its spectrum, critical sharpness and batch sharpness on quadratics in closed form."""

import math

import numpy as np
import pytest
import torch
from measure_cases import Point, noisy_loss, noisy_net, quadratic, same, state
from scipy.sparse.linalg import eigsh, gmres

from bnlab import batch_sharpness, critical_sharpness, hessian, sharpness, spectrum


def bowl(*curvatures, at=1.0):
    diagonal = torch.tensor(curvatures, dtype=torch.float64)
    point = Point(torch.full((len(curvatures),), at, dtype=torch.float64))
    return point, lambda net: (diagonal * net.theta**2).sum() / 2


def test_the_operator_is_the_matrix_and_scipy_takes_it():
    net, matrix, loss = quadratic(n=30)
    before = state(net)
    operator = hessian(net, loss)
    assert same(before, state(net)) and operator.shape == (30, 30)
    np.testing.assert_allclose(operator @ np.eye(30), matrix, rtol=1e-12, atol=1e-12)
    v = np.arange(30.0)
    np.testing.assert_allclose(operator.rmatvec(v), matrix.numpy() @ v, rtol=1e-12)
    largest = eigsh(operator, k=1, which="LA", return_eigenvectors=False)
    assert largest[0] == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item())
    newton, failed = gmres(operator, operator.vector(operator.gradient()), rtol=1e-12)
    assert not failed
    np.testing.assert_allclose(newton, net.theta.detach(), rtol=1e-6)  # the minimum of a quadratic is 0
    np.testing.assert_array_equal(operator.tensors(v)[0], v)


@pytest.mark.parametrize("n", [6, 60])
def test_eigenvectors_and_the_smallest_eigenvalue(n):
    net, matrix, loss = quadratic(n=n)
    found = sharpness(net, loss, k=1, tol=1e-9, eigenvectors=True, smallest=True)
    values, vectors = torch.linalg.eigh(matrix)
    assert found.converged and found.smallest == pytest.approx(values[0].item(), rel=1e-8)
    assert found.eigenvalues[0] == pytest.approx(values[-1].item(), rel=1e-8)
    ((vector,),) = found.eigenvectors
    assert abs(vector @ vectors[:, -1]).item() == pytest.approx(1, rel=1e-8)
    assert found.residuals[0] == pytest.approx(
        (matrix @ vector - values[-1] * vector).norm().item(), abs=1e-9
    )
    assert sharpness(net, loss).eigenvectors is None and sharpness(net, loss).smallest is None


def test_spectrum_has_the_moments_of_the_matrix():
    """For a diagonal matrix and a vector of signs the quadrature is exact in the first moments."""
    net, loss = bowl(*np.linspace(-2, 3, 50), 40.0)
    found = spectrum(net, loss, steps=12, samples=2)
    diagonal = np.append(np.linspace(-2, 3, 50), 40.0)
    assert found.weights.sum() == pytest.approx(1)
    for power in (1, 2, 5):
        assert found.weights @ found.eigenvalues**power == pytest.approx((diagonal**power).mean(), rel=1e-9)
    assert found.trace == pytest.approx(diagonal.sum()) and found.products == 24
    assert found.eigenvalues[-1] == pytest.approx(40) and found.eigenvalues[0] == pytest.approx(-2, abs=0.1)
    grid = np.linspace(-10, 50, 4001)
    assert np.trapezoid(found.density(grid, 0.5), grid) == pytest.approx(1, rel=1e-6)
    with pytest.raises(ValueError, match="steps: expected a positive integer, got 0"):
        spectrum(net, loss, steps=0)


@pytest.mark.parametrize("guess", [1e-4, 0.1, 50.0])
def test_critical_sharpness_of_a_quadratic(guess):
    """Along the gradient g'Hg / g'g, along an update d'Hd / d'g."""
    net, loss = bowl(1.0, 4.0, at=2.0)
    g, h = np.array([2.0, 8.0]), np.diag([1.0, 4.0])
    before = state(net)
    found = critical_sharpness(net, loss, guess=guess, tol=1e-7)
    assert same(before, state(net))
    assert found.value == pytest.approx(g @ h @ g / (g @ g), rel=1e-6)
    assert found.value == 2 / found.step and found.bracket[0] <= found.step <= found.bracket[1]
    d = np.array([1.0, -0.1])
    along = critical_sharpness(net, loss, update={"theta": torch.tensor(d)}, guess=guess, tol=1e-7)
    assert along.value == pytest.approx(d @ h @ d / (d @ g), rel=1e-6)
    assert critical_sharpness(net, loss, guess=guess).value == pytest.approx(found.value, rel=0.05)


def test_critical_sharpness_counts_its_passes_and_knows_both_ends():
    net, loss = bowl(1.0, 4.0)
    calls = []

    def counted(net):
        calls.append(1)
        return loss(net)

    found = critical_sharpness(net, counted, guess=0.5)
    assert found.passes == len(calls) <= 10
    up = critical_sharpness(net, loss, update=[-net.theta.detach()])
    assert up.value == math.inf and up.step == 0
    slope = critical_sharpness(net, lambda net: net.theta.sum())
    assert slope.value == 0 and slope.step == math.inf
    with pytest.raises(ValueError, match="guess: expected a positive number"):
        critical_sharpness(net, loss, guess=0)


def test_batch_sharpness_is_the_mean_of_ratios():
    """Two batches with curvatures along different axes: the ratio of means would be another number."""
    net = Point(torch.tensor([1.0, 3.0], dtype=torch.float64))
    scales = torch.tensor([[1.0, 4.0], [2.0, 0.5]], dtype=torch.float64)
    losses = [lambda net, a=a: (a * net.theta**2).sum() / 2 for a in scales]
    before = state(net)
    found = batch_sharpness(net, losses)
    assert same(before, state(net))
    theta, ratios, norms = np.array([1.0, 3.0]), [], []
    for a in scales.numpy():
        g = a * theta
        ratios.append((a * g * g).sum() / (g @ g))
        norms.append(np.linalg.norm(g))
    np.testing.assert_allclose(found.curvatures, ratios, rtol=1e-13)
    np.testing.assert_allclose(found.gradient_norms, norms, rtol=1e-13)
    assert found.value == pytest.approx(np.mean(ratios), rel=1e-13)
    with pytest.raises(TypeError, match="got a single callable"):
        batch_sharpness(net, losses[0])
    with pytest.raises(ValueError, match="at least one mini-batch"):
        batch_sharpness(net, [])


def test_every_mini_batch_sees_the_same_random_numbers():
    net = noisy_net()
    before = state(net)
    found = batch_sharpness(net, [noisy_loss(), noisy_loss()])
    assert same(before, state(net)) and found.curvatures[0] == found.curvatures[1]
