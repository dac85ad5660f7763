"""Normalization layers from scratch."""

from .batch import BatchNorm

__all__ = ["BatchNorm"]
