"""Fitting cost forms to measurements, keeping the result beside the hardware file, and judging it."""
