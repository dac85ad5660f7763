"""What the chapters share: data, models, runs, recordings, figures, tables, claims, exercises."""

from bnlab.stats import Interval, interval

from . import data, explorables, models
from .exercises import check
from .figures import COLORS, bands, plot_band, show, style
from .labels import label_line
from .prose import publish, typeset
from .runs import over_seeds
from .tables import table

__all__ = [
    "COLORS",
    "Interval",
    "bands",
    "check",
    "data",
    "explorables",
    "interval",
    "label_line",
    "models",
    "over_seeds",
    "plot_band",
    "publish",
    "show",
    "style",
    "table",
    "typeset",
]
