"""Each drop-in layer against the torch module of that name: numbers, gradients, state, modes, errors."""

import copy
import warnings

import pytest
import torch
from torch import nn

import bnlab

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

# name, ours, torch's, input shapes
LAYERS = {
    "batch (N,C)": (lambda **k: bnlab.BatchNorm(6, **k), lambda **k: nn.BatchNorm1d(6, **k), (9, 6)),
    "batch (N,C,L)": (lambda **k: bnlab.BatchNorm(6, **k), lambda **k: nn.BatchNorm1d(6, **k), (5, 6, 7)),
    "batch (N,C,H,W)": (
        lambda **k: bnlab.BatchNorm(6, **k),
        lambda **k: nn.BatchNorm2d(6, **k),
        (4, 6, 5, 3),
    ),
    "batch (N,C,D,H,W)": (
        lambda **k: bnlab.BatchNorm(6, **k),
        lambda **k: nn.BatchNorm3d(6, **k),
        (3, 6, 4, 2, 5),
    ),
    "batch, one sample": (
        lambda **k: bnlab.BatchNorm(6, **k),
        lambda **k: nn.BatchNorm2d(6, **k),
        (1, 6, 3, 3),
    ),
    "batch, above the slice size": (
        lambda **k: bnlab.BatchNorm(6, **k),
        lambda **k: nn.BatchNorm2d(6, **k),
        (35, 6, 60, 50),
    ),
    "layer (N,C)": (lambda **k: bnlab.LayerNorm(6, **k), lambda **k: nn.LayerNorm(6, **k), (9, 6)),
    "layer (N,T,C)": (lambda **k: bnlab.LayerNorm(6, **k), lambda **k: nn.LayerNorm(6, **k), (4, 5, 6)),
    "layer (N,C,H,W)": (
        lambda **k: bnlab.LayerNorm((6, 5, 3), **k),
        lambda **k: nn.LayerNorm((6, 5, 3), **k),
        (4, 6, 5, 3),
    ),
    "layer, no batch": (
        lambda **k: bnlab.LayerNorm((2, 6), **k),
        lambda **k: nn.LayerNorm((2, 6), **k),
        (2, 6),
    ),
    "layer, above the slice size": (
        lambda **k: bnlab.LayerNorm(601, **k),
        lambda **k: nn.LayerNorm(601, **k),
        (900, 601),
    ),
    "rms (N,C)": (lambda **k: bnlab.RMSNorm(6, **k), lambda **k: nn.RMSNorm(6, **k), (9, 6)),
    "rms (N,C,H)": (lambda **k: bnlab.RMSNorm((6, 5), **k), lambda **k: nn.RMSNorm((6, 5), **k), (4, 6, 5)),
    "group (N,C)": (lambda **k: bnlab.GroupNorm(2, 6, **k), lambda **k: nn.GroupNorm(2, 6, **k), (9, 6)),
    "group (N,C,H,W)": (
        lambda **k: bnlab.GroupNorm(3, 6, **k),
        lambda **k: nn.GroupNorm(3, 6, **k),
        (4, 6, 5, 3),
    ),
    "group, one group": (
        lambda **k: bnlab.GroupNorm(1, 6, **k),
        lambda **k: nn.GroupNorm(1, 6, **k),
        (4, 6, 5),
    ),
    "group, above the slice size": (
        lambda **k: bnlab.GroupNorm(3, 6, **k),
        lambda **k: nn.GroupNorm(3, 6, **k),
        (35, 6, 60, 50),
    ),
    "instance (N,C,L)": (
        lambda **k: bnlab.InstanceNorm(6, **k),
        lambda **k: nn.InstanceNorm1d(6, **k),
        (4, 6, 5),
    ),
    "instance (N,C,H,W)": (
        lambda **k: bnlab.InstanceNorm(6, **k),
        lambda **k: nn.InstanceNorm2d(6, **k),
        (4, 6, 5, 3),
    ),
    "instance, above the slice size": (
        lambda **k: bnlab.InstanceNorm(6, **k),
        lambda **k: nn.InstanceNorm2d(6, **k),
        (35, 6, 60, 50),
    ),
    "instance (N,C,D,H,W)": (
        lambda **k: bnlab.InstanceNorm(6, **k),
        lambda **k: nn.InstanceNorm3d(6, **k),
        (3, 6, 4, 2, 5),
    ),
    "elu, above the slice size": (lambda **k: bnlab.ELU(), lambda **k: nn.ELU(), (900, 601)),
    "elu": (lambda **k: bnlab.ELU(), lambda **k: nn.ELU(), (4, 6)),
    "elu alpha": (lambda **k: bnlab.ELU(0.3), lambda **k: nn.ELU(0.3), (4, 6)),
    "elu negative alpha": (lambda **k: bnlab.ELU(-0.7), lambda **k: nn.ELU(-0.7), (4, 6)),
    "selu": (lambda **k: bnlab.SELU(), lambda **k: nn.SELU(), (4, 6)),
}
ALL = pytest.mark.parametrize("name", LAYERS)


def pair(name, dtype=torch.float32, **options):
    """Ours and torch's layer with the same random parameters, and an input."""
    ours, theirs, shape = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ours(**options).to(dtype), theirs(**options).to(dtype)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) * 3 + 2
    return ours, theirs, x


def step(layer, x, grad_dtype=None):
    """Output, gradients and state after one forward and backward pass."""
    x = x.detach().requires_grad_()
    y = layer(x)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(grad_dtype or y.dtype)
    grad = grad.to(y.dtype)
    grads = torch.autograd.grad(y, [x, *layer.parameters()], grad)
    return [y.detach(), *grads, *layer.state_dict().values()]


def close(ours, theirs, tolerance):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        finite = b[b.isfinite()]
        size = finite.abs().max().item() if finite.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(size, 1.0), equal_nan=True)


@ALL
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_same_numbers_and_gradients(name, dtype):
    ours, theirs, x = pair(name, dtype)
    for _ in range(2):  # the second step starts from moved running statistics
        close(step(ours, x), step(theirs, x), TOLERANCE[dtype])
    ours.eval(), theirs.eval()
    close(step(ours, x), step(theirs, x), TOLERANCE[dtype])


@ALL
def test_same_state_dict_both_ways_and_same_repr(name):
    ours, theirs, _ = pair(name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours).split("(", 1)[1] == repr(theirs).split("(", 1)[1]
    fresh = LAYERS[name][0]()
    if list(fresh.parameters()):
        ours.reset_parameters()
        for key, value in ours.state_dict().items():
            assert torch.equal(value, LAYERS[name][1]().state_dict()[key])


@pytest.mark.parametrize(
    "options",
    [
        {"affine": False},
        {"bias": False},
        {"eps": 0.1},
        {"affine": False, "track_running_stats": False},
        {"track_running_stats": False},
        {"momentum": None},
        {"momentum": 1.0},
        {"momentum": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["batch (N,C)", "batch (N,C,H,W)"])
def test_batch_norm_options(name, options):
    ours, theirs, x = pair(name, torch.float64, **options)
    for scale in (1, 3, 0.5):
        close(step(ours, x * scale), step(theirs, x * scale), 1e-12)
    ours.eval(), theirs.eval()
    close(step(ours, x), step(theirs, x), 1e-12)


@pytest.mark.parametrize(
    "name, options",
    [
        ("instance (N,C,L)", {"affine": True}),
        ("instance (N,C,H,W)", {"affine": True, "track_running_stats": True}),
        ("instance (N,C,H,W)", {"track_running_stats": True, "momentum": 0.5}),
        ("instance (N,C,L)", {"track_running_stats": True, "momentum": None}),
        ("instance (N,C,L)", {"affine": True, "bias": False}),
        ("group (N,C,H,W)", {"affine": False}),
        ("group (N,C,H,W)", {"bias": False, "eps": 0.1}),
        ("layer (N,T,C)", {"elementwise_affine": False}),
        ("layer (N,C,H,W)", {"bias": False, "eps": 0.1}),
        ("rms (N,C,H)", {"elementwise_affine": False}),
        ("rms (N,C,H)", {"eps": 0.1}),
    ],
    ids=str,
)
def test_other_options(name, options):
    ours, theirs, x = pair(name, torch.float64, **options)
    for scale in (1, 3):
        close(step(ours, x * scale), step(theirs, x * scale), 1e-12)
    ours.eval(), theirs.eval()
    close(step(ours, x), step(theirs, x), 1e-12)


@ALL
@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16], ids=str)
def test_bfloat16_input(name, parameters):
    """The float32 results for the same numbers, rounded once to bfloat16; dtypes as in torch.

    Not compared with torch's values: its own bfloat16 sums over many rows are off by several per cent.
    """
    if name.startswith("rms") and parameters == torch.float32:
        pytest.skip("torch warns that it has no fused kernel for this")
    ours, theirs, x = pair(name, parameters)
    x = x.bfloat16()
    exact = step(copy.deepcopy(ours).float(), x.float(), grad_dtype=torch.bfloat16)
    results = step(ours, x)
    assert [t.dtype for t in results] == [t.dtype for t in step(theirs, x)]
    close([t.to(e.dtype) for t, e in zip(results, exact, strict=True)], exact, 2**-8)


def test_bfloat16_statistics_are_float32():
    """A sum of 4096 bfloat16 ones would stop at 256; the mean must not."""
    x = torch.ones(4096, 1, dtype=torch.bfloat16)
    x[::2] = 3
    layer = bnlab.BatchNorm(1, momentum=1.0)
    layer(x)
    assert layer.running_mean.item() == 2
    assert layer.running_var.item() == pytest.approx(4096 / 4095, rel=1e-6)


@ALL
def test_float16_input(name):
    ours, theirs, x = pair(name, torch.float16)
    close([step(ours, x)[0].float()], [step(theirs, x)[0].float()], 5e-3)


@pytest.mark.parametrize("name", [n for n in LAYERS if "(N,C,H,W)" in n])
def test_channels_last(name):
    ours, theirs, x = pair(name, torch.float64)
    x = x.to(memory_format=torch.channels_last)
    results = step(ours, x), step(theirs, x)
    close(*results, 1e-12)
    if not name.startswith("layer"):  # torch's LayerNorm returns a contiguous tensor
        assert ours(x).is_contiguous(memory_format=torch.channels_last)


@ALL
@pytest.mark.parametrize("kind", ["transposed", "strided", "expanded"])
def test_non_contiguous_input(name, kind):
    ours, theirs, x = pair(name, torch.float64)
    if kind == "transposed":
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    elif kind == "strided":
        x = torch.stack([x, x], dim=-1)[..., 0]
    else:
        x = x[:1].expand(x.shape)
    close(step(ours, x), step(theirs, x), 1e-12)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    "name, shape",
    [
        ("batch (N,C)", (0, 6)),
        ("batch (N,C,H,W)", (0, 6, 2, 2)),
        ("batch (N,C,H,W)", (3, 6, 0, 2)),
        ("layer (N,C)", (0, 6)),
        ("rms (N,C)", (0, 6)),
        ("group (N,C,H,W)", (0, 6, 2, 2)),
        ("instance (N,C,L)", (0, 6, 4)),
        ("elu", (0, 6)),
    ],
)
def test_empty_batch(name, shape, mode):
    """Empty out, zero gradients, running statistics untouched, and the batch is counted: as in torch."""
    ours, theirs, _ = pair(name)
    getattr(ours, mode)(), getattr(theirs, mode)()
    close(step(ours, torch.empty(shape)), step(theirs, torch.empty(shape)), 0)


def test_empty_batch_does_not_poison_instance_statistics():
    """The one difference: torch's running statistics become NaN here."""
    ours, theirs, _ = pair("instance (N,C,L)", track_running_stats=True)
    ours(torch.empty(0, 6, 4)), theirs(torch.empty(0, 6, 4))
    assert theirs.running_mean.isnan().all()
    assert torch.equal(ours.running_mean, torch.zeros(6)) and torch.equal(ours.running_var, torch.ones(6))


ERRORS = {
    # torch's error type for the same mistake; words our message must contain
    "batch rank 1": (bnlab.BatchNorm(3), nn.BatchNorm1d(3), torch.randn(3), ["2D", "5D", "got 1D"]),
    "batch rank 6": (bnlab.BatchNorm(3), nn.BatchNorm3d(3), torch.randn(1, 3, 2, 2, 2, 2), ["got 6D"]),
    "batch channels": (
        bnlab.BatchNorm(3),
        nn.BatchNorm1d(3),
        torch.randn(5, 4),
        ["3 channels", "4 channels"],
    ),
    "batch channels, eval": (
        bnlab.BatchNorm(3).eval(),
        nn.BatchNorm1d(3).eval(),
        torch.randn(5, 4),
        ["3 channels", "4 channels", "[5, 4]"],
    ),
    "batch channels, untracked": (
        bnlab.BatchNorm(3, track_running_stats=False),
        nn.BatchNorm1d(3, track_running_stats=False),
        torch.randn(5, 4),
        ["3 channels"],
    ),
    "batch one value": (
        bnlab.BatchNorm(3),
        nn.BatchNorm1d(3),
        torch.randn(1, 3),
        ["more than 1 value per channel when training", "[1, 3]"],
    ),
    "batch one value, conv": (
        bnlab.BatchNorm(3),
        nn.BatchNorm2d(3),
        torch.randn(1, 3, 1, 1),
        ["more than 1 value per channel"],
    ),
    "batch one value, eval without statistics": (
        bnlab.BatchNorm(3, track_running_stats=False).eval(),
        nn.BatchNorm1d(3, track_running_stats=False).eval(),
        torch.randn(1, 3),
        ["more than 1 value per channel"],
    ),
    "batch integers": (
        bnlab.BatchNorm(3),
        nn.BatchNorm1d(3),
        torch.ones(4, 3, dtype=torch.int64),
        ["floating-point", "int64"],
    ),
    "batch complex": (
        bnlab.BatchNorm(3),
        nn.BatchNorm1d(3),
        torch.ones(4, 3, dtype=torch.complex64),
        ["complex64"],
    ),
    "batch double input": (
        bnlab.BatchNorm(3),
        nn.BatchNorm1d(3),
        torch.randn(4, 3).double(),
        ["float32", "float64"],
    ),
    "batch double layer": (
        bnlab.BatchNorm(3).double(),
        nn.BatchNorm1d(3).double(),
        torch.randn(4, 3),
        ["float32", "float64"],
    ),
    "batch half layer": (
        bnlab.BatchNorm(3).bfloat16(),
        nn.BatchNorm1d(3).bfloat16(),
        torch.randn(4, 3),
        ["float32", "bfloat16"],
    ),
    "batch eps 0": (
        bnlab.BatchNorm(3, eps=0.0),
        nn.BatchNorm1d(3, eps=0.0),
        torch.randn(4, 3),
        ["eps", "0.0"],
    ),
    "batch eps negative, eval": (
        bnlab.BatchNorm(3, eps=-1.0).eval(),
        nn.BatchNorm1d(3, eps=-1.0).eval(),
        torch.randn(4, 3),
        ["eps", "-1.0"],
    ),
    "layer shape": (
        bnlab.LayerNorm((2, 3)),
        nn.LayerNorm((2, 3)),
        torch.randn(2, 3, 2),
        ["[2, 3]", "[2, 3, 2]"],
    ),
    "layer nothing": (bnlab.LayerNorm(()), nn.LayerNorm(()), torch.randn(3), ["at least one"]),
    "layer dtype": (bnlab.LayerNorm(3), nn.LayerNorm(3), torch.randn(2, 3).double(), ["float64"]),
    "rms shape": (bnlab.RMSNorm((2, 3)), nn.RMSNorm((2, 3)), torch.randn(2, 3, 2), ["[2, 3]", "[2, 3, 2]"]),
    "rms integers": (bnlab.RMSNorm(3), nn.RMSNorm(3), torch.ones(2, 3, dtype=torch.int32), ["int32"]),
    "group channels": (bnlab.GroupNorm(2, 4), nn.GroupNorm(2, 4), torch.randn(2, 6, 3), ["4 channels", "6"]),
    "group rank": (bnlab.GroupNorm(2, 4), nn.GroupNorm(2, 4), torch.randn(4), ["at least 2 dimensions"]),
    "group one value": (bnlab.GroupNorm(2, 2), nn.GroupNorm(2, 2), torch.randn(1, 2), ["more than 1 value"]),
    "instance one position": (
        bnlab.InstanceNorm(2),
        nn.InstanceNorm1d(2),
        torch.randn(3, 2, 1),
        ["more than 1 spatial element", "[3, 2, 1]"],
    ),
    "instance rank": (bnlab.InstanceNorm(2), nn.InstanceNorm1d(2), torch.randn(2), ["got 1D"]),
    "instance rank 2": (bnlab.InstanceNorm(2), nn.InstanceNorm2d(2), torch.randn(3, 2), ["got 2D"]),
    "instance channels": (
        bnlab.InstanceNorm(2, affine=True),
        nn.InstanceNorm1d(2, affine=True),
        torch.randn(3, 4, 5),
        ["dim=1", "2", "4"],
    ),
    "instance channels, tracked": (
        bnlab.InstanceNorm(2, track_running_stats=True),
        nn.InstanceNorm1d(2, track_running_stats=True),
        torch.randn(3, 4, 5),
        ["2 channels", "4 channels"],
    ),
    "elu integers": (bnlab.ELU(), nn.ELU(), torch.ones(3, dtype=torch.int32), ["int32"]),
}


@pytest.mark.filterwarnings("ignore:input's size at dim")  # torch's, before its error
@pytest.mark.parametrize("name", ERRORS)
def test_same_error_type_and_a_message_that_helps(name):
    ours, theirs, x, words = ERRORS[name]
    with pytest.raises(Exception) as expected:
        theirs(x)
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(expected.type) as raised:
        ours(x)
    assert raised.type is expected.type
    for word in words:
        assert word in str(raised.value)
    for key, value in ours.state_dict().items():  # a refused batch leaves no trace
        assert torch.equal(value, before[key])


def test_constructor_errors():
    with pytest.raises(ValueError, match=r"num_channels \(3\) must be divisible by num_groups \(2\)"):
        bnlab.GroupNorm(2, 3)
    with pytest.raises(ValueError, match="alpha"):
        bnlab.ELU(alpha=-1.0, inplace=True)


def test_channels_do_not_matter_where_nothing_is_kept_per_channel():
    x = torch.randn(5, 4)
    close(
        [bnlab.BatchNorm(3, affine=False, track_running_stats=False)(x)],
        [nn.BatchNorm1d(3, affine=False, track_running_stats=False)(x)],
        1e-5,
    )
    with pytest.warns(UserWarning, match="num_features is not used"):
        bnlab.InstanceNorm(3)(torch.randn(5, 4, 2))


def test_constructor_arguments_have_torchs_names_order_and_defaults():
    import inspect

    for ours, theirs in [
        (bnlab.BatchNorm, nn.BatchNorm2d),
        (bnlab.LayerNorm, nn.LayerNorm),
        (bnlab.GroupNorm, nn.GroupNorm),
        (bnlab.InstanceNorm, nn.InstanceNorm2d),
        (bnlab.RMSNorm, nn.RMSNorm),
        (bnlab.ELU, nn.ELU),
        (bnlab.SELU, nn.SELU),
    ]:
        a, b = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
        assert [(p.name, p.default, p.kind) for p in a.values()] == [
            (p.name, p.default, p.kind) for p in b.values()
        ], ours


def test_device_and_dtype_arguments():
    for layer in (
        bnlab.BatchNorm(2, device="meta", dtype=torch.float64),
        bnlab.LayerNorm(2, device="meta", dtype=torch.float64),
        bnlab.RMSNorm(2, device="meta", dtype=torch.float64),
        bnlab.GroupNorm(1, 2, device="meta", dtype=torch.float64),
        bnlab.InstanceNorm(2, affine=True, device="meta", dtype=torch.float64),
        bnlab.DynamicTanh(2, device="meta", dtype=torch.float64),
    ):
        for key, value in layer.state_dict().items():
            assert value.device.type == "meta"
            assert value.dtype == (torch.int64 if key == "num_batches_tracked" else torch.float64)


@pytest.mark.parametrize("ours, theirs", [(bnlab.ELU, nn.ELU), (bnlab.SELU, nn.SELU)])
def test_inplace_activation(ours, theirs):
    results = []
    for kind in (ours, theirs):
        x = torch.linspace(-3, 3, 8, dtype=torch.float64).requires_grad_()
        hidden = x * 2
        y = kind(inplace=True)(hidden)
        assert y.data_ptr() == hidden.data_ptr()
        results.append([y.detach(), *torch.autograd.grad(y.sum(), x)])
    close(*results, 1e-12)


@pytest.mark.parametrize("name", ["elu", "elu negative alpha", "selu"])
def test_activations_at_the_edges(name):
    """Zero, signed zero, huge, tiny and infinite input: values and slopes. NaN stays NaN."""
    ours, theirs, _ = pair(name, torch.float64)
    x = torch.tensor([0.0, -0.0, 1e4, -1e4, 1e-300, -1e-300, -1e-9, float("inf"), -float("inf")]).double()
    close(step(ours, x), step(theirs, x), 1e-15)
    assert ours(torch.tensor([float("nan"), 1.0])).isnan().tolist() == [True, False]


def test_autocast_keeps_the_input_dtype():
    """Inside CPU autocast a bfloat16 activation meets float32 parameters."""
    net = nn.Sequential(nn.Linear(6, 6), bnlab.BatchNorm(6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(torch.randn(8, 6))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert net[1].weight.grad.dtype == torch.float32 and net[0].weight.grad.dtype == torch.float32


def test_a_torch_checkpoint_without_batch_counter_loads():
    """Checkpoints from before 2018 lack num_batches_tracked; torch's layers accept them."""
    old = {k: v for k, v in nn.BatchNorm2d(3).state_dict().items() if k != "num_batches_tracked"}
    bnlab.BatchNorm(3).load_state_dict(old)


def test_copies_and_pickles(tmp_path):
    layer, _, x = pair("batch (N,C)")
    layer(x)
    torch.save(layer, tmp_path / "layer.pt")
    for twin in (copy.deepcopy(layer), torch.load(tmp_path / "layer.pt", weights_only=False)):
        assert torch.equal(twin.eval()(x), copy.deepcopy(layer).eval()(x))


def test_no_warnings_in_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in LAYERS:
            ours, _, x = pair(name)
            step(ours, x)
