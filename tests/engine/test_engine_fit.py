"""The training loop against torch's own, and that looking at a run does not change it."""

import math
from itertools import repeat

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.checkpoint import checkpoint

import bnlab
from bnlab import fit, observers


def shuffled(x, y, batch_size, seed=0):
    """A fixed list of mini-batches, longer than any run here."""
    generator = torch.Generator().manual_seed(seed)
    epochs = [torch.randperm(len(x), generator=generator).split(batch_size) for _ in range(10)]
    return [(x[where], y[where]) for epoch in epochs for where in epoch]


def regression(samples=30):
    generator = torch.Generator().manual_seed(0)
    x, matrix = (torch.randn(n, 10, generator=generator, dtype=torch.float64) for n in (samples, 10))
    return x, x @ matrix.T


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
    batches = shuffled(*task(), batch_size=16, seed=1)
    run = fit(ours, batches, lr=0.1, steps=20, optimizer=optimizer)
    expected = by_hand(theirs, optimizer(theirs.parameters(), lr=0.1), batches, 20)
    assert run.loss.tolist() == expected
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )


def test_the_criterion_can_be_chosen():
    x, y = regression()
    net = nn.Linear(10, 10, dtype=torch.float64)
    first = mse_loss(net(x), y).item()
    assert fit(net, repeat((x, y)), lr=0.1, steps=1, criterion=mse_loss).loss.tolist() == [first]


def test_observers_see_every_step_before_its_update_and_their_rows_are_kept():
    seen = []

    def look(context):
        seen.append((context.step, context.lr, context.loss(context.model).item()))
        return [{"answer": 42}] if context.step == 3 else None

    run = fit(network(), shuffled(*task(), 16), lr=0.1, steps=5, observers=[look])
    assert [(step, lr) for step, lr, _ in seen] == [(i, 0.1) for i in range(5)]
    assert [loss for *_, loss in seen] == run.loss.tolist()
    assert run.records == [{"step": 3, "answer": 42}]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, momentum])
def test_a_probed_run_is_the_unprobed_run(optimizer):
    """Weights, running statistics, counters and losses, with dropout drawing from the random state."""
    batches = shuffled(*task(), batch_size=16, seed=1)
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

    fit(network(), shuffled(*task(), 16), lr=0.1, steps=6, optimizer=momentum, observers=[predict])
    assert len(actual) == 5
    assert all(torch.equal(a, b) for a, b in zip(predicted, actual, strict=False))


def test_divergence_is_recorded_and_stops_the_run():
    x, y = regression()
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
    fit(net, shuffled(*task(), 16), lr=0.1, steps=3, observers=[observers.landscape([0.1], every=1)])
    assert torch.equal(net[0].weight, before)


def test_inside_autocast_the_weights_that_run_are_the_trained_ones():
    x, y = task()
    plain, cast = network(), network()
    expected = fit(plain, repeat((x, y)), lr=0.5, steps=30).loss
    with torch.autocast("cpu", torch.bfloat16):
        run = fit(cast, repeat((x, y)), lr=0.5, steps=30, observers=[observers.landscape([0.1], every=5)])
    assert expected[-1] < 0.9 * expected[0]
    torch.testing.assert_close(run.loss, expected, rtol=0.05, atol=0)
    assert all(row["gradient_distance"] > 0 for row in run.records)


def test_reentrant_checkpointing_trains():
    class Saving(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return checkpoint(self.net, x.requires_grad_(), use_reentrant=True)

    nets = [nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    x, y = task()
    plain, saving = (fit(net, repeat((x.clone(), y)), lr=0.5, steps=10) for net in (nets[0], Saving(nets[1])))
    torch.testing.assert_close(plain.loss, saving.loss)


def test_a_parameter_that_the_loss_does_not_use_is_not_decayed():
    class Idle(nn.Linear):
        def __init__(self):
            super().__init__(5, 3)
            self.idle = nn.Linear(2, 2)

    net = Idle()
    before, used = net.idle.weight.clone(), net.weight.clone()
    decaying = lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, weight_decay=0.1)  # noqa: E731
    fit(net, shuffled(*task(), 16), lr=0.1, steps=3, optimizer=decaying)
    assert torch.equal(net.idle.weight, before) and not torch.equal(net.weight, used)


@pytest.mark.parametrize(
    ("criterion", "got"),
    [
        (lambda p, y: cross_entropy(p, y).item(), "got float"),
        (lambda p, y: cross_entropy(p, y, reduction="none"), r"got shape \(16,\)"),
        (lambda p, y: cross_entropy(p.detach(), y), r"got shape \(\)"),
    ],
)
def test_a_criterion_that_cannot_be_descended_is_named(criterion, got):
    with pytest.raises(ValueError, match=f"criterion: expected one number that depends on .* {got}"):
        fit(network(), shuffled(*task(), 16), lr=0.1, steps=1, criterion=criterion)


# --- the result -----------------------------------------------------------------------------------------


def test_a_run_shows_itself():
    watch = [observers.landscape([0.05, 0.1], every=2), observers.covariate_shift(every=4)]
    run = fit(network(), shuffled(*task(), 16), lr=0.1, steps=6, observers=watch)
    first, last = run.loss[0].item(), run.loss[-1].item()
    assert repr(run) == f"Run(6 steps: loss {first:.4g} to {last:.4g}; records: 6 landscape, 4 shift)"
    frame = run.frame()
    assert frame["step"].tolist() == list(range(6)) and frame["loss"].tolist() == run.loss.tolist()
    shifts = run.frame("shift")
    assert list(shifts) == ["step", "layer", "name", "l2", "cosine", "gradient_norm"]
    assert shifts["step"].tolist() == [0, 0, 4, 4]
    assert shifts["l2"].tolist() == [row["l2"] for row in run.records if row["kind"] == "shift"]
    with pytest.raises(ValueError, match="kind: expected one of landscape, shift, got 'sharpness'"):
        run.frame("sharpness")
    ax = Figure().subplots()
    assert run.plot(ax, label="lr 0.1") is ax and ax.get_yscale() == "log"
    assert ax.lines[0].get_ydata().tolist() == run.loss.tolist() and ax.lines[0].get_label() == "lr 0.1"


def test_a_diverged_run_says_where():
    net = nn.Linear(10, 10, dtype=torch.float64)
    run = fit(net, repeat(regression()), lr=1e3, steps=500, criterion=mse_loss)
    assert f"diverged at step {run.diverged_at}; records: none" in repr(run)
    ax = run.plot(Figure().subplots())
    assert ax.lines[1].get_xdata()[0] == run.diverged_at and ax.texts[0].get_text() == "diverged"
    assert run.frame()["loss"].isna().sum() == 500 - run.diverged_at - (not run.loss[run.diverged_at].isnan())


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
    arguments = {"batches": shuffled(*task(), 16), "lr": 0.1, "steps": 3} | changed
    with pytest.raises(ValueError, match=message):
        fit(network(), arguments.pop("batches"), **arguments)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="requires_grad"):
        fit(nn.Tanh(), shuffled(*task(), 16), lr=0.1, steps=1)


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
