"""Sweep: one worker against two, and the same results bit for bit on one, two and a Dask cluster of two.

Twelve training runs of a small conv net. Prints the times; exits with 1 if any result differs by a bit.
On a machine that is otherwise idle, two workers should be at least 1.8 times as fast as one.
"""

import os
import sys
import time

import dask
import joblib
from dask.distributed import Client, LocalCluster
from torch.nn.functional import cross_entropy

from bnlab import BatchNorm, data, fit
from bnlab.train import models, observers
from bnlab.train.sweep import Sweep, sweep

# By default Dask's workers give freed memory back at once, which makes training three to four times slower.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": 2**28, "MALLOC_MMAP_THRESHOLD_": 2**28, "OMP_NUM_THREADS": 1}
GRID = {"lr": [0.02, 0.1, 0.5]}
SEEDS = [0, 1, 2, 3]


def training(lr: float, seed: int) -> list[dict]:
    train = data.fashion_mnist("train", n=2000)
    net = models.conv_net(norm=BatchNorm, init="he", seed=seed)
    probe = observers.landscape([lr, 2 * lr], every=20)
    run = fit(net, data.batches(*train, 64, seed), lr=lr, steps=60, loss=cross_entropy, observers=[probe])
    return [*run.records, {"loss": run.loss[-1]}]


def timed(n_jobs: int | None = None) -> tuple[Sweep, float]:
    jobs = {} if n_jobs is None else {"n_jobs": n_jobs}
    sweep(training, {"lr": [0.1]}, SEEDS, **jobs)  # starts the workers and their imports
    start = time.perf_counter()
    result = sweep(training, GRID, SEEDS, **jobs)
    return result, time.perf_counter() - start


def main() -> int:
    load = os.getloadavg()[0]
    one, seconds_one = timed(1)
    two, seconds_two = timed(2)
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP_MEMORY}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        cluster_of_two, seconds_dask = timed()
    print(f"sweep of {len(GRID['lr']) * len(SEEDS)} runs, {os.cpu_count()} cores")
    print(f"  one worker       {seconds_one:6.1f} s")
    print(f"  two workers      {seconds_two:6.1f} s   {seconds_one / seconds_two:.2f} x (target 1.8)")
    print(f"  two Dask workers {seconds_dask:6.1f} s   {seconds_one / seconds_dask:.2f} x")
    if load > 0.5:
        print(f"  the machine was busy with other work (load {load:.1f}): the times mean little")
    same = one.rows == two.rows == cluster_of_two.rows and len(one.rows) > 12 and not one.failures
    print(f"  results are {'the same bit for bit' if same else 'DIFFERENT'} on all three")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
