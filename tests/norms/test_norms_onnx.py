"""ONNX's own test cases for normalization, as they come with the installed onnx wheel.

The wheel computes inputs and expected outputs with NumPy when its case modules are imported. Conventions
that differ are converted here, in the open.
"""

import importlib
import warnings

import pytest
import torch
from torch import nn

import bnlab

MODULES = (
    "batch_normalization",
    "groupnormalization",
    "instance_normalization",
    "layernormalization",
    "lpnormalization",
    "rmsnormalization",
)


def _cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel's own 0 / 0
        for module in MODULES:
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
        node = importlib.import_module("onnx.backend.test.case.node")
    wanted = {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LpNormalization",
        "RMSNormalization",
    }
    cases = {}
    for case in node._NodeTestCases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in wanted:  # the "expanded" twins spell an op out in others
            cases[case.name] = case
    return cases


CASES = _cases()


def _read(case):
    (inputs, outputs) = case.data_sets[0]
    node = case.model.graph.node[0]
    attributes = {a.name: (a.f if a.type == 1 else a.i) for a in node.attribute}  # 1 is FLOAT
    return (
        [torch.from_numpy(a.copy()) for a in inputs],
        [torch.from_numpy(a.copy()) for a in outputs],
        attributes,
    )


def _load(layer, **tensors):
    layer.load_state_dict(tensors, strict=False)
    return layer


def test_every_kind_of_case_was_found():
    kinds = [case.model.graph.node[0].op_type for case in CASES.values()]
    assert {k: kinds.count(k) for k in set(kinds)} == {
        "BatchNormalization": 4,
        "GroupNormalization": 2,
        "InstanceNormalization": 2,
        "LayerNormalization": 19,
        "LpNormalization": 6,
        "RMSNormalization": 19,
    }


def _select(op):
    return pytest.mark.parametrize(
        "case", [pytest.param(c, id=n) for n, c in CASES.items() if c.model.graph.node[0].op_type == op]
    )


@_select("BatchNormalization")
def test_batch_normalization(case):
    (x, scale, bias, mean, var), outputs, attributes = _read(case)
    eps = attributes.get("epsilon", 1e-5)
    # ONNX's momentum is the weight of the OLD running value, ours (PyTorch's) that of the new one.
    momentum = 1 - attributes.get("momentum", 0.9)
    layer = _load(
        bnlab.BatchNorm(len(scale), eps=eps, momentum=momentum),
        weight=scale, bias=bias, running_mean=mean, running_var=var,
    )  # fmt: skip
    layer.train(bool(attributes.get("training_mode", 0)))
    y = layer(x)
    torch.testing.assert_close(y, outputs[0], rtol=1e-5, atol=1e-5)
    if layer.training:
        torch.testing.assert_close(layer.running_mean, outputs[1], rtol=1e-5, atol=1e-6)
        # ONNX's running variance takes in the biased variance, ours the unbiased one.
        m = x.numel() // len(scale)
        new = (layer.running_var - (1 - momentum) * var) / momentum
        biased = (1 - momentum) * var + momentum * new * (m - 1) / m
        torch.testing.assert_close(biased, outputs[2], rtol=1e-5, atol=1e-6)


@_select("GroupNormalization")
def test_group_normalization(case):
    (x, scale, bias), (expected,), attributes = _read(case)
    layer = bnlab.GroupNorm(attributes["num_groups"], x.size(1), eps=attributes.get("epsilon", 1e-5))
    y = _load(layer, weight=scale, bias=bias)(x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@_select("InstanceNormalization")
def test_instance_normalization(case):
    (x, scale, bias), (expected,), attributes = _read(case)
    layer = bnlab.InstanceNorm(x.size(1), eps=attributes.get("epsilon", 1e-5), affine=True)
    torch.testing.assert_close(_load(layer, weight=scale, bias=bias)(x), expected, rtol=1e-5, atol=1e-5)


@_select("LayerNormalization")
def test_layer_normalization(case):
    (x, scale, bias), (expected, _mean, _invstd), attributes = _read(case)
    # ONNX names the first normalized dimension, PyTorch the sizes from there on.
    layer = bnlab.LayerNorm(x.shape[attributes.get("axis", -1) :], eps=attributes.get("epsilon", 1e-5))
    torch.testing.assert_close(_load(layer, weight=scale, bias=bias)(x), expected, rtol=1e-5, atol=1e-5)


@_select("RMSNormalization")
def test_rms_normalization(case):
    (x, scale), (expected,), attributes = _read(case)
    # ONNX's default epsilon is 1e-5, PyTorch's the machine epsilon.
    layer = bnlab.RMSNorm(x.shape[attributes.get("axis", -1) :], eps=attributes.get("epsilon", 1e-5))
    torch.testing.assert_close(_load(layer, weight=scale)(x), expected, rtol=1e-5, atol=1e-5)


@_select("LpNormalization")
def test_lp_normalization(case):
    """ONNX's operator is x / ||x||_p: no mean subtracted, and a sum where [2] has an average.

    So what can be compared is the norm that LpBatchNorm measures, times m^(1/p), and the layer's output
    with the mean put back. ONNX defines 0/0 as 0; the layer's epsilon does the same.
    """
    (x,), (expected,), attributes = _read(case)
    p, axis = attributes.get("p", 2), attributes.get("axis", -1)
    samples = x.movedim(axis, 0).reshape(x.size(axis), -1)  # the normalized axis becomes the batch
    expected = expected.movedim(axis, 0).reshape_as(samples)
    layer = bnlab.LpBatchNorm(samples.size(1), p, eps=1e-30, momentum=1.0, affine=False)
    y = layer(samples)
    norm = layer.running_norm * len(samples) ** (1 / p)
    torch.testing.assert_close(samples / norm.clamp_min(1e-30), expected, rtol=1e-6, atol=1e-6)
    uncentred = y + layer.running_mean / layer.running_norm.clamp_min(1e-30)
    torch.testing.assert_close(uncentred / len(samples) ** (1 / p), expected, rtol=1e-6, atol=1e-6)


def test_a_wrong_epsilon_would_be_noticed():
    """The cases can fail: ONNX's epsilon cases use 1e-2, and the default epsilon does not pass them."""
    (x, scale, bias), (expected,), attributes = _read(CASES["test_instancenorm_epsilon"])
    assert attributes["epsilon"] == pytest.approx(1e-2)
    layer = _load(nn.InstanceNorm2d(3, affine=True), weight=scale, bias=bias)
    assert (layer(x) - expected).abs().max() > 1e-4
