"""Instruments: saturation, distributions, covariate shift, loss landscape, curvature, theorems."""

from .frozen import frozen
from .landscape import Probe, probe

__all__ = ["Probe", "frozen", "probe"]
