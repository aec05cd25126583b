"""Injection of adapters into the graph: three nodes around each matched GEMM (dynamic), or one before it (merge).

Each variant defines the nodes that it adds around a module (`graphsim.lora.variants`); other trained weights are in
`graphsim.lora.beside`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, ClassVar

import networkx as nx

from graphsim.errors import ConfigError
from graphsim.graph import Pass, Rule, Stage, Step, Value, rewrite, walk
from graphsim.graph.building import require_graph
from graphsim.lora.beside import Beside
from graphsim.lora.config import LoraConfig
from graphsim.lora.expert_factors import ExpertFactors
from graphsim.lora.factors import factors_of, table_factors
from graphsim.lora.schemes import SCHEMES
from graphsim.lora.targets import Module, Targets, fail_if_unmatched, modules_of, rank_factor
from graphsim.lora.variant import Site
from graphsim.ops import Embedding, ExpertGemm, Gemm, Input, LoraMerge, Op, Repeat, Sharding
from graphsim.ops.formats import FORMATS
from graphsim.ops.structure import last_node
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num, short


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """An engine's adapter buffers.

    rank: the rank to which factors are padded, None for each adapter's own
    every_linear: whether linears without an adapter also have buffers, and run kernels on zeros
    expert_layout: layout of fused gate and up: `parameter`, `projections` or `fused`, as in a profile
    ends: whether the token embedding and the output head have buffers
    merge_passes: 16-bit temporaries that a merge reads and writes
    tp_scheme: how factors are sharded over a tensor-parallel group, unless the adapter says otherwise
    """

    rank: Num | None = None
    every_linear: bool = False
    expert_layout: str = "parameter"
    ends: bool = False
    merge_passes: float = 0.0
    tp_scheme: str = "vllm"


def inject(graph: nx.DiGraph, lora: LoraConfig | None, buffers: Buffers | None = None) -> nx.DiGraph:
    """The graph with the adapter's nodes; the graph itself where there is no adapter.

    buffers: the engine's buffers, where they differ from the adapter itself; not needed for a merged adapter

    Layers whose modules get different ranks are separated, so one repeat may become several.
    Raises ConfigError for a target that matches nothing, listing what could match, and for what is no LoraConfig.
    """
    require_graph(graph)
    if not isinstance(lora, LoraConfig | None):
        raise ConfigError(f"lora = {short(lora)} is not a LoraConfig")
    if lora is None or not lora.enabled:
        return graph
    return Inject(lora=lora, buffers=buffers or Buffers())(graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inject(Pass):
    """Inserts an adapter's nodes around its target modules; see `inject`.

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
        """Raises ConfigError after the last node, if the adapter or a target matched nothing."""
        injector = _Injector(self, graph)
        first, last = next(name for name, op in graph.nodes(data="op") if not isinstance(op, Input)), last_node(graph)

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if name == first:
                for part, held in injector.shared(graph):
                    yield part, held, []
                    inputs = [*inputs, Value(part)]
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
        """The same pass as for the enclosing graph."""
        return repeat.body

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The injector's, for these layers."""
        return partial(self.injector.steps, first=self.first)


def lora_parameters_of(graph: nx.DiGraph) -> Num:
    """Trainable weights of one adapter as injected in a graph: r (k + n) per module, summed over layers."""
    return sum((op.trainable_parameters * times for _, op, times in walk(graph)), start=0.0)


def trained_by_module(graph: nx.DiGraph) -> dict[str, Num]:
    """Trainable weights of each module with an adapter, by its path as PEFT sees it."""
    return dict(_trained(graph, range(1)))


def trained_by_all(graph: nx.DiGraph) -> dict[str, Num]:
    """Trainable weights that all modules share, such as VB-LoRA's vector bank, by the name of their node."""
    shared = {name: op for name, op in graph.nodes(data="op") if op.adapter and "." not in name}
    return {name: op.trainable_parameters for name, op in shared.items() if may_be_nonzero(op.trainable_parameters)}


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
    """The rule for one graph and all bodies in it; records whether it has matched any module."""

    def __init__(self, inject: Inject, graph: nx.DiGraph) -> None:
        lora = inject.lora
        self.lora, self.dynamic = lora, lora.strategy == "dynamic"
        self.buffers = inject.buffers if self.dynamic else Buffers(merge_passes=inject.buffers.merge_passes)
        self.format = FORMATS[lora.lora_dtype]
        self.scheme = SCHEMES[lora.chosen_scheme or self.buffers.tp_scheme]
        self.experts = ExpertFactors(lora, self.scheme, self.buffers.expert_layout)
        self.reached = False
        tables = (op for _, op in graph.nodes(data="op") if isinstance(op, Embedding) and not op.whole)
        self.table = next(tables, None)
        tied = any(isinstance(op, Gemm) and op.head and op.shared for _, op in graph.nodes(data="op"))
        self.targets = Targets(lora, tied)
        self.tells_layers = self.targets.tells_layers
        self.beside = Beside(lora=lora, tied=tied)

    def shared(self, graph: nx.DiGraph) -> Iterator[tuple[str, Op]]:
        """Nodes that all modules with the adapter share."""
        if not self.dynamic:
            return
        found = {
            (op.k, op.n)
            for op, path in modules_of(graph, layers=self.tells_layers)
            if isinstance(op, Gemm) and self.targets.key(op, path) is not None
        }
        if found:
            yield from self.lora.kind.shared(sorted(found), self.lora)

    def steps(self, name: str, op: Op, inputs: list[Value], first: int) -> Iterator[Step]:
        """The nodes that replace a node whose layer offset counts from layer `first`."""
        return self._repeat(name, op, inputs) if isinstance(op, Repeat) else self._op(name, op, inputs, first)

    def _path(self, op: Op, first: int) -> str:
        return str(getattr(op, "module", "")).replace("{}", str(first + op.layer))

    def _key(self, op: Op, first: int) -> tuple[int | None, bool, int]:
        """A key of a node that differs between layers with different adapters."""
        path = self._path(op, first)
        key = self.targets.key(op, path) if path and self._takes(op) else None
        return key, self.beside.is_copied(op, path), self.beside.rows(op, path)

    def _takes(self, op: Op) -> bool:
        return isinstance(op, Module) or self.lora.kind.copies

    def _repeat(self, name: str, op: Repeat, inputs: list[Value]) -> Iterator[Step]:
        def keys(i: int) -> tuple[tuple[int | None, bool, int], ...]:
            first = op.first_layer + i * op.layers
            return tuple(self._key(inner, first) for _, inner in op.body.nodes(data="op"))

        groups = (
            (list(group) for _, group in groupby(range(op.times), keys)) if self.tells_layers else [range(op.times)]
        )
        for turns in groups:
            first = op.first_layer + turns[0] * op.layers
            last = first + len(turns) * op.layers - 1
            whole = len(turns) == op.times
            tower = name[: name.rfind(".") + 1]
            step = name if whole else f"{tower}layers_{first}_{last}" if last > first else f"{tower}layer_{first}"
            body = rewrite(op.body, _Layers(injector=self, first=first))
            yield step, replace(op, body=body, times=len(turns), first_layer=first), inputs
            inputs = [Value(step), *inputs[1:]]

    def _op(self, name: str, op: Op, inputs: list[Value], first: int) -> Iterator[Step]:
        key, copied, rows = self._key(op, first)
        self.reached = self.reached or key is not None or rows > 0
        if self.dynamic:
            beside = list(self.beside.ahead(name, op, self._path(op, first), key is not None))
            yield from beside
            inputs = [*inputs, *(Value(step) for step, *_ in beside)]
        if not isinstance(op, Module) or self.lora.kind.copies or (key is None and not self._has_buffers(op)):
            yield name, op, inputs
            return
        rank = self._rank(key, op)
        if self.dynamic:
            yield from self._dynamic(name, op, inputs, rank, key is not None)
        else:
            yield from self._merge(name, op, inputs, rank)

    def _has_buffers(self, op: Module) -> bool:
        """Whether a module has buffers. Experts do if the engine knows their pairs, whether or not they are targets.

        So do linears of attention and MLPs that PEFT's all-linear does not match, such as those of a shared expert.
        """
        if op is self.table or (isinstance(op, Gemm) and op.head):
            return self.buffers.ends
        if isinstance(op, ExpertGemm):
            return self.buffers.every_linear and self.buffers.expert_layout != "parameter"
        return self.buffers.every_linear and bool(op.module) and (op.linear or bool(op.tags))

    def _rank(self, key: int | None, op: Module) -> Num:
        """Rank of one slice."""
        parameter = self.buffers.expert_layout == "parameter"
        if self.buffers.rank is not None:
            return self.buffers.rank * (rank_factor(op) if parameter else 1)
        if key is None:
            return self.lora.largest_rank
        return self.targets.rank(key, op) if parameter else self.targets.slice_rank(key)

    def _merge(self, name: str, op: Module, inputs: list[Value], rank: Num) -> Iterator[Step]:
        shape: dict[str, Any]
        if isinstance(op, Embedding):  # sharded over its entries
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
        if not isinstance(op, Embedding):
            merge = self.lora.kind.merged(self._site(name, op, inputs, rank, reached=True), merge)
        yield f"{name}.lora_merge", merge, []
        yield name, op, [*inputs, Value(f"{name}.lora_merge")]

    def _dynamic(self, name: str, op: Module, inputs: list[Value], rank: Num, reached: bool) -> Iterator[Step]:
        if not isinstance(op, Embedding):
            yield from self.lora.kind.steps(self._site(name, op, inputs, rank, reached))
        elif self.lora.kind.table == "factors":
            yield from table_factors(name, op, inputs, self.lora, rank)
        else:
            yield from self.lora.kind.on_table(name, op, inputs, self.lora)

    def _site(self, name: str, op: Gemm, inputs: list[Value], rank: Num, reached: bool) -> Site:
        if may_be_nonzero(rank):
            self.lora.kind.require_format(op, self.lora.strategy)
        if isinstance(op, ExpertGemm):
            a, b, joined = self.experts.of(op, rank, reached)
        else:
            a, b, joined = factors_of(op, self.lora, self.scheme, rank)
        return Site(name=name, op=op, inputs=inputs, a=a, b=b, joined=joined, lora=self.lora)


def require_layers(lora: LoraConfig, layers: int) -> None:
    """Raise ConfigError if `layers_to_transform` names a layer that the model does not have."""
    wanted = lora.layers_to_transform
    if isinstance(wanted, tuple) and any(i >= layers for i in wanted):
        raise ConfigError(
            f"lora.layers_to_transform = {list(wanted)} is not allowed; the model has layers 0 to {layers - 1}"
        )
