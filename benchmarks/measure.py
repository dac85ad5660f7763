"""The instruments of bnlab.measure against their floors, and against the peers on PyPI.

    python benchmarks/measure.py

Passes are counted by hooks, and come first. Times are processor time on one thread; the contestants take
turns, and a ratio is the median over the rounds. Where the peers are not installed, their rows are left out
and benchmarks/README.md is left alone; benchmarks/requirements-peers.txt says how to install them.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and torch start their threads

import copy
import datetime
import functools
import importlib
import importlib.util
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional as F

from bnlab import BatchNorm, fit, hessian, internal_covariate_shift, probe, sharpness, slice2d
from bnlab.measure import observers
from course import models

README = Path(__file__).with_name("README.md")
LAYERS = nn.Linear | nn.Conv2d
SIDE = 15
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def main() -> int:
    torch.set_num_threads(1)
    # Just under 32 MB: once freed, the C library keeps smaller blocks for reuse. Without it fresh pages cost
    # every contestant up to a fifth of its time, and not each round the same.
    torch.ones(2**23 - 2**12)
    warnings.filterwarnings("ignore")  # the peers' own deprecations
    missing = [name for name in [*HESSIANS, *PLANES] if importlib.util.find_spec(module(name)) is None]
    text = "\n\n".join([header(), probes(), shifts(), products(missing), planes(missing)])
    print(text)
    if missing:
        print(f"\nnot installed: {', '.join(missing)}; see benchmarks/requirements-peers.txt")
    else:
        write("Instruments", "measure.py", text)
    return 1 if "missed" in text else 0


def header() -> str:
    return (
        "## Instruments\n\n"
        f"Measured {datetime.date.today().isoformat()} on {processor()}, {os.cpu_count()} cores, one thread, "
        f"torch {torch.__version__}, by `python benchmarks/measure.py`.\n"
        "F and B are forward and backward passes of the whole network, counted by hooks on its layers. "
        "Seconds are processor time, medians over rounds in which the contestants take turns. The ratio is "
        "to the first row of its block: the median over the rounds, and a 95 % interval for the median.\n"
        "The network is VGG-A at quarter width on 128 random images of 32 x 32, channels last."
    )


# ------------------------------------------------------------------------------------------- probe


def probes() -> str:
    """`probe` with k points costs k + 1 passes and a check; an observed training step, k + 2 passes."""
    rows = []
    for k in (4, 8):
        net, x, y, loss = vgg(BatchNorm)
        steps = [0.1 * (i + 1) for i in range(k)]

        def plain(k=k, net=net, loss=loss) -> None:
            for _ in range(k + 1):
                torch.autograd.grad(loss(net), list(net.parameters()))

        def step(net=net, x=x, y=y, steps=steps) -> None:
            watcher = observers.landscape(steps, every=1)
            fit(net, iter([(x, y)]), lr=1e-6, steps=1, optimizer=torch.optim.SGD, observers=[watcher])

        jobs = {
            f"{k + 1} plain passes": plain,
            f"`probe` with {k} points": partial(probe, net, loss, steps),
            f"training step, observed with {k} points": step,
        }
        bound = (k + 2) / (k + 1) * 1.05
        rows += marked(block(jobs, net, rounds=25), lambda median, low, high, bound=bound: median <= bound)
    title = "Loss along the gradient (batch norm in train mode); bound: 1.05 (k + 2) / (k + 1) for k points"
    note = (
        "What `probe` adds to the passes: one more forward pass, to check that the loss is that of one "
        "batch; it moves the weights, and takes two lengths and an angle of gradients per point. The "
        "observed training step makes a pass of its own in place of the check."
    )
    return f"{table(title, ['', 'F', 'B', 'seconds', 'ratio'], rows)}\n\n{note}"


# --------------------------------------------------------------------------------- covariate shift


def brute_force(net: nn.Module, loss: Callable) -> dict[str, float]:
    """Definition 2.1, literally: for every layer a deep copy, with a full forward and backward pass."""
    updated = copy.deepcopy(net)
    loss(updated).backward()
    before = {name: p.grad.clone() for name, p in updated.named_parameters()}
    SGD(updated.parameters()).step()
    new = dict(updated.named_parameters())
    shifts = {}
    for name, layer in net.named_modules():
        if isinstance(layer, LAYERS):
            mixed = copy.deepcopy(net)
            weight = mixed.get_submodule(name).weight
            for parameter_name, parameter in mixed.named_parameters():
                if parameter is weight:
                    break
                parameter.data.copy_(new[parameter_name])
            loss(mixed).backward()
            shifts[name] = torch.linalg.vector_norm(before[f"{name}.weight"] - weight.grad).item()
    return shifts


def instrument(net: nn.Module, loss: Callable) -> dict[str, float]:
    optimizer = SGD(net.parameters())
    found = internal_covariate_shift(net, loss, lambda net: optimizer.step())
    return {name: shift.l2 for name, shift in found.items()}


def shifts() -> str:
    x = torch.randn(1000, 10, dtype=torch.float64)
    deep = models.deep_linear(norm=BatchNorm, seed=0)
    cases = {
        "VGG": vgg(None)[::3],
        "VGG, batch norm": vgg(BatchNorm)[::3],
        "25 linear layers, batch norm, 1,000 samples": (deep, lambda net: (net(x) - x).square().sum() / 2),
    }
    rows = []
    for label, (net, loss) in cases.items():
        jobs = {
            f"{label}: brute force, deep copies": partial(brute_force, net, loss),
            f"{label}: `internal_covariate_shift`": partial(instrument, net, loss),
        }
        expected, found = (np.array(list(job().values())) for job in jobs.values())
        np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())
        first, ours = block(jobs, net, rounds=15)
        rows += [first, *marked([ours], lambda median, low, high: median <= 0.5)]
    title = (
        "Internal covariate shift of all layers (the two agree to 1e-4 of the largest); bound: 0.5 of the "
        "deep copies"
    )
    return table(title, ["", "F", "B", "seconds", "ratio"], rows)


# ---------------------------------------------------------------------- Hessian-vector products


# Each library takes vectors in a form of its own: the one to multiply is brought into it once.


def ours(net: nn.Module, x: Tensor, y: Tensor) -> Callable:
    operator = hessian(net, lambda net: F.cross_entropy(net(x), y))

    @functools.cache
    def stored(v: Tensor) -> np.ndarray:
        return operator.vector(pieces(v, net))

    return lambda v: operator.tensors(operator.matvec(stored(v)))


def by_pyhessian(net: nn.Module, x: Tensor, y: Tensor) -> Callable:
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    mode = net.training
    operator = hessian(net, F.cross_entropy, data=(x, y), cuda=False)
    net.train(mode).zero_grad()  # it switches to eval mode, and leaves its gradients behind

    @functools.cache
    def stored(v: Tensor) -> list[Tensor]:
        # In the parameters' memory format, as its own vectors are.
        return [
            torch.empty_like(p).copy_(piece) for p, piece in zip(operator.params, pieces(v, net), strict=True)
        ]

    return lambda v: hessian_vector_product(operator.gradsH, operator.params, stored(v))


def pieces(v: Tensor, net: nn.Module) -> list[Tensor]:
    """A flat vector, cut into tensors shaped like the parameters."""
    parameters = list(net.parameters())
    parts = v.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


def by_hessian_eigenthings(net: nn.Module, x: Tensor, y: Tensor) -> Callable:
    from hessian_eigenthings.operators.hessian import HessianOperator

    return HessianOperator(net, [(x, y)], lambda net, batch: F.cross_entropy(net(batch[0]), batch[1])).matvec


def by_curvlinops(net: nn.Module, x: Tensor, y: Tensor) -> Callable:
    from curvlinops import HessianLinearOperator

    parameters = list(net.parameters())
    batches = [(x, y)]
    operator = HessianLinearOperator(
        net, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
    )
    return lambda v: operator @ v


HESSIANS = {
    "PyHessian": by_pyhessian,
    "hessian-eigenthings": by_hessian_eigenthings,
    "curvlinops": by_curvlinops,
}


def products(missing: list[str]) -> str:
    """Ten products with one Hessian, and each library's product on a train-mode batch-norm network."""
    net, x, y, loss = vgg(None)
    makers = {"`sharpness`": ours} | {n: maker for n, maker in HESSIANS.items() if n not in missing}
    vector = torch.randn(sum(p.numel() for p in net.parameters()))

    def ten(maker: Callable) -> None:
        multiply = maker(net, x, y)
        for _ in range(10):
            multiply(vector)

    expected = flat(ours(net, x, y)(vector))
    rows = block({name: partial(ten, maker) for name, maker in makers.items()}, net, rounds=24)
    rows = marked(rows, lambda median, low, high: high >= 1)
    for row, maker in zip(rows, makers.values(), strict=True):
        row.append(f"{distance(flat(maker(net, x, y)(vector)), expected):.0e}")
        row.append(on_batch_norm(maker))
    header = ["", "F", "B", "seconds", "ratio", "differs from ours by", "off, train-mode batch norm"]
    title = (
        "Ten Hessian-vector products, all they need included (no normalization); "
        "bound: no peer's interval below 1"
    )
    note = (
        "`sharpness` and PyHessian differentiate the same graph equally often, so what can differ is the "
        "handling of the vectors; ours checks besides that each product is finite."
    )
    return f"{table(title, header, rows)}\n\n{note} {largest_eigenvalue(net, x, y, loss, missing)}"


def on_batch_norm(maker: Callable) -> str:
    """How far a product is from central differences of the gradient, in float64, batch norm in train mode."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Softplus(), nn.Flatten(), nn.Linear(48, 3)
    net = nn.Sequential(*layers).double()
    x, y = torch.randn(10, 1, 6, 6, dtype=torch.float64), torch.randint(3, (10,))
    v = torch.randn(sum(p.numel() for p in net.parameters()), dtype=torch.float64)

    def gradient(shift: float) -> Tensor:
        moved = copy.deepcopy(net)
        for p, piece in zip(moved.parameters(), pieces(v, net), strict=True):
            p.data += shift * piece
        return flat(torch.autograd.grad(F.cross_entropy(moved(x), y), list(moved.parameters())))

    expected = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    try:
        return f"{distance(flat(maker(net, x, y)(v)), expected):.0e}"
    except Exception as error:
        return f"fails ({type(error).__name__})"


def largest_eigenvalue(net: nn.Module, x: Tensor, y: Tensor, loss: Callable, missing: list[str]) -> str:
    found = sharpness(net, loss)
    jobs = {"sharpness": partial(sharpness, net, loss)}
    if "PyHessian" not in missing:
        peer = importlib.import_module("pyhessian.hessian")
        count, multiply = 0, peer.hessian_vector_product

        def counted(*arguments: object) -> object:
            nonlocal count
            count += 1
            return multiply(*arguments)

        def power_iteration() -> float:
            nonlocal count
            count = 0
            torch.manual_seed(0)
            values, _ = peer.hessian(net, F.cross_entropy, data=(x, y), cuda=False).eigenvalues(tol=1e-3)
            net.train().zero_grad()
            return values[0]

        jobs["PyHessian"] = power_iteration
        peer.hessian_vector_product = counted
    costs = race(jobs, rounds=5)
    text = (
        f"The largest eigenvalue at tolerance 1e-3: `sharpness` {found.eigenvalues[0]:.5g} with residual "
        f"{found.residuals[0]:.0e}, {found.products} products, {costs['sharpness'][0]:.2f} s"
    )
    if "PyHessian" not in missing:
        text += (
            f"; PyHessian's power iteration {power_iteration():.5g}, {count} products, "
            f"{costs['PyHessian'][0]:.2f} s (it stops when two iterations agree, and gives no residual)"
        )
        peer.hessian_vector_product = multiply
    return text + "."


# ------------------------------------------------------------------------------------------- slices


def our_plane(net: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    grid = np.linspace(-0.5, 0.5, SIDE)
    return slice2d(net, lambda net: F.cross_entropy(net(x), y), grid, grid).loss


def by_loss_landscapes(net: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    from loss_landscapes import random_plane
    from loss_landscapes.metrics import Loss

    return random_plane(net, Loss(F.cross_entropy, x, y), distance=1, steps=SIDE, normalization="filter")


def by_nngeom(net: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    from nngeom.lossland import plane_slice_2d
    from nngeom.models import Model

    model = Model(net, loss_fn=lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]))
    return plane_slice_2d(model, (x, y), span=0.5, steps=SIDE, seed=0).losses


PLANES = {"loss-landscapes": by_loss_landscapes, "nngeom": by_nngeom}


def planes(missing: list[str]) -> str:
    """A slice of 15 x 15 points: time, and whether the points are where they should be."""
    makers = {"`slice2d`": our_plane} | {n: maker for n, maker in PLANES.items() if n not in missing}
    net, x, y, _ = vgg(BatchNorm, batch=32)
    for p in net.parameters():
        nn.init.normal_(p, std=0.05)  # no length is zero: each library can normalize its directions
    nets = {name: copy.deepcopy(net) for name in makers}  # not every peer leaves its network usable
    costs = race({name: partial(maker, nets[name], x, y) for name, maker in makers.items()}, rounds=15)
    rows = []
    for name, maker in makers.items():
        fresh = copy.deepcopy(net)
        counts = passes(fresh, partial(maker, fresh, x, y))
        rows.append([name, *counts, *costs[name], *judge(maker), finite_when_fresh(maker)])
    header = ["", "F", "B", "seconds", "ratio"]
    header += ["points on one grid", "mode measured", "left changed", "finite, fresh network"]
    title = (
        "A slice of 15 x 15 points (batch norm in train mode, 32 images); bound: no peer's interval below 1"
    )
    return table(title, header, marked(rows, lambda median, low, high: high >= 1))


def judge(maker: Callable) -> list[str]:
    """Watch a slice from inside: which point gave which number, in which mode, and what is left behind."""
    net, x, y = small_conv_net()
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    visited = []

    def watch(net: nn.Module, inputs: tuple, output: Tensor) -> None:
        point = torch.cat([p.detach().double().flatten() for p in net.parameters()])
        visited.append((F.cross_entropy(output, y).item(), point, net.training))

    net.register_forward_hook(watch)
    before, trainable = copy.deepcopy(net.state_dict()), [p.requires_grad for p in net.parameters()]
    grid = maker(net, x, y)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    buffers = {name for name, _ in net.named_buffers()}
    left = ["parameters"] * bool(changed - buffers) + ["running statistics"] * bool(changed & buffers)
    left += ["requires_grad"] * ([p.requires_grad for p in net.parameters()] != trainable)
    points = {loss: point for loss, point, _ in visited}
    at = {(i, j): points[min(points, key=lambda loss: abs(loss - grid[i, j]))] for i, j in cells()}
    # Rows 0 and 2 span the grid; then every other point is where it must be, or it is not.
    d1, d2 = (at[2, 0] - at[0, 0]) / 2, at[0, 1] - at[0, 0]
    right = sum(
        ((at[i, j] - at[0, 0] - i * d1 - j * d2).norm() < 1e-2 * d2.norm()).item() for i, j in cells()
    )
    modes = {"train" if training else "eval" for _, _, training in visited}
    return [f"{right} of {SIDE**2}", " and ".join(sorted(modes)), ", ".join(left) or "nothing"]


def finite_when_fresh(maker: Callable) -> str:
    try:
        return f"{np.isfinite(maker(*small_conv_net())).sum()} of {SIDE**2}"
    except ArithmeticError as error:
        return f"fails ({type(error).__name__})"


def cells() -> list[tuple[int, int]]:
    return list(product(range(SIDE), repeat=2))


# ------------------------------------------------------------------------------------------ helpers


def vgg(norm: Callable | None, batch: int = 128) -> tuple[nn.Module, Tensor, Tensor, Callable]:
    net = models.vgg(width=0.25, norm=norm, init="he", seed=0)
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.randint(10, (batch,))
    return net, x, y, lambda net: F.cross_entropy(net(x), y)


def small_conv_net() -> tuple[nn.Module, Tensor, Tensor]:
    net = models.conv_net(norm=nn.BatchNorm2d, init="he", seed=0, channels=(4, 8))
    torch.manual_seed(0)
    return net, torch.randn(16, 1, 28, 28), torch.randint(10, (16,))


def block(jobs: dict[str, Callable], net: nn.Module, rounds: int) -> list[list]:
    """One row per job: name, passes, seconds, ratio to the first job."""
    return [[name, *passes(net, jobs[name]), *cost] for name, cost in race(jobs, rounds).items()]


def marked(rows: list[list], holds: Callable[[float, float, float], bool]) -> list[list]:
    """The rows, with the ratios marked that miss their bound."""
    ratio = 4
    for row in rows:
        if not holds(*row[ratio]):
            row[ratio] = f"{with_interval(row[ratio])}, **missed**"
    return rows


def with_interval(ratio: tuple[float, float, float]) -> str:
    median, low, high = ratio
    return f"{median:.3f} ({low:.3f} to {high:.3f})" if low < high else f"{median:.3f}"


def race(jobs: dict[str, Callable], rounds: int) -> dict[str, tuple[float, tuple[float, float, float]]]:
    """Of each job: the median time; and of its ratio to the first job the median with a 95 % interval.

    The interval reaches from the rank-th smallest ratio to the rank-th largest: that fewer than rank of the
    rounds fall to one side of the true median has a probability below 2.5 %.
    """
    times, runs = np.empty((rounds + 1, len(jobs))), list(jobs.values())
    for turn, taken in enumerate(times):
        # Whoever comes after a wasteful job finds a colder cache: each takes every place in turn.
        for i in np.roll(np.arange(len(jobs)), turn):
            start = time.process_time()
            runs[i]()
            taken[i] = time.process_time() - start
    times = times[1:]  # the first round warms up
    ratios = np.sort(times / times[:, :1], axis=0)
    rank = max(1, int(binom.ppf(0.025, rounds, 0.5)))
    found = zip(np.median(ratios, axis=0), ratios[rank - 1], ratios[-rank], strict=True)
    return dict(zip(jobs, zip(np.median(times, axis=0).tolist(), found, strict=True), strict=True))


def passes(net: nn.Module, job: Callable) -> tuple[float, float]:
    """Forward and backward passes of the whole network that a job makes: layer calls over layers."""
    layers = [layer for layer in net.modules() if isinstance(layer, LAYERS)]
    count = {"F": 0, "B": 0}

    def backward(grad: Tensor) -> None:
        count["B"] += 1

    def forward(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        count["F"] += 1
        if output.requires_grad:
            output.register_hook(backward)

    hooks = [layer.register_forward_hook(forward) for layer in layers]
    job()
    for hook in hooks:
        hook.remove()
    return count["F"] / len(layers), count["B"] / len(layers)


def flat(found: Tensor | Sequence[Tensor]) -> Tensor:
    return found if isinstance(found, Tensor) else torch.cat([part.flatten() for part in found])


def distance(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.double()
    return ((found - expected).norm() / expected.norm()).item()


def module(name: str) -> str:
    return name.lower().replace("-", "_")


def table(title: str, header: list[str], rows: list[list]) -> str:
    def cell(value: object, column: str) -> str:
        if isinstance(value, tuple):
            return with_interval(value)
        if not isinstance(value, float):
            return str(value)
        return f"{value:.1f}" if column in "FB" else f"{value:.3f}"

    lines = [header, ["---"] * len(header)]
    lines += [[cell(value, column) for value, column in zip(row, header, strict=True)] for row in rows]
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write(title: str, script: str, text: str) -> None:
    """Put a section between its markers in the README, and leave the rest of the file alone."""
    begin, end = f"<!-- {title}: written by {script} -->", f"<!-- end of {title} -->"
    old = README.read_text() if README.exists() else "# Benchmarks\n"
    before, found, rest = old.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    before = before if found else before.rstrip() + "\n\n"
    README.write_text(f"{before}{begin}\n{text}\n{end}{after}")


if __name__ == "__main__":
    sys.exit(main())
