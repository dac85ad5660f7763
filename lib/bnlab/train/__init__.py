"""Experiments: data, models, the training loop, sweeps and recordings."""

from . import data as data
from .loop import Context as Context
from .loop import Run as Run
from .loop import fit as fit
