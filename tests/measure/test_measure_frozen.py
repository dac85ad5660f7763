"""`frozen` restores a model to the last bit."""

import copy

import pytest
import torch
from measure_cases import Noise, noisy_loss, noisy_net, same, state
from torch import nn

from bnlab.measure.frozen import frozen


def wreck(net):
    """Change everything that can change."""
    loss = noisy_loss()
    loss(net).backward()
    for parameter in net.parameters():
        parameter.data.mul_(3)
    net[1].weight.grad = None
    net[0].weight.grad.zero_()
    net.eval()
    net[3].train()
    net[4][2].num_batches_tracked += 7
    net[1].running_mean = torch.ones(8)
    net[1].register_buffer("extra", torch.ones(1))
    net[5].weight.data = torch.zeros(3, 8)
    torch.rand(3)


def test_everything_is_back():
    net = noisy_net()
    before = state(net)
    with frozen(net):
        wreck(net)
        assert not same(before, state(net))
    assert same(before, state(net))


def test_everything_is_back_after_an_exception():
    net = noisy_net()
    before = state(net)
    with pytest.raises(KeyboardInterrupt), frozen(net):
        wreck(net)
        raise KeyboardInterrupt
    assert same(before, state(net))


def test_nothing_is_deep_copied(monkeypatch):
    def refuse(self, memo):
        raise AssertionError("deep copy of a module")

    monkeypatch.setattr(nn.Module, "__deepcopy__", refuse, raising=False)
    net = noisy_net()
    with pytest.raises(AssertionError, match="deep copy"):
        copy.deepcopy(net)
    with frozen(net):
        wreck(net)


def test_rewind_repeats_the_forward_pass():
    net = noisy_net()
    loss = noisy_loss()
    with frozen(net) as start:
        first, counted = loss(net).item(), net[1].num_batches_tracked.item()
        assert loss(net).item() != first  # dropout and noise go on
        start.rewind()
        assert loss(net).item() == first
        assert net[1].num_batches_tracked.item() == counted


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.LBFGS(p, lr=0.1),
    ],
    ids=["momentum", "adam", "lbfgs"],
)
@pytest.mark.parametrize("steps_before", [0, 2])
def test_optimizer_that_steps_inside_is_restored(make, steps_before):
    def train(net, optimizer, steps):
        def closure():
            optimizer.zero_grad()
            value = loss(net)
            value.backward()
            return value

        for _ in range(steps):
            optimizer.step(closure)

    nets = []
    loss = noisy_loss()
    for look in (False, True):
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(5, 4), Noise(), nn.BatchNorm1d(4), nn.Linear(4, 3))
        optimizer = make(net.parameters())
        train(net, optimizer, steps_before)
        if look:
            with frozen(net):
                train(net, optimizer, 3)
                optimizer.param_groups[0]["lr"] = 5.0
        train(net, optimizer, 2)
        nets.append(net)
    assert same(
        [p.data for p in nets[0].state_dict().values()], [p.data for p in nets[1].state_dict().values()]
    )


def test_a_graph_built_before_can_still_be_differentiated():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    loss = noisy_loss()
    expected = torch.autograd.grad(loss(net), list(net.parameters()))
    value = loss(net)
    with frozen(net):
        for parameter in net.parameters():
            parameter.data.zero_()
    found = torch.autograd.grad(value, list(net.parameters()))
    assert same(list(expected), list(found))


def test_only_modules():
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got function"), frozen(wreck):
        pass


def test_on_every_device(device):
    net = noisy_net().to(device)
    x = torch.randn(4, 5, device=device)
    before = state(net), torch.randn(2, device=device)
    with frozen(net):
        drawn = torch.randn(3, device=device)
        net(x).sum().backward()
    assert torch.equal(drawn, torch.randn(3, device=device))
    assert same(before[0]["buffers"], state(net)["buffers"])
