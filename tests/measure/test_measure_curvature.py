"""`sharpness` against matrices known in closed form and against the dense Hessian of torch.func."""

import numpy as np
import pytest
import torch
from measure_cases import Point, Tied, noisy_loss, noisy_net, quadratic, same, state
from torch import nn
from torch.func import hessian
from torch.nn import functional as F

from bnlab.measure.curvature import sharpness
from bnlab.measure.landscape import probe


def dense_hessian(net, x, y):
    """Written out, and by torch.func's forward over reverse: another road than ours, reverse over reverse."""
    normalization = net[1]
    parameters = [p.detach() for p in net.parameters()]

    def loss(flat):
        pieces = flat.split([p.numel() for p in parameters])
        kernel, offset, weight, bias, matrix, last = (
            piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)
        )
        h = F.conv2d(x, kernel, offset)
        if net.training:
            mean, var = h.mean((0, 2, 3)), h.var((0, 2, 3), correction=0)
        else:
            mean, var = normalization.running_mean, normalization.running_var
        h = (h - mean.view(-1, 1, 1)) / torch.sqrt(var + normalization.eps).view(-1, 1, 1)
        h = F.softplus(h * weight.view(-1, 1, 1) + bias.view(-1, 1, 1))
        return F.cross_entropy(h.flatten(1) @ matrix.T + last, y)

    return hessian(loss)(torch.cat([p.flatten() for p in parameters]))


@pytest.mark.parametrize("n", [3, 40])
def test_quadratic(n):
    net, matrix, loss = quadratic(n=n)
    result = sharpness(net, loss, k=2, tol=1e-10)
    expected = torch.linalg.eigvalsh(matrix).flip(0)[:2]
    np.testing.assert_allclose(result.eigenvalues, expected, rtol=1e-9)
    assert result.converged and (result.residuals < 1e-8).all()


def test_largest_means_algebraic():
    """Curvatures 1 and -5: the largest is 1, though -5 is larger in magnitude."""
    net = Point(torch.ones(60, dtype=torch.float64))
    diagonal = torch.cat([torch.linspace(0, 1, 59), torch.tensor([-5.0])]).double()
    result = sharpness(net, lambda net: 0.5 * (diagonal * net.theta**2).sum(), tol=1e-9)
    assert result.eigenvalues[0] == pytest.approx(1.0, rel=1e-8)


@pytest.mark.parametrize("features", [4, 30])
def test_logistic_regression_has_an_analytic_hessian(features):
    """H = X^T diag(p (1 - p)) X / m."""
    torch.manual_seed(0)
    x = torch.randn(50, features, dtype=torch.float64)
    y = (torch.rand(50) > 0.5).double()
    net = nn.Linear(features, 1, bias=False).double()
    result = sharpness(net, lambda net: F.binary_cross_entropy_with_logits(net(x)[:, 0], y), k=3, tol=1e-10)
    p = torch.sigmoid(net(x)[:, 0]).detach()
    expected = torch.linalg.eigvalsh(x.T @ ((p * (1 - p))[:, None] * x) / 50).flip(0)[:3]
    np.testing.assert_allclose(result.eigenvalues, expected, rtol=1e-9)
    assert result.converged


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch.func's own forward mode
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_batch_norm_net_against_the_dense_hessian(training):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Softplus(), nn.Flatten(), nn.Linear(48, 3)
    ).double()
    net[1].weight.data.uniform_(0.5, 1.5)
    net.train(training)
    x = torch.randn(10, 1, 6, 6, dtype=torch.float64)
    y = torch.randint(3, (10,))
    matrix = dense_hessian(net, x, y)
    expected = torch.linalg.eigvalsh(matrix).flip(0)[:4]
    before = state(net)
    result = sharpness(net, lambda net: F.cross_entropy(net(x), y), k=4, tol=1e-8)
    assert same(before, state(net))
    np.testing.assert_allclose(result.eigenvalues, expected, rtol=1e-7)
    assert result.converged
    single = sharpness(net.float(), lambda net: F.cross_entropy(net(x.float()), y), k=4)
    np.testing.assert_allclose(single.eigenvalues, expected, rtol=2e-3)
    assert single.converged


def test_a_relu_net_shows_the_curvature_of_its_linear_piece_only():
    """|w| has a kink at 0 and no curvature beside it. The Hessian does not see it, the gradient does."""
    net = Point(torch.full((30,), 1e-3, dtype=torch.float64))
    loss = lambda net: torch.relu(net.theta).sum() + torch.relu(-net.theta).sum()  # noqa: E731
    result = sharpness(net, loss)
    assert result.eigenvalues[0] == 0 and result.converged
    assert probe(net, loss, [2e-3]).effective_beta == pytest.approx(2 / 2e-3)


def test_what_lanczos_gives_up_is_nan(monkeypatch):
    """One outlier is found at once; the others, in a dense band, are not in one restart."""
    net = Point(torch.ones(400, dtype=torch.float64))
    spectrum = torch.cat([torch.linspace(0, 1, 399), torch.tensor([50.0])]).double()
    loss = lambda net: 0.5 * (spectrum * net.theta**2).sum()  # noqa: E731
    monkeypatch.setattr("bnlab.measure.curvature.RESTARTS", 1)
    result = sharpness(net, loss, k=3, tol=1e-10)
    assert result.eigenvalues[0] == pytest.approx(50.0)
    assert np.isnan(result.eigenvalues[1:]).all() and np.isnan(result.residuals[1:]).all()
    assert not result.converged


def test_a_residual_above_tol_is_not_converged():
    """Beyond the precision of float64 ARPACK is content, and the residual is not."""
    net = Point(torch.ones(400, dtype=torch.float64))
    spectrum = 1 - 1e-9 * torch.arange(400, dtype=torch.float64)
    result = sharpness(net, lambda net: 0.5 * (spectrum * net.theta**2).sum(), tol=1e-16)
    assert result.eigenvalues[0] == pytest.approx(1.0)
    assert result.residuals[0] > 1e-16 and not result.converged


def test_residuals_are_true():
    """A loose tolerance: the eigenvalue is off, and the residual says by how much at most."""
    torch.manual_seed(0)
    net = Point(torch.ones(200, dtype=torch.float64))
    spectrum = torch.linspace(0, 1, 200, dtype=torch.float64) ** 0.5
    result = sharpness(net, lambda net: 0.5 * (spectrum * net.theta**2).sum(), tol=0.05)
    error = (spectrum - result.eigenvalues[0]).abs().min().item()
    assert 0 < error <= result.residuals[0] <= 0.05
    tight = sharpness(net, lambda net: 0.5 * (spectrum * net.theta**2).sum(), tol=1e-8)
    assert tight.residuals[0] < 1e-7 and tight.products > result.products


def test_float32_finds_what_float64_finds():
    """Lanczos then runs in float32: as many products, and its true residual decides."""
    spectrum = torch.linspace(0, 1, 200, dtype=torch.float64) ** 0.5

    def bowl(net):
        return 0.5 * (spectrum.to(net.theta.dtype) * net.theta**2).sum()

    double, single = (Point(torch.ones(200, dtype=dtype)) for dtype in (torch.float64, torch.float32))
    exact, found = sharpness(double, bowl, k=3, tol=1e-5), sharpness(single, bowl, k=3, tol=1e-5)
    assert found.eigenvalues.dtype == found.residuals.dtype == np.float64
    np.testing.assert_allclose(found.eigenvalues, exact.eigenvalues, rtol=1e-5)
    assert found.converged and found.products == exact.products
    assert not sharpness(single, bowl, tol=1e-12).converged


def test_linear_loss_and_unused_parameters():
    net = Tied()
    x = torch.randn(3, 4)
    result = sharpness(net, lambda net: net.idle(x[:, :2]).sum() + net.second.bias.sum())
    assert result.eigenvalues.tolist() == [0.0] and result.converged
    result = sharpness(net, lambda net: (net.second.bias**2).sum() * 3)
    assert result.eigenvalues[0] == pytest.approx(6.0)


def test_not_finite():
    net = Point(torch.zeros(30, dtype=torch.float64))
    result = sharpness(net, lambda net: torch.sqrt(net.theta).sum(), k=2)
    assert np.isnan(result.eigenvalues).all() and np.isnan(result.residuals).all()
    assert result.eigenvalues.shape == (2,) and not result.converged


def test_same_seed_same_numbers_and_no_trace():
    net, loss = noisy_net(), noisy_loss()
    before = state(net)
    first = sharpness(net, loss, k=2)
    assert same(before, state(net))
    second = sharpness(net, loss, k=2)
    assert np.array_equal(first.eigenvalues, second.eigenvalues)
    other = sharpness(net, loss, k=2, seed=5)
    np.testing.assert_allclose(first.eigenvalues, other.eigenvalues, rtol=1e-3)

    def fails(net):
        loss(net)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        sharpness(net, fails)
    assert same(before, state(net))


def test_runs_the_model_once_and_once_for_the_check():
    net, loss = noisy_net(), noisy_loss()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    assert sharpness(net, loss, k=2, check=False).products > 2
    assert len(calls) == 1
    sharpness(net, loss, k=2)
    assert len(calls) == 3


def test_on_every_device(device):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).to(device)
    x = torch.randn(12, 5, device=device)
    assert sharpness(net, lambda net: net(x).square().mean()).converged


@pytest.mark.parametrize("k", [0, 100_000, 1.5])
def test_bad_input(k):
    with pytest.raises(ValueError, match="k: expected an integer from 1 to"):
        sharpness(noisy_net(), noisy_loss(), k=k)
    with pytest.raises(ValueError, match="tol: expected a positive number"):
        sharpness(noisy_net(), noisy_loss(), tol=0)
