"""Checkpoints of a run that takes long, so that a killed one loses minutes."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


class Checkpoint:
    """A file that holds the whole state of a training run with plain SGD, and the rows measured so far.

    Plain SGD keeps nothing between steps, and the order of the data follows from seed and step: parameters,
    buffers and random generators are all there is. The file is replaced at once or not at all, and read
    with `torch.load(weights_only=True)`, which executes nothing.
    """

    def __init__(self, path: Path, report: Callable[[int, bool], object] = lambda step, resumed: None):
        self.path = path
        self.seconds = 0.0  # of processor time, over all attempts
        self._report = report  # called with the number of steps made, and whether another process made them
        self._started = time.process_time()

    def resume(self, net: nn.Module) -> tuple[int, list[dict]]:
        """Put the kept state into `net` and torch's generators; steps made, and rows. (0, []) without a file.

        Raises ValueError if the file cannot be read.
        """
        if not self.path.exists():
            return 0, []
        try:
            kept = torch.load(self.path, weights_only=True)
            net.load_state_dict(kept["model"])
        except Exception as error:  # what torch raises for a bad file is not documented
            name = type(error).__name__  # its text may advise to execute what the file says
            raise ValueError(f"{self.path} is damaged ({name}); remove it to begin this run again") from error
        torch.set_rng_state(kept["random"])
        if kept["cuda_random"]:
            torch.cuda.set_rng_state_all(kept["cuda_random"])
        self.seconds, self._started = kept["seconds"], time.process_time()
        self._report(kept["step"], True)
        return kept["step"], kept["rows"]

    def save(self, net: nn.Module, step: int, rows: list[dict]) -> None:
        """Write the state after `step` updates, all or nothing."""
        now = time.process_time()
        self.seconds, self._started = self.seconds + now - self._started, now
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        state = {"model": net.state_dict(), "random": torch.get_rng_state(), "cuda_random": cuda}
        part = self.path.with_suffix(".part")
        with open(part, "wb") as file:
            torch.save(state | {"step": step, "rows": rows, "seconds": self.seconds}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)
        self._report(step, False)
