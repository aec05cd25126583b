"""Gradient rules, one file per family of operations; `gradients` applies an operation's rule."""

from graphsim.passes.gradients import attention, elementwise, experts, linear, other, scan, variants
from graphsim.passes.gradients.forward_node import ForwardNode
from graphsim.passes.gradients.rules import gradients
from graphsim.passes.gradients.scope import OpInput, Scope, Storage, greater, scaled

__all__ = [
    "ForwardNode",
    "Scope",
    "Storage",
    "OpInput",
    "attention",
    "elementwise",
    "experts",
    "gradients",
    "greater",
    "linear",
    "other",
    "scaled",
    "scan",
    "variants",
]
