"""What the chapters share: figures, explorables, claims, exercises and their checkers."""

from bnlab.book import explorables
from bnlab.book.exercises import check
from bnlab.book.figures import COLORS, Interval, interval, label_line, plot_band, show, style

__all__ = [
    "COLORS",
    "Interval",
    "check",
    "explorables",
    "interval",
    "label_line",
    "plot_band",
    "show",
    "style",
]
