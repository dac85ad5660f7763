"""The check-up itself."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ..measure.frozen import frozen
from .findings import find
from .measurements import measure
from .passes import Forward, Loss, take
from .report import Checkup


def checkup(
    model: nn.Module,
    batches: Iterable,
    *,
    loss: Loss | None = None,
    test: Iterable | None = None,
    optimizer: Optimizer | None = None,
    steps: int | None = None,
    forward: Forward | None = None,
    budget: int | None = None,
    progress: bool = False,
) -> Checkup:
    """Find what is wrong with the normalization layers of a network, name the cause and what to do.

    The same batches run as in training, in eval mode with the stored statistics, and in eval mode with
    statistics taken again (and with dropout off, where there is dropout). The losses say which kind of fault
    it is; what each layer saw says which fault, and where. Checked are torch's layers and what derives from
    them, this library's, and any layer with buffers called running_mean and running_var.

    The model, its gradients, modes and random numbers are what they were afterwards, also when `loss` or the
    loader raises.

    Args:
        model: in the mode in which the training loop has it, so that frozen layers are seen to be frozen. A
            network that is wholly in eval mode is measured as if ``model.train()`` had been called.
        batches: training batches as the loop sees them, in their order and size: tensors, pairs (input,
            target), or what `forward` takes. The first 20 are used, and kept in memory.
        loss: ``loss(output, target)``, where target is the second of a pair and for any other batch the batch
            itself. By default cross-entropy for integer targets and the mean squared error for targets of
            the output's shape; without any loss the outputs are compared.
        test: batches of test data, to be compared with the training data.
        optimizer: the optimizer of the training loop, to see whether it holds gamma and beta.
        steps: how many optimizer steps were made since the statistics were reset, against the updates.
        forward: runs the model on a batch, such as ``lambda model, batch: model(batch["image"])``.
        budget: at most so many forward passes; fewer batches are used, at least 4. By default about four per
            batch, and two per layer if something is wrong.
        progress: show a progress bar.

    Returns:
        A `Checkup`: print it. ``findings`` come the most important first, ``healthy`` tells whether there is
        none above a note, ``frame()`` holds every number, ``plot()`` shows the worst three.

    Raises:
        ValueError: no normalization layer, no batch, or a budget below 17.
        TypeError: a batch of another kind without `forward`; a loss that is no scalar.

    Example:
        >>> import torch
        >>> import bnlab
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8, momentum=0.001),
        ...     torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> x = 5 + torch.randn(320, 3)
        >>> batches = list(zip(x.split(32), (x[:, 0] > x[:, 1]).long().split(32)))
        >>> descent = torch.optim.SGD(net.parameters(), lr=0.5)
        >>> for x, y in 10 * batches:
        ...     descent.zero_grad()
        ...     torch.nn.functional.cross_entropy(net(x), y).backward()
        ...     descent.step()
        >>> found = bnlab.checkup(net, batches)
        >>> found.causes[0], found.healthy
        ('start values', False)
        >>> print(found.findings[0].measured)
        96% of the stored variance of "1" is left of its start value 1: momentum 0.001, 100 updates (...)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if budget is not None and budget < 17:
        raise ValueError(
            f"budget: expected at least 17 passes (4 batches in 4 modes, one to look), got {budget}"
        )
    most = 20 if budget is None else min(20, (budget - 1) // 4 - (2 if budget > 40 else 0))
    with frozen(model):  # loaders draw random numbers
        kept = take("batches", batches, most)
        tested = [] if test is None else take("test", test, most)
    measured = measure(
        model,
        kept,
        loss=loss,
        test=tested,
        optimizer=optimizer,
        steps=steps,
        forward=forward,
        last_batch=_last_batch(batches),
        budget=budget,
        progress=progress,
    )
    wanted = {
        "test= for test against training data": test is None,
        "optimizer= for gamma and beta in it": optimizer is None,
        "steps= for updates per step": steps is None,
    }
    return Checkup(
        findings=tuple(find(measured)),
        head=measured.head,
        layers=tuple(measured.numbers[layer] for layer in measured.layers),
        batches=measured.batches,
        batch_size=max(measured.samples, default=0),
        passes=measured.passes,
        not_checked=tuple(name for name, absent in wanted.items() if absent),
    )


def _last_batch(batches: Iterable) -> int | None:
    """The size of the last batch of a DataLoader, where it is smaller than the others."""
    if not isinstance(batches, DataLoader) or batches.drop_last or not batches.batch_size:
        return None
    if not hasattr(batches.dataset, "__len__"):
        return None
    return len(batches.dataset) % batches.batch_size or None
