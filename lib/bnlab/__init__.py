"""Batch normalization, measured: layers from scratch, and instruments for what they do to training."""

__version__ = "0.1.0"

from .checkup import Checkup as Checkup
from .checkup import batch_statistics as batch_statistics
from .checkup import checkup as checkup
from .checkup import fold as fold
from .checkup import retake_statistics as retake_statistics
from .checkup import running_statistics as running_statistics
from .fit import Run as Run
from .fit import fit as fit
from .measure import frozen as frozen
from .measure import internal_covariate_shift as internal_covariate_shift
from .measure import lipschitz_estimate as lipschitz_estimate
from .measure import observers as observers
from .measure import probe as probe
from .measure import saturation as saturation
from .measure import sharpness as sharpness
from .measure import slice1d as slice1d
from .measure import slice2d as slice2d
from .measure import smoothness_estimate as smoothness_estimate
from .measure import theorems as theorems
from .measure import track_activations as track_activations
from .norms import ELU as ELU
from .norms import SELU as SELU
from .norms import BatchNorm as BatchNorm
from .norms import DynamicTanh as DynamicTanh
from .norms import GhostBatchNorm as GhostBatchNorm
from .norms import GroupNorm as GroupNorm
from .norms import InstanceNorm as InstanceNorm
from .norms import LayerNorm as LayerNorm
from .norms import LpBatchNorm as LpBatchNorm
from .norms import NoisyBatchNorm as NoisyBatchNorm
from .norms import RMSNorm as RMSNorm
from .norms import convert as convert
from .norms import weight_norm as weight_norm
from .stats import interval as interval
from .sweep import sweep as sweep
