"""Figures of the chapters: one style, bands over seeds, and `show`, which never forgets the alt text."""

import base64
import io
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from altair import TopLevelMixin
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from bnlab.stats import interval

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


def style() -> None:
    """Set the look of every figure: opaque light ground (readable in both themes), no boxes, safe colours."""
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.4),
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
            "font.size": 10,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
        }
    )


def plot_band(
    ax: Axes, x: ArrayLike, values: ArrayLike, *, color: str, label: str | None = None, **line
) -> None:
    """Draw the mean over seeds (first axis of `values`) and its 95 % interval as a band.

    `label` is written at the right end of the line, in its colour.
    """
    mean, low, high = interval(values)
    ax.plot(x, mean, color=color, **line)
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    if label:
        label_line(ax, np.asarray(x)[-1], mean[-1], label, color)


def label_line(ax: Axes, x: float, y: float, text: str, color: str, *, offset: float = 0) -> None:
    """Write `text` right of the point (x, y), `offset` points higher: a label instead of a legend."""
    ax.annotate(
        text,
        (x, y),
        xytext=(5, offset),
        textcoords="offset points",
        color=color,
        va="center",
        annotation_clip=False,
    )


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
