"""Repeats split so that all turns of one have the same backward pass: the first turn's input may need no gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import Op, Repeat
from graphsim.passes.backward_rules import BackwardRules
from graphsim.passes.gradients.requires import enters, leaves, requirements
from graphsim.symbolic.questions import alike


@dataclass(frozen=True, slots=True, kw_only=True)
class AlikeTurns(Pass):
    """Separates the first turn if its input requires a different gradient from that of later turns."""

    stage: ClassVar[Stage] = "logical"

    rules: BackwardRules

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """The body does not change."""
        return repeat.body

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The rule for repeats; a body's requirements reach their fixed point after one iteration."""
        needs = requirements(graph, self.rules, self.rules.entry)

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if not isinstance(op, Repeat) or op.times == 1:
                yield name, op, inputs
                return
            entry, *encoder = (needs[source] for source in graph.pred[name])
            differs = not alike(enters(op, self.rules, entry), leaves(op, self.rules, entry, *encoder))
            yield from cut_turns(name, op, inputs, 1 if differs else 0)

        return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class RecomputedTurns(Pass):
    """Separates the turns that are not recomputed, if only every n-th layer is; they come after the others.

    Their number is exact; their order is Megatron-LM's for `--recompute-method block`.
    """

    stage: ClassVar[Stage] = "logical"

    every: int

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """The body does not change."""
        return repeat.body

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The rule for repeats."""
        return self._steps

    def _steps(self, name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
        if not isinstance(op, Repeat):
            yield name, op, inputs
            return
        again = recomputed_turns(op, self.every)
        for part, turns, given in cut_turns(name, op, inputs, again):
            yield part, replace(turns, runs_again=turns.first_layer < op.first_layer + again * op.layers), given


def recomputed_turns(op: Repeat, every: int) -> int:
    """How many turns hold a layer whose number is a multiple of `every`; each counts once."""
    firsts = range(op.first_layer, op.first_layer + op.times * op.layers, op.layers)
    return sum(any(layer % every == 0 for layer in range(first, first + op.layers)) for first in firsts)


def cut_turns(name: str, op: Repeat, inputs: list[Value], ahead: int) -> Iterator[tuple[str, Repeat, list[Value]]]:
    """The first `ahead` turns and the others; the repeat itself if either part is empty."""
    if not 0 < ahead < op.times:
        yield name, op, inputs
        return
    tower = name[: name.rfind(".") + 1]
    for first, times in ((op.first_layer, ahead), (op.first_layer + ahead * op.layers, op.times - ahead)):
        last = first + times * op.layers - 1
        part = f"{tower}layers_{first}_{last}" if last > first else f"{tower}layer_{first}"
        yield part, replace(op, times=times, first_layer=first), inputs
        inputs = [Value(part), *inputs[1:]]
