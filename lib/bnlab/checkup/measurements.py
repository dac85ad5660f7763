"""The measurements of a check-up: the losses in four modes, and the numbers of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..measure.frozen import frozen
from .layers import NormLayer, find_layers
from .passes import Forward, Loss, Passes, each, is_pair
from .remedies import moves_itself, store
from .statistics import Call, Population, call_statistics, population, watched
from .structure import Place, trace

# The rows of the head: which statistics normalize, and in which mode the rest of the network is.
TRAIN = "as in training"
PLAIN = "batch statistics, dropout off"
STORED = "eval mode, stored statistics"
RETAKEN = "eval mode, statistics taken again"

NAN = float("nan")


@dataclass
class Mode:
    """Loss and accuracy on the same batches in one mode."""

    losses: list[float] = field(default_factory=list)  # one per batch; NaN where it could not be taken
    accuracies: list[float] = field(default_factory=list)

    @property
    def loss(self) -> float:
        return _mean(self.losses)

    @property
    def accuracy(self) -> float:
        return _mean(self.accuracies)


@dataclass
class LayerNumbers:
    """What was measured of one layer. NaN stands for what does not apply, or was not measured."""

    name: str
    type: str
    order: int = -1  # of its first call in a pass; -1: it did not run
    in_training: bool = True  # the mode of the layer in the training loop
    stored: bool = False
    channels: int = 0
    calls: int = 0  # per pass
    calls_in_backward: int = 0  # recomputed by checkpointing
    values: float = NAN  # per channel in the smallest whole batch
    independent: float = NAN  # how many independent values the batch mean is worth
    updates: float = NAN  # batches counted
    updates_per_step: float = NAN  # counted, over optimizer steps and calls per pass
    momentum: float = NAN
    left_of_start: float = NAN  # (1 - momentum)^updates
    start_share: float = NAN  # of the stored variance, what is left of the start value 1, median channel
    at_start: bool = False  # the buffers hold exactly 0 and 1
    affine_at_start: bool = True  # gamma is constant and beta 0, as at the start
    shift: float = NAN  # |stored - retaken mean|, in spreads
    log_spread: float = NAN  # |log of stored over retaken spread|
    sampling: float = NAN  # standard error of the retaken mean, in spreads
    momentum_noise: float = NAN  # standard deviation of the stored mean, in spreads, from batch to batch
    batch_kinds: float = NAN  # variance of batch means over what shuffled batches give
    repeat: float = NAN  # correlation of the batch means of neighbouring batches
    two_kinds: float = NAN  # share of the variance of batch means that two groups of batches explain
    call_difference: float = NAN  # between the means of the calls of a pass, in spreads
    dropout: float = NAN  # mean log of the spread with over that without dropout
    eps_share: float = NAN  # eps / (variance + eps), median channel
    small_variance: float = NAN  # median variance
    dead: float = NAN  # share of channels that are constant
    switched_off: float = NAN  # share of channels with gamma below a thousandth of the largest
    mean_over_spread: float = NAN  # |mean| / spread, median channel
    digits_lost: float = NAN  # the same times the rounding unit of the input's dtype
    blame: float = NAN  # loss with only this layer's stored statistics minus loss with none
    test_shift: float = NAN  # mean of test against training input, in spreads
    test_log_spread: float = NAN
    test_sampling: float = NAN  # standard error of the test mean, in spreads
    nonfinite_batch: int = -1  # the first batch in which its input was not finite
    stored_finite: bool = True
    buffer_dtype: str = ""
    behind: str = ""  # the module whose output it takes


@dataclass
class Measurements:
    """Everything that the findings are drawn from."""

    model: nn.Module
    layers: list[NormLayer]
    head: dict[str, Mode]
    numbers: dict[NormLayer, LayerNumbers]
    places: dict[NormLayer, Place]
    batches: int
    passes: int
    optimizer: Optimizer | None
    steps: int | None
    bad_data: list[int]  # batches whose own tensors hold NaN or infinity
    single: dict[int, str]  # batch: the layer that saw one value per channel
    samples: list[int]  # per batch, as the first layer saw them
    last_batch: int | None  # samples in the last batch of a DataLoader, if it is incomplete
    depends_on_batch: float  # change of eval outputs when half of the batch is left out
    output_change: float  # stored against retaken statistics, in spreads of the outputs
    misfit: float  # the largest log of stored over retaken spread, eps left out
    misfit_by_eps: dict[str, float]  # the same with another eps in all layers, by its value
    whole_eval: bool  # the network came in eval mode


def _mean(values: list[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return sum(finite) / len(finite) if finite else NAN


def measure(
    model: nn.Module,
    batches: list,
    *,
    loss: Loss | None,
    test: list,
    optimizer: Optimizer | None,
    steps: int | None,
    forward: Forward | None,
    last_batch: int | None,
    budget: int | None,
    progress: bool,
) -> Measurements:
    """Run all passes. The model is put back by `frozen`, whatever happens."""
    examination = Examination(model, batches, loss, forward, budget, progress)
    try:
        with frozen(model) as snapshot:
            examination.rewind = snapshot.rewind
            examination.sweep_all(test)
    finally:
        examination.passes.close()
    return examination.result(optimizer, steps, last_batch)


class Examination:
    """The passes over the batches, one mode after the other, and what they leave behind."""

    rewind: Callable[[], None]

    def __init__(self, model, batches, loss, forward, budget, progress):
        self.model, self.batches, self.forward = model, batches, forward
        self.layers = find_layers(model)
        if not self.layers:
            raise ValueError(f"model: found no normalization layer in this {type(model).__name__}")
        self.with_statistics = [layer for layer in self.layers if layer.kind != "sample"]
        self.passes = Passes(model, forward, loss, progress)
        self.budget = budget
        self.whole_eval = not any(module.training for module in model.modules())
        self.modes = [(module, module.training or self.whole_eval) for module in model.modules()]
        self.numbers = {layer: LayerNumbers(layer.name, type(layer.module).__name__) for layer in self.layers}
        self.head: dict[str, Mode] = {}
        self.calls: dict[str, dict[NormLayer, list[Call]]] = {}
        self.outputs: dict[str, list[Tensor]] = {}
        self.single: dict[int, str] = {}
        self.places: dict[NormLayer, Place] = {}
        self.retaken: dict[NormLayer, Population] = {}
        self.depends_on_batch = self.output_change = NAN
        self.misfit = NAN
        self.misfit_by_eps: dict[str, float] = {}

    # ---- modes

    def as_in_training(self) -> None:
        for module, training in self.modes:
            module.training = training

    def by_batch(self) -> None:
        """Normalization as in training, everything else in eval mode."""
        modes = dict(self.modes)
        self.model.eval()
        for layer in self.layers:
            layer.module.training = modes[layer.module]

    # ---- passes

    def sweep_all(self, test: list) -> None:
        self.model.eval()
        self.places = trace(self.model, self.layers, self.batches[0], self.forward)
        self.passes.count += 1
        for layer, place in self.places.items():
            self.numbers[layer].order, self.numbers[layer].calls = place.order, place.calls
        self.as_in_training()
        for layer in self.layers:
            self.numbers[layer].in_training = layer.module.training
        self.sweep(TRAIN, self.as_in_training)
        self.rewind()
        if self.has_dropout():
            self.sweep(PLAIN, self.by_batch)
            self.rewind()
        self.sweep(STORED, self.model.eval)
        self.retake()
        self.sweep(RETAKEN, self.model.eval)
        self.output_change = self.compare_outputs()
        if self.gap() > 0.02 or self.output_change > 0.1:
            self.find_blame()
        self.try_eps()
        self.rewind()
        self.half_a_batch()
        self.rewind()
        self.count_in_backward()
        self.rewind()
        if test:
            self.compare_test(test)
            self.rewind()

    def gap(self) -> float:
        """How far the loss with stored statistics lies above the other ones; at least 0."""
        stored, others = self.head[STORED].loss, [self.head[RETAKEN].loss, self.reference().loss]
        gap = stored - min(others)
        return math.inf if math.isnan(gap) else gap

    def reference(self) -> Mode:
        return self.head.get(PLAIN, self.head[TRAIN])

    def has_dropout(self) -> bool:
        return any(
            "drop" in type(module).__name__.lower() and getattr(module, "p", 1) and training
            for module, training in self.modes
        ) or any(getattr(module, "dropout", 0) for module, _ in self.modes if isinstance(module, nn.RNNBase))

    def sweep(self, name: str, into_mode: Callable) -> None:
        """All batches in one mode: losses, accuracies, what each layer saw, and the first outputs."""
        into_mode()
        mode = Mode()
        calls: dict[NormLayer, list[Call]] = {layer: [] for layer in self.with_statistics}
        number = 0

        def seen(layer: NormLayer, x: Tensor) -> None:
            call = call_statistics(layer, x, number)
            if call is not None:
                calls[layer].append(call)
                if layer.kind == "batch" and layer.module.training and call.count == 1:
                    self.single.setdefault(number, layer.name)

        outputs: list[Tensor] = []
        with watched(self.with_statistics if name in (TRAIN, PLAIN) else [], seen):
            for number, batch in each(self.batches):
                output, loss, accuracy = self.guarded(batch, number)
                mode.losses.append(NAN if loss is None else float(loss))
                mode.accuracies.append(accuracy)
                if number < 4 and name in (STORED, RETAKEN):
                    outputs.append(_flat(output))
        self.head[name], self.calls[name], self.outputs[name] = mode, calls, outputs

    def guarded(self, batch: Any, number: int) -> tuple[Any, Tensor | None, float]:
        """A pass; a batch with one value per channel, at which training would stop, gives NaN."""
        try:
            result = self.passes(batch)
        except ValueError:
            if number not in self.single:
                raise
            return None, None, NAN
        return (None, None, NAN) if number in self.single else result

    def retake(self) -> None:
        """Put the pooled statistics of the batches into the layers."""
        calls = self.calls[PLAIN if PLAIN in self.calls else TRAIN]
        for layer in self.with_statistics:
            finite = [call for call in calls[layer] if call.count > 1 and _finite(call)]
            if finite:
                self.retaken[layer] = population(layer, finite)
        self.stored = {
            layer: (layer.stored_mean, layer.stored_spread)
            for layer in self.layers
            if layer.buffers is not None
        }
        for layer, new in self.retaken.items():
            self.into(layer, new)

    def into(self, layer: NormLayer, new: Population) -> None:
        if layer.buffers is not None and moves_itself(layer):
            store(layer, new)

    def compare_outputs(self) -> float:
        pairs = list(zip(self.outputs[STORED], self.outputs[RETAKEN], strict=True))
        pairs = [(a, b) for a, b in pairs if a.numel() and a.shape == b.shape]
        if not pairs:
            return NAN
        stored, again = (torch.cat(side) for side in zip(*pairs, strict=True))
        spread = (again - again.mean(0)).pow(2).mean().sqrt()
        return float((stored - again).pow(2).mean().sqrt() / spread) if spread > 0 else NAN

    def left(self, wanted: int) -> int:
        """How many more passes are allowed, of those wanted."""
        return wanted if self.budget is None else max(0, min(wanted, self.budget - self.passes.count))

    def find_blame(self) -> None:
        """The eval loss with one layer's stored and all others' retaken statistics, less that with none."""
        moved = [layer for layer in self.retaken if layer.buffers is not None and moves_itself(layer)]
        few = min(2, self.left(2 * len(moved) + 2) // (len(moved) + 1))
        if not few:
            return
        none = self.eval_loss(few)
        before = {
            layer: [getattr(layer.module, name).clone() for name in layer.buffers or ()] for layer in moved
        }
        self.rewind()
        originals = {
            layer: [getattr(layer.module, name).clone() for name in layer.buffers or ()] for layer in moved
        }
        for layer in moved:
            _write(layer, before[layer])
        for layer in moved:
            _write(layer, originals[layer])
            self.numbers[layer].blame = self.eval_loss(few) - none
            _write(layer, before[layer])

    def eval_loss(self, few: int) -> float:
        self.model.eval()
        return _mean(
            [float(loss) for i, b in each(self.batches[:few]) if (loss := self.guarded(b, i)[1]) is not None]
        )

    def try_eps(self) -> None:
        """How far the stored spreads are off, as they are and with another eps in every layer."""
        self.rewind()
        layers = [layer for layer in self.retaken if layer.buffers and layer.eps]
        kept = [layer.eps for layer in layers]
        few = min(4, self.left(8) // 2)
        if not few or not layers:
            return
        self.misfit = max(_misfit(layer, self.retaken[layer]) for layer in layers)
        if self.misfit < 0.1:
            return
        try:
            for eps in (1e-3, 1e-5):
                if set(kept) != {eps}:
                    for layer in layers:
                        layer.module.eps = eps  # type: ignore[assignment]
                    self.misfit_by_eps[f"{eps:g}"] = self.misfit_now(layers, few)
        finally:
            for layer, eps in zip(layers, kept, strict=True):
                layer.module.eps = eps  # type: ignore[assignment]
            self.rewind()

    def misfit_now(self, layers: list[NormLayer], few: int) -> float:
        """The largest misfit of a layer's stored spread, on the first batches."""
        calls: dict[NormLayer, list[Call]] = {layer: [] for layer in layers}
        stored = {
            layer: [getattr(layer.module, name).clone() for name in layer.buffers or ()] for layer in layers
        }
        self.by_batch()
        with watched(layers, lambda layer, x: _append(calls[layer], call_statistics(layer, x, 0))):
            for number, batch in each(self.batches[:few]):
                self.guarded(batch, number)
        found = []
        for layer in layers:
            _write(layer, stored[layer])
            finite = [call for call in calls[layer] if call.count > 1 and _finite(call)]
            found.append(_misfit(layer, population(layer, finite)) if finite else 0.0)
        return max(found)

    def half_a_batch(self) -> None:
        """In eval mode, do the outputs of half a batch depend on the other half?"""
        untracked = any(layer.buffers is None and layer.kind == "batch" for layer in self.layers)
        batch = self.batches[0]
        x = batch[0] if is_pair(batch) else batch
        if not untracked or not isinstance(x, Tensor) or len(x) < 4 or self.forward or not self.left(2):
            return
        self.model.eval()
        with torch.no_grad():
            half = len(x) // 2
            whole = _flat(self.passes(x)[0])[:half]
            alone = _flat(self.passes(x[:half])[0])
        if whole.shape == alone.shape:
            spread = (whole - whole.mean(0)).pow(2).mean().sqrt()
            self.depends_on_batch = float((whole - alone).pow(2).mean().sqrt() / spread)

    def count_in_backward(self) -> None:
        """Calls of each layer in the backward pass of one training step: recomputation by checkpointing."""
        if not any(p.requires_grad for p in self.model.parameters()) or 0 in self.single or not self.left(1):
            return
        counts = {layer: 0 for layer in self.layers}

        def seen(layer: NormLayer, x: Tensor) -> None:
            counts[layer] += 1

        self.as_in_training()
        with torch.enable_grad():
            loss = self.passes(self.batches[0])[1]
            if loss is None or not loss.requires_grad:
                return
            with watched(self.layers, seen):
                loss.backward()
        for layer, count in counts.items():
            self.numbers[layer].calls_in_backward = count

    def compare_test(self, test: list) -> None:
        """The input of the first layer on test batches against training batches, both in eval mode."""
        first = min(
            (layer for layer in self.retaken if layer in self.places),
            key=lambda layer: self.places[layer].order,
        )
        few = min(len(test), self.left(2 * len(test)) // 2)
        if not few:
            return
        found: list[list[Call]] = []
        with watched([first], lambda layer, x: _append(found[-1], call_statistics(layer, x, 0))):
            for batches, known in ((self.batches[:few], True), (test[:few], False)):
                found.append([])
                self.model.eval()
                for number, batch in each(batches):
                    self.guarded(batch, number if known else -1)
        here, there = (population(first, calls) for calls in found)
        per_sample, _ = _against_shuffled(found[1], there.var > 1e-8 * there.var.max())
        spread = here.spread(first)
        numbers = self.numbers[first]
        numbers.test_sampling = (per_sample * len(found[1])) ** -0.5
        numbers.test_shift = _rms((there.mean - here.mean) / spread)
        numbers.test_log_spread = _rms((there.spread(first) / spread).log())

    # ---- numbers

    def result(self, optimizer: Optimizer | None, steps: int | None, last_batch: int | None) -> Measurements:
        for layer in self.layers:
            self.describe(layer, steps)
        first = next((calls for calls in self.calls[TRAIN].values() if calls), [])
        return Measurements(
            model=self.model,
            layers=sorted(
                self.layers, key=lambda layer: (self.numbers[layer].order < 0, self.numbers[layer].order)
            ),
            head=self.head,
            numbers=self.numbers,
            places=self.places,
            batches=len(self.batches),
            passes=self.passes.count,
            optimizer=optimizer,
            steps=steps,
            bad_data=[i for i, batch in enumerate(self.batches) if not _all_finite(batch)],
            single=self.single,
            samples=[call.samples for call in first],
            last_batch=last_batch,
            depends_on_batch=self.depends_on_batch,
            output_change=self.output_change,
            misfit=self.misfit,
            misfit_by_eps=self.misfit_by_eps,
            whole_eval=self.whole_eval,
        )

    def describe(self, layer: NormLayer, steps: int | None) -> None:
        n = self.numbers[layer]
        n.stored = layer.buffers is not None
        n.channels = layer.channels or 0
        if layer in self.places:
            n.behind = self.places[layer].producer_name
        _describe_parameters(n, layer)
        if n.stored:
            _describe_buffers(n, layer, steps)
        calls = self.calls[TRAIN].get(layer, [])
        bad = [call.batch for call in calls if not _finite(call)]
        n.nonfinite_batch = bad[0] if bad else -1
        calls = [call for call in calls if call.count > 1 and _finite(call)]
        if calls and layer in self.retaken:
            _describe_input(n, layer, calls, self.retaken[layer], self.places.get(layer))
            if PLAIN in self.calls:
                n.dropout = float(_log_ratio(population(layer, calls).var, self.retaken[layer].var).mean())
            if n.stored:
                _describe_mismatch(n, layer, self.retaken[layer], self.stored[layer])


def _describe_parameters(n: LayerNumbers, layer: NormLayer) -> None:
    gamma, beta = layer.gamma, layer.beta
    if isinstance(gamma, Tensor):
        size = gamma.detach().abs().flatten()
        if size.numel() and size.max() > 0:
            n.switched_off = float((size < 1e-3 * size.max()).double().mean())
        n.affine_at_start = bool((gamma == gamma.flatten()[0]).all())
    if isinstance(beta, Tensor):
        n.affine_at_start &= bool((beta == 0).all())


def _describe_buffers(n: LayerNumbers, layer: NormLayer, steps: int | None) -> None:
    assert layer.buffers is not None
    mean, spread = (getattr(layer.module, name) for name in layer.buffers)
    n.at_start = bool((mean == 0).all()) and bool((spread == 1).all())
    n.stored_finite = bool(mean.isfinite().all()) and bool(spread.isfinite().all())
    n.buffer_dtype = str(mean.dtype).removeprefix("torch.")
    updates, momentum = layer.updates, layer.momentum
    n.momentum = NAN if momentum is None else float(momentum)
    if updates is not None:
        n.updates = float(updates)
        n.left_of_start = (0.0 if updates else 1.0) if momentum is None else (1 - momentum) ** updates
        share = n.left_of_start / spread.detach().double().clamp_min(1e-30)
        n.start_share = float(share.clamp_max(1).median())
        if steps:
            n.updates_per_step = updates / steps / max(n.calls, 1)


def _describe_input(
    n: LayerNumbers, layer: NormLayer, calls: list[Call], whole: Population, place: Place | None
) -> None:
    usual = max(call.samples for call in calls)
    full = [call for call in calls if call.samples > usual / 2]
    n.values = float(min(call.count for call in full))
    spread = whole.spread(layer)
    live = whole.var > 1e-8 * whole.var.max()
    n.dead = float((~live).double().mean())
    if not live.any():
        return
    if layer.kind == "batch":
        _describe_batches(n, full, spread, live, max(n.calls, 1))
    n.eps_share = float((layer.eps / (whole.var + layer.eps))[live].median())
    n.small_variance = float(whole.var[live].median())
    ratio = (whole.mean.abs() / whole.var.sqrt())[live].median()
    n.mean_over_spread = float(ratio)
    n.digits_lost = float(ratio) * torch.finfo(place.dtype if place else torch.float32).eps


def _describe_batches(
    n: LayerNumbers, calls: list[Call], spread: Tensor, live: Tensor, per_pass: int
) -> None:
    """Numbers about how the batches differ from each other, the calls of one pass kept apart."""
    turns = [calls[turn::per_pass] for turn in range(per_pass)]
    means = [torch.stack([call.mean for call in turn])[:, live] / spread[live] for turn in turns if turn]
    if len(means) > 1:
        centres = torch.stack([m.mean(0) for m in means])
        n.call_difference = _rms(centres.amax(0) - centres.amin(0))
    n.independent, n.batch_kinds = _against_shuffled(turns[0], live)
    n.sampling = (n.independent * len(turns[0])) ** -0.5
    if len(means[0]) >= 4:
        across = torch.cat(means) if n.call_difference > 0.5 else means[0]
        if not math.isnan(n.momentum):
            n.momentum_noise = math.sqrt(n.momentum / (2 - n.momentum)) * _rms(across.std(0))
        n.repeat, n.two_kinds = _order_of(means[0])


def _against_shuffled(calls: list[Call], live: Tensor) -> tuple[float, float]:
    """Independent values in a batch mean, and the variance of batch means over that of shuffled batches.

    One-way analysis of variance of the samples' means: under a random partition into batches the mean square
    between batches is that of all samples.
    """
    sizes = torch.tensor([[call.samples] for call in calls], dtype=torch.float64)
    means = torch.stack([call.mean for call in calls])[:, live]
    grand = (sizes * means).sum(0) / sizes.sum()
    between = (sizes * (means - grand) ** 2).sum(0)
    within = (sizes * torch.stack([call.between for call in calls])[:, live]).sum(0)
    if sizes.sum() < 2:
        return NAN, NAN
    per_sample = (between + within) / (sizes.sum() - 1)
    values = torch.stack([call.var for call in calls])[:, live].mean(0) + (means - grand).pow(2).mean(0)
    seen = per_sample > 1e-12 * values
    if not seen.any():
        return NAN, NAN
    independent = float((sizes.mean() * values[seen] / per_sample[seen]).median())
    if len(calls) < 4:
        return independent, NAN
    return independent, float((between[seen] / (len(calls) - 1) / per_sample[seen]).mean())


def _order_of(means: Tensor) -> tuple[float, float]:
    """Correlation of neighbouring batch means along their main direction, and what two groups explain."""
    centred = means - means.mean(0)
    if not centred.abs().max() > 0:
        return NAN, NAN
    line = centred @ torch.linalg.svd(centred, full_matrices=False)[2][0]
    total = (line**2).sum()
    repeat = float((line[1:] * line[:-1]).sum() / total)
    ordered = line.sort().values
    explained = [
        i * ordered[:i].mean() ** 2 + (len(line) - i) * ordered[i:].mean() ** 2
        for i in range(2, len(line) - 1)
    ]
    return repeat, float(max(explained) / total) if explained else NAN


def _describe_mismatch(
    n: LayerNumbers, layer: NormLayer, new: Population, stored: tuple[Tensor, Tensor]
) -> None:
    live = new.var > 1e-8 * new.var.max()
    mean, spread = stored
    now = new.spread(layer)
    n.shift = _rms(((mean - new.mean) / now)[live])
    n.log_spread = _rms((spread / now).log()[live])


def _misfit(layer: NormLayer, new: Population) -> float:
    """Mean over the live channels of |log of stored over new spread|, eps left out."""
    live = new.var > 1e-8 * new.var.max()
    now = new.var.sqrt() if new.norm is None else new.norm
    old = (
        layer.stored_spread - layer.eps
        if layer.divides_by_norm
        else (layer.stored_spread**2 - layer.eps).sqrt()
    )
    return float((old / now)[live].log().abs().nanmean())


def _write(layer: NormLayer, values: list[Tensor]) -> None:
    for name, value in zip(layer.buffers or (), values, strict=True):
        getattr(layer.module, name).data.copy_(value)


def _append(calls: list[Call], call: Call | None) -> None:
    if call is not None:
        calls.append(call)


def _rms(values: Tensor) -> float:
    return float(values.pow(2).mean().sqrt()) if values.numel() else NAN


def _log_ratio(a: Tensor, b: Tensor) -> Tensor:
    live = (a > 1e-8 * a.max()) & (b > 1e-8 * b.max())
    return 0.5 * (a[live] / b[live]).log()


def _finite(call: Call) -> bool:
    return bool(call.mean.isfinite().all()) and bool(call.var.isfinite().all())


def _all_finite(batch: Any) -> bool:
    if isinstance(batch, Tensor):
        return not batch.is_floating_point() or bool(batch.isfinite().all())
    if isinstance(batch, dict):
        batch = list(batch.values())
    return all(_all_finite(item) for item in batch) if isinstance(batch, list | tuple) else True


def _flat(output: Any) -> Tensor:
    """(samples, values): the first tensor of an output."""
    while isinstance(output, dict | list | tuple):
        output = next(iter(output.values() if isinstance(output, dict) else output), None)
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.dim() == 0:
        return torch.empty(0, 0)
    return (
        output.detach().double().cpu().flatten(1)
        if output.dim() > 1
        else output.detach().double().cpu()[:, None]
    )
