"""The block language: what a model file writes out node by node, as layers.

`node` says what every entry is; one file for each subject holds the kinds; `block` puts them together.
"""

from graphsim.models.layers.custom.block import BlockHead, BlockStem, CustomBlock, Program, TwoPrograms
from graphsim.models.layers.custom.node import INPUT, SOURCE, STEP_NAMES, Node
from graphsim.models.layers.custom.weights import GemmNode

__all__ = [
    "BlockHead",
    "BlockStem",
    "CustomBlock",
    "GemmNode",
    "INPUT",
    "Node",
    "Program",
    "SOURCE",
    "STEP_NAMES",
    "TwoPrograms",
]
