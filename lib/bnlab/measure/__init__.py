"""Instruments: saturation, distributions, covariate shift, loss landscape, curvature, theorems."""

from . import observers, theorems
from .curvature import Sharpness, sharpness
from .distribution import ActivationTrack, Distribution, track_activations
from .frozen import frozen
from .hessian import Hessian, hessian
from .landscape import Probe, probe
from .lipschitz import SlopeEstimate, lipschitz_estimate, smoothness_estimate
from .saturation import Saturation, saturation
from .shift import CovariateShift, Shift, internal_covariate_shift
from .slices import Slice1D, Slice2D, random_direction, slice1d, slice2d
from .spectrum import Spectrum, spectrum
from .stability import BatchSharpness, CriticalSharpness, batch_sharpness, critical_sharpness

__all__ = [
    "ActivationTrack",
    "BatchSharpness",
    "CovariateShift",
    "CriticalSharpness",
    "Distribution",
    "Hessian",
    "Probe",
    "Saturation",
    "Sharpness",
    "Shift",
    "Slice1D",
    "Slice2D",
    "SlopeEstimate",
    "Spectrum",
    "batch_sharpness",
    "critical_sharpness",
    "frozen",
    "hessian",
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
    "spectrum",
    "theorems",
    "track_activations",
]
