"""Batch normalization of one batch that lies in several processes (chapter 12).

    torchrun --standalone --nproc-per-node 2 two_processes.py

Each process holds its share of the batch. Sums over the batch become sums over all processes;
autograd carries the gradient back through them. Prints, as JSON, how far statistics and gradients
are from those of the joint batch.
"""

import json

import torch
import torch.distributed as dist
from torch import Tensor, nn

SEEDS, FEATURES = 5, 6
SAMPLES = (5, 11)  # of process 0 and of process 1


class Total(torch.autograd.Function):
    """Sum over all processes. Every loss depends on every share, so the gradient is a sum too."""

    @staticmethod
    def forward(ctx, share: Tensor) -> Tensor:
        total = share.clone()
        dist.all_reduce(total)
        return total

    backward = forward


total = Total.apply


class SharedBatchNorm(nn.BatchNorm1d):
    """Batch normalization of (N, C) in training mode, over the samples of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        count = total(x.new_tensor(float(len(x))))
        mean = total(x.sum(0)) / count
        var = total((x - mean).square().sum(0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        return self.weight * (x - mean) / (var + self.eps).sqrt() + self.bias


def errors(seed: int) -> dict[str, float]:
    """Largest difference between the shared layer and torch's own layer on the joint batch."""
    torch.manual_seed(seed)
    joint = torch.randn(
        sum(SAMPLES), FEATURES, dtype=torch.float64
    ).requires_grad_()
    slope = torch.randn_like(
        joint
    )  # of the loss: any function that mixes samples will do
    gamma, beta = torch.randn(2, FEATURES, dtype=torch.float64)
    rank, layers = dist.get_rank(), []
    mine = joint.detach().split(SAMPLES)[rank].clone().requires_grad_()
    for kind, x, c in (
        (nn.BatchNorm1d, joint, slope),
        (SharedBatchNorm, mine, slope.split(SAMPLES)[rank]),
        (
            nn.BatchNorm1d,
            mine.detach().clone().requires_grad_(),
            slope.split(SAMPLES)[rank],
        ),
    ):
        layer = kind(FEATURES).double()
        layer.weight.data, layer.bias.data = gamma.clone(), beta.clone()
        y = layer(x)
        (c * y.tanh()).sum().backward()
        layers.append((layer, x, y.detach()))
    (whole, x, y), (shared, own, part), (_, _, apart) = layers
    for parameter in shared.parameters():
        dist.all_reduce(
            parameter.grad
        )  # losses add up over the processes, and so do their gradients
    here = slice(0, SAMPLES[0]) if rank == 0 else slice(SAMPLES[0], None)

    def far(one: Tensor, other: Tensor) -> float:
        worst = (one - other).abs().max()
        dist.all_reduce(worst, dist.ReduceOp.MAX)
        return worst.item()

    return {
        "running mean": far(shared.running_mean, whole.running_mean),
        "running variance": far(shared.running_var, whole.running_var),
        "output": far(part, y[here].detach()),
        "gradient to the input": far(own.grad, x.grad[here]),
        "gradient to gamma": far(shared.weight.grad, whole.weight.grad),
        "gradient to beta": far(shared.bias.grad, whole.bias.grad),
        "output, each process by itself": far(apart, y[here].detach()),
    }


def torchs_own() -> str:
    """What torch's SyncBatchNorm does here: without a GPU it may refuse."""
    try:
        nn.SyncBatchNorm(FEATURES)(torch.randn(4, FEATURES))
    except (ValueError, RuntimeError) as error:
        return type(error).__name__
    return "runs"


if __name__ == "__main__":
    dist.init_process_group("gloo")
    found = {
        "errors": [errors(seed) for seed in range(SEEDS)],
        "SyncBatchNorm": torchs_own(),
    }
    if dist.get_rank() == 0:
        print(json.dumps(found))
    dist.destroy_process_group()
