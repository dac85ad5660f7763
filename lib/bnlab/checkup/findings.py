"""From numbers to causes: each rule looks for one cause, and names what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from .layers import NormLayer
from .limits import limit
from .measurements import PLAIN, RETAKEN, STORED, TRAIN, LayerNumbers, Measurements

LEVELS = ("fault", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One cause: what was measured, what it does here, what to do."""

    cause: str
    level: str  # "fault", "warning" or "note"
    measured: str
    effect: str
    remedy: str
    layers: tuple[str, ...] = ()  # the worst first


Rule = Callable[[Measurements], Iterator[Finding]]
RULES: list[tuple[Rule, tuple[str, ...]]] = []  # in order of precedence, each with the causes it explains

_MISMATCH = ("stale statistics", "momentum", "eps", "gap")


def rule(*explains: str) -> Callable[[Rule], Rule]:
    """Register a rule; findings of the causes that it explains are left out when it finds something."""

    def register(function: Rule) -> Rule:
        RULES.append((function, explains))
        return function

    return register


def find(m: Measurements) -> list[Finding]:
    """All findings, the most important first."""
    found: list[Finding] = []
    explained: set[str] = set()
    for function, explains in RULES:
        new = [finding for finding in function(m) if finding.cause not in explained]
        found.extend(new)
        if new:
            explained.update(explains)
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


# ---- words


def _layers(m: Measurements, test: Callable[[LayerNumbers], bool]) -> list[NormLayer]:
    return [layer for layer in m.layers if test(m.numbers[layer])]


def _worst(m: Measurements, layers: list[NormLayer], by: str) -> list[NormLayer]:
    return sorted(layers, key=lambda layer: -abs(getattr(m.numbers[layer], by)))


def _names(layers: list[NormLayer]) -> tuple[str, ...]:
    return tuple(layer.name or "the model itself" for layer in layers)


def _where(layers: list[NormLayer]) -> str:
    """The first of the layers, and how many there are."""
    first = _names(layers)[0]
    if layers[0].name:
        first = f'"{first}"'
    return first if len(layers) == 1 else f"{first} (and {len(layers) - 1} more)"


def _loss(m: Measurements, mode: str) -> str:
    return f"{m.head[mode].loss:.3g}" if mode in m.head else "?"


def _reference(m: Measurements) -> float:
    return m.head[PLAIN if PLAIN in m.head else TRAIN].loss


def relative_gap(m: Measurements, mode: str = STORED) -> float:
    """How far the loss in `mode` lies above that with batch statistics, as a share of the latter."""
    base = min(_reference(m), m.head[TRAIN].loss)
    return (m.head[mode].loss - base) / max(abs(base), 0.05)


def gap_is_large(m: Measurements) -> bool:
    """Whether eval mode is clearly worse than training, or (without a loss) clearly another function."""
    gap = relative_gap(m)
    if gap != gap:
        return m.output_change > limit("output_change")
    return gap > limit("gap")


def _harm(m: Measurements) -> str:
    """What the stored statistics do to the losses."""
    gap = relative_gap(m)
    if gap != gap:
        return f"outputs in eval mode move by {m.output_change:.2g} of their spread"
    return (
        f"loss {_loss(m, TRAIN)} as in training, {_loss(m, STORED)} in eval mode, "
        f"{_loss(m, RETAKEN)} with statistics taken again"
    )


def _mismatched(n: LayerNumbers) -> bool:
    if not n.stored:
        return False
    chance = 0.0 if n.sampling != n.sampling else 1.5 * n.sampling  # of the retaken statistics themselves
    spread = n.log_spread - (0.0 if n.dropout != n.dropout else abs(n.dropout))  # what dropout explains
    return n.shift > math.hypot(limit("shift"), chance) or spread > math.hypot(limit("log_spread"), chance)


def _level(m: Measurements) -> str:
    return "fault" if gap_is_large(m) else "warning"


def _trained(m: Measurements) -> bool:
    """Whether anything shows that the network was trained."""
    numbers = m.numbers.values()
    used = bool(m.steps) or (m.optimizer is not None and bool(m.optimizer.state))
    return used or any(not n.affine_at_start or n.updates > 0 for n in numbers)


RETAKE = "bnlab.retake_statistics(model, batches)"

# ---- what is not a number


@rule("not finite", "stored not finite", *_MISMATCH)
def bad_data(m: Measurements) -> Iterator[Finding]:
    if m.bad_data:
        yield Finding(
            "bad data",
            "fault",
            f"batch {m.bad_data[0]} of {m.batches} holds NaN or infinity before the network sees it",
            "one such batch makes every running statistic NaN for good, and with it every answer "
            "in eval mode",
            "mend the data: assert x.isfinite().all() in the Dataset; then " + RETAKE,
        )


@rule("stored not finite", *_MISMATCH)
def not_finite(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.nonfinite_batch >= 0)
    if layers:
        first = min(layers, key=lambda layer: (m.numbers[layer].nonfinite_batch, m.numbers[layer].order))
        yield Finding(
            "not finite",
            "fault",
            f"the input of {_where([first])} is NaN or infinite in batch {m.numbers[first].nonfinite_batch}, "
            "the data are not; no layer before it shows any",
            f"it is made between the layer before and this one; {len(layers)} layers take it into "
            "their statistics",
            f"look at what runs in front of {_where([first])} (overflow, log, division); then {RETAKE}",
            _names([first]),
        )


@rule(*_MISMATCH)
def stored_not_finite(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.stored and not n.stored_finite)
    if layers:
        yield Finding(
            "stored not finite",
            "fault",
            f"stored statistics hold NaN or infinity in {len(layers)} of {len(m.layers)} layers, first in "
            f"{_where(layers[:1])}; these batches are finite",
            "some earlier batch held NaN or infinity; in eval mode every answer is NaN from then on",
            f"{RETAKE}; to find the batch, assert x.isfinite().all() in the training loop",
            _names(layers),
        )


@rule()
def one_value(m: Measurements) -> Iterator[Finding]:
    if m.single:
        number, layer = next(iter(m.single.items()))
        size = m.samples[number] if number < len(m.samples) else 1
        measured = f"batch {number} has {size} sample, one value per channel at {layer or 'the model itself'}"
    elif m.last_batch == 1:
        measured = "the last batch of the DataLoader has 1 sample"
    else:
        return
    yield Finding(
        "one value",
        "fault",
        measured,
        'training stops there: "Expected more than 1 value per channel when training"',
        "DataLoader(..., drop_last=True); where training is over, model.eval() before the pass",
    )


@rule("composition", *_MISMATCH)
def precision(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.digits_lost > limit("digits_lost") and n.buffer_dtype != "bfloat16")
    if layers:
        layers = _worst(m, layers, "digits_lost")
        n = m.numbers[layers[0]]
        yield Finding(
            "precision",
            "warning",
            f"the mean at {_where(layers)} is {n.mean_over_spread:.2g} spreads large: rounding alone is "
            f"{n.digits_lost:.1g} of a spread (healthy: below {limit('digits_lost'):g})",
            "the differences that the layer is to magnify are lost in the rounding of its input",
            "subtract the mean in float64 before the network: x = (x - mean) / std",
            _names(layers),
        )


# ---- stored statistics that are wrong


@rule("start values", "frozen statistics", "missing updates", *_MISMATCH)
def never_updated(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.stored and n.at_start and n.order >= 0)
    if not layers:
        return
    if not _trained(m):
        yield Finding(
            "untrained",
            "note",
            f"the stored statistics of {_where(layers)} are 0 and 1, and gamma and beta too are as "
            "at the start",
            "nothing, if the network is not trained yet",
            "train it",
            _names(layers),
        )
        return
    if not any(_mismatched(m.numbers[layer]) for layer in layers):
        return
    n = m.numbers[layers[0]]
    if n.momentum == 0:
        why, remedy = "momentum is 0", "momentum=0.1 in the layers; then " + RETAKE
    elif n.updates > 0:
        why, remedy = f"although {n.updates:.0f} batches were counted", RETAKE
    elif not n.in_training:
        why, remedy = "the layers are in eval mode in training", "model.train() in front of the training loop"
    else:
        why = "no batch was counted: the weights were loaded without the buffers, or trained in eval mode"
        remedy = f"load the whole model.state_dict(), buffers too, or {RETAKE}"
    yield Finding(
        "never updated",
        _level(m),
        f"the stored statistics of {_where(layers)} are exactly 0 and 1 in a trained network; {why}",
        f"in eval mode these layers do not normalize: {_harm(m)}",
        remedy,
        _names(layers),
    )


@rule("start values", "frozen statistics", *_MISMATCH)
def missing_updates(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.updates_per_step < 1 / limit("updates_per_step"))
    if layers:
        layers = sorted(layers, key=lambda layer: m.numbers[layer].updates_per_step)
        n = m.numbers[layers[0]]
        yield Finding(
            "missing updates",
            _level(m) if any(_mismatched(m.numbers[layer]) for layer in layers) else "note",
            f"{_where(layers)} was updated {n.updates_per_step:.2g} times per optimizer step "
            f"({n.updates:.0f} updates, {m.steps} steps; healthy: 1)",
            "for part of the training the network was in eval mode, and its statistics stood "
            f"still: {_harm(m)}",
            "model.train() after each validation; then " + RETAKE,
            _names(layers),
        )


@rule(*_MISMATCH)
def start_values(m: Measurements) -> Iterator[Finding]:
    layers = _layers(
        m,
        lambda n: n.stored and n.updates > 0 and n.start_share > limit("start_share") and _mismatched(n),
    )
    if layers:
        layers = _worst(m, layers, "start_share")
        n = m.numbers[layers[0]]
        larger = "momentum=0.1 (the weight of the new batch; Keras counts the other way), "
        larger = larger if n.momentum < 0.1 else ""
        yield Finding(
            "start values",
            _level(m),
            f"{n.start_share:.0%} of the stored variance of {_where(layers)} is left of its start value 1: "
            f"momentum {n.momentum:g}, {n.updates:.0f} updates (healthy: below {limit('start_share'):.0%})",
            f"the stored statistics are not yet those of the data: {_harm(m)}",
            f"{larger}{RETAKE}, or more updates",
            _names(layers),
        )


@rule("composition", "momentum", "stale statistics", "gap")
def one_layer_two_inputs(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.calls > 1 and n.call_difference > limit("call_difference"))
    if layers:
        layers = _worst(m, layers, "call_difference")
        n = m.numbers[layers[0]]
        yield Finding(
            "two inputs",
            _level(m),
            f"{_where(layers)} runs {n.calls} times in a pass, on inputs whose means lie "
            f"{n.call_difference:.2g} "
            f"spreads apart (healthy: below {limit('call_difference'):g})",
            f"in training each input is normalized by itself, in eval mode both by one average: {_harm(m)}",
            "give each input a normalization layer of its own, or join the inputs in one batch: "
            "torch.cat([a, b])",
            _names(layers),
        )


@rule("momentum", "stale statistics", "few values", "gap")
def composition(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.batch_kinds > limit("batch_kinds"))
    if layers:
        layers = _worst(m, layers, "batch_kinds")
        n = m.numbers[layers[0]]
        if n.two_kinds > 0.9:
            kind, remedy = "there are two kinds of batches", "mix both kinds in each batch"
            remedy += ", or give each kind its own normalization layers"
        elif n.repeat > 0.4:
            kind, remedy = (
                "neighbouring batches are alike: the data are sorted",
                "DataLoader(..., shuffle=True)",
            )
        else:
            kind, remedy = (
                "samples of a batch are alike",
                "DataLoader(..., shuffle=True), no grouping by class or source",
            )
        yield Finding(
            "composition",
            _level(m),
            f"batch means vary {n.batch_kinds:.3g} times as much as those of shuffled batches at "
            f"{_where(layers)} (healthy: about 1, below {limit('batch_kinds'):g}); {kind}",
            f"in training the batch tells what is in it, in eval mode nothing does: {_harm(m)}",
            remedy,
            _names(layers),
        )


@rule("stale statistics", "momentum", "frozen statistics", "gap")
def extra_updates(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.updates_per_step > limit("updates_per_step") and n.calls_in_backward == 0)
    if layers:
        layers = _worst(m, layers, "updates_per_step")
        n = m.numbers[layers[0]]
        yield Finding(
            "extra updates",
            "fault" if gap_is_large(m) else "warning",
            f"{_where(layers)} was updated {n.updates_per_step:.3g} times per optimizer step "
            f"({n.updates:.0f} updates, {m.steps} steps; healthy: 1)",
            "a second pass in train mode (logging, validation, noise, accumulation) enters the "
            f"statistics: {_harm(m)}",
            "with bnlab.running_statistics(model): ... around the other pass, or model.eval() for it",
            _names(layers),
        )


@rule("extra updates")
def recomputed(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.calls_in_backward > 0 and n.in_training and n.stored)
    if layers:
        n = m.numbers[layers[0]]
        yield Finding(
            "recomputed",
            "warning",
            f"{_where(layers)} runs {n.calls_in_backward} times more in the backward pass (healthy: "
            "0): checkpointing",
            f"each step updates its statistics twice; momentum {n.momentum:g} acts as "
            f"{1 - (1 - n.momentum) ** 2:.2g}",
            "lower the momentum to 1 - (1 - momentum) ** 0.5 in checkpointed layers, or leave norms outside",
            _names(layers),
        )


@rule("momentum", "composition", "stale statistics")
def few_values(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.independent < limit("independent") and n.in_training)
    if layers:
        layers = sorted(layers, key=lambda layer: m.numbers[layer].independent)
        n = m.numbers[layers[0]]
        yield Finding(
            "few values",
            "warning",
            f"a batch mean at {_where(layers)} is worth {n.independent:.2g} independent values "
            f"(healthy: {limit('independent'):g} and more)",
            f"it is off by about {n.independent**-0.5:.1g} spreads; accumulating gradients does not "
            "change that",
            "larger batches, or bnlab.convert(model, lambda c: bnlab.GroupNorm(groups, c)) before training",
            _names(layers),
        )


@rule("stale statistics", "gap")
def momentum(m: Measurements) -> Iterator[Finding]:
    layers = _layers(
        m, lambda n: n.stored and n.momentum > 0.2 and n.momentum_noise > limit("momentum_noise")
    )
    if layers:
        layers = _worst(m, layers, "momentum_noise")
        n = m.numbers[layers[0]]
        yield Finding(
            "momentum",
            _level(m),
            f"the stored mean of {_where(layers)} moves by {n.momentum_noise:.2g} spreads from "
            "batch to batch "
            f"(healthy: below {limit('momentum_noise'):g}); momentum is {n.momentum:g}",
            f"momentum is the weight of the new batch: only the last batches are remembered; {_harm(m)}",
            f"momentum={min(0.1, 1 - n.momentum) or 0.1:.2g} (Keras counts the other way); then {RETAKE}",
            _names(layers),
        )


@rule("gap")
def dropout(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: abs(n.dropout) > limit("dropout"))
    if layers:
        layers = _worst(m, layers, "dropout")
        n = m.numbers[layers[0]]
        yield Finding(
            "dropout",
            "warning" if any(_mismatched(x) for x in m.numbers.values()) else _level(m),
            f"dropout changes the spread of the input of {_where(layers)} by a factor {_exp(n.dropout)} "
            f"(healthy: below {_exp(limit('dropout'))})",
            f"the statistics are stored with dropout and used without: {_harm(m)}",
            "move the dropout behind the last normalization; for a trained network " + RETAKE,
            _names(layers),
        )


def _exp(log: float) -> str:
    return f"{2.718281828459045**log:.2f}"


@rule("stale statistics", "gap", "eps dominates")
def eps(m: Measurements) -> Iterator[Finding]:
    fit, now = min(m.misfit_by_eps.items(), key=lambda item: item[1], default=(None, 0.0)), m.misfit
    layers = _layers(m, lambda n: n.stored and n.small_variance < 0.1)
    if fit[0] is not None and layers and now > limit("log_spread") and fit[1] < 0.4 * now:
        layers = sorted(layers, key=lambda layer: m.numbers[layer].small_variance)
        n = m.numbers[layers[0]]
        yield Finding(
            "eps",
            _level(m),
            f"the stored spreads are off by a factor {_exp(now)} somewhere, with eps={fit[0]} in "
            "all layers by "
            f"{_exp(fit[1])} at most; the variance at {_where(layers)} is only {n.small_variance:.2g}",
            f"the network was trained with another eps than it is used with: {_harm(m)}",
            f"eps={fit[0]} in the layers, as in training",
            _names(layers),
        )


@rule("stale statistics")
def eps_dominates(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.eps_share > limit("eps_share"))
    if layers:
        layers = _worst(m, layers, "eps_share")
        n = m.numbers[layers[0]]
        yield Finding(
            "eps dominates",
            _level(m),
            f"eps is {n.eps_share:.0%} of variance + eps at {_where(layers)} (healthy: below "
            f"{limit('eps_share'):.0%}); the variance is {n.small_variance:.2g}",
            f"the output has a spread of {(1 - n.eps_share) ** 0.5:.2g} in place of 1 before gamma; "
            f"{_harm(m)}",
            "scale the input up (the data, or the weights in front), or take a smaller eps",
            _names(layers),
        )


@rule("stale statistics", "gap")
def frozen_parameters(m: Measurements) -> Iterator[Finding]:
    trainable = any(p.requires_grad for p in m.model.parameters())

    def frozen(layer: NormLayer) -> bool:
        n, learned = m.numbers[layer], [p for p in (layer.gamma, layer.beta) if isinstance(p, nn.Parameter)]
        fixed = bool(learned) and not any(p.requires_grad for p in learned)
        return fixed and n.in_training and n.stored and layer.kind == "batch"

    layers = [layer for layer in m.layers if frozen(layer)]
    if layers and trainable and not m.whole_eval:
        yield Finding(
            "frozen parameters",
            "warning",
            f"gamma and beta of {_where(layers)} are frozen (requires_grad=False), but the layer is "
            "in train mode",
            f"its statistics go on moving, and with them what the frozen layers compute: {_harm(m)}",
            "for m in frozen_layers: m.eval(), after each model.train()",
            _names(layers),
        )


@rule("stale statistics")
def frozen_statistics(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: not n.in_training and _mismatched(n))
    if layers and not m.whole_eval:
        layers = _worst(m, layers, "log_spread")
        n = m.numbers[layers[0]]
        learned = [p for layer in layers for p in (layer.gamma, layer.beta) if isinstance(p, nn.Parameter)]
        on_purpose = not any(p.requires_grad for p in learned)
        far = max(n.shift / 4, n.log_spread / 4) > (2 if on_purpose else 1) * limit("shift")
        yield Finding(
            "frozen statistics",
            "warning" if far else "note",
            f"{_where(layers)} is in eval mode in training, with stored statistics {n.shift:.2g} "
            "spreads and a "
            f"factor {_exp(n.log_spread)} off (healthy: below {limit('shift'):g} and "
            f"{_exp(limit('log_spread'))})",
            "the layers do not normalize: the weights in front have moved away from the stored statistics",
            "model.train() in front of the loop, or freeze the weights in front as well; once: " + RETAKE,
            _names(layers),
        )


@rule("stale statistics", "gap")
def switched_off(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.switched_off > limit("switched_off"))
    if layers:
        layers = _worst(m, layers, "switched_off")
        n = m.numbers[layers[0]]
        yield Finding(
            "switched off",
            _level(m),
            f"gamma has switched off {n.switched_off:.0%} of the channels of {_where(layers)} "
            "(healthy: below "
            f"{limit('switched_off'):.0%})",
            "these channels give a constant; weight decay on gamma, or a penalty, does that. "
            f"{_harm(m).capitalize()}",
            "leave gamma and beta out of weight decay: a parameter group with weight_decay=0",
            _names(layers),
        )


@rule("gap")
def stale_statistics(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, _mismatched)
    if not layers:
        return
    n = m.numbers[layers[0]]
    worst = m.numbers[_worst(m, layers, "blame")[0]]
    blame = f'; "{worst.name}" alone costs {worst.blame:.2g}' if worst.blame > 0 else ""
    behind = f"; of the {len(layers) - 1} behind it some or all follow" if len(layers) > 1 else ""
    yield Finding(
        "stale statistics",
        _level(m),
        f"stored statistics are {n.shift:.2g} spreads and a factor {_exp(n.log_spread)} off, first in "
        f"{_where(layers[:1])} (healthy: below {limit('shift'):g} and {_exp(limit('log_spread'))}){behind}",
        "they belong to other weights or data (averaged weights, a part loaded, fine-tuning): "
        f"{_harm(m)}{blame}",
        f"{RETAKE}; average the buffers along with the weights (AveragedModel(..., use_buffers=True))",
        _names(layers),
    )


@rule()
def test_data(m: Measurements) -> Iterator[Finding]:
    layers = _layers(
        m,
        lambda n: (
            n.test_shift > math.hypot(limit("test_shift"), 1.5 * n.test_sampling)
            or n.test_log_spread > math.hypot(limit("test_log_spread"), 1.5 * n.test_sampling)
        ),
    )
    if layers:
        n = m.numbers[layers[0]]
        yield Finding(
            "test data",
            "fault",
            f"test input at {_where(layers)} differs from training input by {n.test_shift:.2g} "
            "spreads and a factor "
            f"{_exp(n.test_log_spread)} (healthy: below {limit('test_shift'):g} and "
            f"{_exp(limit('test_log_spread'))})",
            "in eval mode it is normalized with the statistics of training: the network sees other "
            "data than it knows",
            "the same preprocessing and padding for both; compare x.mean() and x.std() of a batch of each",
            _names(layers),
        )


# ---- parameters and structure


@rule()
def dead(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.dead > limit("dead"))
    if layers:
        layers = _worst(m, layers, "dead")
        n = m.numbers[layers[0]]
        yield Finding(
            "dead channels",
            "warning",
            f"{n.dead:.0%} of the channels in front of {_where(layers)} are constant over all batches "
            f"(healthy: below {limit('dead'):.0%})",
            "there is nothing to normalize: their output is beta",
            "look at what is in front: ReLU units that never fire, padding, weights at 0; a lower "
            "learning rate",
            _names(layers),
        )


@rule()
def optimizer_groups(m: Measurements) -> Iterator[Finding]:
    if m.optimizer is None:
        return
    groups = {id(p): group for group in m.optimizer.param_groups for p in group["params"]}
    learned = [
        (layer, p)
        for layer in m.layers
        for p in (layer.gamma, layer.beta)
        if isinstance(p, nn.Parameter) and p.requires_grad
    ]
    missing = list(dict.fromkeys(layer for layer, p in learned if id(p) not in groups))
    if missing:
        yield Finding(
            "not in optimizer",
            "warning",
            f"gamma and beta of {_where(missing)} are not among the parameters of the optimizer",
            "they never learn",
            "make the optimizer after the layers are in place: optimizer = type(model.parameters())",
            _names(missing),
        )
    decayed = [layer for layer, p in learned if groups.get(id(p), {}).get("weight_decay", 0) > 0]
    decayed = list(dict.fromkeys(decayed))
    if decayed:
        decay = groups[id(next(p for layer, p in learned if layer is decayed[0]))]["weight_decay"]
        yield Finding(
            "weight decay",
            "note",
            f"weight decay {decay:g} acts on gamma and beta of {_where(decayed)}",
            "it pulls gamma to 0; at 0.01 and more it switches channels off",
            "a parameter group with weight_decay=0 for gamma and beta",
            _names(decayed),
        )


@rule("few values", "composition")
def wrong_dimension(m: Measurements) -> Iterator[Finding]:
    layers = [
        layer
        for layer, place in m.places.items()
        if place.tokens_last and layer.kind == "batch" and layer.channels == place.shape[1]
    ]
    if layers:
        shape = m.places[layers[0]].shape
        yield Finding(
            "wrong dimension",
            "fault",
            f"{_where(layers)} takes {shape} and normalizes dimension 1 (size {shape[1]}), but a "
            "linear layer beside it "
            f"has its features in the last (size {shape[2]})",
            "each position in the sequence is a channel here, and all features share one mean",
            "norm(x.transpose(1, 2)).transpose(1, 2), with num_features the size of the last dimension",
            _names(layers),
        )


@rule()
def instance_tracks(m: Measurements) -> Iterator[Finding]:
    layers = [
        layer
        for layer in m.layers
        if layer.kind == "instance" and layer.buffers and m.numbers[layer].order >= 0
    ]
    if layers:
        yield Finding(
            "instance tracks",
            _level(m),
            f"{_where(layers)} is an instance norm that stores statistics (track_running_stats=True)",
            f"in training each sample is normalized by itself, in eval mode all by one average: {_harm(m)}",
            "track_running_stats=False, and train again or compare the losses above",
            _names(layers),
        )


@rule()
def sixteen_bits(m: Measurements) -> Iterator[Finding]:
    layers = _layers(m, lambda n: n.buffer_dtype in ("float16", "bfloat16"))
    if layers:
        n = m.numbers[layers[0]]
        yield Finding(
            "16-bit buffers",
            "warning",
            f"the stored statistics of {_where(layers)} are {n.buffer_dtype}",
            "small updates are rounded away, and in float16 a variance above 65,504 becomes infinite",
            "keep the layers in float32: for m in norms: m.float(); use torch.autocast in place of "
            "model.half()",
            _names(layers),
        )


@rule()
def depends_on_batch(m: Measurements) -> Iterator[Finding]:
    if m.depends_on_batch > limit("depends_on_batch"):
        layers = _layers(m, lambda n: not n.stored)
        layers = [layer for layer in layers if layer.kind == "batch"]
        yield Finding(
            "no statistics",
            "warning",
            f"{_where(layers)} stores no statistics (track_running_stats=False): without half of "
            "its batch an "
            f"answer in eval mode moves by {m.depends_on_batch:.2g} spreads (healthy: 0)",
            "the answer for a sample depends on the others in its batch; one sample alone is an error",
            "track_running_stats=True, then " + RETAKE,
            _names(layers),
        )


@rule()
def norm_behind_norm(m: Measurements) -> Iterator[Finding]:
    modules = {layer.module for layer in m.layers}
    layers = [layer for layer in m.places if m.places[layer].producer in modules]
    if layers:
        yield Finding(
            "norm behind norm",
            "note",
            f"{_where(layers)} takes the output of {m.places[layers[0]].producer_name}, another "
            "normalization",
            "the second undoes gamma and beta of the first, unless that has another reader (a "
            "residual branch)",
            "leave one of them out, if nothing else reads the first",
            _names(layers),
        )


@rule()
def bias_in_front(m: Measurements) -> Iterator[Finding]:
    layers = [
        layer
        for layer, place in m.places.items()
        if layer.kind == "batch"
        and getattr(place.producer, "bias", None) is not None
        and isinstance(place.producer, nn.Linear | nn.modules.conv._ConvNd)
    ]
    if layers:
        yield Finding(
            "bias in front",
            "note",
            f"{m.places[layers[0]].producer_name} has a bias, and {_where(layers)} subtracts the "
            "mean behind it",
            "the bias has no effect and no gradient; it costs memory, and weight decay moves it for nothing",
            "bias=False in the layer in front",
            _names(layers),
        )


@rule()
def unsynchronized(m: Measurements) -> Iterator[Finding]:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if distributed and torch.distributed.get_world_size() > 1:
        layers = [x for x in m.layers if x.kind == "batch" and not isinstance(x.module, nn.SyncBatchNorm)]
        if layers:
            yield Finding(
                "unsynchronized",
                "note",
                f"{torch.distributed.get_world_size()} processes, and {_where(layers)} is no SyncBatchNorm",
                "each process normalizes with its own part of the batch and stores its own statistics",
                "torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)",
                _names(layers),
            )


@rule()
def gap(m: Measurements) -> Iterator[Finding]:
    if gap_is_large(m) and relative_gap(m) == relative_gap(m):
        helps = relative_gap(m, RETAKEN) < 0.5 * relative_gap(m)
        yield Finding(
            "gap",
            "warning",
            f"eval mode is worse than training on the same batches by {relative_gap(m):.0%} (healthy: below "
            f"{limit('gap'):.0%}), and no cause was found",
            _harm(m),
            RETAKE
            if helps
            else "taking statistics again does not help: compare single samples in both modes",
        )
