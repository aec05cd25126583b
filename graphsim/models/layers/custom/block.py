"""Custom blocks: nodes in launch order that replace a layer, the embedding or the output head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.custom.node import INPUT, SOURCE, Node, step_values
from graphsim.models.layers.custom.weights import EmbeddingNode
from graphsim.models.phase import IDLE
from graphsim.ops import Gemm, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomBlock(Layer):
    """Nodes in launch order; the last one's result is the block's."""

    nodes: tuple[Node, ...]

    def build(self, scope: Scope, x: str) -> str:
        """Each node reads earlier ones; an idle one takes the block's input, or else the previous node.

        In a step without an encoder's rows, nodes that read them take no elements of the block's input instead.
        """
        idle = replace(scope, phase=IDLE)
        steps = {False: step_values(scope), True: step_values(idle)}
        made = {SOURCE: scope.source.node if scope.source else x, INPUT: x} if x else {}
        for node in self.nodes:
            inputs = [Value(made[value.node], value.parts) for value in node.inputs]
            if node.idle:
                inputs = [Value(made.get(INPUT, last)) for last in list(made.values())[-1:]]
            made[node.name] = node.build(idle if node.idle else scope, inputs, steps[node.idle])
        return made[self.nodes[-1].name]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPrograms(Layer):
    """Nodes of decode steps and of all other steps, if a model's code differs between them."""

    prompt: CustomBlock
    decode: CustomBlock

    def build(self, scope: Scope, x: str) -> str:
        """One of the two."""
        generating = all(segment.decode for segment in scope.phase.segments)
        return (self.decode if generating else self.prompt).build(scope, x)


Program = CustomBlock | TwoPrograms


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStem(Layer):
    """A block in place of the token embedding."""

    vocab_size: int
    block: Program

    @property
    def positions(self) -> int:
        """Entries of a table of learned positions: the largest undivided one that is read once per token."""
        block = self.block.prompt if isinstance(self.block, TwoPrograms) else self.block
        tables = [node for node in block.nodes if isinstance(node, EmbeddingNode) and node.whole_table]
        return max((table.entries for table in tables if table.tokens is None and not table.idle), default=0)

    def build(self, scope: Scope, x: str = "") -> str:
        """Token ids -> values of the residual stream."""
        return self.block.build(scope, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHead(Layer):
    """A block that replaces final norm and output head, followed by sampling.

    tied: the weights of the GEMM that yields logits are the token embedding's
    penalties: as in `graphsim.models.layers.ends.Head`
    """

    generates: ClassVar[bool] = True

    vocab_size: int
    block: Program
    tied: bool = False
    penalties: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """Residual stream -> logits -> token ids."""
        before = set(scope.graph)
        logits = self.block.build(scope, x)
        for name in set(scope.graph) - before:
            op = scope.graph.nodes[name]["op"]
            if isinstance(op, Gemm) and op.head:
                scope.graph.nodes[name]["op"] = replace(op, shared=self.tied)
        sample = Sample(rows=scope.phase.logit_rows, vocab=self.vocab_size, penalties=self.penalties)
        return scope.add("sample", sample, [logits])
