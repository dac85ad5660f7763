"""What the tests of the instruments share: networks, losses, and a look at every bit of a model's state."""

import torch
from torch import nn
from torch.nn import functional as F


class Noise(nn.Module):
    """Adds random numbers to its input in train mode."""

    def forward(self, x):
        return x + 0.3 * torch.randn_like(x) if self.training else x


def noisy_net():
    """Everything that can go wrong in one train-mode network: batch norm, dropout, noise, mixed modes."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Sequential(nn.Linear(8, 8), Noise(), nn.BatchNorm1d(8, momentum=None), nn.Tanh()),
        nn.Linear(8, 3),
    )
    net[3].train()
    net[4][2].eval()  # one submodule in another mode than the rest
    net[0].weight.grad = torch.randn_like(net[0].weight)
    net[5].bias.requires_grad_(False)
    return net


def noisy_loss(seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 5, generator=generator)
    y = torch.randint(3, (12,), generator=generator)
    return lambda net: F.cross_entropy(net(x), y)


class Point(nn.Module):
    """A module that is nothing but a point theta."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(theta)


def quadratic(seed=0, n=6):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, n, generator=generator, dtype=torch.float64)
    hessian = a + a.T
    point = Point(torch.randn(n, generator=generator, dtype=torch.float64))
    return point, hessian, lambda net: 0.5 * net.theta @ hessian @ net.theta


class Tied(nn.Module):
    """One weight used twice, one frozen, one never used, two outputs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.fixed = nn.Linear(4, 4).requires_grad_(False)
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.second(h), self.fixed(h)


def state(model):
    """Every bit of a model and of torch's generator, as comparable objects."""
    return {
        "parameters": [(id(p), p.detach().clone(), p.data_ptr()) for p in model.parameters()],
        "grads": [(id(p.grad), None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        "buffers": [(name, id(b), b.clone()) for name, b in model.named_buffers()],
        "modes": [module.training for module in model.modules()],
        "rng": torch.get_rng_state(),
    }


def same(a, b):
    """Equal to the last bit (and the same objects, where identity was recorded)."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
