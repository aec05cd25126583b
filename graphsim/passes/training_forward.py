"""The forward pass as training runs it: no cache, a loss in place of sampling, adapters in their trained format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import Gemm, KvCache, LoraA, LoraGemm, LoraInput, Loss, Op, Sample
from graphsim.ops.gradients.attention import KeysAndValues
from graphsim.ops.lora_variants import DoraNorm, DoraScale
from graphsim.passes.backward_rules import BackwardRules
from graphsim.symbolic.questions import may_be_nonzero


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingForward(Pass):
    """A graph of all logits as a trainer's forward pass.

    Keys and values pass through where inference writes a cache. A comes after a separate node where the trainer casts
    its input or applies dropout to it.
    """

    stage: ClassVar[Stage] = "logical"

    rules: BackwardRules

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Each operation separately."""
        ops: dict[str, Op] = dict(graph.nodes(data="op"))

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if isinstance(op, DoraScale):
                base = name.rpartition(".")[0]
                yield from self._scaled(name, op, inputs, base, ops.get(base))
            else:
                yield from self._steps(name, op, inputs)

        return rule

    def _scaled(self, name: str, op: DoraScale, inputs: list[Value], base: str, linear: Op | None) -> Iterator[Step]:
        """With dropout, a second GEMM on the remaining input runs in addition to W's GEMM on the whole input."""
        wide = self.rules.products(self.rules.factors(op.factors), op.activations)
        scale = replace(op, factors=wide)
        if may_be_nonzero(self.rules.lora_dropout) and type(linear) is Gemm:
            product = replace(
                linear, role=f"{linear.role}.dora_base", shared=True, bias=False, activations=wide, adapter=True,
                module="", tags=(), pack="", trained=0.0,
            )  # fmt: skip
            yield f"{base}.dora_base", product, [Value(f"{base}.lora_input")]
            inputs = [*inputs, Value(f"{base}.dora_base")]
        yield name, scale, inputs

    def _steps(self, name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
        if isinstance(op, KvCache):
            given = {f.name: getattr(op, f.name) for f in fields(KvCache)}
            yield name, KeysAndValues(**given), inputs
        elif isinstance(op, Sample):
            loss = Loss(role="loss", rows=op.rows, vocab=op.vocab, activations=op.activations)
            yield "loss" if name == "sample" else f"{name}.loss", loss, inputs
        elif isinstance(op, DoraNorm):
            factors = self.rules.products(self.rules.factors(op.factors), op.activations)
            yield name, replace(op, factors=factors), inputs
        elif isinstance(op, LoraGemm):
            yield from self._factor(name, op, inputs)
        else:
            yield name, op, inputs

    def _factor(self, name: str, op: LoraGemm, inputs: list[Value]) -> Iterator[Step]:
        """A factor in the format in which its GEMMs run; A comes after a copy of its input if it needs one."""
        rules, held = self.rules, self.rules.factors(op.weights)
        runs = rules.products(held, op.activations)
        factor = replace(op, weights=held, activations=runs)
        dropped = may_be_nonzero(rules.lora_dropout)
        cast = held.bytes != op.activations.bytes and "lora" not in rules.fused
        if isinstance(op, LoraA) and (dropped or cast) and may_be_nonzero(op.n):
            given = LoraInput(
                role=f"{op.serves[0]}.lora_input", elems=op.m * op.k * np.minimum(op.n, 1.0), source=op.activations,
                activations=runs, dropout=dropped, layer=op.layer,
            )  # fmt: skip
            before = f"{name.rpartition('.')[0]}.lora_input"
            flowing, others = inputs[:1], inputs[1:]
            yield before, given, flowing
            inputs = [Value(before), *others]
        yield name, factor, inputs
