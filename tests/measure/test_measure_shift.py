"""`internal_covariate_shift` against [2] Definition 2.1 written out with deep copies, one layer at a time."""

import copy
import math

import pytest
import torch
from measure_cases import Noise, noisy_loss, noisy_net, same, state
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from bnlab.measure.shift import internal_covariate_shift


def brute_force(model, loss, optimizer_class, **settings):
    """Definition 2.1, literally: a copy of the model for every gradient, everything run in full."""

    def gradient(net, name):
        torch.set_rng_state(rng)
        net.zero_grad()
        loss(net).backward()
        return net.get_submodule(name).weight.grad.clone()

    rng = torch.get_rng_state()
    updated = copy.deepcopy(model)
    optimizer = optimizer_class(updated.parameters(), **settings)
    for _ in range(2):  # momentum has built up: the step measured is the third
        optimizer.zero_grad()
        loss(updated).backward()
        optimizer.step()
    reference = copy.deepcopy(updated)
    torch.set_rng_state(rng)
    optimizer.zero_grad()
    loss(updated).backward()
    optimizer.step()
    expected = {}
    for name, module in reference.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            before = gradient(copy.deepcopy(reference), name)
            mixed = copy.deepcopy(reference)
            new = dict(updated.named_parameters())
            for parameter_name, parameter in mixed.named_parameters():
                if parameter is mixed.get_submodule(name).weight:
                    break
                parameter.data.copy_(new[parameter_name])
            after = gradient(mixed, name)
            expected[name] = (
                torch.linalg.vector_norm(before - after).item(),
                torch.cosine_similarity(before.flatten(), after.flatten(), dim=0).item(),
            )
    torch.set_rng_state(rng)
    return expected


def instrument(model, loss, optimizer_class, **settings):
    rng = torch.get_rng_state()
    optimizer = optimizer_class(model.parameters(), **settings)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    torch.set_rng_state(rng)
    momentum = copy.deepcopy(optimizer.state_dict())
    before = state(model)
    found = internal_covariate_shift(model, loss, lambda net: optimizer.step())
    assert same(before, state(model))
    assert same(momentum, optimizer.state_dict())
    return {name: (shift.l2, shift.cosine) for name, shift in found.items()}


def mlp():
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 3))


def deep_linear():
    net = nn.Sequential(*(nn.Linear(5, 5, bias=False) for _ in range(24)), nn.Linear(5, 3, bias=False))
    for layer in net:
        nn.init.orthogonal_(layer.weight)  # else nothing reaches the other end
    return net


def random_layers():
    """Every layer draws random numbers; one in-place activation opens a nested block."""
    block = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(7, 7), Noise(), nn.BatchNorm1d(7))
    return nn.Sequential(
        Noise(), nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.3), block, nn.Dropout(0.3), nn.Linear(7, 3)
    )


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(7)
        self.a = nn.Linear(7, 7)
        self.b = nn.Linear(7, 7)

    def forward(self, x):
        return x + self.b(Noise()(F.relu_(self.a(F.relu_(self.norm(x))))))


def blocks():
    """A chain whose items are themselves no chains."""
    return nn.Sequential(nn.Linear(5, 7), Residual(), Residual(), nn.Linear(7, 3))


class Doubling(nn.Module):
    """Opens by overwriting its input, twice as large."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 5)
        self.b = nn.Linear(5, 5)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x.mul_(2))))


def in_place():
    return nn.Sequential(Doubling(), Doubling(), nn.Linear(5, 3))


class Counting(nn.Module):
    """Its output depends on how often it ran."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        self.calls += 1
        return x * self.calls.clone()


def shared_buffer():
    """The front changes what the back does, through a buffer."""
    counting = Counting()
    layers = nn.Linear(5, 7), counting, nn.Tanh(), nn.Linear(7, 7), counting, nn.Tanh(), nn.Linear(7, 3)
    return nn.Sequential(*layers)


class General(nn.Module):
    """A module whose execution order is not the order of registration."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(7, 3)
        self.first = nn.Linear(5, 7)
        self.middle = blocks()[1]

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


def shared():
    net = mlp()
    net.append(nn.Linear(3, 5)).append(nn.Linear(5, 7)).append(nn.Linear(7, 3))
    net[6].weight = net[0].weight
    return net


CASES = [mlp, deep_linear, random_layers, blocks, in_place, shared_buffer, General, shared]
OPTIMIZERS = [(torch.optim.SGD, {"lr": 0.2, "momentum": 0.9}), (torch.optim.Adam, {"lr": 0.01})]


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize(("optimizer", "settings"), OPTIMIZERS, ids=["momentum", "adam"])
def test_equals_the_definition(make, optimizer, settings):
    torch.manual_seed(1)
    net = make().double()
    x = torch.randn(12, 5, dtype=torch.float64)
    y = torch.randint(3, (12,))

    def loss(net):
        return F.cross_entropy(net(x.clone()), y) + 1e-2 * sum((p**2).sum() for p in net.parameters())

    expected = brute_force(net, loss, optimizer, **settings)
    found = instrument(net, loss, optimizer, **settings)
    assert found.keys() == expected.keys()
    for name, (l2, cosine) in expected.items():
        assert found[name][0] == pytest.approx(l2, rel=1e-9, abs=1e-13)
        assert found[name][1] == pytest.approx(cosine, abs=1e-12)
    assert max(l2 for l2, _ in found.values()) > 1e-3  # there was something to measure


@pytest.mark.parametrize(("optimizer", "settings"), OPTIMIZERS, ids=["momentum", "adam"])
def test_vgg_with_batch_norm_channels_last(optimizer, settings):
    torch.manual_seed(2)
    layers, width = [], 3
    for channels in (4, 8, 8):
        layers += [nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)]
        width = channels
    net = nn.Sequential(nn.Sequential(*layers), nn.Flatten(), nn.Linear(8, 10))
    net = net.double().to(memory_format=torch.channels_last)
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    y = torch.randint(10, (6,))
    loss = lambda net: F.cross_entropy(net(x), y)  # noqa: E731
    expected = brute_force(net, loss, optimizer, **settings)
    found = instrument(net, loss, optimizer, **settings)
    assert list(found) == ["0.0", "0.4", "0.8", "2"] and found.keys() == expected.keys()
    for name, (l2, cosine) in expected.items():
        assert found[name] == (pytest.approx(l2, rel=1e-9, abs=1e-13), pytest.approx(cosine, abs=1e-12))


def count_calls(net):
    counts = []

    def count(layer, inputs, output):
        counts.append(layer)

    for module in net.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    return counts


def sgd_step(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.1 * parameter.grad


def test_a_chain_runs_each_layer_only_as_often_as_needed():
    net = mlp()
    counts = count_calls(net)
    internal_covariate_shift(net, noisy_loss(), sgd_step)
    # One pass for G. Weight 2: layers 0, 1 to get there, then 2, 3, 4. Weight 4: layers 2, 3, then 4.
    assert [counts.count(layer) for layer in net] == [2, 2, 3, 3, 3]


def test_a_chain_called_twice_or_on_its_own_output_is_run_in_full():
    torch.manual_seed(0)
    x = torch.randn(6, 4, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh()).double()
    for loss in (
        lambda net: (net(x) * net(x + 1)).sum(),
        lambda net: net(net(x)).square().sum(),
        lambda net: net(x * net[0].weight.sum()).square().sum(),
        lambda net: net[1:](net[0](x)).square().sum(),
    ):
        expected = brute_force(net, loss, torch.optim.SGD, lr=0.01)
        found = instrument(copy.deepcopy(net), loss, torch.optim.SGD, lr=0.01)
        for name, (l2, cosine) in expected.items():
            assert found[name] == (pytest.approx(l2, rel=1e-9), pytest.approx(cosine, abs=1e-12))


def test_a_loss_that_draws_random_numbers_itself():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 4), nn.Dropout(0.3), nn.Tanh(), nn.Linear(4, 3), nn.Linear(3, 3)
    ).double()
    x = torch.randn(6, 5, dtype=torch.float64)

    def loss(net):
        target = torch.randn(6, 3, dtype=torch.float64)
        noise = torch.randn(6, 3, dtype=torch.float64)
        return F.mse_loss(net(x + torch.randn_like(x)) + torch.randn_like(noise) * noise, target)

    expected = brute_force(net, loss, torch.optim.SGD, lr=0.1)
    found = instrument(copy.deepcopy(net), loss, torch.optim.SGD, lr=0.1)
    for name, (l2, cosine) in expected.items():
        assert found[name] == (pytest.approx(l2, rel=1e-9), pytest.approx(cosine, abs=1e-12))


def test_the_step_sees_the_gradient_and_may_compute_its_own():
    net, loss = mlp(), noisy_loss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def own_step(net):
        optimizer.zero_grad()
        loss(net).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1e9)
        optimizer.step()

    assert internal_covariate_shift(net, loss, own_step) == internal_covariate_shift(
        net, loss, lambda net: optimizer.step()
    )


def test_a_step_that_clips_the_gradient_in_place():
    net, loss = mlp(), noisy_loss()
    gradient = torch.autograd.grad(loss(net), list(net.parameters()))

    def step(net):
        nn.utils.clip_grad_norm_(net.parameters(), 1e-6)
        sgd_step(net)

    found = internal_covariate_shift(net, loss, step)
    assert found["0"].gradient_norm == pytest.approx(gradient[0].norm().item(), rel=1e-6)
    assert 0 < found["2"].l2 < 1e-5 < found["2"].gradient_norm


def test_the_step_sees_none_where_training_would():
    """An optimizer skips a parameter without gradient, weight decay or not; with a zero it would decay it."""
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    net.idle = nn.Linear(2, 2)
    seen = {}

    def step(model):
        seen.update({name: p.grad is None for name, p in model.named_parameters()})

    found = internal_covariate_shift(net, lambda net: net[1](net[0](torch.ones(2, 5))).square().sum(), step)
    assert [name for name, missing in seen.items() if missing] == ["idle.weight", "idle.bias"]
    assert found["idle"].gradient_norm == 0 and math.isnan(found["idle"].cosine)


def test_no_step_no_shift():
    net = noisy_net()
    found = internal_covariate_shift(net, noisy_loss(), lambda net: None)
    assert set(found) == {"0", "4.0", "5"}
    assert all(shift.l2 == 0 and shift.cosine == 1 for shift in found.values())


def test_a_dead_layer_has_no_angle():
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    nn.init.zeros_(net[2].weight)
    found = internal_covariate_shift(net, noisy_loss(), lambda net: None)
    assert found["1"].gradient_norm == 0 and math.isnan(found["1"].cosine)


def test_parametrized_and_frozen_weights():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4), nn.Linear(4, 3))
    net[2].weight.requires_grad_(False)
    found = internal_covariate_shift(net, noisy_loss(), sgd_step_trainable)
    assert list(found) == ["0", "1", "3"]
    before = noisy_loss()(net)
    behind = list(net[1].parametrizations.weight.parameters())
    g = torch.autograd.grad(before, behind)
    expected = math.sqrt(sum((part**2).sum().item() for part in g))
    assert found["1"].gradient_norm == pytest.approx(expected, rel=1e-6)
    assert found["1"].l2 > 0


def sgd_step_trainable(net):
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter -= 0.1 * parameter.grad


@pytest.mark.parametrize("fails_at", range(4))
def test_leaves_no_trace_when_the_loss_raises(fails_at):
    net, inner = noisy_net(), noisy_loss()
    before = state(net)
    calls = 0

    def loss(net):
        nonlocal calls
        calls += 1
        value = inner(net)
        if calls > fails_at:
            raise ArithmeticError
        return value

    if fails_at < 3:
        with pytest.raises(ArithmeticError):
            internal_covariate_shift(net, loss, sgd_step_trainable)
    else:
        internal_covariate_shift(net, loss, sgd_step_trainable)
    assert same(before, state(net))
    assert "forward" not in vars(net)


def test_bad_input():
    with pytest.raises(TypeError, match="step: expected a callable"):
        internal_covariate_shift(mlp(), noisy_loss(), 0.1)
    with pytest.raises(ValueError, match=r"at least one nn\.Linear or nn\.Conv layer"):
        internal_covariate_shift(nn.BatchNorm1d(5), noisy_loss(), sgd_step)
