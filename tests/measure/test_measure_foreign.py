"""Networks of others: what is measured right on them, and what is refused with a remedy."""

import pytest
import torch
from measure_cases import Point, noisy_loss, noisy_net, same, state
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bnlab import frozen, hessian, probe, sharpness, slice1d, slice2d

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def loss(net):
    return net(X).square().mean()


def test_inside_autocast_the_weights_that_moved_are_used():
    """Autocast keeps casts of the weights: measured with them, the network would not move at all."""
    net = mlp()
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(net).item()
        found = probe(net, loss, [0.5])
        line = slice1d(net, loss, [1.0], direction=[p.detach().neg() for p in net.parameters()])
        assert loss(net).item() == inside  # and afterwards those of before
    alone = probe(net, lambda net: torch.autocast("cpu", torch.bfloat16)(loss)(net), [0.5])
    assert found.loss[0] == alone.loss[0] and found.beta[0] == alone.beta[0] > 0
    assert line.loss[0] == 0  # all weights at zero


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.layers, self.reentrant = mlp(), reentrant

    def forward(self, x):
        return self.layers[2](checkpoint(self.layers[:2], x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("measure", [lambda n, f: probe(n, f, [0.1]), sharpness], ids=["probe", "sharpness"])
@pytest.mark.parametrize("needs_gradient", [False, True])
def test_reentrant_checkpoints_are_refused_and_others_are_right(measure, needs_gradient):
    x = X.clone().requires_grad_(needs_gradient)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        measure(Checkpointed(True), lambda net: net(x).square().mean())
    right, expected = measure(Checkpointed(False), loss), measure(mlp(), loss)
    name = "beta" if hasattr(right, "beta") else "eigenvalues"
    assert getattr(right, name) == pytest.approx(getattr(expected, name), rel=1e-5)


def test_sparse_gradients():
    words = torch.tensor([0, 2, 2, 4])
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(5, 3, sparse=sparse), nn.Linear(3, 1))
        found.append(probe(net, lambda net: net(words).square().mean(), [0.1]))
    assert found[0].beta == pytest.approx(found[1].beta, rel=1e-6)
    assert same(list(found[0].gradient), list(found[1].gradient))
    dense = sharpness(net, lambda net: net(words).square().mean(), k=3)
    net[0].sparse = True
    sparse = sharpness(net, lambda net: net(words).square().mean(), k=3)
    assert sparse.eigenvalues == pytest.approx(dense.eigenvalues, rel=1e-6)


def test_chosen_parameters_are_the_blocks_of_the_hessian():
    net = mlp().double()
    f = lambda net: net(X.double()).square().mean()  # noqa: E731
    block = hessian(net, f) @ torch.eye(37, dtype=torch.float64).numpy()
    expected = torch.linalg.eigvalsh(torch.from_numpy(block[25:, 25:]))[-1].item()
    for chosen in ("2", ["2.weight", "2.bias"], net[2].parameters()):
        assert sharpness(net, f, parameters=chosen).eigenvalues[0] == pytest.approx(expected, rel=1e-9)
    part = probe(net, f, [0.3], parameters="2.weight")
    net.requires_grad_(False)
    net[2].weight.requires_grad_(True)
    whole = probe(net, f, [0.3])
    assert len(part.gradient) == 1 and part.loss[0] == whole.loss[0] and part.beta[0] == whole.beta[0]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("3", "named '3'.*names of this model: 0.weight, 0.bias, 2.weight, 2.bias"),
        ([], "at least one parameter or name"),
        ([torch.ones(2, 3)], r"a tensor of shape \(2, 3\)"),
        ("0.bias", "0.bias has requires_grad=False"),
    ],
)
def test_chosen_parameters_that_do_not_exist(chosen, message):
    net = mlp()
    net[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=f"parameters: .*{message}"):
        probe(net, loss, [0.1], parameters=chosen)


def test_slices_of_a_network_frozen_as_a_whole():
    free, fixed = mlp(), mlp().requires_grad_(False)
    for seed in (0, 1):
        assert slice1d(fixed, loss, [0.5], seed=seed).loss == slice1d(free, loss, [0.5], seed=seed).loss
    assert slice2d(fixed, loss, [0.5], [0.1]).loss == slice2d(free, loss, [0.5], [0.1]).loss
    with pytest.raises(ValueError, match="at least one parameter, found none"):
        slice1d(nn.ReLU(), lambda net: X.sum(), [0.0])


def test_directions_by_name_with_gradients_and_of_another_precision():
    net, target = mlp(), mlp()
    target[2].bias.data += 1
    parameters = zip(target.parameters(), net.parameters(), strict=True)
    expected = loss(target).item()
    assert slice1d(net, loss, [1.0], direction=[(b - a).double() for b, a in parameters]).loss[0] == expected
    step = {"2.bias": target[2].bias - net[2].bias}
    assert step["2.bias"].requires_grad
    assert slice1d(net, loss, [1.0], direction=step).loss[0] == expected
    assert slice1d(net.requires_grad_(False), loss, [1.0], direction=step).loss[0] == expected
    net.requires_grad_(True)
    assert probe(net, loss, [-1.0], direction=step).loss[0] == expected
    with pytest.raises(ValueError, match="'running_mean' is not the name of a parameter to move"):
        slice1d(nn.BatchNorm1d(4), loss, [1.0], direction={"running_mean": torch.ones(4)})


def fickle(net):
    return net(torch.randn(6, 4, generator=GENERATOR)).square().mean()


GENERATOR = torch.Generator().manual_seed(0)  # one of its own: the instruments cannot rewind it


@pytest.mark.parametrize(
    "measure",
    [
        lambda **options: probe(mlp(), fickle, [0.1], **options),
        lambda **options: sharpness(mlp(), fickle, **options),
        lambda **options: slice1d(mlp(), fickle, [0.0], **options),
        lambda **options: slice2d(mlp(), fickle, [0.0], [0.0, 1.0], **options),
    ],
    ids=["probe", "sharpness", "slice1d", "slice2d"],
)
def test_a_loss_that_draws_a_new_batch_is_refused(measure):
    with pytest.raises(ValueError, match=r"called twice at the same weights .* check=False"):
        measure()
    measure(check=False)


def test_dropout_and_noise_are_no_new_batch():
    net = noisy_net()
    before = state(net)
    probe(net, noisy_loss(), [0.1])
    sharpness(net, noisy_loss())
    assert same(before, state(net))


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


def attention(net):
    return net(torch.ones(2, 3, 8)).square().mean()


@pytest.mark.parametrize(
    ("net", "f", "remedy"),
    [
        (mlp(), lambda net: Cube.apply(net(X)).mean(), "Cube is marked once_differentiable"),
        (
            mlp(),
            lambda net: F.hardsigmoid(net(X)).square().mean(),
            "differentiated twice; write it with others",
        ),
        (nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True), attention, "SDPBackend.MATH"),
        (torch.compile(mlp(), backend="aot_eager"), loss, "_orig_mod"),
    ],
    ids=["once", "hard", "attention", "compiled"],
)
def test_what_cannot_be_differentiated_twice_names_the_remedy(net, f, remedy):
    with pytest.raises(RuntimeError, match=f"loss: .*{remedy}"):
        sharpness(net, f)


def test_the_remedy_for_attention_works():
    net = nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True)

    def remedied(net):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return net(torch.linspace(0, 1, 48).view(2, 3, 8)).sin().mean()

    assert sharpness(net, remedied).converged


def test_inference_mode():
    net = mlp()
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match=r"torch\.inference_mode: .*torch\.no_grad"):
            probe(net, loss, [0.1])
        made, x = mlp(), torch.ones(6, 4)
    with pytest.raises(RuntimeError, match="build or load the model outside"):
        probe(made, loss, [0.1])
    with pytest.raises(RuntimeError, match="a tensor was made inside"):
        probe(net, lambda net: net(x).sum(), [0.1])


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (torch.ones(1), "got a tensor, computed already"),
        (nn.MSELoss(), "takes the model and returns a scalar tensor.*got MSELoss"),
        (lambda net: {"loss": net(X)}, "that is a model's output"),
        (lambda net: 1.0, "leave out .item"),
    ],
)
def test_what_is_no_loss(f, message):
    with pytest.raises(TypeError, match=f"loss: .*{message}"):
        probe(mlp(), f, [0.1])


def test_what_is_no_model():
    with pytest.raises(TypeError, match="got the class Linear; call it to make one"):
        probe(nn.Linear, loss, [0.1])
    with pytest.raises(TypeError, match="got function; call it to make one"), frozen(mlp):
        pass
    with pytest.raises(TypeError, match="expected real parameters"):
        probe(Point(torch.ones(2, dtype=torch.complex64)), lambda net: net.theta.abs().sum(), [0.1])
