"""Every layer under torch's tools for functions and graphs, against torch's own layer under the same tool."""

import copy
import warnings

import pytest
import torch
from torch import nn

import bnlab

SHAPE = (4, 6, 5, 3)
LAYERS = {
    "batch": (lambda: bnlab.BatchNorm(6), lambda: nn.BatchNorm2d(6)),
    "batch, eval": (lambda: bnlab.BatchNorm(6).eval(), lambda: nn.BatchNorm2d(6).eval()),
    "instance": (lambda: bnlab.InstanceNorm(6, affine=True), lambda: nn.InstanceNorm2d(6, affine=True)),
    "group": (lambda: bnlab.GroupNorm(3, 6), lambda: nn.GroupNorm(3, 6)),
    "layer": (lambda: bnlab.LayerNorm((6, 5, 3)), lambda: nn.LayerNorm((6, 5, 3))),
    "layer, last dimension": (lambda: bnlab.LayerNorm(3), lambda: nn.LayerNorm(3)),
    "rms": (lambda: bnlab.RMSNorm(3), lambda: nn.RMSNorm(3)),
    "elu": (lambda: bnlab.ELU(), lambda: nn.ELU()),
    "selu": (lambda: bnlab.SELU(), lambda: nn.SELU()),
}
ALONE = {  # no twin in torch: compared with themselves outside the tool
    "ghost": lambda: bnlab.GhostBatchNorm(6, 2),
    "l_1": lambda: bnlab.LpBatchNorm(6, 1),
    "l_3": lambda: bnlab.LpBatchNorm(6, 3),
    "tanh": lambda: bnlab.DynamicTanh(6),
}
ALL = {**{n: ours for n, (ours, _) in LAYERS.items()}, **ALONE}
EVERY = pytest.mark.parametrize("name", ALL)
PAIRS = pytest.mark.parametrize("name", LAYERS)


def inputs(samples=4):
    return torch.randn(samples, *SHAPE[1:], generator=torch.Generator().manual_seed(0)).double() * 2 + 1


def ready(make):
    layer = make().double()
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return layer


def as_function(layer):
    """The layer as a function of its parameters and input, with buffers of its own at each call."""
    buffers = dict(layer.named_buffers())
    return dict(layer.named_parameters()), lambda parameters, x: torch.func.functional_call(
        layer, (parameters, {k: v.clone() for k, v in buffers.items()}), (x,)
    )


def gradients(layer, x):
    parameters, call = as_function(layer)
    return torch.func.grad(lambda p, x: call(p, x).sin().sum(), argnums=(0, 1))(parameters, x)


def jacobian(layer, x):
    parameters, call = as_function(layer)
    return torch.func.jacrev(lambda x: call(parameters, x)[:1])(x)


def jacobian_without_grad_mode(layer, x):
    with torch.no_grad():
        return jacobian(layer, x)


def second_derivative(layer, x):
    parameters, call = as_function(layer)
    value = torch.ones(1, dtype=x.dtype)
    return torch.func.jacrev(torch.func.jacrev(lambda t: call(parameters, x * t + x.cos()).sin().sum()))(
        value
    )


def many_weights(layer, x):
    parameters, call = as_function(layer)
    if not parameters:
        return call(parameters, x)
    stacked = {k: torch.stack([v, v * 2 - 1]) for k, v in parameters.items()}
    grad = torch.func.grad(lambda p: call(p, x).sin().sum())
    return torch.func.vmap(lambda p: call(p, x))(stacked), torch.func.vmap(grad)(stacked)


def batched_gradients(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x)
    directions = torch.randn(3, *y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    return torch.autograd.grad(y, x, directions, is_grads_batched=True)


@PAIRS
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of vmap without grad mode
@pytest.mark.parametrize(
    "tool",
    [gradients, jacobian, jacobian_without_grad_mode, second_derivative, many_weights, batched_gradients],
)
def test_torch_func(name, tool):
    ours, theirs = (ready(make) for make in LAYERS[name])
    torch.testing.assert_close(tool(ours, inputs()), tool(theirs, inputs()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "batch"])
def test_vmap_over_inputs(name):
    """Not of batch norm in train mode, whose running statistics would have to move at once: as in torch."""
    results = []
    for make in LAYERS[name]:
        parameters, call = as_function(ready(make))
        stack = torch.stack([inputs(), inputs() * 2])
        grad = torch.func.grad(lambda x, call=call, p=parameters: call(p, x).sin().sum())
        results.append((torch.func.vmap(call, (None, 0))(parameters, stack), torch.func.vmap(grad)(stack)))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ALONE)
def test_torch_func_where_torch_has_no_layer(name):
    layer, x = ready(ALONE[name]), inputs().requires_grad_()
    expected = torch.autograd.grad(layer(x).sin().sum(), [*layer.parameters(), x])
    found, dx = gradients(layer, x)
    torch.testing.assert_close((*found.values(), dx), expected)
    assert jacobian(layer, x).shape == (1, *SHAPE[1:], *SHAPE)


@EVERY
def test_fx_records_one_call_of_the_module(name):
    net = nn.Sequential(nn.Identity(), ready(ALL[name]))
    graph = torch.fx.symbolic_trace(net)
    assert [n.target for n in graph.graph.nodes if n.op == "call_module"] == ["0", "1"]
    assert type(graph.get_submodule("1")) is type(net[1])
    torch.testing.assert_close(graph(inputs()), net(inputs()))


@EVERY
@pytest.mark.parametrize("grad", [True, False])
def test_export(name, grad):
    """For any batch size, but for ghosts: their number is part of the graph."""
    layer = ready(ALL[name])
    sizes = None if name == "ghost" else ({0: torch.export.Dim("batch", min=2, max=64)},)
    with torch.set_grad_enabled(grad):
        exported = torch.export.export(copy.deepcopy(layer), (inputs(),), dynamic_shapes=sizes).module()
    x = inputs(4 if name == "ghost" else 7)
    torch.testing.assert_close(exported(x), layer(x))
    torch.testing.assert_close(dict(exported.named_buffers()), dict(layer.named_buffers()))


@EVERY
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_jit_trace(name, tmp_path):
    layer = ready(ALL[name])
    traced = torch.jit.trace(copy.deepcopy(layer), inputs(), check_trace=False)
    layer(inputs())  # tracing was a step too
    x = inputs(4 if name == "ghost" else 7)
    torch.testing.assert_close(traced(x), layer(x))
    if name not in ("batch, eval", "tanh"):
        with pytest.raises(RuntimeError, match="Could not export Python function"):
            traced.save(tmp_path / "traced.pt")


@pytest.mark.parametrize("name", ["batch", "instance", "group", "layer", "rms", "l_1", "elu"])
def test_onnx_by_torchscript_is_refused(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError):
            torch.onnx.export(
                ready(ALL[name]), (inputs(),), tmp_path / "layer.onnx", dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,
            )  # fmt: skip
