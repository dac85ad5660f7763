"""convert(): what is swapped, what is kept, what is refused."""

import copy

import pytest
import torch
from torch import nn

import bnlab


def conv_net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 4, 3), nn.GroupNorm(2, 4), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(4 * 16, 5),
        nn.LayerNorm(5),
    )


def test_ten_line_swap_keeps_the_function():
    """torch's layers for ours of the same kind: the same net, in train and in eval mode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    x = torch.randn(6, 3, 6, 6)
    net(x), net(x)
    ours = bnlab.convert(copy.deepcopy(net), bnlab.BatchNorm)
    assert type(ours[1]) is bnlab.BatchNorm
    torch.testing.assert_close(ours(x), net(x))
    torch.testing.assert_close(ours.eval()(x), net.eval()(x))
    assert torch.equal(ours[1].num_batches_tracked, net[1].num_batches_tracked)


@pytest.mark.parametrize(
    "factory",
    [
        bnlab.BatchNorm,
        lambda c: bnlab.GroupNorm(1, c),
        lambda c: bnlab.LpBatchNorm(c, 1),
        lambda c: bnlab.GhostBatchNorm(c, 4),
        bnlab.NoisyBatchNorm,
        bnlab.DynamicTanh,
        lambda c: nn.Identity(),
    ],
    ids=["batch", "group", "l_1", "ghost", "noisy", "tanh", "none"],
)
def test_every_layer_fits_every_place(factory):
    net = conv_net()
    seen = []

    def watched(channels):
        seen.append(channels)
        return factory(channels)

    assert bnlab.convert(net, watched) is net
    assert seen == [8, 4, 5]
    kinds = {type(m) for m in net.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm}
    y = net(torch.randn(8, 3, 8, 8))
    y.square().sum().backward()
    assert y.shape == (8, 5) and all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    "layer, channels",
    [
        (nn.BatchNorm1d(6), 6),
        (nn.BatchNorm2d(6), 6),
        (nn.BatchNorm3d(6), 6),
        (nn.SyncBatchNorm(6), 6),
        (nn.InstanceNorm1d(6), 6),
        (nn.InstanceNorm2d(6), 6),
        (nn.InstanceNorm3d(6), 6),
        (nn.GroupNorm(2, 6), 6),
        (nn.LayerNorm(6), 6),
        (nn.LayerNorm((6, 4, 4)), 6),
        (nn.RMSNorm(6), 6),
        (bnlab.BatchNorm(6), 6),
        (bnlab.LpBatchNorm(6, 1), 6),
        (bnlab.GhostBatchNorm(6, 2), 6),
        (bnlab.NoisyBatchNorm(6), 6),
        (bnlab.InstanceNorm(6), 6),
        (bnlab.GroupNorm(2, 6), 6),
        (bnlab.LayerNorm(6), 6),
        (bnlab.RMSNorm(6), 6),
        (bnlab.DynamicTanh(6), 6),
    ],
    ids=lambda v: repr(v) if isinstance(v, nn.Module) else "",
)
def test_kinds_that_are_replaced(layer, channels):
    def factory(c):
        assert c == channels
        return nn.Identity()

    net = bnlab.convert(nn.Sequential(nn.Flatten(0), layer), factory)
    assert not any(m is layer for m in net.modules())
    assert bnlab.convert(layer, factory) is not layer  # the model itself may be the layer


def test_parameters_and_buffers_are_taken_over_where_they_fit():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm((4, 2)), nn.BatchNorm1d(4))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p))
    net[0].weight.requires_grad_(False)
    net[2].running_var.fill_(9)
    old = copy.deepcopy(net)
    bnlab.convert(net, lambda c: bnlab.LpBatchNorm(c, 2))
    for i in (0, 2):
        assert torch.equal(net[i].weight, old[i].weight) and torch.equal(net[i].bias, old[i].bias)
        assert torch.equal(net[i].running_norm, torch.ones(4))  # a norm is no variance: not taken over
    assert not net[0].weight.requires_grad and net[0].bias.requires_grad
    assert torch.equal(net[1].layer.weight, torch.ones(4))  # (4, 2) does not fit (4,)


def test_device_dtype_and_mode_are_kept():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.LayerNorm(4))
    net.double()
    net[1].eval()
    bnlab.convert(net, bnlab.BatchNorm)
    for t in net.state_dict().values():
        assert t.dtype in (torch.float64, torch.int64)
    assert [net[i].training for i in (1, 2)] == [False, True]
    assert net[3].layer.training
    bare = nn.Sequential(
        nn.Linear(3, 4), nn.InstanceNorm1d(4)
    ).bfloat16()  # the layer has no tensor of its own
    assert bnlab.convert(bare, bnlab.BatchNorm)[1].weight.dtype == torch.bfloat16
    meta = nn.Sequential(nn.BatchNorm1d(4)).to("meta")
    assert bnlab.convert(meta, bnlab.BatchNorm)[0].weight.device.type == "meta"


def test_a_shared_layer_stays_shared():
    shared = nn.BatchNorm1d(4)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.inner = shared, shared, nn.Sequential(shared, nn.BatchNorm1d(4))

    net = bnlab.convert(Net(), bnlab.BatchNorm)
    assert net.first is net.again is net.inner[0] is not net.inner[1]
    assert type(net.first) is bnlab.BatchNorm


def test_layer_norm_of_tokens():
    """(N, T, C): the tokens become the batch. LayerNorm for LayerNorm is then the same function."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))
    nn.init.normal_(net[1].weight)
    x = torch.randn(3, 5, 6)
    expected = net(x)
    torch.testing.assert_close(bnlab.convert(copy.deepcopy(net), bnlab.LayerNorm)(x), expected)
    tanh = bnlab.convert(copy.deepcopy(net), bnlab.DynamicTanh)
    hidden = net[0](x)
    torch.testing.assert_close(tanh(x), net[1].weight * torch.tanh(0.5 * hidden) + net[1].bias)
    batch = bnlab.convert(copy.deepcopy(net), bnlab.BatchNorm)
    expected = nn.functional.batch_norm(
        hidden.reshape(15, 6), None, None, net[1].weight, net[1].bias, training=True
    )
    torch.testing.assert_close(batch(x), expected.view(3, 5, 6))


def test_layer_norm_of_images():
    """(N, C, H, W) with normalized_shape (C, H, W): channels are the second dimension already."""
    net = nn.Sequential(nn.LayerNorm((6, 4, 3)))
    x = torch.randn(5, 6, 4, 3)
    bnlab.convert(net, bnlab.BatchNorm)
    torch.testing.assert_close(net(x), bnlab.BatchNorm(6)(x))


def test_converting_twice():
    net = bnlab.convert(bnlab.convert(conv_net(), bnlab.BatchNorm), lambda c: bnlab.GroupNorm(1, c))
    assert [type(m).__name__ for m in net.modules()].count("GroupNorm") == 3
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("padded", [False, True])
def test_transformer_fast_path_does_not_bypass_the_new_layers(padded):
    """In eval mode without gradients torch computes native layer norms from the parameters it finds."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    net = bnlab.convert(nn.TransformerEncoder(layer, 2), bnlab.DynamicTanh).eval()
    x = torch.randn(3, 5, 8)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[:, 3:] = padded
    options = {"src_key_padding_mask": mask} if padded else {}
    slow = net(x, **options)  # with gradients the fast path is never taken
    with torch.no_grad():
        fast = net(x, **options)
    torch.testing.assert_close(fast, slow)


def test_nothing_to_replace_is_an_error():
    with pytest.raises(ValueError, match=r"no normalization layer in Sequential.*LayerNorm"):
        bnlab.convert(nn.Sequential(nn.Linear(3, 3)), bnlab.BatchNorm)


def test_a_lazy_layer_is_an_error():
    with pytest.raises(ValueError, match="run one batch"):
        bnlab.convert(nn.Sequential(nn.LazyBatchNorm1d()), bnlab.BatchNorm)


def test_a_factory_that_returns_no_module_is_an_error():
    with pytest.raises(TypeError, match=r"factory\(4\) must return a torch.nn.Module, got int"):
        bnlab.convert(nn.Sequential(nn.BatchNorm1d(4)), lambda c: c)


def test_a_factory_that_fails_leaves_the_model_whole():
    net = conv_net()
    before = list(net.modules())
    with pytest.raises(ValueError, match="num_channels"):
        bnlab.convert(net, lambda c: bnlab.GroupNorm(4, c))  # 8 and 4 channels, but not 5
    assert list(net.modules()) == before


def test_the_optimizer_sees_the_new_parameters():
    net = bnlab.convert(conv_net(), bnlab.BatchNorm)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = net[1].weight.detach().clone()
    net(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(net[1].weight, before)
