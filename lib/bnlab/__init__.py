"""Batch normalization, measured: layers from scratch, and instruments for what they do to training."""

__version__ = "0.1.0"

from .measure import frozen as frozen
from .measure import internal_covariate_shift as internal_covariate_shift
from .measure import probe as probe
from .measure import sharpness as sharpness
from .measure import theorems as theorems
from .norms import BatchNorm as BatchNorm
from .train import data as data
from .train import fit as fit
