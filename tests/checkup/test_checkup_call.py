"""The call itself: what it takes, what it leaves behind, what it shows."""

import copy
import random
import subprocess
import sys

import matplotlib
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import bnlab

matplotlib.use("agg")


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(8, 8),
        bnlab.BatchNorm(8),
        nn.Linear(8, 2),
    )
    net[5].eval()
    cross_entropy(net(torch.randn(6, 4)), torch.zeros(6, dtype=torch.long)).backward()
    return net


def data(samples=160):
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long()


def pairs(size=16):
    x, y = data()
    return list(zip(x.split(size), y.split(size), strict=True))


def state(net):
    return (
        copy.deepcopy(net.state_dict()),
        [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        [m.training for m in net.modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
        [getattr(m, "eps", None) for m in net.modules()],
        torch.get_rng_state(),
        random.getstate(),
    )


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        a, b = list(a.values()), list(b.values())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_a_check_up_leaves_no_trace():
    net = network()
    net[1].running_var.mul_(9)
    before = state(net)
    bnlab.checkup(net, pairs(), test=pairs()[:2], optimizer=torch.optim.Adam(net.parameters()), steps=3)
    assert same(before, state(net))


def raising_loss(at):
    count = iter(range(10**6))

    def loss(output, target):
        if next(count) == at:
            raise RuntimeError("broken")
        return cross_entropy(output, target)

    return loss


def raising_batches():
    yield from pairs()[:3]
    raise RuntimeError("broken")


@pytest.mark.parametrize("at", [0, 5, 15, 25, 35])
def test_a_loss_that_raises_leaves_no_trace_either(at):
    net = network()
    before = state(net)
    with pytest.raises(RuntimeError, match="broken"):
        bnlab.checkup(net, pairs(), loss=raising_loss(at))
    assert same(before, state(net))


def test_nor_does_a_loader_that_raises():
    net = network()
    before = state(net)
    with pytest.raises(RuntimeError, match="broken"):
        bnlab.checkup(net, raising_batches())
    assert same(before, state(net))


def test_lists_generators_loaders_and_dictionaries_give_the_same():
    net = network()
    expected = bnlab.checkup(net, pairs()).head
    loader = DataLoader(TensorDataset(*data()), batch_size=16)
    dictionaries = [{"x": x, "y": y} for x, y in pairs()]
    found = [
        bnlab.checkup(net, (pair for pair in pairs())),
        bnlab.checkup(net, loader),
        bnlab.checkup(
            net,
            dictionaries,
            forward=lambda net, batch: net(batch["x"]),
            loss=lambda output, batch: cross_entropy(output, batch["y"]),
        ),
    ]
    for other in found:
        for mode in expected:
            assert other.head[mode].losses == expected[mode].losses


def test_inputs_without_targets_are_compared_by_their_outputs():
    net = network()
    bnlab.retake_statistics(net, pairs())
    net[1].running_var.mul_(25)
    net[1].num_batches_tracked += 100
    found = bnlab.checkup(net, [x for x, _ in pairs()])
    assert found.causes[0] == "stale statistics"
    assert "outputs in eval mode move by" in found.findings[0].effect


def test_the_passes_are_counted_and_kept_to_the_budget():
    net, calls = network(), []
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    for budget in (None, 17, 30, 60):
        calls.clear()
        found = bnlab.checkup(net, pairs(8), test=pairs(8)[:3], budget=budget)
        assert found.passes == len(calls)
        assert f"{len(calls)} forward passes" in str(found)
        if budget:
            assert len(calls) <= budget


def test_a_last_batch_of_one_is_named_and_not_raised():
    found = bnlab.checkup(network(), DataLoader(TensorDataset(*data(65)), batch_size=8))
    assert found.causes[0] == "one value" and "drop_last=True" in found.findings[0].remedy
    found = bnlab.checkup(network(), DataLoader(TensorDataset(*data(8 * 30 + 1)), batch_size=8))
    assert found.causes[0] == "one value" and "last batch of the DataLoader" in found.findings[0].measured


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module"):
        bnlab.checkup("net", pairs())
    with pytest.raises(ValueError, match="no normalization layer in this Linear"):
        bnlab.checkup(nn.Linear(4, 2), pairs())
    with pytest.raises(ValueError, match="budget: expected at least 17 passes"):
        bnlab.checkup(network(), pairs(), budget=3)
    with pytest.raises(TypeError, match="scalar tensor"):
        bnlab.checkup(network(), pairs(), loss=lambda output, target: output)
    with pytest.raises(TypeError, match="a tuple of 3"):
        bnlab.checkup(network(), [(1, 2, 3)])


def test_it_shows_itself():
    net = network()
    net[1].running_var.mul_(25)
    found = bnlab.checkup(net, pairs())
    text, page = str(found), found._repr_html_()
    for finding in found.findings:
        assert finding.cause in text and finding.cause in page
    assert "currentColor" in page and "background:transparent" in page
    assert max(map(len, text.splitlines())) <= 110
    assert list(found.frame().index) == ["1", "5"]
    axes = found.plot()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "5"]
    assert len(axes.lines) == 4 and axes.get_ylabel()
    assert repr(found).startswith("<Checkup of 2 layers: ")


def test_nothing_found_lists_what_was_checked():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    bnlab.retake_statistics(net, [x for x, _ in pairs()])
    found = bnlab.checkup(net, pairs())
    assert found.healthy and not found.findings
    assert "nothing found" in str(found) and "composition of the batches" in str(found)


FACTORY = """
import torch
from torch import nn
def sick():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    x = torch.randn(160, 4)
    x[3] = torch.nan
    return net, list(x.split(16))
def well():
    torch.manual_seed(0)
    net = nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 2))
    return {"model": net, "batches": list(torch.randn(160, 4).split(16))}
"""


def test_the_command_line_has_an_exit_code(tmp_path):
    (tmp_path / "factories.py").write_text(FACTORY)

    def command(factory):
        arguments = [sys.executable, "-m", "bnlab.checkup", factory]
        return subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)

    sick, well, missing = (command(name) for name in ("factories:sick", "factories:well", "factories:none"))
    assert sick.returncode == 1 and "FAULT: bad data" in sick.stdout
    assert well.returncode == 0 and "nothing found" in well.stdout
    assert missing.returncode == 2 and "factories:none" in missing.stderr
