"""The limits of healthy networks, each with its reason.

Those marked "planted" were set on the healthy networks and planted faults of benchmarks/checkup.py, on the
networks of its first half.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A quantity of healthy networks stays below `value`."""

    value: float
    reason: str


LIMITS = {
    "start_share": Limit(0.05, "a twentieth of the variance moves the spread by 2.5 %"),
    "shift": Limit(0.15, "planted: averages that lag behind the weights reach this nowhere"),
    "log_spread": Limit(0.12, "planted: averages that lag behind the weights reach this nowhere"),
    "momentum_noise": Limit(0.1, "planted; momentum 0.1 with batches of 8 independent values gives 0.08"),
    "batch_kinds": Limit(2.5, "shuffled batches give 1, and 20 of them rarely above 2"),
    "call_difference": Limit(0.5, "half a spread between the inputs: one affine map cannot serve both"),
    "dropout": Limit(0.08, "planted; dropout 0.1 straight in front of a layer widens by about 0.05"),
    "eps_share": Limit(0.1, "eps then takes a tenth of the output's variance"),
    "dead": Limit(0.25, "a quarter of the channels carries nothing"),
    "switched_off": Limit(
        0.1, "gammas drawn around 0 fall below a thousandth of the largest in 0.1 % of cases"
    ),
    "digits_lost": Limit(1e-3, "the normalized value then carries an error of 0.001 from rounding"),
    "independent": Limit(
        4, "the mean of fewer values is off by more than half a spread in one batch of three"
    ),
    "updates_per_step": Limit(1.05, "one update per optimizer step and call"),
    "test_shift": Limit(0.5, "test data of the same kind differ by sampling only"),
    "test_log_spread": Limit(0.3, "test data of the same kind differ by sampling only"),
    "depends_on_batch": Limit(0.02, "in eval mode an answer does not depend on the rest of the batch"),
    "gap": Limit(0.25, "planted: loss with stored statistics above the loss with batch statistics, relative"),
    "output_change": Limit(
        0.25, "planted: change of the outputs between stored and retaken statistics, in spreads"
    ),
}


def limit(name: str) -> float:
    """The largest value of healthy networks (for `independent` the smallest)."""
    return LIMITS[name].value
