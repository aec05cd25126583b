"""Which values require a gradient: a number for each, 0 or 1, so that a rank of 0 causes no work and saves nothing."""

from __future__ import annotations

import networkx as nx

from graphsim.ops import Embedding, EncoderOutput, IndexScores, Input, Op, Repeat
from graphsim.passes.backward_rules import BackwardRules
from graphsim.passes.gradients.scope import greater
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


def requirements(graph: nx.DiGraph, rules: BackwardRules, entry: Num = 0.0, encoder: Num = 0.0) -> dict[str, Num]:
    """Of each node's result; of a repeat, that of its last turn. entry: what comes into a body requires.

    encoder: what the encoder's result requires, that a decoder's layers read

    Raises no error: operations without a gradient rule are reported when their gradient is derived.
    """
    needs: dict[str, Num] = {}
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            came = [needs[source] for source in graph.predecessors(name)]
            needs[name] = leaves(op, rules, *came)
            continue
        need: Num = entry if isinstance(op, Input) else encoder if isinstance(op, EncoderOutput) else op.trained
        for source in graph.predecessors(name):
            need = either(need, needs[source])
        if isinstance(op, Embedding) and rules.input_requires_grad:
            need = 1.0
        needs[name] = 0.0 if isinstance(op, IndexScores) else need  # the choice of the best keys has no gradient
    return needs


def either(one: Num, other: Num) -> Num:
    """The logical or of two shares; a constant 1 stays 1 even if the other is a formula."""
    whole = [share for share in (one, other) if isinstance(share, float) and share == 1.0]
    return whole[0] if whole else greater(one, other)


def leaves(repeat: Repeat, rules: BackwardRules, entry: Num, encoder: Num = 0.0) -> Num:
    """Whether a turn's result requires a gradient if its input requires `entry`."""
    return requirements(repeat.body, rules, enters(repeat, rules, entry), encoder)[repeat.result]


def enters(repeat: Repeat, rules: BackwardRules, entry: Num) -> Num:
    """Whether a turn's input requires a gradient: re-entrant checkpoints differentiate only with respect to it.

    PyTorch, `torch/utils/checkpoint.py`: without an input that requires a gradient, nothing inside gets one.
    """
    reentrant = rules.reentrant and rules.recompute == "full" and _trains(repeat.body)
    return 1.0 if reentrant else entry


def _trains(graph: nx.DiGraph) -> bool:
    ops: list[Op] = [op for _, op in graph.nodes(data="op")]
    return any(may_be_nonzero(op.trained) or (isinstance(op, Repeat) and _trains(op.body)) for op in ops)
