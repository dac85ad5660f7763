"""Sweep: one worker against two, and the same results bit for bit on one, two and a Dask cluster of two.

Twelve training runs of a small conv net. Prints the table, writes it to benchmarks/README.md, and exits
with 1 if any result differs by a bit, or if two workers are not at least 1.8 times as fast as one: on a
machine that is otherwise idle they are.
"""

import datetime
import os
import sys
import time

import dask
import joblib
import torch
from dask.distributed import Client, LocalCluster
from measure import processor, write
from torch.nn.functional import cross_entropy

from bnlab import BatchNorm, fit, observers
from bnlab.sweep import Sweep, sweep
from course import data, models

# By default Dask's workers give freed memory back at once, which makes training three to four times slower.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": 2**28, "MALLOC_MMAP_THRESHOLD_": 2**28, "OMP_NUM_THREADS": 1}
GRID = {"lr": [0.02, 0.1, 0.5]}
SEEDS = [0, 1, 2, 3]
BOUND = 1.8  # how much faster two workers are to be than one


def training(lr: float, seed: int) -> list[dict]:
    train = data.fashion_mnist("train", n=2000)
    net = models.conv_net(norm=BatchNorm, init="he", seed=seed)
    probe = observers.landscape([lr, 2 * lr], every=20)
    run = fit(
        net, data.batches(*train, 64, seed), lr=lr, steps=60, criterion=cross_entropy, observers=[probe]
    )
    return [*run.records, {"loss": run.loss[-1]}]


def timed(n_jobs: int | None = None) -> tuple[Sweep, float]:
    jobs = {} if n_jobs is None else {"n_jobs": n_jobs}
    sweep(training, {"lr": [0.1]}, SEEDS, **jobs)  # starts the workers and their imports
    start = time.perf_counter()
    result = sweep(training, GRID, SEEDS, **jobs)
    return result, time.perf_counter() - start


def main() -> int:
    one, seconds_one = timed(1)
    two, seconds_two = timed(2)
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP_MEMORY}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        cluster_of_two, seconds_dask = timed()
    same = one.rows == two.rows == cluster_of_two.rows and len(one.rows) > 12 and not one.failures
    lines = [["workers", "seconds", "times as fast as one", "bound", "results"], ["---"] * 5]
    lines.append(["one", f"{seconds_one:.1f}", "1", "-", "-"])
    for name, result, seconds, bound in (
        ("two processes (joblib)", two, seconds_two, BOUND),
        ("two Dask workers", cluster_of_two, seconds_dask, None),
    ):
        gain = seconds_one / seconds
        limit = "-" if bound is None else f"{bound}" if gain >= bound else f"{bound}, **missed**"
        equal = "the same bit for bit" if result.rows == one.rows else "**different**"
        lines.append([name, f"{seconds:.1f}", f"{gain:.2f}", limit, equal])
    text = (
        "## Sweep\n\n"
        f"Measured {datetime.date.today().isoformat()} on {processor()}, {os.cpu_count()} cores, torch "
        f"{torch.__version__}, by `python benchmarks/sweep.py`.\n"
        f"{len(GRID['lr']) * len(SEEDS)} training runs of a small conv net on Fashion-MNIST, each probed "
        "along its gradient; one thread a worker, workers warm.\n\n"
        + "\n".join(f"| {' | '.join(line)} |" for line in lines)
    )
    print(text)
    write("Sweep", "sweep.py", text)
    return 0 if same and "missed" not in text else 1


if __name__ == "__main__":
    sys.exit(main())
