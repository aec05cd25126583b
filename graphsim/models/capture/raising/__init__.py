"""Conversion of recorded rows into nodes of the block language of model files."""
