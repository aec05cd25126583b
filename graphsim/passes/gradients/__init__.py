"""Gradient rules, one file per family of operations; `gradients` applies an operation's rule."""

from graphsim.passes.gradients import attention, elementwise, experts, linear, other, scan, variants
from graphsim.passes.gradients.here import Here
from graphsim.passes.gradients.rules import gradients
from graphsim.passes.gradients.scope import Scope, Storage, Taken, greater, scaled

__all__ = [
    "Here",
    "Scope",
    "Storage",
    "Taken",
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
