"""Explorables: pictures with sliders that work in a page without kernel and without network.

Each is a custom element with its module inlined, so that the same output runs from `file://`, in the built
book and in JupyterLab. `explorable.js` holds what all share, `activations.js` what some share; NAME.js draws
the one called NAME.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

import numpy as np
from scipy import stats
from torch import Tensor


class Explorable:
    """The interactive picture drawn by NAME.js from `parameters`, which must survive JSON.

    `instead` is what a reader finds in its place where no script runs: the same insight in words and numbers.
    `uses` names further modules that NAME.js builds on.
    """

    def __init__(self, name: str, parameters: dict, *, instead: str, uses: tuple[str, ...] = ()):
        self.name = name
        self.parameters = parameters
        self.instead = instead
        self.uses = uses

    def __repr__(self) -> str:
        return self.instead

    def _repr_html_(self) -> str:
        folder = files("course.explorables")
        modules = ("explorable", *self.uses, self.name)
        script = "\n".join((folder / f"{module}.js").read_text("utf-8") for module in modules)
        data = escape(json.dumps(self.parameters, separators=(",", ":")))
        element = f'<bn-{self.name} data-parameters="{data}"><p>{escape(self.instead)}</p></bn-{self.name}>'
        return f'{element}\n<script type="module">\n{script}</script>'


def batch_norm(values: Tensor) -> Explorable:
    """The batch-norm transform on a batch `values` (m,) of one unit, to be moved about.

    The values are standardized and rounded to four decimals first; the sliders shift and scale them.
    """
    batch = _standardized(values)
    return Explorable(
        "batch-norm",
        {"values": batch},
        instead=(
            f"An interactive figure stands here where scripts run. A batch of {len(batch)} values, shifted "
            "and stretched at will, leaves batch normalization in training mode with mean beta and standard "
            "deviation gamma each time. In test mode it is moved by the running statistics instead, and "
            "comes out with another mean and spread wherever these lag behind the batch."
        ),
    )


def saturation(values: Tensor) -> Explorable:
    """A batch `values` (m,) of inputs on its way through one of five activation functions.

    The values are standardized and rounded to four decimals first; the sliders move and stretch them.
    """
    batch = _standardized(values)
    return Explorable(
        "saturation",
        {"values": batch},
        uses=("activations",),
        instead=(
            f"An interactive figure stands here where scripts run. {len(batch)} inputs of a mean and a "
            "spread of your choice pass through sigmoid, tanh, ReLU, ELU or SELU. The wider the inputs of a "
            "sigmoid, or the farther their mean from 0, the more outputs pile up at the ends and the smaller "
            "the mean slope. ReLU, ELU and SELU pile up at the lower end only."
        ),
    )


def depth(nodes: Tensor, weights: Tensor) -> Explorable:
    """Spread of the inputs and size of the gradient through the layers of a wide random network.

    `nodes` and `weights` (k,) are the rule by which the page takes averages over a standard Gaussian z:
    E[g(z)] = sum of weights * g(nodes).
    """
    if nodes.ndim != 1 or nodes.shape != weights.shape:
        raise ValueError(
            f"nodes, weights: shapes {tuple(nodes.shape)} and {tuple(weights.shape)}; "
            "two lists (k,) of one length are expected"
        )
    if abs(weights.sum().item() - 1) > 1e-9:
        raise ValueError(f"weights: their sum is {weights.sum().item():.6g}; averages over a Gaussian need 1")
    return Explorable(
        "depth",
        {"nodes": nodes.tolist(), "weights": weights.tolist()},
        uses=("activations",),
        instead=(
            "An interactive figure stands here where scripts run. Choose an activation, a weight scale and "
            "up to 30 layers. With tanh the gradient fades towards the first layer for weight scales below 1 "
            "and grows for those above; with ReLU the two sides part at the square root of 2, with a sigmoid "
            "near 10, where most of its inputs are saturated."
        ),
    )


def smoothness() -> Explorable:
    """Lipschitz and beta-smooth on five functions of one variable, and a gradient step with its promise."""
    return Explorable(
        "smoothness",
        {},
        instead=(
            "An interactive figure stands here where scripts run. Choose |x|, the hinge, x squared, softplus "
            "or a wave. Between two points stand the quotient of the values and that of the slopes; across "
            "the kink of the hinge the second grows without end. A gradient step from x keeps the promise of "
            "the descent lemma if beta is at least the largest quotient of slopes; x squared with beta 2 "
            "falls most at a step of 1/2, not at all at 1, and rises beyond."
        ),
    )


def race(
    networks: list[str], batch_sizes: list[int], learning_rates: list[float], accuracy: np.ndarray
) -> Explorable:
    """Accuracy against learning rate for every normalization: choose the batch size and two networks.

    `accuracy` holds percent right, (batch sizes, networks, learning rates, seeds); the page computes the mean
    over seeds and its 95 % interval. The names are those of `course.experiments.ALTERNATIVES`.
    """
    expected = (len(batch_sizes), len(networks), len(learning_rates))
    if accuracy.ndim != 4 or accuracy.shape[:3] != expected or accuracy.shape[3] < 2:
        raise ValueError(
            f"accuracy: shape {accuracy.shape}; {expected} and at least 2 seeds are expected: "
            "(batch sizes, networks, learning rates, seeds)"
        )
    return Explorable(
        "race",
        {
            "networks": networks,
            "batch_sizes": batch_sizes,
            "learning_rates": learning_rates,
            "t": stats.t.ppf(0.975, accuracy.shape[3] - 1),
            "accuracy": accuracy.round(4).tolist(),
        },
        instead=(
            "An interactive figure stands here where scripts run. It shows the test accuracy of "
            f"{len(networks)} networks against the learning rate, for a batch size of your choice, two of "
            "them in colour with their 95 % bands. Nearly every curve rises, and falls back to chance at the "
            "highest rates; they differ most in where they fall."
        ),
    )


LANDSCAPE_STEPS = range(0, 961, 40)  # the positions of the slider in landscape.js


def landscape(columns: Mapping[str, np.ndarray], *, lr: float, networks: Sequence[str]) -> Explorable:
    """The landscape along the gradient over training, from the `columns` of a recording.

    `networks` are compared with "batchnorm", which is always there. Of each run at this `lr`, the training
    steps 0, 40, ..., 960 are kept, with four significant digits.
    """

    def runs(network: str) -> list[dict]:
        mine = (columns["kind"] == "landscape") & (columns["network"] == network) & (columns["lr"] == lr)
        mine &= np.isin(columns["step"], LANDSCAPE_STEPS)
        seeds = np.unique(columns["seed"][mine])
        found = [
            _looks({name: values[mine & (columns["seed"] == seed)] for name, values in columns.items()})
            for seed in seeds
        ]
        if not found or any(len(run["loss0"]) != len(LANDSCAPE_STEPS) for run in found):
            raise ValueError(
                f"columns: no run of {network!r} at lr {lr} with all of the steps 0, 40, ..., 960; "
                "give a recording that probes each of them"
            )
        return found

    chosen = {network: runs(network) for network in dict.fromkeys(("batchnorm", *networks))}
    probes = np.unique(columns["step_size"][(columns["kind"] == "landscape") & (columns["lr"] == lr)])
    return Explorable(
        "landscape",
        {"lr": lr, "steps": list(LANDSCAPE_STEPS), "step_sizes": probes.tolist(), "networks": chosen},
        instead=(
            "An interactive figure stands here where scripts run. It shows the loss, the gradient distance, "
            "the cosine and beta along the gradient at any step of the recorded training. Through most of it "
            "the standard network's loss and gradient change far more at four times the learning rate than "
            "batch norm's, and little more at the learning rate itself; the l1, l2 and l-infinity networks "
            "lie on batch norm."
        ),
    )


def _looks(rows: Mapping[str, np.ndarray]) -> dict:
    """The probes of one run as nested lists: one entry a look, and one for each step size."""
    looks = np.unique(rows["step"], return_index=True)[1]

    def short(values: np.ndarray) -> list:
        return [[float(f"{v:.4g}") for v in look] for look in np.reshape(values, (len(looks), -1))]

    run = {name: short(rows[name]) for name in ("loss", "gradient_distance", "cosine")}
    return run | {name: [look[0] for look in short(rows[name])] for name in ("loss0", "gradient_norm")}


def _standardized(values: Tensor) -> list[float]:
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"values: shape {tuple(values.shape)}; one unit's values (m,) with m >= 2 are expected"
        )
    return [round(v, 4) for v in ((values - values.mean()) / values.std(correction=0)).tolist()]
