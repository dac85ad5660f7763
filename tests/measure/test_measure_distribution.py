"""`distribution` and `track_activations` against SciPy and against activations computed by hand."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
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


# --- networks of others ---------------------------------------------------------------------------------


def test_tokens_have_their_units_last():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4))
    tokens = torch.randn(5, 7, 6)
    track = track_activations(net, lambda net: net(tokens), ["0"], channel_dim=-1)
    track.record(0)
    expected = net[0](tokens).detach().reshape(35, 4).numpy()
    np.testing.assert_allclose(track["0"].mean[0], expected.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(track["0"].std[0], expected.std(0), rtol=1e-5)
    np.testing.assert_allclose(distribution(tokens, channel_dim=2).mean, tokens.mean((0, 1)), atol=1e-6)
    assert distribution(tokens, channel_dim=0).mean.shape == (5,)


def test_of_several_outputs_the_first_counts():
    torch.manual_seed(0)

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = nn.LSTM(3, 4, batch_first=True)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            states, _ = self.memory(x)
            return self.attention(states, states, states)

    net, x = Reader(), torch.randn(5, 6, 3)
    now = track_activations(net, lambda net: net(x), ["memory", "attention"], channel_dim=-1).record(0)
    for name, expected in (("memory", net.memory(x)[0]), ("attention", net(x)[0])):
        expected = expected.detach().reshape(30, 4).numpy()
        np.testing.assert_allclose(now[name].mean, expected.mean(0), rtol=1e-4, atol=1e-6)


def test_calls_of_different_lengths_are_one_sample():
    net = nn.Sequential(nn.Linear(3, 2))
    short, long = torch.randn(4, 5, 3), torch.randn(4, 8, 3)
    track = track_activations(net, lambda net: (net(short), net(long)), ["0"], channel_dim=-1)
    expected = torch.cat([net(x).flatten(0, 1) for x in (short, long)]).detach().numpy()
    np.testing.assert_allclose(track.record(0)["0"].mean, expected.mean(0), rtol=1e-5, atol=1e-6)


def test_an_output_without_a_tensor_is_named():
    class Wrapped(nn.Module):
        def forward(self, x):
            return {"output": x}

    track = track_activations(nn.Sequential(Wrapped()), lambda net: net(torch.ones(2, 3)), ["0"])
    with pytest.raises(TypeError, match=r"layers: expected the output of '0' to be a tensor.* got dict"):
        track.record(0)
    with pytest.raises(ValueError, match="channel_dim=2; got"):
        distribution(torch.ones(3, 4), channel_dim=2)


# --- the results ----------------------------------------------------------------------------------------


def recorded():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    x = torch.randn(20, 5)
    track = track_activations(net, lambda net: net(x), ["0", "2"])
    for step in (0, 10):
        track.record(step)
        net[0].weight.data.mul_(2)
    return track


def test_a_track_as_a_table():
    track = recorded()
    frame = track.frame()
    moments = ["mean", "std", "skewness", "kurtosis", "p15", "p50", "p85"]
    assert list(frame) == ["step", "name", "unit", *moments] and len(frame) == 2 * (4 + 3)
    row = frame[(frame["step"] == 10) & (frame["name"] == "2") & (frame["unit"] == 1)].iloc[0]
    assert row["std"] == track["2"].std[1, 1] and row["p85"] == track["2"].percentiles[1, 2, 1]
    now = track.record(20)["0"]
    assert now.frame()["p50"].tolist() == now.percentiles[1].tolist()


def test_short_words_for_long_results():
    track = recorded()
    assert repr(track) == "ActivationTrack(2 layers: 0, 2; 2 records)"
    assert repr(track["0"]).startswith("Distribution(2 records of 4 units: mean ")
    assert repr(track.record(20)["2"]).startswith("Distribution(3 units: mean ")
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        track_activations(nn.Sequential(nn.Tanh()), noisy_loss(), ["0"])["0"]


@pytest.mark.parametrize("unit", [None, 1])
def test_a_track_as_a_picture(unit):
    track = recorded()
    ax = Figure().subplots()
    assert track.plot(ax, layer="0", unit=unit) is ax
    percentiles = track["0"].percentiles
    low, median, high = (percentiles.mean(-1) if unit is None else percentiles[..., unit]).T
    assert ax.lines[0].get_xdata().tolist() == [0, 10] and ax.lines[0].get_ydata().tolist() == median.tolist()
    band = ax.collections[0].get_paths()[0].vertices
    assert {*low, *high} <= {*band[:, 1]}
    assert ax.lines[0].get_label() == "layer 0"
    assert track.plot(Figure().subplots()).lines[0].get_label() == "layer 2"


def test_a_distribution_as_a_picture():
    now = recorded().record(20)["0"]
    ax = Figure().subplots()
    assert now.plot(ax) is ax and ax.lines[0].get_ydata().tolist() == now.percentiles[1].tolist()
