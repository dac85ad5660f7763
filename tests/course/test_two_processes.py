"""The file beside chapter 12: batch normalization of one batch that lies in several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CHAPTERS = Path(__file__).parents[2] / "chapters"

SHARES = """
import json, sys
import torch
import torch.distributed as dist
from two_processes import SharedBatchNorm

torch.set_default_dtype(torch.float64)
given = json.load(open(sys.argv[1]))
dist.init_process_group("gloo")
rank = dist.get_rank()
layer = SharedBatchNorm(2, momentum=0.3)
layer.weight.data, layer.bias.data = torch.tensor(given["gamma"]), torch.tensor(given["beta"])
x = torch.tensor(given["x"][rank], requires_grad=True)
y = layer(x)
(y * torch.tensor(given["slope"][rank])).sum().backward()
mine = [t.tolist() for t in (y, x.grad, layer.running_mean, layer.running_var)]
gathered = [None] * dist.get_world_size()
dist.all_gather_object(gathered, mine)
if rank == 0:
    json.dump(gathered, open(sys.argv[2], "w"))
dist.destroy_process_group()
"""


def torchrun(processes: int, *command: object) -> str:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*run, "--nproc-per-node", str(processes), *map(str, command)],
        env={
            **os.environ,
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(CHAPTERS), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_file_as_the_chapter_runs_it():
    found = json.loads(torchrun(2, CHAPTERS / "two_processes.py").strip().splitlines()[-1])
    assert len(found["errors"]) == 5
    for draw in found["errors"]:
        alone = draw.pop("output, each process by itself")
        assert alone > 0.1  # the comparison can fail: it does where nobody tells of the other process
        assert len(draw) == 6
        assert max(draw.values()) < 1e-12, draw


@pytest.mark.parametrize("sizes", [(1, 4, 7), (3, 3)])
def test_any_number_of_uneven_shares_against_numpy(tmp_path, sizes):
    """NumPy on the joint batch, its gradient from [1] section 3; a share of one sample is allowed."""
    source = np.random.default_rng(0)
    joint = source.normal(3, 2, (sum(sizes), 2))
    slope = source.normal(size=joint.shape)
    gamma, beta = np.array([1.7, -0.4]), np.array([0.3, 2.0])
    cuts = np.cumsum(sizes)[:-1]
    given = {
        "gamma": gamma.tolist(),
        "beta": beta.tolist(),
        "x": [part.tolist() for part in np.split(joint, cuts)],
        "slope": [part.tolist() for part in np.split(slope, cuts)],
    }
    (tmp_path / "given.json").write_text(json.dumps(given))
    (tmp_path / "shares.py").write_text(SHARES)
    torchrun(len(sizes), tmp_path / "shares.py", tmp_path / "given.json", tmp_path / "found.json")
    outputs, gradients, means, variances = zip(
        *json.loads((tmp_path / "found.json").read_text()), strict=True
    )

    mean, sigma = joint.mean(0), np.sqrt(joint.var(0) + 1e-5)
    x_hat = (joint - mean) / sigma
    projected = slope - slope.mean(0) - x_hat * (slope * x_hat).mean(0)
    np.testing.assert_allclose(np.concatenate(outputs), gamma * x_hat + beta, rtol=1e-12)
    np.testing.assert_allclose(np.concatenate(gradients), gamma / sigma * projected, atol=1e-12)
    for running_mean, running_var in zip(means, variances, strict=True):  # the same in every process
        np.testing.assert_allclose(running_mean, 0.3 * mean, rtol=1e-12)
        np.testing.assert_allclose(running_var, 0.7 + 0.3 * joint.var(0, ddof=1), rtol=1e-12)
