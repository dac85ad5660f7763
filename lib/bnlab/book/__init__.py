"""What the chapters share: figures, tables, explorables, claims, exercises and their checkers."""

from bnlab.book import explorables
from bnlab.book.exercises import check
from bnlab.book.figures import COLORS, label_line, plot_band, show, style
from bnlab.book.tables import table
from bnlab.train.intervals import Interval, interval

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
    "table",
]
