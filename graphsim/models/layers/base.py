"""The base of layer descriptions: a frozen description that adds its operations to a graph.

Weights, shapes and wiring are written once, in `build`; parameter counts, memory and adapters' targets follow from the
operations that it adds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import networkx as nx
import numpy as np

from graphsim.brief import settings_text
from graphsim.graph import Value, add, walk
from graphsim.models.media import NO_MEDIA
from graphsim.models.phase import Phase, Segment, prefill
from graphsim.ops import Gemm, HeadGemm, Op, Part, Sharding
from graphsim.ops.formats import Format
from graphsim.ops.precision import ALIKE, Precision, load_precision
from graphsim.units import Num

NEARLY_NONE = 1e-9
"""In place of nothing where something is divided by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The node of an encoder's output, and how many elements that has in a step."""

    node: str
    elems: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The context in which a layer is built.

    hidden: width of the residual stream
    prefix: module path of the layer, `{}` standing for its index
    label: prefix of node names if one graph holds several layers
    layer: the layer's position in the repeat's body
    index: the layer's index in the model; in a repeat, that of the first layer
    source: an encoder's output, for layers that attend to it
    streams: of the residual, each of `hidden` elements
    """

    graph: nx.DiGraph
    phase: Phase
    precision: Precision
    hidden: Num
    prefix: str = ""
    label: str = ""
    layer: int = 0
    index: int = 0
    source: Source | None = None
    streams: Num = 1

    @property
    def tokens(self) -> Num:
        """Rows of every GEMM."""
        return self.phase.tokens

    @property
    def along(self) -> dict[str, Any]:
        """The fields of the step for operations along sequences."""
        phase = self.phase
        return {
            "sequences": phase.sequences, "tokens": phase.tokens, "decode": phase.decodes, "decoding": phase.decoding,
        }  # fmt: skip

    @property
    def activations(self) -> Format:
        """Format of activations."""
        return self.precision.activations

    def add(self, name: str, op: Op, inputs: Iterable[str | Value]) -> str:
        """Add an operation under a name that is unique in the graph; returns the full name."""
        full = unique(self.graph, self.label + name)
        op = replace(op, role=op.role or name, activations=self.activations, layer=self.layer)
        return add(self.graph, full, op, inputs)

    def elems_of(self, value: Value) -> Num:
        """Elements of a value."""
        op: Op = self.graph.nodes[value.node]["op"]
        if not value.parts:
            return op.out_elems
        sizes = op.out_parts
        return sum((sizes[part] for part in value.parts), start=0.0)

    def rows_of(self, segment: Segment, value: Value) -> Value:
        """What a value holds for the sequences of one segment; all of it where the step has no other."""
        if len(self.phase.segments) == 1:
            return value
        from graphsim.ops import SomeRows

        elems = self.elems_of(value) * (segment.tokens / np.maximum(self.tokens, NEARLY_NONE))
        name = ".".join((value.node.removeprefix(self.label), *value.parts, "rows"))
        return Value(self.add(name, SomeRows(elems=elems), [value]))

    def linear(
        self, projection: Projection, source: str | Value | None, *, m: Num | None = None, name: str = ""
    ) -> str:
        """Add a projection as a GEMM on `m` rows (all tokens by default), named as its module unless told otherwise.

        source: None for a projection without rows and without an input
        """
        name = name or projection.name.rsplit(".", 1)[-1]
        op = projection.kind(
            m=self.tokens if m is None else m,
            n=projection.n,
            k=projection.k,
            split=projection.split,
            units=projection.units,
            bias=projection.bias,
            weights=self.weights_of(projection),
            module="" if projection.bare else f"{self.prefix}{projection.name}",
            linear=projection.linear,
            shared=projection.shared,
            head=projection.head,
            bare=projection.parameter,
            tags=projection.tags,
            pack=projection.pack,
            parts=projection.parts,
        )
        return self.add(name, op, [] if source is None else [source])

    def weights_of(self, projection: Projection) -> Format:
        """The format of a projection's weights: attention's may differ from the rest."""
        attention = self.precision.attention if "attn" in projection.tags else None
        usual = (attention or self.precision.weights) if projection.quantised else self.activations
        return self.format_of(projection.name, usual)

    def table_format(self, module: str) -> Format | None:
        """The format of an embedding's table; None if it is the activations'."""
        return self.precision.modules.of(module, self.index)

    def format_of(self, name: str, usual: Format) -> Format:
        """The format of the weights of a module, by its name below the layer: its own, or the default of its kind."""
        own = self.precision.modules
        return usual if own is ALIKE else own.of(f"{self.prefix}{name}", self.index) or usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A linear layer: `name` below the layer's module path, `n` outputs, `k` inputs; see `Gemm` for the rest.

    bare: a weight without a module of its own, which no adapter reaches
    parameter: a weight that is a parameter of the layer's code, which of PEFT's methods only LoRA reaches
    groups: of outputs, each with k inputs of its own; 0 = all outputs read the same
    heads: each with a GEMM of its own, of n outputs and k inputs; 0 = one GEMM
    head: its results are the model's logits
    """

    name: str
    n: Num
    k: Num
    split: Sharding = Sharding.REPLICATED
    units: Num = 0
    groups: Num = 0
    heads: Num = 0
    bias: bool = False
    tags: tuple[str, ...] = ()
    pack: str = ""
    linear: bool = True
    quantised: bool = True
    shared: bool = False
    bare: bool = False
    parameter: bool = False
    head: bool = False
    parts: tuple[Part, ...] = ()

    @property
    def kind(self) -> Callable[..., Gemm]:
        """The class of the operation."""
        if self.heads:
            return partial(HeadGemm, heads=self.heads)
        if self.groups:
            from graphsim.ops import GroupedGemm

            return partial(GroupedGemm, groups=self.groups)
        return Gemm


class Layer(ABC):
    """A part of a model that can add itself to a graph. Subclasses are frozen dataclasses, one file per family."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        """Every kind of layer shows only the fields that differ from their defaults."""
        cls.__repr__ = Layer.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return settings_text(self)

    @abstractmethod
    def build(self, scope: Scope, x: str) -> str:
        """Add the operations that turn the value `x` into the returned node's result."""


def unique(graph: nx.DiGraph, name: str) -> str:
    """The name itself, or with the first free number after it."""
    if name not in graph:
        return name
    number = 2
    while f"{name}_{number}" in graph:
        number += 1
    return f"{name}_{number}"


def parameters_of(build: Callable[[Scope], object], hidden: Num) -> int:
    """Exact number of weights among the operations that `build` adds for one token."""
    phase = prefill(1.0, 1.0, media=NO_MEDIA)
    scope = Scope(graph=nx.DiGraph(), phase=phase, precision=load_precision("bf16"), hidden=hidden)
    build(scope)
    return sum(round(float(op.parameters)) * times for _, op, times in walk(scope.graph))
