"""Experiments: data, models, the training loop, sweeps and recordings."""
