"""Instruments: saturation, distributions, covariate shift, loss landscape, curvature, theorems."""

from . import theorems
from .curvature import Sharpness, sharpness
from .frozen import frozen
from .landscape import Probe, probe
from .shift import Shift, internal_covariate_shift

__all__ = [
    "Probe",
    "Sharpness",
    "Shift",
    "frozen",
    "internal_covariate_shift",
    "probe",
    "sharpness",
    "theorems",
]
