"""`distribution` and `track_activations` against SciPy and against activations computed by hand."""

import math

import numpy as np
import pytest
import torch
from measure_cases import noisy_loss, noisy_net, same, state
from scipy import stats
from torch import nn

from bnlab.measure.distribution import distribution, track_activations


@pytest.mark.parametrize("shape", [(40, 3), (10, 3, 4), (5, 3, 4, 2)])
def test_moments_and_percentiles_as_scipy_has_them(shape):
    torch.manual_seed(0)
    a = torch.rand(shape, dtype=torch.float64) ** 3
    columns = a.transpose(0, 1).reshape(3, -1).numpy()
    found = distribution(a)
    np.testing.assert_allclose(found.mean, columns.mean(1))
    np.testing.assert_allclose(found.std, columns.std(1))
    np.testing.assert_allclose(found.skewness, stats.skew(columns, axis=1))
    np.testing.assert_allclose(found.kurtosis, stats.kurtosis(columns, axis=1))
    np.testing.assert_allclose(found.percentiles, np.percentile(columns, [15, 50, 85], axis=1))


def test_constant_and_nan_units():
    a = torch.ones(5, 2)
    a[0, 1] = math.nan
    found = distribution(a)
    assert found.std[0] == 0 and math.isnan(found.skewness[0])
    assert math.isnan(found.mean[1]) and np.isnan(found.percentiles[:, 1]).all()


def test_a_track_holds_what_was_there_at_each_step():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3))
    x = torch.randn(20, 5)
    track = track_activations(net, lambda net: net(x), ["0", "2"])
    expected = []
    for step in (0, 10, 20):
        expected.append((x @ net[0].weight.T + net[0].bias).detach().numpy())
        now = track.record(step)
        np.testing.assert_allclose(now["0"].mean, expected[-1].mean(0), rtol=1e-5)
        net[0].weight.data.mul_(2)
    assert track.steps == [0, 10, 20]
    found = track["0"]
    np.testing.assert_allclose(found.std, [e.std(0) for e in expected], rtol=1e-5)
    percentiles = [np.percentile(e, [15, 50, 85], axis=0) for e in expected]
    np.testing.assert_allclose(found.percentiles, percentiles, rtol=1e-5, atol=1e-6)
    assert found.percentiles.shape == (3, 3, 4) and track["2"].mean.shape == (3, 3)


def test_batch_norm_pins_its_output_in_train_mode():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, eps=1e-30)).double()
    net[1].bias.data.fill_(3.0)
    net[1].weight.data.fill_(-2.0)
    x = torch.randn(20, 5, dtype=torch.float64)
    track = track_activations(net, lambda net: net(x), ["1"])
    track.record(0)
    net[0].weight.data.mul_(50)
    track.record(1)
    np.testing.assert_allclose(track["1"].mean, 3.0)
    np.testing.assert_allclose(track["1"].std, 2.0)


def test_leaves_no_trace():
    net, loss = noisy_net(), noisy_loss()
    before = state(net)
    track = track_activations(net, loss, ["0", "4.0"])
    first, second = track.record(0), track.record(1)
    assert same(before, state(net))
    assert np.array_equal(first["4.0"].mean, second["4.0"].mean)
    assert not any(module._forward_hooks for module in net.modules())

    def fails(net):
        loss(net)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        track_activations(net, fails, ["0"]).record(0)
    assert same(before, state(net)) and not net[0]._forward_hooks


def test_a_module_that_runs_twice_gives_one_sample():
    net = nn.Sequential(nn.Linear(3, 3))
    track = track_activations(net, lambda net: net(net(torch.randn(5, 3))), ["0"])
    track.record(0)
    assert track["0"].mean.shape == (1, 3)


def test_bad_input():
    net = noisy_net()
    with pytest.raises(ValueError, match=r"layers: expected names .* got \['conv'\]; it has 0, 1"):
        track_activations(net, noisy_loss(), ["conv"])
    with pytest.raises(ValueError, match="layers: expected names"):
        track_activations(net, noisy_loss(), [])
    with pytest.raises(ValueError, match=r"\['5'\] did not run"):
        track_activations(net, lambda net: net[0](torch.zeros(2, 5)), ["5"]).record(0)
    with pytest.raises(ValueError, match="activation: expected shape"):
        distribution(torch.zeros(3))
