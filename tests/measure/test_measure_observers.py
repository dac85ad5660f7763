"""The instruments inside a training run: tidy rows, and a run that does not notice."""

import numpy as np
import pytest
import torch
from measure_cases import Noise
from torch import nn

from bnlab import fit, probe, sharpness, track_activations
from bnlab.measure import observers


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), Noise(), nn.Linear(8, 3)
    )


def batches():
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(16, 5, generator=generator), torch.randint(3, (16,), generator=generator)


def momentum(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def everything(net):
    x = torch.randn(10, 5, generator=torch.Generator().manual_seed(2))
    track = track_activations(net, lambda net: net(x), ["0", "5"])
    return [
        observers.covariate_shift(every=2),
        observers.landscape([0.05, 0.2], every=2),
        observers.curvature(every=4, k=2),
        observers.activations(track, every=3),
    ]


def run(net, watchers):
    torch.manual_seed(7)
    result = fit(net, batches(), lr=0.1, steps=8, optimizer=momentum, observers=watchers)
    return result, torch.rand(1)


def test_a_watched_run_is_the_run_nobody_watched():
    plain, watched = network(), network()
    (alone, drawn_alone), (seen, drawn_seen) = run(plain, []), run(watched, everything(watched))
    assert torch.equal(alone.loss, seen.loss)
    assert torch.equal(drawn_alone, drawn_seen)
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert len(seen.records) > 0


def test_rows_are_tidy():
    net = network()
    result, _ = run(net, everything(net))
    by_kind = {}
    for row in result.records:
        by_kind.setdefault(row["kind"], []).append(row)
    assert [row["step"] for row in by_kind["landscape"]] == [0, 0, 2, 2, 4, 4, 6, 6]
    assert [row["step_size"] for row in by_kind["landscape"][:2]] == [0.05, 0.2]
    assert [(row["layer"], row["name"]) for row in by_kind["shift"][:2]] == [(1, "0"), (2, "5")]
    assert [row["rank"] for row in by_kind["curvature"]] == [1, 2, 1, 2]
    assert [row["unit"] for row in by_kind["activations"][:11]] == [*range(8), *range(3)]
    assert {len(row) for row in by_kind["activations"]} == {11}
    for row in result.records:
        assert all(isinstance(value, int | float | str | bool) for value in row.values()), row


def test_rows_hold_what_the_instruments_say():
    net = network()
    torch.manual_seed(7)
    x, y = next(batches())
    loss = lambda net: nn.functional.cross_entropy(net(x), y)  # noqa: E731
    expected = probe(net, loss, [0.05, 0.2])
    top = sharpness(net, loss)
    watchers = [observers.landscape([0.05, 0.2], every=100), observers.curvature(every=100)]
    records = run(net, watchers)[0].records
    np.testing.assert_array_equal([row["beta"] for row in records[:2]], expected.beta)
    assert records[0]["loss0"] == expected.loss0
    assert records[2]["eigenvalue"] == top.eigenvalues[0]


def test_a_probed_step_costs_k_plus_two_passes():
    net = network()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    run(net, [observers.landscape([0.05, 0.2], every=2)])
    assert len(calls) == 4 * 4 + 4 * 1  # of eight steps every other one with two points


def test_only_selected_layers():
    records = run(network(), [observers.covariate_shift(every=1, layers=[2])])[0].records
    assert {row["layer"] for row in records} == {2} and len(records) == 8
    assert any(row["l2"] > 0 for row in records)


def test_bad_input():
    with pytest.raises(ValueError, match="every: expected an integer of at least 1"):
        observers.curvature(every=0)
    with pytest.raises(TypeError, match="positional argument"):
        observers.landscape([0.1], 20)
    with pytest.raises(ValueError, match="model must be the network in training"):
        run(network(), [lambda context: context.update(network())])
