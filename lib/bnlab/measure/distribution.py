"""The distribution of every unit's activation, and how it moves while a network trains: [1] Fig. 1(b, c)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from .frozen import frozen

PERCENTILES = (15, 50, 85)


@dataclass(frozen=True, eq=False)
class Distribution:
    """Moments and percentiles of each unit over a batch. A track puts the records in front: (t, ...)."""

    mean: np.ndarray  # (units,)
    std: np.ndarray  # (units,) biased: divided by m, as in batch norm
    skewness: np.ndarray  # (units,) third standardized moment; 0 for a Gaussian
    kurtosis: np.ndarray  # (units,) fourth standardized moment minus 3; 0 for a Gaussian
    percentiles: np.ndarray  # (3, units) the 15th, 50th and 85th


def distribution(activation: Tensor) -> Distribution:
    """Moments and the 15th, 50th and 85th percentile of each unit.

    Args:
        activation: (m, units) or (m, units, ...); pixels count as samples, as in batch norm.

    Returns:
        A `Distribution`, in units of the activation. Skewness and kurtosis of a constant unit are NaN; a
        unit that holds a NaN is NaN throughout.

    Raises:
        ValueError: ``activation`` has less than two dimensions or no samples.

    Example:
        >>> import torch
        >>> from bnlab.measure.distribution import distribution
        >>> found = distribution(torch.tensor([[1.0], [2.0], [3.0], [4.0], [10.0]]))
        >>> found.mean.tolist(), found.percentiles[:, 0].round(6).tolist()
        ([4.0], [1.6, 3.0, 6.4])
    """
    if activation.ndim < 2 or activation.numel() == 0:
        raise ValueError(
            f"activation: expected shape (m, units, ...) with at least one sample, got "
            f"{tuple(activation.shape)}"
        )
    samples = activation.detach().transpose(0, 1).flatten(1).T.cpu().double().numpy()
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


class ActivationTrack:
    """Distributions of some modules' outputs, one record after the other; made by `track_activations`."""

    def __init__(self, model: nn.Module, forward: Callable[[nn.Module], object], modules: Sequence[str]):
        self._model = model
        self._forward = forward
        self._modules = {name: model.get_submodule(name) for name in modules}
        self._records: dict[str, list[Distribution]] = {name: [] for name in modules}
        self.steps: list[int] = []  # (t,)

    def record(self, step: int) -> dict[str, Distribution]:
        """Measure now; `step` is kept beside the numbers."""
        found = {name: distribution(output) for name, output in self._outputs().items()}
        self.steps.append(step)
        for name, now in found.items():
            self._records[name].append(now)
        return found

    def __getitem__(self, module: str) -> Distribution:
        """All records of one module, stacked: mean (t, units), percentiles (t, 3, units)."""
        records = self._records[module]
        return Distribution(*(np.stack([getattr(r, f.name) for r in records]) for f in fields(Distribution)))

    def _outputs(self) -> dict[str, Tensor]:
        calls: dict[str, list[Tensor]] = {name: [] for name in self._modules}

        def keep(name: str) -> Callable:
            # A clone: the next module may work in place.
            return lambda module, inputs, output: calls[name].append(output.detach().clone())

        hooks = [module.register_forward_hook(keep(name)) for name, module in self._modules.items()]
        try:
            with frozen(self._model), torch.no_grad():
                self._forward(self._model)
        finally:
            for hook in hooks:
                hook.remove()
        unused = [name for name, outputs in calls.items() if not outputs]
        if unused:
            raise ValueError(f"modules: {unused} did not run in the forward pass; name modules that do")
        return {name: torch.cat(outputs) for name, outputs in calls.items()}


def track_activations(
    model: nn.Module, forward: Callable[[nn.Module], object], modules: Sequence[str]
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
        modules: names in ``model.named_modules()``. A module that runs several times in one pass gives
            all its outputs as one sample.

    Returns:
        An `ActivationTrack`: ``record(step)``, ``steps``, and ``track[name]``, a `Distribution` whose arrays
        have the records in front.

    Raises:
        ValueError: a name that the model does not have or (in ``record``) that does not run.

    Source: [1] Fig. 1(b, c), which shows the percentiles of one typical unit.

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
    """
    known = [name for name, _ in model.named_modules() if name]
    unknown = [name for name in modules if name not in known]
    if unknown or not modules:
        raise ValueError(
            f"modules: expected names of this model's modules, got {list(modules)}; it has {', '.join(known)}"
        )
    return ActivationTrack(model, forward, modules)
