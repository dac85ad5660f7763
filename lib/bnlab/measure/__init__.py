"""Instruments: saturation, distributions, covariate shift, loss landscape, curvature, theorems."""
