"""Remedies against slow computation in float64 and against torch."""

import copy
import math

import pytest
import torch
from torch import nn

import bnlab
from bnlab.checkup import batch_statistics, fold, retake_statistics, running_statistics


def batches_of(x, sizes):
    return list(x.split(sizes))


LAYERS = {
    "torch": lambda: nn.BatchNorm2d(3),
    "torch, no affine": lambda: nn.BatchNorm2d(3, affine=False),
    "bnlab": lambda: bnlab.BatchNorm(3),
    "ghost": lambda: bnlab.GhostBatchNorm(3, ghost_size=4),
    "noisy": lambda: bnlab.NoisyBatchNorm(3),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_retaken_statistics_are_those_of_all_samples_at_once(make):
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(29, 3, 4, 5)
    net = nn.Sequential(make())
    retake_statistics(net, batches_of(x, [8, 16, 5]))
    flat = x.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[0].running_mean.double(), flat.mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(net[0].running_var.double(), flat.var(1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3.5, math.inf])
def test_retaken_norm_is_that_of_all_samples_at_once(p):
    torch.manual_seed(0)
    x = 1 + torch.randn(20, 3)
    net = nn.Sequential(bnlab.LpBatchNorm(3, p=p))
    retake_statistics(net, batches_of(x, [8, 12]))
    size = x.double().abs()
    expected = size.amax(0) if p == math.inf else size.pow(p).mean(0).pow(1 / p)
    torch.testing.assert_close(net[0].running_norm.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [nn.InstanceNorm1d, bnlab.InstanceNorm])
def test_an_instance_norm_stores_the_average_over_samples(make):
    torch.manual_seed(0)
    x = torch.randn(10, 3, 7) + 5 * torch.randn(10, 3, 1)
    net = nn.Sequential(make(3, track_running_stats=True))
    retake_statistics(net, batches_of(x, [4, 6]))
    torch.testing.assert_close(net[0].running_mean, x.mean((0, 2)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net[0].running_var, x.var(2).mean(0), rtol=1e-5, atol=1e-5)


def test_a_second_layer_sees_what_it_sees_in_training_without_dropout():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4), nn.BatchNorm1d(4))
    x = torch.randn(24, 4)
    retake_statistics(net, batches_of(x, [8, 8, 8]))
    inner = [nn.functional.batch_norm(part, None, None, training=True) for part in x.split(8)]
    hidden = net[2](torch.cat(inner)).double()
    torch.testing.assert_close(net[3].running_mean.double(), hidden.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net[3].running_var.double(), hidden.var(0), rtol=1e-5, atol=1e-5)


def test_update_bn_leaves_out_the_spread_of_the_batch_means_and_retaking_does_not():
    x = torch.cat([torch.randn(32, 2), 4 + torch.randn(32, 2)])
    torchs, ours = (nn.Sequential(nn.BatchNorm1d(2)) for _ in range(2))
    torch.optim.swa_utils.update_bn(x.split(32), torchs)
    retake_statistics(ours, x.split(32))
    assert bool((torchs[0].running_var < 2).all())
    torch.testing.assert_close(ours[0].running_var, x.var(0))


def test_a_dry_run_tells_the_same_and_changes_nothing():
    net = nn.Sequential(nn.BatchNorm1d(2, momentum=None), nn.Dropout()).train()
    before = copy.deepcopy(net.state_dict())
    batches = [torch.tensor([[1.0, 5.0], [3.0, 9.0]]), torch.tensor([[5.0, 1.0], [7.0, 1.0]])]
    state = torch.get_rng_state()
    dry = retake_statistics(net, batches, dry_run=True)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert torch.equal(state, torch.get_rng_state()) and net.training and net[1].training
    wet = retake_statistics(net, batches)
    torch.testing.assert_close(dry["0"].mean, wet["0"].mean, rtol=0, atol=0)
    spread = torch.tensor([20 / 3, 44 / 3], dtype=torch.float64)
    torch.testing.assert_close(wet["0"].spread, spread)
    torch.testing.assert_close(wet["0"].shift, -torch.tensor([4.0, 4.0]).double() / (spread + 1e-5).sqrt())
    assert net[0].num_batches_tracked == 2  # of a plain average: what two batches weigh


def test_the_model_stays_as_it_was_when_a_batch_raises():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    net[1].eval()
    with pytest.raises(ValueError, match="more than 1 value"):
        retake_statistics(net, [torch.randn(4, 2), torch.randn(1, 2)])
    assert net[0].running_mean.tolist() == [0, 0] and net.training and not net[1].training


def test_what_cannot_be_retaken_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="no layer of this Linear stores statistics"):
        retake_statistics(nn.Linear(2, 2), [torch.randn(3, 2)])
    norm = nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match="at least one batch"):
        retake_statistics(norm, [])
    with pytest.raises(TypeError, match=r"batches: expected an iterable .* write \[batches\]"):
        retake_statistics(norm, torch.randn(3, 2))
    with pytest.raises(TypeError, match=r"a dict with 'image'.*forward="):
        retake_statistics(norm, [{"image": torch.randn(3, 2)}])


def test_dictionaries_pass_through_forward():
    norm = nn.BatchNorm1d(2)
    x = torch.randn(9, 2)
    retake_statistics(norm, ({"image": part} for part in x.split(3)), forward=lambda net, b: net(b["image"]))
    torch.testing.assert_close(norm.running_var, x.var(0))


def test_a_layer_of_an_unknown_class_is_known_by_its_buffers():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.eps = 0.0
            self.register_buffer("moving_mean", torch.zeros(3))
            self.register_buffer("moving_variance", torch.ones(3))

        def forward(self, x):  # channels last
            return (x - self.moving_mean) / self.moving_variance.sqrt()

    own, x = Own(), torch.randn(6, 4, 3)
    retake_statistics(own, [x])
    torch.testing.assert_close(own.moving_mean, x.mean((0, 1)))
    torch.testing.assert_close(own.moving_variance, x.flatten(0, 1).var(0))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, bnlab.BatchNorm])
@pytest.mark.parametrize("mode", [True, False])
def test_the_contexts_choose_the_statistics_and_touch_nothing_else(norm, mode):
    torch.manual_seed(0)
    net = nn.Sequential(norm(3), nn.Dropout(0.5)).train(mode)
    net[0].running_mean += 1
    x = torch.randn(8, 3)
    before = copy.deepcopy(net.state_dict())
    with batch_statistics(net):
        assert net[1].training == mode
        by_batch = net[0](x)
    with running_statistics(net):
        assert net[1].training == mode
        by_stored = net[0](x)
    torch.testing.assert_close(by_batch, nn.functional.batch_norm(x, None, None, training=True))
    torch.testing.assert_close(by_stored, (x - 1) / (1 + 1e-5) ** 0.5)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert net[0].training == mode
    by_batch.sum().backward()  # the graph built inside is still good


def test_the_contexts_put_back_after_an_exception():
    net = nn.BatchNorm1d(2)
    with pytest.raises(KeyError), running_statistics(net):
        raise KeyError
    assert net.training


def trained(norm, shape):
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


FOLDABLE = {
    "linear": (lambda: nn.Linear(3, 4), nn.BatchNorm1d, (5, 3)),
    "no bias": (lambda: nn.Linear(3, 4, bias=False), bnlab.BatchNorm, (5, 3)),
    "conv": (lambda: nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d, (2, 2, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 4, 3, groups=2), nn.BatchNorm2d, (2, 2, 6, 6)),
}


@pytest.mark.parametrize(("make", "norm", "shape"), FOLDABLE.values(), ids=FOLDABLE)
def test_a_folded_network_computes_the_same_without_the_norm(make, norm, shape):
    torch.manual_seed(0)
    net = nn.Sequential(make(), nn.Identity(), trained(norm(4), shape), nn.ReLU()).eval()
    x = torch.randn(shape)
    folded = fold(net, x)
    assert isinstance(folded[2], nn.Identity) and not isinstance(net[2], nn.Identity)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fold(net.double(), x.double())(x.double()), net(x.double()))


class TwoUses(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 3), trained(nn.BatchNorm1d(3), None)
        self.second, self.plain = nn.Linear(3, 3), trained(nn.BatchNorm1d(3), None)

    def forward(self, x):
        hidden = self.layer(x)
        return self.plain(self.second(self.norm(hidden) + hidden))


def test_a_layer_with_a_second_use_keeps_its_norm():
    net, x = TwoUses().eval(), torch.randn(6, 3)
    folded = fold(net, x)
    assert isinstance(folded.norm, nn.BatchNorm1d) and isinstance(folded.plain, nn.Identity)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-5, atol=1e-5)


def test_nothing_to_fold_is_said():
    with pytest.raises(ValueError, match="no batch norm of this Sequential"):
        fold(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), torch.randn(4, 3))
    with pytest.raises(ValueError, match="no batch norm"):  # an activation stands between
        fold(nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.BatchNorm1d(3)), torch.randn(4, 3))
