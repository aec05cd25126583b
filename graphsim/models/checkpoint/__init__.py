"""Comparison of a model's structure with the tensors of its checkpoint, module by module."""
