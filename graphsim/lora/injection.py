"""Adapters enter the graph: three nodes around each matched GEMM (dynamic), or one in front of it (merge).

A factor is cut where its base is cut: a column-parallel base cuts B over n, a row-parallel one cuts A over k and
its partial result rides on the base's all-reduce. Sharding itself needs no knowledge of adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import groupby
from typing import Any, ClassVar

import networkx as nx
import numpy as np

from graphsim.errors import ConfigError
from graphsim.graph import Pass, Rule, Stage, Step, Value, rewrite, walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.expert_factors import ExpertFactors
from graphsim.lora.schemes import SCHEMES
from graphsim.lora.targets import Module, Targets, fail_if_unmatched, rank_factor
from graphsim.lora.variant import Site
from graphsim.ops import Embedding, ExpertGemm, Gemm, LoraA, LoraAdd, LoraB, LoraMerge, Op, Repeat, Sharding
from graphsim.ops.formats import FORMATS
from graphsim.ops.lora_kernels import LoraLookup
from graphsim.ops.structure import last_node
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """An engine's adapter buffers.

    rank: what factors are padded to, None for each adapter's own
    every_linear: whether linears that no adapter reaches have buffers too, and run kernels on zeros
    expert_layout: what it holds of fused gate and up: `parameter`, `projections` or `fused`, as in a profile
    ends: the same of the token embedding and the output head
    merge_passes: 16-bit temporaries that its merge reads and writes
    tp_scheme: how it cuts factors over a tensor-parallel group, unless the adapter says otherwise
    """

    rank: Num | None = None
    every_linear: bool = False
    expert_layout: str = "parameter"
    ends: bool = False
    merge_passes: float = 0.0
    tp_scheme: str = "vllm"


def inject(graph: nx.DiGraph, lora: LoraConfig | None, buffers: Buffers | None = None) -> nx.DiGraph:
    """The graph with the adapter's nodes; the graph itself where there is no adapter.

    buffers: of the engine, where they differ from the adapter itself; a merged adapter needs none

    Layers whose modules get different ranks are told apart, so one repeat may become several.
    Raises ConfigError for a target that matches nothing, listing what could match.
    """
    if lora is None or not lora.enabled:
        return graph
    return Inject(lora=lora, buffers=buffers or Buffers())(graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inject(Pass):
    """Puts an adapter's nodes around the modules that it reaches; see `inject`.

    everywhere: whether the graph is the whole model, so that an adapter or target that matches nothing is a mistake
    """

    stage: ClassVar[Stage] = "logical"

    lora: LoraConfig
    buffers: Buffers = Buffers()
    everywhere: bool = True

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """The rule rewrites bodies itself, since one repeat may become several."""
        return repeat.body

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Raises ConfigError behind the last node, where the adapter or a target matched nothing."""
        injector = _Injector(self, graph)
        last = last_node(graph)

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield from injector.steps(name, op, inputs, 0)
            if name == last and self.everywhere:
                fail_if_unmatched(self.lora, graph, injector.reached)

        return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layers(Pass):
    """A body whose layer offsets count from layer `first`."""

    injector: _Injector
    first: int

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """As outside."""
        return repeat.body

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The injector's, for these layers."""
        return partial(self.injector.steps, first=self.first)


def lora_parameters_of(graph: nx.DiGraph) -> Num:
    """Trainable weights of one adapter as injected in a graph: r (k + n) per module, summed over layers."""
    return sum((op.trainable_parameters * times for _, op, times in walk(graph)), start=0.0)


def trained_by_module(graph: nx.DiGraph) -> dict[str, Num]:
    """The same of each module that an adapter is on, by its path as PEFT sees it."""
    return dict(_trained(graph, range(1)))


def _trained(graph: nx.DiGraph, firsts: range) -> Iterator[tuple[str, Num]]:
    own: dict[str, Num] = {}
    for name, op in graph.nodes(data="op"):
        if op.adapter:
            base = name.rpartition(".")[0]
            own[base] = own.get(base, 0.0) + op.trainable_parameters
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            yield from _trained(op.body, range(op.first_layer, op.first_layer + op.times * op.layers, op.layers))
        elif name in own:
            yield from ((op.module.replace("{}", str(first + op.layer)), own[name]) for first in firsts)


class _Injector:
    """The rule for one graph and all bodies in it: remembers whether it has reached any module."""

    def __init__(self, inject: Inject, graph: nx.DiGraph) -> None:
        lora = inject.lora
        dynamic = lora.strategy == "dynamic"
        self.lora, self.targets = lora, Targets(lora)
        self.buffers = inject.buffers if dynamic else Buffers(merge_passes=inject.buffers.merge_passes)
        self.format = FORMATS[lora.lora_dtype]
        self.scheme = SCHEMES[lora.chosen_scheme or self.buffers.tp_scheme]
        self.experts = ExpertFactors(lora, self.scheme, self.buffers.expert_layout)
        self.reached = False
        tables = (op for _, op in graph.nodes(data="op") if isinstance(op, Embedding) and not op.whole)
        self.table = next(tables, None)

    def steps(self, name: str, op: Op, inputs: list[Value], first: int) -> Iterator[Step]:
        """What becomes of a node whose layer offset counts from layer `first`."""
        return self._repeat(name, op, inputs) if isinstance(op, Repeat) else self._op(name, op, inputs, first)

    def _key(self, op: Op, first: int) -> int | None:
        if not isinstance(op, Module) or not op.module:
            return None
        return self.targets.key(op, op.module.replace("{}", str(first + op.layer)))

    def _repeat(self, name: str, op: Repeat, inputs: list[Value]) -> Iterator[Step]:
        def keys(i: int) -> tuple[int | None, ...]:
            first = op.first_layer + i * op.layers
            return tuple(self._key(inner, first) for _, inner in op.body.nodes(data="op"))

        for _, group in groupby(range(op.times), keys):
            turns = list(group)
            first = op.first_layer + turns[0] * op.layers
            last = first + len(turns) * op.layers - 1
            whole = len(turns) == op.times
            tower = name[: name.rfind(".") + 1]
            step = name if whole else f"{tower}layers_{first}_{last}" if last > first else f"{tower}layer_{first}"
            body = rewrite(op.body, _Layers(injector=self, first=first))
            yield step, replace(op, body=body, times=len(turns), first_layer=first), inputs
            inputs = [Value(step), *inputs[1:]]

    def _op(self, name: str, op: Op, inputs: list[Value], first: int) -> Iterator[Step]:
        key = self._key(op, first)
        self.reached = self.reached or key is not None
        if not isinstance(op, Module) or (key is None and not self._has_buffers(op)):
            yield name, op, inputs
            return
        rank = self._rank(key, op)
        if self.lora.strategy == "merge":
            yield from self._merge(name, op, inputs, rank)
        else:
            yield from self._dynamic(name, op, inputs, rank, key is not None)

    def _has_buffers(self, op: Module) -> bool:
        """Experts have them where the engine knows their pairs, whether or not an adapter may reach them.

        So do an attention's and an MLP's linears that PEFT's all-linear passes over, such as a shared expert's.
        """
        if op is self.table or (isinstance(op, Gemm) and op.head):
            return self.buffers.ends
        if isinstance(op, ExpertGemm):
            return self.buffers.every_linear and self.buffers.expert_layout != "parameter"
        return self.buffers.every_linear and bool(op.module) and (op.linear or bool(op.tags))

    def _rank(self, key: int | None, op: Module) -> Num:
        """Of one slice."""
        parameter = self.buffers.expert_layout == "parameter"
        if self.buffers.rank is not None:
            return self.buffers.rank * (rank_factor(op) if parameter else 1)
        if key is None:
            return self.lora.largest_rank
        return self.targets.rank(key, op) if parameter else self.targets.slice_rank(key)

    def _merge(self, name: str, op: Module, inputs: list[Value], rank: Num) -> Iterator[Step]:
        shape: dict[str, Any]
        if isinstance(op, Embedding):  # cut over its entries
            shape = {"n": op.width, "k": op.entries, "split": Sharding.ROW}
        else:
            shape = {"n": op.n, "k": op.k, "split": op.split, "units": op.units, "weights": op.weights}
        merge = LoraMerge(
            role=f"{op.role}.lora_merge",
            **shape,
            rank=rank,
            copies=op.experts if isinstance(op, ExpertGemm) else 1.0,
            factors=self.format,
            scratch_passes=self.buffers.merge_passes + self.lora.kind.merge_passes,
            layer=op.layer,
        )
        yield f"{name}.lora_merge", merge, []
        yield name, op, [*inputs, Value(f"{name}.lora_merge")]

    def _dynamic(self, name: str, op: Module, inputs: list[Value], rank: Num, reached: bool) -> Iterator[Step]:
        if isinstance(op, Embedding):
            yield from self._table(name, op, inputs, rank)
            return
        made = self.experts.of(op, rank, reached) if isinstance(op, ExpertGemm) else self._factors(op, rank)
        a, b, joined = made
        site = Site(name=name, op=op, inputs=inputs, a=a, b=b, joined=joined, lora=self.lora)
        yield from self.lora.kind.steps(site)

    def _table(self, name: str, op: Embedding, inputs: list[Value], rank: Num) -> Iterator[Step]:
        """Rows of a table of its own, widened by B; whole on every device (PEFT 0.21, `tuners/lora/layer.py`)."""
        rows = op.tokens * self.lora.adapter_share
        live = np.minimum(self.lora.active_adapters, 1.0) * np.minimum(rank, 1.0)
        yield name, op, inputs
        look_up = LoraLookup(
            role=f"{op.role}.lora_a", rows=rows * live, n=rank, vocabulary=op.entries, weights=self.format,
            launches=live, activations=op.activations,
        )  # fmt: skip
        yield f"{name}.lora_a", look_up, inputs
        b = LoraB(
            role=f"{op.role}.lora_b", m=rows, n=op.width, k=rank, split=Sharding.REPLICATED, weights=self.format,
            activations=op.activations, adapters=self.lora.active_adapters,
        )  # fmt: skip
        yield f"{name}.lora_b", b, [Value(f"{name}.lora_a")]
        joined = LoraAdd(
            role=f"{op.role}.lora_add", m=op.tokens, n=op.width, rows=rows * live, activations=op.activations
        )
        yield f"{name}.lora_add", joined, [Value(name), Value(f"{name}.lora_b")]

    def _factors(self, op: Gemm, rank: Num) -> tuple[LoraA, LoraB, LoraAdd]:
        lora, scheme = self.lora, self.scheme
        whole = op.head and scheme.whole_head
        row, column = op.split is Sharding.ROW, op.split is Sharding.COLUMN and not whole
        rows = op.m * lora.adapter_share
        a = LoraA(
            role=f"{op.role}.lora_a",
            m=rows,
            n=rank,
            k=op.k,
            split=Sharding.ROW if row else Sharding.REPLICATED if whole else scheme.column_a,
            units=op.units if row else 0.0,
            weights=self.format,
            activations=op.activations,
            adapters=lora.active_adapters,
            layer=op.layer,
        )
        b = replace(
            LoraB(**{f.name: getattr(a, f.name) for f in fields(a)}),
            role=f"{op.role}.lora_b",
            n=op.n,
            k=rank,
            split=Sharding.COLUMN if column else scheme.row_b if row else Sharding.REPLICATED,
            units=0.0 if row else op.units,
            parts=() if row else op.parts,
            bias=lora.bias,
        )
        live = np.minimum(rank, 1.0)
        joined = LoraAdd(
            role=f"{op.role}.lora_add",
            m=op.m,
            n=op.n,
            rows=rows * live,
            units=op.units,
            parts=op.parts,
            in_place=scheme.row_in_place and not whole,
            activations=op.activations,
            layer=op.layer,
        )
        return a, b, joined


def require_layers(lora: LoraConfig, layers: int) -> None:
    """Raise ConfigError if `layers_to_transform` names a layer that the model does not have."""
    wanted = lora.layers_to_transform
    if isinstance(wanted, tuple) and any(i >= layers for i in wanted):
        raise ConfigError(
            f"lora.layers_to_transform = {list(wanted)} is not allowed; the model has layers 0 to {layers - 1}"
        )
