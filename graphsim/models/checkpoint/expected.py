"""The weights of a model's structure, each with its module's path, its shape and its format."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import networkx as nx

from graphsim.models.build import build
from graphsim.models.checkpoint.names import plain, scope_of
from graphsim.models.config import ModelConfig
from graphsim.models.phase import prefill
from graphsim.ops import CollapseStreams, Embedding, ExpertGemm, Gemm, Op, Repeat, Sharding
from graphsim.ops.formats import Format
from graphsim.ops.precision import Precision
from graphsim.ops.streams import WEIGHT_BYTES

_SHARED, _PAIRS = "shared_transformer.", "_adapter_list."


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """The weights of one operation.

    module: path in transformers; "" if the structure does not name one
    template, layer: the path with `{}` in place of the layer's index, and that index
    matrix: outputs and inputs of a GEMM or an embedding table, None for other weights
    bias: number of elements in addition to the matrix
    format: number format of the weights, None if it is that of the activations
    experts: number of experts in a stack, 0 otherwise
    down: whether it is the experts' second GEMM
    optional: whether it shares another operation's weights, which a checkpoint may hold a second time
    """

    role: str
    module: str
    elements: int
    bytes: float
    matrix: tuple[int, int] | None = None
    bias: int = 0
    format: Format | None = None
    experts: int = 0
    down: bool = False
    optional: bool = False
    template: str = ""
    layer: int = 0


@dataclass(slots=True)
class Place:
    """One layer of the structure, or everything outside the layers.

    path: the layer's path (`layers.3`), "" outside layers
    label: the path as the model itself writes it
    kind: index shared by layers that consist of the same operations
    weights: weights by their paths relative to the layer
    stacks: those of experts, by the paths of their lists
    unnamed: weights without a module
    """

    path: str
    label: str
    kind: int = 0
    weights: dict[str, list[Weight]] = field(default_factory=dict)
    stacks: dict[str, list[Weight]] = field(default_factory=dict)
    unnamed: list[Weight] = field(default_factory=list)

    def add(self, weight: Weight) -> None:
        """Add a weight under its path."""
        path = plain(weight.module)
        below = "" if path == self.path else path.removeprefix(f"{self.path}." if self.path else "")
        if weight.experts:
            self.stacks.setdefault(below.rpartition(".")[0], []).append(weight)
        elif weight.module:
            self.weights.setdefault(below, []).append(weight)
        else:
            self.unnamed.append(weight)

    def __iter__(self) -> Iterator[Weight]:
        for weights in (*self.weights.values(), *self.stacks.values()):
            yield from weights
        yield from self.unnamed


def places_of(config: ModelConfig, precision: Precision) -> list[Place]:
    """The place outside all layers, followed by every layer of the model."""
    places = {"": Place("", "")}
    graph = build(config, prefill(1.0, 1.0).with_towers, precision)
    for op, firsts, prefix in _ops(graph, range(1), "", config.layer_prefix):
        for weight, first in itertools.product(_weights(op), firsts):
            layer = first + op.layer
            label = prefix.replace("{}", str(layer)).rstrip(".")
            module = weight.module.replace("{}", str(layer))
            path = scope_of(plain(module)) if module else plain(label)
            place = places.setdefault(path, Place(path, _label(label, module, path)))
            place.add(replace(weight, module=module, template=weight.module, layer=layer))
    found = list(places.values())
    _gather_shared(found)
    _number_kinds(found)
    return found


def _label(label: str, module: str, path: str) -> str:
    """The model's spelling of a layer: that of its repeat, or of the module, which may be in a separate list (XLM)."""
    return label if plain(label) == path or not module else module[: module.index(path) + len(path)]


def _ops(graph: nx.DiGraph, firsts: range, prefix: str, layers: str) -> Iterator[tuple[Op, range, str]]:
    """Every operation, the first layers of the repeats that contain it, and the template of these layers' paths."""
    for _, op in graph.nodes(data="op"):
        if not isinstance(op, Repeat):
            yield op, firsts, prefix
        elif prefix:  # repeated within a layer: counted in that layer
            for inner, _, _ in _ops(op.body, firsts, prefix, layers):
                yield from ((inner, firsts, prefix) for _ in range(op.times))
        else:
            own = range(op.first_layer, op.first_layer + op.times * op.layers, op.layers)
            yield from _ops(op.body, own, _template(op.body) or layers, layers)


def _template(body: nx.DiGraph) -> str:
    for _, op in body.nodes(data="op"):
        front, found, _ = getattr(op, "module", "").partition("{}")
        if found:
            return f"{front}{{}}."
    return ""


def _weights(op: Op) -> Iterator[Weight]:
    """The weights that an operation owns or shares, in one or several tensors."""
    if isinstance(op, CollapseStreams) and op.parameter:
        n, k = round(float(op.projected)), round(float(op.streams * op.width))
        for name, shape in (("fn", (n, k)), ("base", (n, 1)), ("scale", (round(float(op.scales)), 1))):
            elements = shape[0] * shape[1]
            yield Weight(
                role=op.role, module=f"{op.parameter}{name}", elements=elements, bytes=elements * WEIGHT_BYTES,
                matrix=shape if name == "fn" else None,
            )  # fmt: skip
    elif (weight := _weight(op)) is not None:
        yield weight


def _weight(op: Op) -> Weight | None:
    """An operation's weights, with the path as a template; None if it neither owns nor shares any."""
    module = str(getattr(op, "module", "") or getattr(op, "parameter", ""))
    elements = round(float(op.parameters))
    weight = Weight(role=op.role, module=module, elements=elements, bytes=float(op.weight_storage_bytes))
    if isinstance(op, ExpertGemm):
        experts, down = round(float(op.experts)), op.split is Sharding.ROW
        bias = round(float(op.n)) * experts if op.bias else 0
        return replace(weight, matrix=_matrix(op), bias=bias, format=op.weights, experts=experts, down=down)
    if isinstance(op, Gemm) and op.shared:
        bias = round(float(op.n)) if op.bias else 0
        return replace(weight, matrix=_matrix(op), bias=bias, format=op.weights, optional=True)
    if isinstance(op, Embedding) and op.shared:
        return replace(weight, matrix=_table(op), optional=True)
    if not elements:
        return None
    if isinstance(op, Gemm):
        bias = round(float(op.n)) if op.bias else 0
        return replace(weight, matrix=_matrix(op), bias=bias, format=op.weights)
    if isinstance(op, Embedding) and op.width == 1 and module:  # values of any shape
        return weight
    if isinstance(op, Embedding):
        return replace(weight, matrix=_table(op), format=op.weights)
    return weight


def _matrix(op: Gemm) -> tuple[int, int]:
    return round(float(op.n)), round(float(op.k))


def _table(op: Embedding) -> tuple[int, int]:
    return round(float(op.entries)), round(float(op.width))


def _gather_shared(places: list[Place]) -> None:
    """Move the weights that layers add to a shared transformer to where a checkpoint stores that transformer.

    If there are several such transformers, layers alternate between them (Zamba2, arXiv 2411.15242, section 2).
    """
    users = [place for place in places if any(below.startswith(_SHARED) for below in place.weights)]
    owners = [place for place in users if any(w.elements and _PAIRS not in w.module for w in _of_shared(place))]
    for i, place in enumerate(users):
        owner = owners[i % len(owners)]
        for below in [below for below in place.weights if _PAIRS in below]:
            pairs = below.rpartition(".")[0]
            own = [
                replace(weight, matrix=None, optional=False, module=f"{owner.label}.{pairs}")
                for weight in place.weights.pop(below)
                if weight.elements
            ]
            owner.weights.setdefault(pairs, []).extend(own)


def _of_shared(place: Place) -> list[Weight]:
    return [weight for below, ws in place.weights.items() if below.startswith(_SHARED) for weight in ws]


def _number_kinds(places: list[Place]) -> None:
    """Give layers with the same weights the same kind."""
    kinds: dict[object, int] = {}
    for place in places:
        named = [*place.weights.items(), *place.stacks.items()]
        own = tuple((below, tuple((w.role, w.elements, w.matrix) for w in weights)) for below, weights in named)
        loose = tuple((weight.role, weight.elements) for weight in place.unnamed)
        place.kind = kinds.setdefault((place.path == "", own, loose), len(kinds))
