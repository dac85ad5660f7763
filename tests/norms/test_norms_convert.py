"""convert(): what is swapped, what is kept, what is refused."""

import copy

import pytest
import torch
from torch import nn

import bnlab


def converted(net, factory, **choices):
    bnlab.convert(net, factory, **choices)
    return net


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
    ours = converted(copy.deepcopy(net), bnlab.BatchNorm)
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

    assert bnlab.convert(net, watched) == ["1", "3.1", "6"]
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

    net = converted(nn.Sequential(nn.Flatten(0), layer), factory)
    assert not any(m is layer for m in net.modules())
    with pytest.raises(ValueError, match=r"the model itself is a .*nn.Sequential\(model\)"):
        bnlab.convert(layer, factory)


def test_parameters_and_buffers_are_taken_over_where_they_fit():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm((4, 2)), nn.BatchNorm1d(4))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p))
    net[0].weight.requires_grad_(False)
    net[2].running_var.fill_(9)
    old = copy.deepcopy(net)
    converted(net, lambda c: bnlab.LpBatchNorm(c, 2))
    for i in (0, 2):
        assert torch.equal(net[i].weight, old[i].weight) and torch.equal(net[i].bias, old[i].bias)
        assert torch.equal(net[i].running_norm, torch.ones(4))  # a norm is no variance: not taken over
    assert not net[0].weight.requires_grad and net[0].bias.requires_grad
    assert torch.equal(net[1].layer.weight, torch.ones(4))  # (4, 2) does not fit (4,)


def test_device_dtype_and_mode_are_kept():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.LayerNorm(4))
    net.double()
    net[1].eval()
    converted(net, bnlab.BatchNorm)
    for t in net.state_dict().values():
        assert t.dtype in (torch.float64, torch.int64)
    assert [net[i].training for i in (1, 2)] == [False, True]
    assert net[3].layer.training
    bare = nn.Sequential(
        nn.Linear(3, 4), nn.InstanceNorm1d(4)
    ).bfloat16()  # the layer has no tensor of its own
    assert converted(bare, lambda c: bnlab.BatchNorm(c))[1].weight.dtype == torch.bfloat16
    meta = nn.Sequential(nn.BatchNorm1d(4)).to("meta")
    assert converted(meta, bnlab.BatchNorm)[0].weight.device.type == "meta"


def test_a_shared_layer_stays_shared():
    shared = nn.BatchNorm1d(4)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.inner = shared, shared, nn.Sequential(shared, nn.BatchNorm1d(4))

    net = converted(Net(), bnlab.BatchNorm)
    assert net.first is net.again is net.inner[0] is not net.inner[1]
    assert type(net.first) is bnlab.BatchNorm


def test_layer_norm_of_tokens():
    """(N, T, C): the tokens become the batch. LayerNorm for LayerNorm is then the same function."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))
    nn.init.normal_(net[1].weight)
    x = torch.randn(3, 5, 6)
    expected = net(x)
    torch.testing.assert_close(converted(copy.deepcopy(net), bnlab.LayerNorm)(x), expected)
    tanh = converted(copy.deepcopy(net), bnlab.DynamicTanh)
    hidden = net[0](x)
    torch.testing.assert_close(tanh(x), net[1].weight * torch.tanh(0.5 * hidden) + net[1].bias)
    batch = converted(copy.deepcopy(net), bnlab.BatchNorm)
    expected = nn.functional.batch_norm(
        hidden.reshape(15, 6), None, None, net[1].weight, net[1].bias, training=True
    )
    torch.testing.assert_close(batch(x), expected.view(3, 5, 6))


def test_layer_norm_of_images():
    """(N, C, H, W) with normalized_shape (C, H, W): channels are the second dimension already."""
    net = nn.Sequential(nn.LayerNorm((6, 4, 3)))
    x = torch.randn(5, 6, 4, 3)
    converted(net, bnlab.BatchNorm)
    torch.testing.assert_close(net(x), bnlab.BatchNorm(6)(x))


def test_converting_twice():
    net = converted(converted(conv_net(), bnlab.BatchNorm), lambda c: bnlab.GroupNorm(1, c))
    assert [type(m).__name__ for m in net.modules()].count("GroupNorm") == 3
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("padded", [False, True])
def test_transformer_fast_path_does_not_bypass_the_new_layers(padded):
    """In eval mode without gradients torch computes native layer norms from the parameters it finds."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    net = converted(nn.TransformerEncoder(layer, 2), bnlab.DynamicTanh).eval()
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
        converted(nn.Sequential(nn.Linear(3, 3)), bnlab.BatchNorm)


def test_a_lazy_layer_is_an_error():
    with pytest.raises(ValueError, match="run one batch"):
        converted(nn.Sequential(nn.LazyBatchNorm1d()), bnlab.BatchNorm)


def test_a_factory_that_returns_no_module_is_an_error():
    with pytest.raises(TypeError, match=r"factory\(4\) must return a torch.nn.Module, got int"):
        converted(nn.Sequential(nn.BatchNorm1d(4)), lambda c: c)


def test_a_factory_that_fails_leaves_the_model_whole():
    net = conv_net()
    before = list(net.modules())
    with pytest.raises(ValueError, match="num_channels"):
        converted(net, lambda c: bnlab.GroupNorm(4, c))  # 8 and 4 channels, but not 5
    assert list(net.modules()) == before


def test_the_optimizer_sees_the_new_parameters():
    net = converted(conv_net(), bnlab.BatchNorm)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = net[1].weight.detach().clone()
    net(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(net[1].weight, before)


# --- what a layer was made with ----------------------------------------------------------------------------

MADE = {
    "eps and momentum": (nn.BatchNorm1d(4, eps=1e-3, momentum=0.01), bnlab.BatchNorm),
    "no affine": (nn.BatchNorm1d(4, affine=False), bnlab.BatchNorm),
    "nothing tracked": (nn.BatchNorm1d(4, track_running_stats=False), bnlab.BatchNorm),
    "equal weights": (nn.BatchNorm1d(4, momentum=None), bnlab.BatchNorm),
    "layer, eps": (nn.LayerNorm(4, eps=1e-2), bnlab.LayerNorm),
    "layer, no bias": (nn.LayerNorm(4, bias=False), bnlab.LayerNorm),
    "layer, no affine": (nn.LayerNorm(4, elementwise_affine=False), bnlab.LayerNorm),
    "rms, eps": (nn.RMSNorm(4, eps=1e-2), bnlab.RMSNorm),
    "group": (nn.GroupNorm(2, 4, eps=1e-2, affine=False), bnlab.GroupNorm),
}


@pytest.mark.parametrize("name", MADE)
def test_a_class_gets_what_the_old_layer_was_made_with(name):
    """The same numbers in train and in eval mode, and the same state."""
    layer, factory = MADE[name]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), layer)
    with torch.no_grad():
        net[0].weight.mul_(0.05)  # so that eps counts
    ours = converted(copy.deepcopy(net), factory)
    assert isinstance(ours[1], factory)
    for mode in (True, False):
        for seed in range(2):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
            torch.testing.assert_close(ours.train(mode)(x), net.train(mode)(x))
    assert list(ours.state_dict()) == list(net.state_dict())
    for a, b in zip(ours.state_dict().values(), net.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_layer_norm_over_several_dimensions():
    net = nn.Sequential(nn.LayerNorm((4, 3), eps=1e-2))
    nn.init.normal_(net[0].weight)
    x = torch.randn(5, 4, 3)
    torch.testing.assert_close(converted(copy.deepcopy(net), bnlab.LayerNorm)(x), net(x))


def test_hooks_stay_and_can_be_removed():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4))
    seen = []
    handles = [layer.register_forward_hook(lambda m, i, o: seen.append(type(m).__name__)) for layer in net]
    converted(net, bnlab.BatchNorm)(torch.randn(3, 4))
    assert seen == ["BatchNorm", "OnTrailing"]
    for handle in handles:
        handle.remove()
    net(torch.randn(3, 4))
    assert len(seen) == 2


def test_tied_and_frozen_parameters_stay():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    net[1].weight = net[0].weight
    net[0].bias.requires_grad_(False)
    weight = net[0].weight
    converted(net, bnlab.BatchNorm)
    assert net[0].weight is net[1].weight is weight
    assert not net[0].bias.requires_grad and net[1].bias.requires_grad


class WithActivation(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class OverChannels(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize("own", [WithActivation, OverChannels])
def test_a_forward_of_its_own_is_left_with_a_warning(own):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), own(4), nn.BatchNorm2d(4))
    kept = net[1]
    with pytest.warns(UserWarning, match=rf"left '1' \({own.__name__}\).*forward is its own"):
        assert bnlab.convert(net, bnlab.BatchNorm) == ["2"]
    assert net[1] is kept
    assert bnlab.convert(net, bnlab.BatchNorm, skip=["1"]) == ["2"]  # no warning: pytest makes it an error


def test_only_and_skip():
    def names(**choices):
        return bnlab.convert(conv_net(), lambda c: nn.Identity(), **choices)

    assert names(only=["1", "6"]) == ["1", "6"]
    assert names(skip=["1"]) == ["3.1", "6"]
    assert names(only=lambda name, layer: isinstance(layer, nn.GroupNorm)) == ["3.1"]
    assert names(skip=lambda name, layer: name.startswith("3")) == ["1", "6"]
    with pytest.raises(ValueError, match=r"\['0'\] are no normalization layers.*'3.1'"):
        names(skip=["0"])


# --- torch's own tools on converted networks ---------------------------------------------------------------


@pytest.mark.parametrize(
    "factory",
    [bnlab.BatchNorm, lambda c: bnlab.LpBatchNorm(c, 2), lambda c: bnlab.GhostBatchNorm(c, 4)],
    ids=["batch", "l_2", "ghost"],
)
def test_update_bn_takes_the_statistics_again(factory):
    net = converted(nn.Sequential(nn.BatchNorm1d(4)), factory)
    batches = [torch.randn(8, 4) + 3 for _ in range(3)]
    torch.optim.swa_utils.update_bn(batches, net)
    torch.testing.assert_close(net[0].running_mean, torch.cat(batches).mean(0))
    assert net[0].num_batches_tracked == 3 and net[0].momentum == 0.1


def test_synchronized_batch_norm_takes_over():
    net = converted(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=1e-2)), bnlab.BatchNorm)
    net(torch.randn(8, 3))
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert type(sync[1]) is nn.SyncBatchNorm and sync[1].eps == 1e-2
    x = torch.randn(8, 3)
    torch.testing.assert_close(sync.eval()(x), net.eval()(x))


def test_fused_into_the_convolution():
    net = converted(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), bnlab.BatchNorm)
    x = torch.randn(8, 3, 5, 5)
    net(x)
    net.eval()
    torch.testing.assert_close(torch.nn.utils.fuse_conv_bn_eval(net[0], net[1])(x), net(x))
