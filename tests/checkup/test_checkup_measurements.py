"""The numbers of a check-up against slow, direct computation in float64."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, cross_entropy

import bnlab
from bnlab.checkup.measurements import PLAIN, RETAKEN, STORED, TRAIN


def network(momentum=0.1):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 6), nn.BatchNorm1d(6, momentum=momentum), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    net[1].num_batches_tracked += 20
    nn.init.normal_(net[1].weight)
    return net


def data(count=8, size=12):
    torch.manual_seed(1)
    x = 1 + torch.randn(count * size, 5)
    y = (x[:, 0] > 1).long() + (x[:, 1] > 1).long()
    return list(zip(x.split(size), y.split(size), strict=True))


def by_hand(net, x, mean=None, var=None):
    """The network in float64 without dropout, with given statistics or those of the batch."""
    net = copy.deepcopy(net).double()
    h = net[0](x.double())
    mean = h.mean(0) if mean is None else mean.double()
    var = h.var(0, correction=0) if var is None else var.double()
    h = (h - mean) / (var + net[1].eps).sqrt() * net[1].weight + net[1].bias
    return net[4](h.relu())


def average_loss(outputs, batches):
    return sum(cross_entropy(o, y).item() for o, (_, y) in zip(outputs, batches, strict=True)) / len(batches)


def test_the_losses_of_the_head():
    net, batches = network(), data()
    head = bnlab.checkup(net, batches).head
    hidden = net[0](torch.cat([x for x, _ in batches])).double()
    plain = [by_hand(net, x) for x, _ in batches]
    stored = [by_hand(net, x, net[1].running_mean, net[1].running_var) for x, _ in batches]
    retaken = [by_hand(net, x, hidden.mean(0), hidden.var(0)) for x, _ in batches]
    for mode, outputs in ((PLAIN, plain), (STORED, stored), (RETAKEN, retaken)):
        assert head[mode].loss == pytest.approx(average_loss(outputs, batches), rel=1e-5), mode
        right = [
            (o.argmax(1) == y).double().mean().item() for o, (_, y) in zip(outputs, batches, strict=True)
        ]
        assert head[mode].accuracy == pytest.approx(sum(right) / len(right)), mode
    torch.set_rng_state(before := torch.get_rng_state())
    expected = [cross_entropy(net.train()(x), y).item() for x, y in batches]
    torch.set_rng_state(before)
    assert bnlab.checkup(net, batches).head[TRAIN].loss == pytest.approx(sum(expected) / len(expected))


def test_the_numbers_of_a_layer():
    net, batches = network(momentum=0.3), data()
    numbers = bnlab.checkup(net, batches).frame().loc["1"]
    x = torch.cat([x for x, _ in batches]).double()
    hidden = copy.deepcopy(net[0]).double()(x).detach()
    mean, var = hidden.mean(0), hidden.var(0)
    spread = (var + 1e-5).sqrt()
    stored = (net[1].running_var.double() + 1e-5).sqrt()
    means = torch.stack([part.mean(0) for part in hidden.split(12)])
    between = 12 * means.var(0) / var
    expected = {
        "shift": (((net[1].running_mean - mean) / spread) ** 2).mean().sqrt(),
        "log_spread": ((stored / spread).log() ** 2).mean().sqrt(),
        "momentum_noise": math.sqrt(0.3 / 1.7) * ((means / spread).var(0)).mean().sqrt(),
        "batch_kinds": between.mean(),
        "eps_share": (1e-5 / (var + 1e-5)).median(),
        "mean_over_spread": (mean.abs() / var.sqrt()).median(),
        "left_of_start": 0.7**20,
        "values": 12,
        "calls": 1,
        "dropout": 0,
    }
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(float(value), rel=1e-4, abs=1e-9), name
    assert numbers["independent"] == pytest.approx(12, rel=0.05)  # no positions: the batch size


def test_independent_values_of_a_convolution_lie_between_samples_and_positions():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(2))
    white, flat = torch.randn(64, 2, 6, 6), torch.randn(64, 2, 1, 1).expand(64, 2, 6, 6)
    for x, expected in ((white, 16 * 36), (flat.contiguous(), 16)):
        found = bnlab.checkup(net, list(x.split(16))).layers[0]
        assert found.independent == pytest.approx(expected, rel=0.25)


def test_dropout_widens_what_stands_behind_it():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4))
    x = torch.randn(20 * 200, 4)  # dropout with p = 0.5 doubles the second moment
    found = bnlab.checkup(net, list(x.split(200))).layers[0]
    assert found.dropout == pytest.approx(0.5 * math.log(2), abs=0.02)


def test_two_calls_are_kept_apart():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(x) + self.norm(x + 5)

    torch.manual_seed(0)
    x = torch.randn(160, 3)
    found = bnlab.checkup(Twice(), list(x.split(16))).layers[0]
    both = torch.cat([x, x + 5])
    assert found.calls == 2
    assert found.call_difference == pytest.approx(float((5 / both.std(0)).pow(2).mean().sqrt()), rel=1e-3)


def test_recomputation_is_counted_in_the_backward_pass():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.head = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(torch.utils.checkpoint.checkpoint(self.part, x, use_reentrant=False))

    found = bnlab.checkup(Checkpointed(), data())
    assert found.layers[0].calls_in_backward == 1 and "recomputed" in found.causes


def test_blame_is_the_loss_with_one_layers_stored_statistics():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3), nn.BatchNorm1d(3))
    net[4].running_mean += 3 * torch.randn(3)
    batches = data(4, 16)
    found = bnlab.checkup(net, batches).frame()
    good = copy.deepcopy(net)
    bnlab.retake_statistics(good, batches)

    def loss(net):
        net.eval()
        return sum(cross_entropy(net(x), y).item() for x, y in batches[:2]) / 2

    for name in ("1", "4"):
        mixed = copy.deepcopy(good)
        mixed[int(name)].load_state_dict(net[int(name)].state_dict())
        assert found.loc[name, "blame"] == pytest.approx(loss(mixed) - loss(good), rel=1e-4, abs=1e-6)


def test_test_data_are_compared_at_the_first_layer():
    net = nn.Sequential(nn.BatchNorm1d(2))
    torch.manual_seed(0)
    x, other = torch.randn(200, 2), 1 + 2 * torch.randn(60, 2)
    found = bnlab.checkup(net, list(x.split(20)), test=[other]).layers[0]
    assert found.test_shift > 0.7 and found.test_log_spread == pytest.approx(math.log(2), abs=0.3)


def test_batch_norm_of_a_half_batch_is_another_function():
    torch.manual_seed(0)
    x = torch.randn(32, 3)
    found = bnlab.checkup(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), [x, x])
    assert found.causes[0] == "no statistics"
    whole, half = batch_norm(x, None, None, training=True)[:16], batch_norm(x[:16], None, None, training=True)
    whole, half = whole.double(), half.double()
    moved = (whole - half).pow(2).mean().sqrt() / (whole - whole.mean(0)).pow(2).mean().sqrt()
    assert f"{float(moved):.2g} spreads" in found.findings[0].measured
