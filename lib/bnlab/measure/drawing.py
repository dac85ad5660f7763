"""What the pictures of all results share. matplotlib is imported only when something is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes(ax: Axes | None) -> Axes:
    """The Axes given, or those of a new pyplot figure, which a notebook shows at the end of the cell."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "plot needs matplotlib, which is not installed; run: pip install 'bnlab[plots]'"
        ) from error
    return pyplot.subplots(figsize=(5, 3.5), layout="constrained")[1]


def number(value: float) -> str:
    """A number in a sentence: three digits, and a minus sign that is one."""
    return f"{value:.3g}".replace("-", "−")


def reference(ax: Axes, value: float, label: str) -> None:
    """A dashed horizontal line at `value`, with its label at the right end."""
    ax.axhline(value, color="0.4", linewidth=1, linestyle="--")
    ax.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color="0.3",
        fontsize="small",
    )


def mark(ax: Axes, value: float, label: str) -> None:
    """A dashed vertical line at `value`, with its label at the top."""
    ax.axvline(value, color="0.4", linewidth=1, linestyle="--")
    ax.annotate(
        label,
        (value, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -3),
        textcoords="offset points",
        va="top",
        color="0.3",
        fontsize="small",
    )


def direct_label(ax: Axes, x: float, y: float, text: str, color: str) -> None:
    """The name of a curve, beside its last point."""
    ax.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", color=color, fontsize="small"
    )
