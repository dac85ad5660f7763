"""Instruments: saturation, distributions, covariate shift, loss landscape, curvature, theorems."""

from . import observers, theorems
from .curvature import Sharpness, sharpness
from .distribution import ActivationTrack, Distribution, track_activations
from .frozen import frozen
from .landscape import Probe, Slice1D, Slice2D, probe, random_direction, slice1d, slice2d
from .lipschitz import Steepest, lipschitz_estimate, smoothness_estimate
from .saturation import Saturation, saturation
from .shift import Shift, internal_covariate_shift

__all__ = [
    "ActivationTrack",
    "Distribution",
    "Probe",
    "Saturation",
    "Sharpness",
    "Shift",
    "Slice1D",
    "Slice2D",
    "Steepest",
    "frozen",
    "internal_covariate_shift",
    "lipschitz_estimate",
    "observers",
    "probe",
    "random_direction",
    "saturation",
    "sharpness",
    "slice1d",
    "slice2d",
    "smoothness_estimate",
    "theorems",
    "track_activations",
]
