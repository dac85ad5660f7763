"""Normalization layers from scratch."""
