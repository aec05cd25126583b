"""Adapters as modules of a framework (PEFT): every factor, scaling and addition is a kernel of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Step, Value, inputs_of
from graphsim.ops import Collective, ExpertGemm, LoraAdd, ModuleNorm, ModuleScale, ModuleSteps, Op
from graphsim.ops.adapter_values import ColumnScale, RotateInput
from graphsim.ops.adapter_weights import BuiltWeights, HeldWeights
from graphsim.ops.formats import FORMATS, Format
from graphsim.ops.lora import LoraA, LoraGemm
from graphsim.ops.lora_experts import ExpertLoraAdd, LoraDelta
from graphsim.ops.lora_kernels import LoraLookup
from graphsim.ops.lora_variants import DoraNorm, DoraScale
from graphsim.ops.overrides import OverridingGemm
from graphsim.passes.eager import steps_of
from graphsim.passes.engine import Engine, back_to, source, terms
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteExperts(Pass):
    """Experts' adapters as PEFT runs them: every forward pass writes W + B A of all experts and then uses it.

    PEFT 0.21, `tuners/lora/layer.py`, ParamWrapper (`target_parameters`): a parametrisation of the whole tensor.
    """

    engine: Engine

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The factors are removed, and the base's result replaces the sum."""
        downs: dict[str, LoraA] = {}
        stand_in: dict[str, int] = {}
        for name, op in graph.nodes(data="op"):
            if isinstance(op, ExpertLoraAdd):
                values = inputs_of(graph, name)
                up, base = terms(graph, name)
                a, behind = back_to(graph, values[up].node, LoraA)
                downs[source(graph, values[base].node)] = graph.nodes[a]["op"]
                ahead = _ahead_of(graph, a)
                stand_in |= dict.fromkeys((*ahead, a, *behind), 0) | {name: base}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in stand_in:
                yield inputs[stand_in[name]]
                return
            if isinstance(op, ExpertGemm) and name in downs:
                yield f"{name}.lora_delta", self._delta(op, downs[name]), []
                inputs = [*inputs, Value(f"{name}.lora_delta")]
            yield name, op, inputs

        return rule

    def _delta(self, op: ExpertGemm, a: LoraA) -> LoraDelta:
        return LoraDelta(
            role=f"{op.role}.lora_delta", n=op.n, k=op.k, rank=a.n, present=np.minimum(a.m, 1.0), copies=op.experts,
            weights=op.weights, factors=self.engine.kept(a.weights), scratch_passes=self.engine.profile.merge_passes,
            activations=op.activations, layer=op.layer, residency=a.residency,
        )  # fmt: skip


def _ahead_of(graph: nx.DiGraph, a: str) -> list[str]:
    """The adapter's nodes between the experts' input and A."""
    found: list[str] = []
    source = inputs_of(graph, a)[0].node
    while graph.nodes[source]["op"].adapter:
        found.append(source)
        source = inputs_of(graph, source)[0].node
    return found


INDEX, TAKE_BACK = 2.0, 4.0
"""Further kernels of each adapter in a batch of several (PEFT 0.21, `_mixed_batch_forward`): the list of its rows is
copied to the device and the rows are taken before A; both once more for the sum, which is then scattered back."""

INDEX_BYTES, TAKE_BACK_BYTES = 4.0, 8.0
"""Read and written by them, for each 16-bit element."""

CAST_BYTES, CAST_BACK_BYTES = 8.0, 16.0
"""Extra bytes per element with fp32 factors on 16-bit activations: the cast of an input (2 + 4), which
A then reads (2 more); of a result, B's writes (2), the scaling (4) and the sum (4) in four bytes, the cast back (6)."""

SCALED_CASTS, ROTATED_CASTS = 8.0, 16.0
"""The same of values that are scaled or rotated in fp32: a product with fp32 numbers writes four bytes (2 more), which
are read and cast back (6); before a rotation they are cast first (6), and read (2) and written (2) in four bytes."""

DORA_NORM = 8.0
"""Kernels of PEFT 0.21's DoraLinearLayer.forward up to its factor: the identity's zeros and diagonal, A and B on it,
the scaling, the sum with W, its norm, and the magnitude over that; with fp32 factors on a 16-bit W a cast of W too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallModules(Pass):
    """One module call per adapter: A, B, a scaling where the variant has one, and an addition, one kernel each.

    In addition, the kernels that take an adapter's rows out of a batch of several, and the casts of factors in fp32
    (PEFT 0.21, `tuners/lora/layer.py`, Linear.forward and _mixed_batch_forward; `tuners/lora/dora.py`).
    An adapter of rank 0 causes no call.
    """

    engine: Engine

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The scaling is inserted between the adapter's result and the ADD."""
        lives: dict[str, Num] = {}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            base = name.rpartition(".")[0]
            first = isinstance(op, LoraA | LoraLookup) or (isinstance(op, LoraGemm) and base not in lives)
            if isinstance(op, LoraGemm | LoraLookup) and first:
                rows = op.rows if isinstance(op, LoraLookup) else op.m
                lives[base] = np.greater(op.n * rows, 0.0)[()]
            calls = self.engine.lora.active_adapters * lives.get(base, 1.0)
            if isinstance(op, LoraGemm):
                op = self._factor(op, calls)
            if isinstance(op, LoraLookup):
                op = replace(op, launches=calls, weights=self.engine.kept(op.weights))
            elif isinstance(op, LoraGemm) and first:
                yield f"{base}.lora_input", self._input(op, calls), inputs
                inputs = [*inputs, Value(f"{base}.lora_input")]
            elif type(op) is LoraAdd:
                up, _ = terms(graph, name)
                if self.engine.lora.kind.scaled:
                    yield f"{base}.lora_scale", self._scale(op, calls), [inputs[up]]
                    inputs = [Value(f"{base}.lora_scale") if i == up else value for i, value in enumerate(inputs)]
                yield f"{base}.lora_result", self._result(op, calls), [inputs[up]]
                op = replace(op, launches=calls, rows=op.rows * np.minimum(calls, 1.0))
                inputs = [*inputs, Value(f"{base}.lora_result")]
            elif isinstance(op, DoraNorm):
                op = self._norm(op, calls)
            elif isinstance(op, BuiltWeights | HeldWeights):
                op = self._weights(op)
            elif isinstance(op, OverridingGemm) and op.remade == "factors":
                op = replace(op, weights=self.engine.kept(op.weights))
            elif isinstance(op, ColumnScale | RotateInput):
                op, casts = self._values(op)
                yield f"{name}_casts", casts, inputs
                inputs = [*inputs, Value(f"{name}_casts")]
            elif isinstance(op, Collective) and ".dora_norm." in op.role:
                op = self._norm_exchange(op, self.engine.lora.active_adapters)
            elif isinstance(op, DoraScale):
                rows = op.rows * np.minimum(calls, 1.0)
                op = replace(op, launches=op.launches * calls, rows=rows, factors=self.engine.kept(op.factors))
            yield name, op, inputs

        return rule

    def _casts(self, activations: Format) -> float:
        return float(self.engine.format.bytes > activations.bytes)

    def _factor(self, op: LoraGemm, calls: Num) -> LoraGemm:
        return replace(op, launches=calls, weights=self.engine.kept(op.weights))

    def _weights(self, op: BuiltWeights | HeldWeights) -> BuiltWeights | HeldWeights:
        """Parameters, and the weights computed from them, in their storage format."""
        if isinstance(op, HeldWeights):
            wider = self.engine.format.bytes / FORMATS[self.engine.lora.lora_dtype].bytes
            return replace(op, stored_bytes=op.stored_bytes * wider) if op.factors else op
        calls, kept = self.engine.lora.active_adapters * np.minimum(op.rank, 1.0), self.engine.kept(op.factors)
        made = self.engine.kept(op.made) if op.as_factors else op.made
        return replace(op, factors=kept, made=made, launches=op.launches * calls)

    def _values(self, op: ColumnScale | RotateInput) -> tuple[ColumnScale | RotateInput, ModuleSteps]:
        """A step on values, and the casts to the parameters' format and back around it."""
        rotates, casts = isinstance(op, RotateInput), self._casts(op.activations)
        calls = self.engine.lora.active_adapters * np.minimum(op.launches, 1.0)
        width = op.width if isinstance(op, RotateInput) else op.n
        moved = casts * (ROTATED_CASTS if rotates else SCALED_CASTS)
        steps = steps_of(op, calls * casts * (2.0 if rotates else 1.0), op.rows * width, moved)
        launches = op.launches * self.engine.lora.active_adapters
        changed = replace(op, weights=self.engine.kept(op.weights), launches=launches)
        return changed, replace(steps, role=f"{op.role}_casts")

    def _input(self, op: LoraGemm, calls: Num) -> ModuleSteps:
        casts, several = self._casts(op.activations), np.greater(calls, 1.0)[()]
        elems, moved = op.m * op.k * np.minimum(calls, 1.0), CAST_BYTES * casts + INDEX_BYTES * several
        steps = steps_of(op, calls * (casts + INDEX * several), elems, moved)
        return replace(steps, role=f"{op.serves[0]}.lora_input")

    def _scale(self, op: LoraAdd, calls: Num) -> ModuleScale:
        return ModuleScale(
            role=f"{op.serves[0]}.lora_scale", elems=op.added, launches=calls, activations=op.activations,
            layer=op.layer,
        )  # fmt: skip

    def _result(self, op: LoraAdd, calls: Num) -> ModuleSteps:
        casts, several = self._casts(op.activations), np.greater(calls, 1.0)[()]
        elems, moved = op.added * np.minimum(calls, 1.0), CAST_BACK_BYTES * casts + TAKE_BACK_BYTES * several
        steps = steps_of(op, calls * (casts + TAKE_BACK * several), elems, moved)
        return replace(steps, role=f"{op.serves[0]}.lora_result")

    def _norm_exchange(self, op: Collective, calls: Num) -> Collective:
        """The exchange between devices for one norm, repeated for each adapter."""
        return replace(op, elems=op.elems * calls, activations=self.engine.kept(op.activations))

    def _norm(self, op: DoraNorm, calls: Num) -> ModuleNorm:
        norm = ModuleNorm(**{f.name: getattr(op, f.name) for f in fields(op)})
        norm = replace(norm, factors=self.engine.kept(op.factors), copies=calls)
        return replace(norm, launches=(DORA_NORM + norm.casts) * calls)
