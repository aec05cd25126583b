"""Calibration files: which fitted constants a device has, and how they are written."""
