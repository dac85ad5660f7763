"""Batch normalization, measured: layers from scratch, and instruments for what they do to training."""

__version__ = "0.1.0"

from .measure import frozen as frozen
from .measure import internal_covariate_shift as internal_covariate_shift
from .measure import lipschitz_estimate as lipschitz_estimate
from .measure import probe as probe
from .measure import saturation as saturation
from .measure import sharpness as sharpness
from .measure import slice1d as slice1d
from .measure import slice2d as slice2d
from .measure import smoothness_estimate as smoothness_estimate
from .measure import theorems as theorems
from .measure import track_activations as track_activations
from .norms import BatchNorm as BatchNorm
from .train import data as data
from .train import fit as fit
from .train.sweep import sweep as sweep
