"""Figures of the chapters: one style, bands over seeds, and `show`, which never forgets the alt text."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from altair import TopLevelMixin
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from bnlab.stats import interval

from .labels import label_ends, label_line
from .prose import typeset

MAX_BYTES = 60_000
VEGA_MIME = "application/vnd.vegalite.v5+json"
CAPTION = "color: inherit; font-weight: normal; text-align: left"  # themes make it thin and grey
DPI = 144

# Okabe and Ito's colours: told apart with every common form of colour blindness.
COLORS = {
    "standard": "#d55e00",  # networks without normalization, in every chapter
    "bn": "#0072b2",  # networks with batch normalization, in every chapter
    "green": "#009e73",
    "purple": "#cc79a7",
    "sky": "#56b4e9",
    "orange": "#e69f00",
    "gray": "#6b6b6b",
}

# The colour of a group in `bands`, the same in every figure.
GROUPS = {
    "standard": "standard",
    "plain": "standard",
    "batchnorm": "bn",
    "BN": "bn",
    "noisy_batchnorm": "purple",
    "noisy BN": "purple",
    "l1": "green",
    "l2": "sky",
    "linf": "orange",
}
UNBOUNDED = (-math.inf, math.inf)


def style() -> None:
    """Set the look of every figure: opaque light ground (readable in both themes), no boxes, safe colours."""
    plt.rcParams.update(
        {
            "figure.figsize": (5.9, 3.3),  # its letters are 8 pixels high on a telephone
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.facecolor": "white",
            "axes.prop_cycle": plt.cycler(color=[c for name, c in COLORS.items() if name != "gray"]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.grid": True,
            "grid.color": "#e4e4e4",
            "axes.axisbelow": True,
            "axes.formatter.min_exponent": 4,  # 0.01, not a ten with a small exponent
            "font.size": 10,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
        }
    )


def bands(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    by: str,
    ax: Axes | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
    labels: Mapping[object, str] | None = None,
    colors: Mapping[object, str] | None = None,
    **line,
) -> Axes:
    """Draw `y` over `x`, for each group in column `by` the mean over seeds and its 95 % interval as a band.

    `frame` has a row for each group, `x` and `seed`. A group has the same colour in every figure if `GROUPS`
    or `colors` (keys of `COLORS`, or colours) knows its name. The name stands at the right end of the line;
    `labels` gives it another one, or none (""). `bounds` are those of `bnlab.interval`: (0, inf) for what is
    compared by factors. Where a seed is missing or NaN, the band has a gap. Returns the Axes, new ones of
    pyplot if none are given; scales and limits can still be changed.

    Raises ValueError for a column that is not there, for several rows of one seed, and for more groups than
    there are colours.

    >>> frame = pd.DataFrame({"net": ["BN"] * 4, "seed": [0, 1, 0, 1], "step": [0, 0, 9, 9]})
    >>> ax = bands(frame.assign(loss=[2.3, 2.1, 1.0, 1.2]), "step", "loss", by="net")
    >>> ax.lines[0].get_ydata()
    array([2.2, 1.1])
    """
    _check_tidy(frame, x, y, by)
    names = list(pd.unique(frame[by].dropna()))
    colors = _group_colors(names, colors or {})
    if ax is None:
        ax = plt.subplots(layout="constrained")[1]
    ends = []
    for name in names:
        seeds = frame[frame[by] == name].pivot(index="seed", columns=x, values=y)
        where = seeds.columns.to_numpy()
        mean = plot_band(ax, where, seeds.to_numpy(), color=colors[name], bounds=bounds, **line)
        if (drawn := np.flatnonzero(np.isfinite(mean))).size:
            label = (labels or {}).get(name, typeset(name, "" if isinstance(name, str) else "g"))
            ends.append((where[drawn[-1]], mean[drawn[-1]], label, colors[name]))
    label_ends(ax, [end for end in ends if end[2]])
    ax.set_xlabel(ax.get_xlabel() or x.replace("_", " "))
    ax.set_ylabel(ax.get_ylabel() or y.replace("_", " "))
    return ax


def _check_tidy(frame: pd.DataFrame, x: str, y: str, by: str) -> None:
    columns = list(frame.columns)
    if missing := [name for name in (x, y, by, "seed") if name not in columns]:
        raise ValueError(f"frame: no column {', '.join(missing)}; it has {', '.join(map(str, columns))}")
    twice = frame[frame.duplicated([by, x, "seed"], keep=False)]
    if len(twice):
        differ = [name for name in columns if name not in (x, y, by, "seed") and twice[name].nunique() > 1]
        raise ValueError(
            f"frame: {len(twice)} rows share {by}, {x} and seed with another row; keep one of each "
            f"(columns in which they differ: {', '.join(map(str, differ)) or 'none'})"
        )


def _group_colors(names: Sequence, chosen: Mapping[object, str]) -> dict:
    """A colour for each name: the chosen, else the one it has in every figure, else one that is free."""
    known = {name: chosen.get(name, GROUPS.get(name)) for name in names}
    free = iter(color for color in COLORS if color not in known.values())
    try:
        keys = {name: key or next(free) for name, key in known.items()}
    except StopIteration:
        raise ValueError(
            f"by: {len(names)} groups, but {len(COLORS)} colours can be told apart; keep fewer rows, or "
            "draw several panels"
        ) from None
    return {name: COLORS.get(key, key) for name, key in keys.items()}


def plot_band(
    ax: Axes,
    x: ArrayLike,
    values: ArrayLike,
    *,
    color: str,
    label: str | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
    **line,
) -> np.ndarray:
    """Draw the mean over seeds (first axis of `values`) and its 95 % interval as a band; return the mean.

    `label` is written at the right end of the line, in its colour. `bounds` are those of `bnlab.interval`.
    """
    places = np.asarray(values).T  # each by itself: a value on a bound, or a NaN, changes its own place only
    mean, low, high = np.transpose([interval(seeds, bounds=bounds) for seeds in places])
    ax.plot(x, mean, color=color, **line)
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    if label:
        label_line(ax, np.asarray(x)[-1], mean[-1], label, color)
    return mean


def show(fig: Figure | TopLevelMixin, *, alt: str, caption: str) -> None:
    """Publish a figure, or an Altair chart, with its text alternative and caption.

    `alt` says in full sentences what somebody sees in the picture who cannot see it; `caption` says what to
    look for. Matplotlib figures become HTML and are closed; charts stay charts, which the page draws itself.
    Raises ValueError when either text is no sentence, or when the PNG exceeds 60 kB.
    """
    for name, text in (("alt", alt), ("caption", caption)):
        if len(text.split()) < 5 or not text.rstrip().endswith((".", "!", "?")):
            raise ValueError(f"{name}={text!r}: write at least one full sentence that ends with a full stop")
    if isinstance(fig, TopLevelMixin):
        _show_chart(fig, alt, caption)
        return
    plt.close(fig)
    png, width = _png(fig)
    if len(png) > MAX_BYTES:
        raise ValueError(
            f"fig: the picture takes {len(png) / 1000:.0f} kB, the limit is {MAX_BYTES // 1000}; "
            "draw fewer points or panels, or make the figure smaller"
        )
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    display(
        HTML(
            f'<figure class="bn-figure">'
            f'<img src="{source}" alt="{escape(alt)}" width="{width}" style="max-width: 100%; height: auto">'
            f'<figcaption style="{CAPTION}">{escape(caption)}</figcaption></figure>'
        )
    )


def _show_chart(chart: TopLevelMixin, alt: str, caption: str) -> None:
    """Publish a chart as Vega-Lite, the caption below it. JupyterLab draws version 5 of the language."""
    schema = "https://vega.github.io/schema/vega-lite/v5.json"
    spec = {**chart.to_dict(), "$schema": schema, "description": alt}
    display({VEGA_MIME: spec, "text/plain": alt}, raw=True)
    display(HTML(f'<p class="bn-caption" style="{CAPTION}">{escape(caption)}</p>'))


def _png(fig: Figure) -> tuple[bytes, int]:
    """A figure as a PNG of at most 128 colours, and its width in CSS pixels."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DPI, facecolor="white")
    image = Image.open(drawn).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(packed, format="png", optimize=True)
    return packed.getvalue(), round(image.width * 96 / DPI)
