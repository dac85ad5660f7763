"""The layers of bnlab.norms against torch's native ones and against the textbook, in time and memory.

    python benchmarks/norms.py

One process. A round times a block of forward+backward passes of each contender, in an order that turns
from round to round; a figure is the median over rounds of the ratio of two blocks of the same round. So
it is not disturbed by what slows all contenders alike. Everything runs with one thread and with two.
Prints the table, writes it to benchmarks/README.md, and exits with 1 if a bound is missed. On a machine
that is busy with other work the figures for two threads mean little.
"""

import datetime
import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measure import processor, write
from torch import Tensor, nn
from torch.nn import functional as F

import bnlab
from bnlab.norms.functional import batch_norm
from course import models

ROUNDS, BLOCK = 15, 0.02  # rounds per row; seconds per block, at least one pass
IMAGES, LARGE, FEATURES, TOKENS = (128, 64, 16, 16), (128, 64, 32, 32), (256, 512), (32, 128, 256)


@dataclass
class Row:
    name: str
    shape: tuple[int, ...]
    ours: nn.Module
    twin: nn.Module
    bound: float | None  # the largest allowed ratio to the twin; None where the twin does something else
    note: str
    textbook: Callable[[Tensor], Tensor] | None = None
    channels_last: bool = False
    moved: int | None = (
        8  # times the input that must move: statistics first, then the result; None: not counted
    )


class Weight(nn.Module):
    """A weight-normalized layer without the layer: its input is only there to be weighed."""

    def __init__(self, normed: nn.Module) -> None:
        super().__init__()
        self.normed = normed

    def forward(self, x: Tensor) -> Tensor:
        return self.normed.weight * x


def rows() -> list[Row]:
    torch.manual_seed(0)
    found = []
    for shape in (LARGE, IMAGES, FEATURES):
        ours = bnlab.BatchNorm(shape[1])
        found.append(
            Row(
                "BatchNorm",
                shape,
                ours,
                (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1]),
                2.0,
                "vectorized sums"
                if len(shape) == 4
                else "about 40 calls, each a pass over the cache or a microsecond of Python, against 2",
                lambda x, layer=ours: batch_norm(x, layer.weight, layer.bias, layer.eps),
            )
        )
    one_pass = "one fused kernel, all in registers, against about 15 calls, each a pass over memory"
    beside = "no twin in torch; beside BatchNorm2d"
    inf = float("inf")
    return [
        *found,
        Row("BatchNorm, channels last", IMAGES, bnlab.BatchNorm(64), nn.BatchNorm2d(64), None, one_pass,
            channels_last=True),
        Row("LayerNorm", IMAGES, bnlab.LayerNorm(IMAGES[1:]), nn.LayerNorm(IMAGES[1:]), 3.2, one_pass),
        Row("LayerNorm", TOKENS, bnlab.LayerNorm(256), nn.LayerNorm(256), 3.2, one_pass),
        Row("RMSNorm", TOKENS, bnlab.RMSNorm(256), nn.RMSNorm(256), 3.2, "torch's CPU layer is not fused"),
        Row("GroupNorm, 32 groups", IMAGES, bnlab.GroupNorm(32, 64), nn.GroupNorm(32, 64), 3.2, one_pass),
        Row("InstanceNorm", IMAGES, bnlab.InstanceNorm(64, affine=True), nn.InstanceNorm2d(64, affine=True),
            2.5, "torch runs it on its batch norm"),
        Row("ELU", IMAGES, bnlab.ELU(), nn.ELU(), 2.5, "the exponential costs both the same", moved=5),
        Row("SELU", IMAGES, bnlab.SELU(), nn.SELU(), 2.5, "as ELU, and one more pass for the positive side",
            moved=5),
        Row("weight_norm", (1, 1), Weight(bnlab.weight_norm(nn.Linear(512, 512, bias=False))),
            Weight(nn.utils.parametrizations.weight_norm(nn.Linear(512, 512, bias=False))), 2.5, one_pass,
            moved=None),
        Row("LpBatchNorm, p = 1", IMAGES, bnlab.LpBatchNorm(64, 1), nn.BatchNorm2d(64), None, beside),
        Row("LpBatchNorm, p = 2", IMAGES, bnlab.LpBatchNorm(64, 2), nn.BatchNorm2d(64), None, beside),
        Row("LpBatchNorm, p = inf", IMAGES, bnlab.LpBatchNorm(64, inf), nn.BatchNorm2d(64), None, beside),
        Row("GhostBatchNorm, 32", IMAGES, bnlab.GhostBatchNorm(64, 32), nn.BatchNorm2d(64), None, beside),
        Row("NoisyBatchNorm", IMAGES, bnlab.NoisyBatchNorm(64), nn.BatchNorm2d(64), None,
            f"{beside}; draws two random numbers per value", moved=None),
        Row("DynamicTanh", IMAGES, bnlab.DynamicTanh(64), nn.BatchNorm2d(64), None, beside, moved=5),
    ]  # fmt: skip


def race(contenders: list[Callable[[], None]], rounds: int = ROUNDS) -> list[list[float]]:
    """Seconds per pass, one list over the rounds for each contender."""
    passes = []
    for run in contenders:
        run()
        start = time.perf_counter()
        run()
        passes.append(max(1, round(BLOCK / (time.perf_counter() - start))))
    seconds = [[] for _ in contenders]
    for turn in range(rounds):
        for i in sorted(range(len(contenders)), key=lambda i: (i + turn) % len(contenders)):
            start = time.perf_counter()
            for _ in range(passes[i]):
                contenders[i]()
            seconds[i].append((time.perf_counter() - start) / passes[i])
    return seconds


def training_pass(call: Callable[[Tensor], Tensor], parameters: list[Tensor], row: Row) -> Callable[[], None]:
    x = torch.randn(row.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    grad = torch.randn(call(x).shape, generator=torch.Generator().manual_seed(2))
    if row.channels_last:
        x, grad = (t.to(memory_format=torch.channels_last) for t in (x, grad))
    x.requires_grad_()
    return lambda: torch.autograd.grad(call(x), [x, *parameters], grad)


def copy(shape: tuple[int, ...]) -> Callable[[], None]:
    """Reads the input once and writes it once: the rate at which this machine moves memory of that size."""
    x, out = torch.randn(shape), torch.empty(shape)
    return lambda: out.copy_(x)


def kept(call: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> int:
    """Tensors of the input's size that autograd keeps for the backward pass, shared storage counted once."""
    x = torch.randn(shape, requires_grad=True)
    storages = {}

    def pack(t: Tensor) -> Tensor:
        if t.numel() >= x.numel():
            storages[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        call(x)
    return len(storages)


def vgg_step(norm: Callable[[int], nn.Module]) -> Callable[[], None]:
    net = models.vgg(width=0.25, norm=norm, init="he", seed=0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    y = torch.randint(10, (128,), generator=generator)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def torch_norm() -> Callable[[int], nn.Module]:
    """torch has a class for each rank; the first layers of the network are convolutional, the last dense."""
    convolutions = sum(item != "M" for item in models.VGG_A)
    number = itertools.count()
    return lambda c: nn.BatchNorm2d(c) if next(number) < convolutions else nn.BatchNorm1d(c)


def measure() -> list[list[str]]:
    """The table's lines."""
    torch.ones(2**23 - 2**12)  # just under 32 MB: once freed, the C library keeps smaller blocks for reuse
    lines = []
    for row in rows():
        line = [row.name, " x ".join(map(str, row.shape)) if row.shape != (1, 1) else "512 x 512 weight"]
        ratios, gains, floors = [], [], []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ours = training_pass(row.ours, list(row.ours.parameters()), row)
            twin = training_pass(row.twin, list(row.twin.parameters()), row)
            line += compare(ours, twin, ratios)
            if row.moved:
                compare(ours, copy(row.shape), floors)
            if row.textbook:
                textbook = training_pass(row.textbook, list(row.ours.parameters()), row)
                compare(textbook, ours, gains)
        memory = "-" if row.shape == (1, 1) else str(kept(row.ours, row.shape))
        gain = " / ".join(f"{g:.1f}" for g in gains) or "-"
        if row.textbook:
            gain += ", **missed**" if min(gains) < 1.3 else ""
            memory += ", **missed**" if int(memory) > 1 else ""
            memory += f" (textbook {kept(row.textbook, row.shape)})"
        floor = " / ".join(f"{f * 2 / row.moved:.1f}" for f in floors) or "-"
        lines.append([*line, verdict(ratios, row.bound), floor, gain, memory, row.note])
        print(*lines[-1], sep=" | ", flush=True)
    line, ratios = ["training step of a quarter-width VGG-A", "128 x 3 x 32 x 32"], []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        line += compare(vgg_step(bnlab.BatchNorm), vgg_step(torch_norm()), ratios)
    return [
        *lines,
        [
            *line,
            verdict(ratios, 1.12),
            "-",
            "-",
            "-",
            "ten BatchNorm layers, channels last: several passes each against one fused",
        ],
    ]


def compare(ours: Callable[[], None], twin: Callable[[], None], ratios: list[float]) -> list[str]:
    """The twin's milliseconds and the ratio, as cells; the ratio goes to `ratios` too."""
    a, b = race([ours, twin])
    ratios.append(statistics.median(x / y for x, y in zip(a, b, strict=True)))
    return [f"{statistics.median(b) * 1e3:.3g}", f"{ratios[-1]:.2f}"]


def verdict(ratios: list[float], bound: float | None) -> str:
    if bound is None:
        return "-"
    return f"{bound:g}" if max(ratios) <= bound else f"{bound:g}, **missed**"


def section(lines: list[list[str]]) -> str:
    header = ["layer", "input", "native, 1 thread (ms)", "ours / native", "native, 2 threads (ms)",
              "ours / native", "bound",
              "times the memory floor, 1 and 2 threads", "textbook / ours, 1 and 2 threads",
              "kept", "why"]  # fmt: skip
    table = [header, ["---"] * len(header), *lines]
    return (
        "## Layers\n\n"
        f"Measured {datetime.date.today().isoformat()} on {processor()}, {os.cpu_count()} cores, "
        f"{platform.system()}, torch {torch.__version__}, float32, by `python benchmarks/norms.py`.\n"
        f"Forward and backward pass; medians over {ROUNDS} rounds of ratios measured side by side. The "
        "textbook is `bnlab.norms.functional.batch_norm` under autograd (bound: 1.3 for BatchNorm). Kept: "
        "tensors of the input's size that autograd keeps for the backward pass (bound: 1 for BatchNorm). "
        "Memory floor: the time to copy what must move, at the rate of a copy of the input in the same run. "
        "That is 8 times the input for a norm (forward: read x for the statistics, read x, write y; "
        "backward: read dy and x for the sums, read dy and x, write dx) and 5 times pointwise.\n\n"
        + "\n".join(f"| {' | '.join(line)} |" for line in table)
    )


def main() -> int:
    text = section(measure())
    print(f"\n{text}")
    write("Layers", "norms.py", text)
    return 1 if "missed" in text else 0


if __name__ == "__main__":
    sys.exit(main())
