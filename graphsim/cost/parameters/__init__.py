"""Calibration files: the fitted constants of a device, and their format."""
