"""What the chapters share: data, models, recordings, figures, tables, explorables, claims, exercises."""

from bnlab.stats import Interval, interval

from . import data, explorables, models
from .exercises import check
from .figures import COLORS, label_line, plot_band, show, style
from .tables import table

__all__ = [
    "COLORS",
    "Interval",
    "check",
    "data",
    "explorables",
    "interval",
    "label_line",
    "models",
    "plot_band",
    "show",
    "style",
    "table",
]
