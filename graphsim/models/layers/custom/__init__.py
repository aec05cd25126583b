"""The block language: layers that a model file defines node by node.

`node` defines the entries; one file per subject holds their kinds; `block` assembles them.
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
