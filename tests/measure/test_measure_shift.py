"""`internal_covariate_shift` against Definition 2.1 written out with deep copies, one layer at a time."""

import copy
import math
from collections.abc import Mapping

import pytest
import torch
from matplotlib.figure import Figure
from measure_cases import Noise, noisy_loss, noisy_net, same, state
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from bnlab.measure.shift import internal_covariate_shift


def brute_force(model, loss, optimizer_class, order=None, **settings):
    """Definition 2.1, literally: a copy of the model for every gradient, everything run in full.

    `order` names the parameters as they come; the order of registration if None.
    """

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
            for parameter_name in order or new:
                parameter = mixed.get_parameter(parameter_name)
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


def instrument(model, loss, optimizer_class, order="execution", **settings):
    rng = torch.get_rng_state()
    optimizer = optimizer_class(model.parameters(), **settings)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    torch.set_rng_state(rng)
    momentum = copy.deepcopy(optimizer.state_dict())
    before = state(model)
    found = internal_covariate_shift(model, loss, lambda net: optimizer.step(), order=order)
    assert found.order == order
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


class Shortcut(nn.Module):
    """The way around is defined last and runs first; a scale stands in no module of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.body = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        self.skip = nn.Linear(5, 3)

    def forward(self, x):
        if self.scale.dtype == torch.float64:  # reading is no use
            x = x + torch.zeros_like(self.scale).sum()
        return F.linear(x, self.skip.weight, self.skip.bias) + self.scale * self.body(x)


def weights_and_biases(*names):
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


CASES = [mlp, deep_linear, random_layers, blocks, in_place, shared_buffer, General, shared, Shortcut]
EXECUTED = {  # of those whose order of execution is not that of registration
    General: weights_and_biases("first", "middle.norm", "middle.a", "middle.b", "last"),
    Shortcut: [*weights_and_biases("skip", "body.0", "body.2"), "scale"],
}
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

    for order in ("registration", "execution"):
        names = EXECUTED.get(make) if order == "execution" else None
        expected = brute_force(net, loss, optimizer, order=names, **settings)
        found = instrument(copy.deepcopy(net), loss, optimizer, order=order, **settings)
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


def sgd_step(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.1 * parameter.grad


def test_only_the_layers_asked_for_are_measured_and_cost_a_pass():
    net, loss = deep_linear().double(), None
    x = torch.randn(6, 5, dtype=torch.float64)
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    loss = lambda net: net(x).square().sum()  # noqa: E731
    everything = internal_covariate_shift(net, loss, sgd_step)
    assert len(calls) == 25 and everything.numbers == tuple(range(1, 26))
    for layers in (["16", "8"], [9, 17], ["8", 17]):
        calls.clear()
        some = internal_covariate_shift(net, loss, sgd_step, layers=layers)
        assert len(calls) == 3 and some.numbers == (9, 17)
        assert dict(some) == {name: everything[name] for name in ("8", "16")}
    for wrong in (["25"], [0], []):
        with pytest.raises(ValueError, match="layers: expected names or numbers from 1 to 25"):
            internal_covariate_shift(net, loss, sgd_step, layers=wrong)


def test_a_model_called_twice_or_on_its_own_output_or_in_parts():
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
        torch.optim.SGD(model.parameters(), lr=0.1).step()

    found = internal_covariate_shift(net, lambda net: net[1](net[0](torch.ones(2, 5))).square().sum(), step)
    assert [name for name, missing in seen.items() if missing] == ["idle.weight", "idle.bias"]
    assert found["idle"].gradient_norm == 0 and math.isnan(found["idle"].cosine)


def test_no_update_no_shift():
    net = noisy_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0)
    found = internal_covariate_shift(net, noisy_loss(), lambda net: optimizer.step())
    assert set(found) == {"0", "4.0", "5"}
    assert all(shift.l2 == 0 and shift.cosine == 1 for shift in found.values())


def test_a_dead_layer_has_no_angle():
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    nn.init.zeros_(net[2].weight)
    found = internal_covariate_shift(net, noisy_loss(), sgd_step)
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


# --- networks of others ---------------------------------------------------------------------------------


def length(parts):
    return math.sqrt(sum((part**2).sum().item() for part in parts))


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: prune.random_unstructured(layer, "bias", 0.5),
        lambda layer: weight_norm(layer),
        lambda layer: torch.nn.utils.parametrizations.orthogonal(layer),
    ],
    ids=["pruned weight", "pruned bias", "weight norm", "orthogonal"],
)
def test_a_weight_that_is_computed_from_others(rewrite):
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.randint(3, (6,))
    loss = lambda net: F.cross_entropy(net(x), y)  # noqa: E731

    def network():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        rewrite(net[2])
        return net

    def gradient(net):
        return torch.autograd.grad(loss(net), [p for n, p in net[2].named_parameters() if "weight" in n])

    moved = network()
    for p, g in zip(
        moved[0].parameters(), torch.autograd.grad(loss(moved), moved[0].parameters()), strict=True
    ):
        p.data -= 0.1 * g
    before, after = gradient(network()), gradient(moved)
    shifts = internal_covariate_shift(network(), loss, sgd_step)
    assert list(shifts) == ["0", "2"] and shifts["0"].l2 == 0
    assert shifts["2"].gradient_norm == pytest.approx(length(before), rel=1e-12)
    expected = length([a - b for a, b in zip(after, before, strict=True)])
    assert shifts["2"].l2 == pytest.approx(expected, rel=1e-9) and expected > 1e-4


def test_a_pruned_network_is_measured_whole():
    net = mlp()
    for layer in net[::2]:
        prune.random_unstructured(layer, "weight", 0.5)
    for order in ("execution", "registration"):
        assert list(internal_covariate_shift(net, noisy_loss(), sgd_step, order=order)) == ["0", "2", "4"]


class Words(nn.Module):
    """A tiny language model: the head is the embedding, which is defined last and runs first."""

    def __init__(self, sparse=False):
        super().__init__()
        self.head = nn.Linear(4, 9, bias=False)
        self.hidden = nn.Linear(4, 4)
        self.embedding = nn.Embedding(9, 4, sparse=sparse)
        if not sparse:
            self.head.weight = self.embedding.weight

    def forward(self, words):
        return self.head(torch.tanh(self.hidden(self.embedding(words))))


def words_loss(net):
    words = torch.arange(24).view(4, 6) % 9
    return F.cross_entropy(net(words).flatten(0, 1), words.flatten())


def test_a_tied_weight_counts_where_it_is_used_first():
    torch.manual_seed(0)
    net = Words().double()
    names = ["head.weight", "hidden.weight", "hidden.bias"]
    expected = brute_force(net, words_loss, torch.optim.SGD, order=names, lr=0.5)
    found = instrument(net, words_loss, torch.optim.SGD, lr=0.5)
    assert found["head"] == (0, 1) and expected["head"][0] == 0
    assert found["hidden"][0] == pytest.approx(expected["hidden"][0], rel=1e-9) and found["hidden"][0] > 1e-4


def test_sparse_gradients():
    torch.manual_seed(0)
    net = Words(sparse=True).double()
    dense = copy.deepcopy(net)
    dense.embedding.sparse = False
    words_loss(net).backward()  # a sparse gradient that must still be there afterwards
    kept = net.embedding.weight.grad.to_dense().clone()
    shifts = [
        internal_covariate_shift(n, words_loss, lambda n: torch.optim.SGD(n.parameters(), lr=0.5).step())
        for n in (net, dense)
    ]
    assert list(shifts[0]) == ["hidden", "head"]
    for name, shift in shifts[0].items():
        assert shift.l2 == pytest.approx(shifts[1][name].l2, rel=1e-12) and shift.l2 > 1e-4
    assert net.embedding.weight.grad.is_sparse and torch.equal(net.embedding.weight.grad.to_dense(), kept)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_between_a_forward_and_its_backward(optimizer):
    """The caller's graph is as good as before: version counters too."""
    net, loss = noisy_net(), noisy_loss()
    twin = copy.deepcopy(net)
    torch.manual_seed(3)
    trainable = [p for p in twin.parameters() if p.requires_grad]
    expected = torch.autograd.grad(loss(twin), trainable)
    torch.manual_seed(3)
    waiting = loss(net)
    descent = optimizer(net.parameters(), lr=0.1)
    shifts = internal_covariate_shift(net, loss, lambda net: descent.step())
    assert shifts["5"].l2 > 0
    found = torch.autograd.grad(waiting, [p for p in net.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_step_that_moves_nothing_of_this_model_is_named():
    net, other = mlp(), mlp()
    foreign = torch.optim.SGD(other.parameters(), lr=0.1)
    for p in other.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="The optimizer holds other parameters: make it after"):
        internal_covariate_shift(net, noisy_loss(), lambda net: foreign.step())
    with pytest.raises(ValueError, match=r"Does it call optimizer\.step\(\)\?"):
        internal_covariate_shift(net, noisy_loss(), lambda net: None)


def test_inside_autocast_the_updated_weights_are_the_ones_that_run():
    torch.manual_seed(0)
    net = mlp()
    plain = internal_covariate_shift(net, noisy_loss(), sgd_step)
    with torch.autocast("cpu", torch.bfloat16):
        cast = internal_covariate_shift(net, noisy_loss(), sgd_step)
    for name in ("2", "4"):
        assert cast[name].l2 == pytest.approx(plain[name].l2, rel=0.3) and plain[name].l2 > 0


@pytest.mark.parametrize("compiled_before", [False, True])
def test_a_compiled_network_runs_in_the_order_of_the_plain_one(compiled_before):
    torch.manual_seed(0)
    net = General()
    compiled = torch.compile(net, backend="aot_eager")
    if compiled_before:
        noisy_loss()(compiled).backward()
    plain = internal_covariate_shift(net, noisy_loss(), sgd_step)
    found = internal_covariate_shift(compiled, noisy_loss(), sgd_step)
    assert list(found) == [f"_orig_mod.{name}" for name in plain]
    for name, shift in plain.items():
        assert found[f"_orig_mod.{name}"].l2 == pytest.approx(shift.l2, rel=1e-5, abs=1e-9)


class Veiled(nn.Linear):
    """Reaches its weight by a way around torch's functions, as compiled extensions do."""

    def forward(self, x):
        with torch._C.DisableTorchFunction():
            return F.linear(x, self.weight)


def test_a_layer_whose_use_cannot_be_seen_is_named():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), Veiled(4, 4, bias=False), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="order: cannot see when layer '1' runs; give order='registration'"):
        internal_covariate_shift(net, noisy_loss(), sgd_step)
    assert len(internal_covariate_shift(net, noisy_loss(), sgd_step, order="registration")) == 3


# --- the result -----------------------------------------------------------------------------------------


def test_the_result_is_a_mapping_that_shows_itself():
    torch.manual_seed(0)
    shifts = internal_covariate_shift(mlp(), noisy_loss(), sgd_step, layers=[1, 3])
    assert isinstance(shifts, Mapping) and list(shifts.items())[1][0] == "4"
    assert repr(shifts).startswith("CovariateShift(2 layers in order of execution: l2 0 to ")
    assert len(repr(shifts)) < 110
    frame = shifts.frame()
    assert list(frame) == ["layer", "name", "l2", "cosine", "gradient_norm", "relative"]
    assert frame["layer"].tolist() == [1, 3] and frame["name"].tolist() == ["0", "4"]
    assert frame["l2"].tolist() == [shift.l2 for shift in shifts.values()]
    assert frame["relative"][1] == shifts["4"].l2 / shifts["4"].gradient_norm == shifts["4"].relative


@pytest.mark.parametrize(("quantity", "none"), [("cosine", 1), ("l2", 0), ("relative", 0)])
def test_the_picture_shows_every_layer_and_what_no_shift_is(quantity, none):
    shifts = internal_covariate_shift(mlp(), noisy_loss(), sgd_step)
    ax = Figure().subplots()
    assert shifts.plot(ax, quantity=quantity, label="mlp") is ax
    curve, line = ax.lines
    assert curve.get_xdata().tolist() == [1, 2, 3] and curve.get_label() == "mlp"
    assert curve.get_ydata().tolist() == shifts.frame()[quantity].tolist()
    assert list(line.get_ydata()) == [none, none]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1: 0", "2: 2", "3: 4"]
    with pytest.raises(ValueError, match="quantity: expected one of cosine, l2, relative"):
        shifts.plot(ax, quantity="angle")


def test_order_must_be_one_of_two():
    with pytest.raises(ValueError, match="order: expected 'execution' or 'registration', got 'random'"):
        internal_covariate_shift(mlp(), noisy_loss(), sgd_step, order="random")
