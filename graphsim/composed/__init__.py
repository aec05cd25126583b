"""Measured blocks priced as compositions: the graph of the block as an engine runs it, priced by the cost families.

Each module prices the rows of one or more `*_module` ops of the reference schema with a function

    block_s(rows, hardware, parameters) -> seconds, one for each row

rows: a pandas DataFrame with one value in each column that `groups` of its entry in `COMPOSED` names
    (`cost/families/registry.py`)
hardware: the device
parameters: the fitted parameters of every cost family by name, of the engine and kernels that the rows name

A block may take time that no family's kernels account for. Its module then offers

    fit(frame, hardware, parameters) -> parameters of the family that the entry's `fits` names

from one engine's rows of the block, once all other families are fitted. `pricing.py` prices a graph whose numbers are
arrays over the rows.
"""
