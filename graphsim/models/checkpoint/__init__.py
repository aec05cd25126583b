"""A model's structure against what the files of its checkpoint say: module by module, byte by byte."""
