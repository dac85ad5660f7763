"""The instruments on a network that shares a weight, freezes a layer and returns several outputs."""

import numpy as np
import pytest
import torch
from measure_cases import same, state
from torch import nn
from torch.nn import functional as F

from bnlab import internal_covariate_shift, probe, sharpness, slice1d

X = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Several(nn.Module):
    """One convolution used twice, a frozen head, and a dictionary of outputs."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(50, 2).requires_grad_(False)
        self.tail = nn.Linear(50, 2)

    def forward(self, x):
        x = self.norm(self.twice(torch.tanh(self.twice(x)))).flatten(1)
        return {"head": self.head(x), "tail": (self.tail(x), x)}


def network(memory_format):
    torch.manual_seed(0)
    return Several().double().to(memory_format=memory_format)


def loss(net):
    """Along the memory format of the weights."""
    layout = torch.channels_last if net.twice.weight.stride(1) == 1 else torch.contiguous_format
    outputs = net(X.to(memory_format=layout))
    return F.softplus(outputs["head"]).mean() + outputs["tail"][0].square().mean()


def gradients(net, **options):
    return torch.autograd.grad(loss(net), [p for p in net.parameters() if p.requires_grad], **options)


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def net(request):
    net = network(request.param)
    before, strides = state(net), [p.stride() for p in net.parameters()]
    yield net
    assert same(before, state(net))
    assert strides == [p.stride() for p in net.parameters()]


def test_probe_and_slice_are_the_model_moved_by_hand(net):
    gradient = gradients(network(torch.contiguous_format))
    moved = network(torch.contiguous_format)
    for p, g in zip((p for p in moved.parameters() if p.requires_grad), gradient, strict=True):
        p.data -= 0.3 * g
    expected = loss(moved).item()
    assert probe(net, loss, [0.3]).loss[0] == pytest.approx(expected, rel=1e-12)
    assert slice1d(net, loss, [-0.3], direction=gradient).loss[0] == pytest.approx(expected, rel=1e-12)


def test_sharpness_is_the_dense_hessians(net):
    copy = network(torch.contiguous_format)
    parameters = [p for p in copy.parameters() if p.requires_grad]
    gradient = torch.cat([g.flatten() for g in gradients(copy, create_graph=True)])
    rows = [torch.autograd.grad(g, parameters, retain_graph=True) for g in gradient]
    matrix = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    expected = torch.linalg.eigvalsh(matrix).flip(0)[:2]
    np.testing.assert_allclose(sharpness(net, loss, k=2, tol=1e-8).eigenvalues, expected, rtol=1e-7)


def test_covariate_shift_is_the_definition(net):
    def step(net):
        with torch.no_grad():
            for p in net.parameters():
                if p.grad is not None:
                    p -= 0.1 * p.grad

    found = internal_covariate_shift(net, loss, step)
    assert list(found) == ["twice", "tail"]  # a frozen weight has no gradient to shift
    before, mixed = gradients(network(torch.contiguous_format)), network(torch.contiguous_format)
    for p, g in zip(list(mixed.parameters())[:4], before[:4], strict=True):  # all in front of the tail
        p.data -= 0.1 * g
    shift = torch.linalg.vector_norm(before[4] - gradients(mixed)[4]).item()
    assert found["twice"].l2 == 0
    assert found["tail"].l2 == pytest.approx(shift, rel=1e-10) and shift > 1e-4
