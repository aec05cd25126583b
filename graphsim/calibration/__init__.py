"""Fitting cost forms to measurements, keeping the result next to the hardware file, and judging it."""
