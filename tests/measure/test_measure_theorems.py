"""The statements of [2] §4 and [1] §3.3 on random networks, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlab.measure import theorems

TINY = 1e-40  # torch refuses 0


def smooth_net(units):
    return nn.Sequential(nn.Tanh(), nn.Linear(units, 6), nn.Softplus(), nn.Linear(6, 3)).double()


def relu_net(units):
    return nn.Sequential(nn.ReLU(), nn.Linear(units, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def normalized_net(units):
    """Another batch norm above: the loss mixes the samples of the batch."""
    net = nn.Sequential(nn.Tanh(), nn.Linear(units, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    return net.double()


def conv_net(units):
    return nn.Sequential(nn.Tanh(), nn.Conv2d(units, 2, 2), nn.Flatten(), nn.Linear(8, 3)).double()


def setting(make, seed, m=14, units=4):
    """y, gamma, beta and the loss of the layers above."""
    torch.manual_seed(seed)
    net = make(units)
    shape = (m, units, 3, 3) if make is conv_net else (m, units)
    y = (3 * torch.randn(shape) + torch.randn(1)).double()
    gamma, beta = torch.randn(units).double(), torch.randn(units).double()
    labels = torch.randint(3, (m,))
    return y, gamma, beta, lambda z: F.cross_entropy(net(z), labels, reduction="sum")


NETS = [smooth_net, relu_net, normalized_net, conv_net]


def torch_gradients(y, gamma, beta, loss):
    """dL^/dy and dL/dz through torch's own batch norm."""
    layer = (nn.BatchNorm2d if y.ndim == 4 else nn.BatchNorm1d)(len(gamma), eps=TINY).double()
    layer.weight.data, layer.bias.data = gamma, beta
    y = y.clone().requires_grad_()
    z = layer(y)
    return torch.autograd.grad(loss(z), [y, z])


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_gradient_identity(make, seed):
    y, gamma, beta, loss = setting(make, seed)
    found = theorems.gradient_identity(y, gamma, beta, loss)
    np.testing.assert_allclose(found.left, found.right, rtol=1e-10)
    v, g = torch_gradients(y, gamma, beta, loss)
    dims = (0, *range(2, y.ndim))
    np.testing.assert_allclose(found.left, v.square().sum(dims), rtol=1e-10)
    np.testing.assert_allclose(found.gradient_squared, g.square().sum(dims), rtol=1e-10)
    assert (found.mean_part >= 0).all() and (found.aligned_part >= 0).all()
    assert found.left.shape == (4,)


def test_the_printed_coefficient_fails():
    for seed in range(5):
        found = theorems.gradient_identity(*setting(smooth_net, seed, m=64))
        assert (found.left > found.printed).any()  # printed as an upper bound, and it is below


def test_the_printed_coefficient_in_closed_form():
    """L = |z|^2 / 2 is constant under batch norm: both sides are 0, and the printed bound is negative."""
    y, gamma, beta, _ = setting(smooth_net, 0, m=64)
    found = theorems.gradient_identity(y, gamma, beta, lambda z: 0.5 * z.square().sum())
    np.testing.assert_allclose(found.left, 0, atol=1e-20)
    np.testing.assert_allclose(found.right, 0, atol=1e-11)
    expected = gamma**4 / y.var(0, correction=0) * (64 - 64**1.5)
    np.testing.assert_allclose(found.printed, expected, rtol=1e-9)
    assert (found.printed < 0).all()


def test_the_gradient_at_y_itself_breaks_it():
    """The identification dL^/dz = dL/dy carries the theorem; the plain network's own gradient fails."""
    broken = 0
    for seed in range(40):
        y, gamma, beta, loss = setting(smooth_net, seed, units=1)
        left = theorems.gradient_identity(y, gamma, beta, loss).left[0]
        at_y = y.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(at_y), at_y)
        y_hat = (y - y.mean()) / y.std(correction=0)
        bound = g.square().sum() - g.sum() ** 2 / len(y) - (g * y_hat).sum() ** 2 / len(y)
        broken += left > (gamma**2 / y.var(correction=0) * bound).item() * (1 + 1e-9)
    assert 5 <= broken <= 35


def dense_second_derivative(function, point):
    return torch.autograd.functional.hessian(function, point)


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("seed", range(2))
def test_curvature_identity(make, seed):
    y, gamma, beta, loss = setting(make, seed, m=9)
    found = theorems.curvature_identity(y, gamma, beta, loss)
    np.testing.assert_allclose(found.left, found.right, rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(found.right, found.curvature - found.separation)
    # Unit 1 against the dense block of the Hessian, through torch's batch norm.
    v, _ = torch_gradients(y, gamma, beta, loss)
    layer = (nn.BatchNorm2d if y.ndim == 4 else nn.BatchNorm1d)(len(gamma), eps=TINY).double()
    layer.weight.data, layer.bias.data = gamma, beta

    def of_unit(unit):
        moved = torch.cat([y[:, :1], unit.view(y[:, 1:2].shape), y[:, 2:]], dim=1)
        return loss(layer(moved))

    block = dense_second_derivative(of_unit, y[:, 1].reshape(-1).clone())
    direction = v[:, 1].reshape(-1)
    assert found.left[1] == pytest.approx((direction @ block @ direction).item(), rel=1e-9)


def test_second_form_on_a_loss_that_preserves_norms():
    """H = 2 I and gamma < sigma: g^T H g exceeds v^T H v, so the second form is a bound."""
    y, gamma, beta, _ = setting(smooth_net, 0)
    target = torch.randn_like(y)
    found = theorems.curvature_identity(y, gamma, beta, lambda z: (z - target).square().sum())
    identity = theorems.gradient_identity(y, gamma, beta, lambda z: (z - target).square().sum())
    sigma = y.std(0, correction=0)
    assert (gamma.abs() < sigma).all() and (found.second_form >= found.left).all()
    expected = (gamma**2 / sigma**2).numpy() * 2 * identity.gradient_squared - found.separation
    np.testing.assert_allclose(found.second_form, expected, rtol=1e-10)


def test_linear_loss_has_only_the_separation():
    y, gamma, beta, _ = setting(smooth_net, 0)
    c = torch.randn_like(y)
    found = theorems.curvature_identity(y, gamma, beta, lambda z: (c * z).sum())
    np.testing.assert_array_equal(found.curvature, 0)
    np.testing.assert_allclose(found.left, -found.separation, rtol=1e-10)


@pytest.mark.parametrize("make", [smooth_net, relu_net, normalized_net])
def test_weight_gradient_bound(make):
    _, gamma, beta, loss = setting(make, 0)
    torch.manual_seed(5)
    x, weight = torch.randn(14, 6).double(), torch.randn(4, 6).double()
    found = theorems.weight_gradient_bound(x, weight, gamma, beta, loss)
    np.testing.assert_allclose(found.left, found.right, rtol=1e-10)
    assert (found.actual <= found.left * (1 + 1e-12)).all()
    # The actual gradient through torch's layers.
    linear = nn.Linear(6, 4, bias=False).double()
    linear.weight.data = weight
    layer = nn.BatchNorm1d(4, eps=TINY).double()
    layer.weight.data, layer.bias.data = gamma, beta
    (g,) = torch.autograd.grad(loss(layer(linear(x))), linear.weight)
    np.testing.assert_allclose(found.actual, g.square().sum(1), rtol=1e-9)
    # The maximum: no input of that spectral norm does better, and a rank-one input reaches it.
    lam = torch.linalg.matrix_norm(x, ord=2)
    v, _ = torch_gradients(x @ weight.T, gamma, beta, loss)
    for _ in range(50):
        other = torch.randn(14, 6).double()
        other *= lam / torch.linalg.matrix_norm(other, ord=2)
        assert ((other.T @ v).square().sum(0).numpy() <= found.left * (1 + 1e-12)).all()
    rank_one = lam * v[:, :1] / v[:, :1].norm() @ torch.eye(1, 6).double()
    assert (rank_one.T @ v[:, 0]).square().sum().item() == pytest.approx(found.left[0])


def test_the_printed_weight_bound_has_mixed_units():
    """Ten times the loss is a hundred times every squared gradient, and the printed bound does not follow."""
    _, gamma, beta, loss = setting(smooth_net, 0)
    x, weight = torch.randn(14, 6).double(), torch.randn(4, 6).double()
    once = theorems.weight_gradient_bound(x, weight, gamma, beta, loss)
    tenfold = theorems.weight_gradient_bound(x, weight, gamma, beta, lambda z: 10 * loss(z))
    np.testing.assert_allclose(tenfold.left, 100 * once.left, rtol=1e-10)
    np.testing.assert_allclose(tenfold.right, 100 * once.right, rtol=1e-10)
    assert (abs(tenfold.printed / once.printed - 100) > 1).any()


def test_initialisation_lemma():
    torch.manual_seed(0)
    for _ in range(20):
        w0, w_star = torch.randn(3, 4).double(), torch.randn(3, 4).double()
        if (w0 * w_star).sum() < 0:
            w_star = -w_star
        found = theorems.initialisation_lemma(w0, w_star)
        assert found.left == pytest.approx(found.right, rel=1e-12)
        assert found.left <= found.distance_squared
        ray = torch.linspace(0.01, 5, 500).double()
        nearest = min((w0 - k * w_star).square().sum().item() for k in ray)
        assert found.left <= nearest + 1e-12
        assert (w0 - found.scale * w_star).square().sum().item() == pytest.approx(found.left)


@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_scale_invariance(scale):
    torch.manual_seed(0)
    u, weight = torch.randn(12, 5).double(), torch.randn(4, 5).double()
    net = smooth_net(4)
    labels = torch.randint(3, (12,))
    found = theorems.scale_invariance(u, weight, lambda z: F.cross_entropy(net(z), labels), scale=scale)
    np.testing.assert_allclose(found.output, found.output_scaled, atol=1e-12)
    np.testing.assert_allclose(found.input_gradient, found.input_gradient_scaled, atol=1e-12)
    np.testing.assert_allclose(found.weight_gradient, scale * found.weight_gradient_scaled, atol=1e-12)
    assert abs(found.radial).max() < 1e-14 < abs(found.weight_gradient).max()
    expected = F.batch_norm(u @ weight.T, None, None, training=True, eps=TINY)
    np.testing.assert_allclose(found.output, expected, atol=1e-12)


def test_scale_invariance_is_approximate_with_eps_and_flips_for_negative_scale():
    torch.manual_seed(0)
    u, weight = torch.randn(12, 5).double(), torch.randn(1, 5).double()
    loss = lambda z: (z**3).sum()  # noqa: E731
    exact = theorems.scale_invariance(u, weight, loss, scale=1.0)
    found = theorems.scale_invariance(u, weight, loss, scale=1.0, eps=1e-3)
    var = (u @ weight.T).var(correction=0).item()
    error = 1 - found.output / exact.output
    np.testing.assert_allclose(error, 1e-3 / (2 * var), rtol=1e-2)
    flipped = theorems.scale_invariance(u, weight, loss, scale=-2.0)
    np.testing.assert_allclose(flipped.output, -flipped.output_scaled, atol=1e-12)


def test_gradient_descent_on_scale_invariant_weights_only_grows_them():
    """The gradient is orthogonal, so |W'|^2 = |W|^2 + lr^2 |g|^2."""
    torch.manual_seed(0)
    u, weight = torch.randn(12, 5).double(), torch.randn(4, 5).double()
    g = torch.from_numpy(
        theorems.scale_invariance(u, weight, lambda z: z.sin().sum(), scale=2.0).weight_gradient
    )
    after = (weight - 0.3 * g).square().sum()
    assert after.item() == pytest.approx((weight.square().sum() + 0.09 * g.square().sum()).item(), rel=1e-12)


def test_a_constant_unit_is_nan():
    y = torch.randn(6, 2).double()
    y[:, 1] = 3.0
    found = theorems.gradient_identity(
        y, torch.ones(2).double(), torch.zeros(2).double(), lambda z: z.sin().sum()
    )
    assert math.isfinite(found.left[0]) and math.isnan(found.left[1]) and math.isnan(found.right[1])


def test_bad_input():
    one, zero = torch.ones(2).double(), torch.zeros(2).double()
    y = torch.randn(5, 2).double()
    with pytest.raises(ValueError, match="y: expected a floating-point tensor"):
        theorems.gradient_identity(torch.ones(5), one, zero, torch.sum)
    with pytest.raises(ValueError, match=r"gamma, beta: expected shape \(2,\)"):
        theorems.curvature_identity(y, torch.ones(3), zero, torch.sum)
    with pytest.raises(ValueError, match="loss: expected one number"):
        theorems.gradient_identity(y, one, zero, lambda z: z)
    with pytest.raises(ValueError, match="without a gradient"):
        theorems.gradient_identity(y, one, zero, lambda z: z.detach().sum())
    with pytest.raises(ValueError, match="x, weight: expected shapes"):
        theorems.weight_gradient_bound(y, torch.ones(2, 3), one, zero, torch.sum)
    with pytest.raises(ValueError, match="u, weight: expected shapes"):
        theorems.scale_invariance(y, torch.ones(2, 3), torch.sum, scale=2.0)
    with pytest.raises(ValueError, match="w0, w_star: expected one shape"):
        theorems.initialisation_lemma(one, torch.ones(3))
    with pytest.raises(ValueError, match="positive inner product"):
        theorems.initialisation_lemma(one, -one)
