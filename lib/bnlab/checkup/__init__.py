"""The check-up: what is wrong with the normalization of a network, and what to do."""

from .examine import checkup
from .findings import Finding
from .remedies import Retaken, batch_statistics, fold, retake_statistics, running_statistics
from .report import Checkup

__all__ = [
    "Checkup",
    "Finding",
    "Retaken",
    "batch_statistics",
    "checkup",
    "fold",
    "retake_statistics",
    "running_statistics",
]
