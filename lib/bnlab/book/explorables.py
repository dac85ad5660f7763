"""Explorables: pictures with sliders that work in a page without kernel and without network.

Each is a custom element with its module inlined, so that the same output runs from `file://`, in the built
book and in JupyterLab. `explorable.js` holds what all share; NAME.js draws the one called NAME.
"""

import json
from html import escape
from importlib.resources import files

from torch import Tensor


class Explorable:
    """The interactive picture drawn by NAME.js from `parameters`, which must survive JSON.

    `instead` is what a reader finds in its place where no script runs: the same insight in words and numbers.
    """

    def __init__(self, name: str, parameters: dict, *, instead: str):
        self.name = name
        self.parameters = parameters
        self.instead = instead

    def __repr__(self) -> str:
        return self.instead

    def _repr_html_(self) -> str:
        folder = files("bnlab.book")
        script = "\n".join((folder / f).read_text("utf-8") for f in ("explorable.js", f"{self.name}.js"))
        data = escape(json.dumps(self.parameters, separators=(",", ":")))
        element = f'<bn-{self.name} data-parameters="{data}"><p>{escape(self.instead)}</p></bn-{self.name}>'
        return f'{element}\n<script type="module">\n{script}</script>'


def batch_norm(values: Tensor) -> Explorable:
    """The batch-norm transform on a batch `values` (m,) of one unit, to be moved about.

    The values are standardized and rounded to four decimals first; the sliders shift and scale them.
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"values: shape {tuple(values.shape)}; one unit's values (m,) with m >= 2 are expected"
        )
    batch = (values - values.mean()) / values.std(correction=0)
    return Explorable(
        "batch-norm",
        {"values": [round(v, 4) for v in batch.tolist()]},
        instead=(
            f"An interactive figure stands here where scripts run. A batch of {len(batch)} values, shifted "
            "and stretched at will, leaves batch normalization in training mode with mean beta and standard "
            "deviation gamma each time. In test mode it is moved by the running statistics instead, and "
            "comes out with another mean and spread wherever these lag behind the batch."
        ),
    )
