"""The training loop against torch's own, and that looking at a run does not change it."""

import copy
import math
from itertools import repeat

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import bnlab
from bnlab import fit, observers
from course import data


def task(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(64, 5, generator=generator), torch.randint(0, 3, (64,), generator=generator)


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), bnlab.BatchNorm(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))


def by_hand(net, optimizer, batches, steps):
    losses = []
    for _, (x, y) in zip(range(steps), batches, strict=False):
        optimizer.zero_grad()
        loss = cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def momentum(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, momentum, torch.optim.Adam])
def test_fit_is_the_textbook_loop(optimizer):
    ours, theirs = network(), network()
    batches = data.batches(*task(), batch_size=16, seed=1)
    run = fit(ours, batches, lr=0.1, steps=20, optimizer=optimizer)
    expected = by_hand(theirs, optimizer(theirs.parameters(), lr=0.1), batches, 20)
    assert run.loss.tolist() == expected
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )


def test_the_criterion_can_be_chosen():
    x, y = data.gaussian_regression(samples=30)
    net = nn.Linear(10, 10, dtype=torch.float64)
    first = mse_loss(net(x), y).item()
    assert fit(net, repeat((x, y)), lr=0.1, steps=1, criterion=mse_loss).loss.tolist() == [first]


def test_observers_see_every_step_before_its_update_and_their_rows_are_kept():
    seen = []

    def look(context):
        seen.append((context.step, context.lr, context.loss(context.model).item()))
        return [{"answer": 42}] if context.step == 3 else None

    run = fit(network(), data.batches(*task(), 16), lr=0.1, steps=5, observers=[look])
    assert [(step, lr) for step, lr, _ in seen] == [(i, 0.1) for i in range(5)]
    assert [loss for *_, loss in seen] == run.loss.tolist()
    assert run.records == [{"step": 3, "answer": 42}]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, momentum])
def test_a_probed_run_is_the_unprobed_run(optimizer):
    """Weights, running statistics, counters and losses, with dropout drawing from the random state."""
    batches = data.batches(*task(), batch_size=16, seed=1)
    nets, runs = [], []
    for watchers in ([], [observers.landscape([0.05, 0.1], every=2), observers.covariate_shift(every=3)]):
        net = network(dropout=0.3)
        torch.manual_seed(5)
        runs.append(fit(net, batches, lr=0.1, steps=12, optimizer=optimizer, observers=watchers))
        nets.append(net)
    assert torch.equal(runs[0].loss, runs[1].loss)
    for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert nets[1][1].num_batches_tracked == 12
    kinds = [row["kind"] for row in runs[1].records]
    assert kinds.count("landscape") == 6 * 2 and kinds.count("shift") == 4 * 2


def test_context_update_is_the_real_update_with_momentum():
    """The update that `internal_covariate_shift` sees is the one the run then makes."""
    predicted, actual = [], []

    def predict(context):
        if predicted:
            actual.append(context.model[0].weight.detach().clone())
        with bnlab.frozen(context.model):
            context.optimizer.zero_grad()
            context.loss(context.model).backward()
            context.update(context.model)
            predicted.append(context.model[0].weight.detach().clone())

    fit(network(), data.batches(*task(), 16), lr=0.1, steps=6, optimizer=momentum, observers=[predict])
    assert len(actual) == 5
    assert all(torch.equal(a, b) for a, b in zip(predicted, actual, strict=False))


def test_divergence_is_recorded_and_stops_the_run():
    x, y = data.gaussian_regression(samples=30)
    calls = []
    net = nn.Linear(10, 10, dtype=torch.float64)
    run = fit(
        net, repeat((x, y)), lr=1e3, steps=500, criterion=mse_loss, observers=[lambda c: calls.append(c.step)]
    )
    assert run.diverged_at == calls[-1] < 499
    assert torch.isfinite(run.loss[: run.diverged_at]).all()
    assert not torch.isfinite(run.loss[run.diverged_at]) and run.loss[run.diverged_at + 1 :].isnan().all()


def test_frozen_parameters_stay():
    net = network()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    fit(net, data.batches(*task(), 16), lr=0.1, steps=3, observers=[observers.landscape([0.1], every=1)])
    assert torch.equal(net[0].weight, before)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": math.nan}, "lr must be a finite number"),
        ({"lr": -1.0}, "lr must be a finite number"),
        ({"steps": 0}, "steps must be an integer >= 1"),
        ({"batches": [task()] * 2}, "batches ended after 2 of 3 steps"),
    ],
)
def test_bad_arguments_are_named(changed, message):
    arguments = {"batches": data.batches(*task(), 16), "lr": 0.1, "steps": 3} | changed
    with pytest.raises(ValueError, match=message):
        fit(network(), arguments.pop("batches"), **arguments)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="requires_grad"):
        fit(nn.Tanh(), data.batches(*task(), 16), lr=0.1, steps=1)


def test_landscape_of_a_parabola():
    """Loss c w^2 / 2: beta is c, the probe's loss has a closed form, and the weight norm is |w|."""
    net = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(net.weight, 2.0)
    c = 3.0
    batch = (torch.full((1, 1), math.sqrt(c), dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    run = fit(net, repeat(batch), lr=0.1, steps=1, criterion=lambda p, t: ((p - t) ** 2).sum() / 2,
              observers=[observers.landscape([0.1, 0.5], every=1)])  # fmt: skip
    for row, s in zip(run.records, (0.1, 0.5), strict=True):
        assert row["step_size"] == s and row["weight_norm"] == 2
        assert row["beta"] == pytest.approx(c) and row["gradient_norm"] == pytest.approx(6)
        assert row["loss"] == pytest.approx(c * (2 - s * 6) ** 2 / 2)


def test_accuracy_counts_in_test_mode_and_leaves_the_mode():
    net = nn.Sequential(nn.Dropout(0.9), nn.Identity())
    images, labels = torch.eye(4).repeat(200, 1), torch.arange(4).repeat(200)
    labels[:80] = 3  # 60 of these 80 become wrong
    assert observers.test_accuracy(net, images, labels) == 1 - 60 / 800
    assert net.training and net[0].training
