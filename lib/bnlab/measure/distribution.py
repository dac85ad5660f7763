"""The distribution of every unit's activation, and how it moves while a network trains.

Ioffe and Szegedy 2015, Fig. 1(b, c), draw it for one unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .drawing import axes
from .frozen import frozen

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERCENTILES = (15, 50, 85)
MOMENTS = ("mean", "std", "skewness", "kurtosis")


@dataclass(frozen=True, eq=False, repr=False)
class Distribution:
    """Moments and percentiles of each unit over a batch. A track puts the records in front: (t, ...)."""

    mean: np.ndarray  # (units,)
    std: np.ndarray  # (units,) biased: divided by m, as in batch norm
    skewness: np.ndarray  # (units,) third standardized moment; 0 for a Gaussian
    kurtosis: np.ndarray  # (units,) fourth standardized moment minus 3; 0 for a Gaussian
    percentiles: np.ndarray  # (3, units) the 15th, 50th and 85th
    steps: np.ndarray | None = None  # (t,) of the records, in a track

    def __repr__(self) -> str:
        mean, std = (f"{np.min(a):.3g} to {np.max(a):.3g}" for a in (self.mean, self.std))
        records = "" if self.steps is None else f"{len(self.steps)} records of "
        return f"Distribution({records}{self.mean.shape[-1]} units: mean {mean}, std {std})"

    def frame(self) -> pd.DataFrame:
        """One row per unit (and record): `unit`, `mean`, `std`, `skewness`, `kurtosis`, `p15`, `p50`, `p85`.

        In a track the column `step` comes first. Mean, std and percentiles are in units of the activation,
        skewness and kurtosis have none.
        """
        records = 1 if self.steps is None else len(self.steps)
        units = self.mean.shape[-1]
        columns = {"unit": np.tile(np.arange(units), records)}
        if self.steps is not None:
            columns = {"step": np.repeat(self.steps, units), **columns}
        columns |= {name: np.ravel(getattr(self, name)) for name in MOMENTS}
        columns |= {f"p{p}": self.percentiles[..., i, :].ravel() for i, p in enumerate(PERCENTILES)}
        return pd.DataFrame(columns)

    def plot(self, ax: Axes | None = None, *, unit: int | None = None, label: str | None = None) -> Axes:
        """The median, and a band from the 15th to the 85th percentile.

        In a track over the steps, of one `unit` or of the average over all of them; else over the units.
        """
        ax = axes(ax)
        if self.steps is None:
            x, (low, median, high) = np.arange(self.mean.shape[-1]), self.percentiles
            ax.errorbar(x, median, [median - low, high - median], fmt="o", markersize=3, label=label)
            ax.set_xlabel("unit")
        else:
            bands = self.percentiles.mean(-1) if unit is None else self.percentiles[..., unit]
            low, median, high = bands.T
            (line,) = ax.plot(self.steps, median, label=label)
            ax.fill_between(self.steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
            ax.set_xlabel("step")
        of = "" if self.steps is None else ", average of the units" if unit is None else f", unit {unit}"
        ax.set_ylabel(f"activation (15, 50, 85 %{of})")
        return ax


def distribution(activation: Tensor, *, channel_dim: int = 1) -> Distribution:
    """Moments and the 15th, 50th and 85th percentile of each unit.

    Args:
        activation: (m, units) or (m, units, ...); pixels count as samples, as in batch norm.
        channel_dim: the dimension of the units; -1 for tokens (n, tokens, channels) or images (n, height,
            width, channels). All others count as samples.

    Returns:
        A `Distribution`, in units of the activation. Skewness and kurtosis of a constant unit are NaN; a
        unit that holds a NaN is NaN throughout.

    Raises:
        ValueError: ``activation`` has less than two dimensions, no samples or no ``channel_dim``.

    Example:
        >>> import torch
        >>> from bnlab.measure.distribution import distribution
        >>> ages = distribution(torch.tensor([[1.0], [2.0], [3.0], [4.0], [10.0]]))
        >>> ages.mean.tolist(), ages.percentiles[:, 0].round(6).tolist()
        ([4.0], [1.6, 3.0, 6.4])
        >>> ages
        Distribution(1 units: mean 4 to 4, std 3.16 to 3.16)
    """
    samples = per_unit(activation, channel_dim, "activation").cpu().double().numpy()
    mean, std = samples.mean(0), samples.std(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        standardized = (samples - mean) / std
    return Distribution(
        mean=mean,
        std=std,
        skewness=(standardized**3).mean(0),
        kurtosis=(standardized**4).mean(0) - 3,
        percentiles=np.percentile(samples, PERCENTILES, axis=0),
    )


def per_unit(values: Tensor, channel_dim: int, name: str) -> Tensor:
    """(samples, units): every dimension but that of the channels counts as samples."""
    if values.ndim < 2 or values.numel() == 0 or not -values.ndim <= channel_dim < values.ndim:
        raise ValueError(
            f"{name}: expected shape (m, units, ...) with at least one sample, and the units in dimension "
            f"channel_dim={channel_dim}; got {tuple(values.shape)}"
        )
    return values.detach().movedim(channel_dim, -1).flatten(0, -2)


class ActivationTrack:
    """Distributions of some layers' outputs, one record after the other; made by `track_activations`."""

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[[nn.Module], object],
        layers: Sequence[str],
        channel_dim: int,
    ):
        self._model = model
        self._forward = forward
        self._channel_dim = channel_dim
        self._records: dict[str, list[Distribution]] = {name: [] for name in layers}
        self.steps: list[int] = []  # (t,)

    def record(self, step: int) -> dict[str, Distribution]:
        """Measure now; `step` is kept beside the numbers."""
        now = {name: distribution(samples) for name, samples in self._outputs().items()}
        self.steps.append(step)
        for name, measured in now.items():
            self._records[name].append(measured)
        return now

    def __getitem__(self, layer: str) -> Distribution:
        """All records of one layer, stacked: mean (t, units), percentiles (t, 3, units)."""
        records = self._records[layer]
        if not records:
            raise ValueError("nothing is recorded yet; call record(step) first")
        names = (*MOMENTS, "percentiles")
        stacked = {name: np.stack([getattr(record, name) for record in records]) for name in names}
        return Distribution(**stacked, steps=np.array(self.steps))

    def __repr__(self) -> str:
        names = list(self._records)
        shown = ", ".join(names[:4]) + ", ..." * (len(names) > 4)
        return f"ActivationTrack({len(names)} layers: {shown}; {len(self.steps)} records)"

    def frame(self) -> pd.DataFrame:
        """One row per record, layer and unit: `step`, `name` of the layer, and as `Distribution.frame`."""
        parts = [self[name].frame() for name in self._records]
        for part, name in zip(parts, self._records, strict=True):
            part.insert(1, "name", name)
        return pd.concat(parts, ignore_index=True)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        layer: str | None = None,
        unit: int | None = None,
        label: str | None = None,
    ) -> Axes:
        """Median and 15 to 85 % band over the steps: of one layer (the last if None), see `Distribution`."""
        layer = list(self._records)[-1] if layer is None else layer
        return self[layer].plot(ax, unit=unit, label=f"layer {layer}" if label is None else label)

    def _outputs(self) -> dict[str, Tensor]:
        """Of every layer: (samples, units), of all its calls."""
        calls: dict[str, list[Tensor]] = {name: [] for name in self._records}

        def keep(name: str) -> Callable:
            # A clone: the next module may work in place.
            def hook(module: nn.Module, inputs: tuple, output: object) -> None:
                calls[name].append(per_unit(_first(output, name), self._channel_dim, f"layer {name}").clone())

            return hook

        hooks = [self._model.get_submodule(name).register_forward_hook(keep(name)) for name in calls]
        try:
            with frozen(self._model), torch.no_grad():
                self._forward(self._model)
        finally:
            for hook in hooks:
                hook.remove()
        unused = [name for name, outputs in calls.items() if not outputs]
        if unused:
            raise ValueError(f"layers: {unused} did not run in the forward pass; name modules that do")
        return {name: torch.cat(outputs) for name, outputs in calls.items()}


def _first(output: object, name: str) -> Tensor:
    """The output, or the first of several, as recurrent and attention layers give them."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor):
        raise TypeError(
            f"layers: expected the output of {name!r} to be a tensor, or a tuple that begins with one; got "
            f"{type(output).__name__}. Name a module inside it"
        )
    return first


def track_activations(
    model: nn.Module,
    forward: Callable[[nn.Module], object],
    layers: Sequence[str],
    *,
    channel_dim: int = 1,
) -> ActivationTrack:
    """Follow the distribution of activations while a network trains.

    Nothing is run yet. Each ``record(step)`` makes one forward pass without gradients, in the mode the model
    is in, and leaves no trace (see `frozen`). The input of an activation function is the output of the
    module before it.

    Trap: in train mode the output of a batch norm has mean beta and standard deviation abs(gamma) whatever
    its input does. Its percentiles are pinned by construction, and their calm proves nothing.

    Args:
        model: any module.
        forward: runs the model, such as ``lambda net: net(x)``; a loss will do. With a fixed x the curves
            show the training, with the current mini-batch also the sampling.
        layers: names in ``model.named_modules()``. A module that runs several times in one pass gives
            all its outputs as one sample; of one that returns a tuple, the first tensor counts.
        channel_dim: the dimension of the units in these layers' outputs; -1 for tokens (n, tokens,
            channels). All other dimensions count as samples.

    Returns:
        An `ActivationTrack`: ``record(step)``, ``steps``, ``track[name]`` (a `Distribution` whose arrays
        have the records in front), ``frame()`` and ``plot()``.

    Raises:
        ValueError: a name that the model does not have or (in ``record``) that does not run.
        TypeError: (in ``record``) an output that does not begin with a tensor.

    Source: Ioffe and Szegedy 2015, Fig. 1(b, c), which shows the percentiles of one typical unit.

    Example:
        >>> import torch
        >>> from bnlab import track_activations
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Sigmoid())
        >>> x = torch.randn(20, 3)
        >>> track = track_activations(net, lambda net: net(x), ["0"])
        >>> for step in range(5):
        ...     _ = track.record(step)
        ...     _ = net[0].weight.data.mul_(2)
        >>> track["0"].std.shape, track["0"].percentiles.shape
        ((5, 4), (5, 3, 4))
        >>> track
        ActivationTrack(1 layers: 0; 5 records)
    """
    known = [name for name, _ in model.named_modules() if name]
    unknown = [name for name in layers if name not in known]
    if unknown or not layers:
        raise ValueError(
            f"layers: expected names of this model's modules, got {list(layers)}; it has {', '.join(known)}"
        )
    return ActivationTrack(model, forward, layers, channel_dim)
