"""Labels beside lines, instead of legends: in the line's colour, readable, none upon another."""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.transforms import Affine2D
from scipy.optimize import isotonic_regression


def label_line(ax: Axes, x: float, y: float, text: str, color: str, *, offset: float = 0) -> None:
    """Write `text` right of the point (x, y), `offset` points higher: a label instead of a legend."""
    ax.annotate(
        text,
        (x, y),
        xytext=(5, offset),
        textcoords="offset points",
        color=_ink(color),
        va="center",
        annotation_clip=False,
    )


def label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the labels of several lines right of their ends (x, y, text, color), none upon another.

    They find their places when the figure is drawn, so scales and limits may change after this.
    """
    points = [end[:2] for end in ends]
    for i, (x, y, text, color) in enumerate(ends):
        ax.annotate(
            text,
            (x, y),
            xytext=(0, 0),
            textcoords=_beside(ax, points, i),
            color=_ink(color),
            va="center",
            annotation_clip=False,
        )


def _beside(ax: Axes, points: Sequence[tuple[float, float]], i: int) -> Callable:
    """The place of label `i` in pixels, as matplotlib asks for it with a renderer."""

    def place(renderer) -> Affine2D:
        box = ax.get_window_extent(renderer)
        x, y = np.clip(ax.transData.transform(points), box.min, box.max).T
        point = renderer.points_to_pixels(1.0)
        return Affine2D().translate(x[i] + 5 * point, _apart(y, 1.2 * plt.rcParams["font.size"] * point)[i])

    return place


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """The nearest heights, in the sense of least squares and in the same order, at least `gap` apart."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    moved = np.empty(len(heights))
    moved[order] = isotonic_regression(heights[order] - steps).x + steps
    return moved


def _ink(color: str) -> np.ndarray:
    """The colour, as dark as letters on white need to be: a contrast of 4.5 (WCAG 2.2, 1.4.3)."""
    rgb = np.array(to_rgb(color))
    while True:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        if 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5:
            return rgb
        rgb = 0.97 * rgb
