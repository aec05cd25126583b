"""The weights that a model's structure has: each with its module's path, its shape and its format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import networkx as nx

from graphsim.models.build import build
from graphsim.models.checkpoint.names import plain, scope_of
from graphsim.models.config import ModelConfig
from graphsim.models.phase import prefill
from graphsim.ops import Embedding, ExpertGemm, Gemm, HeadGemm, Op, Repeat, Sharding
from graphsim.ops.formats import Format
from graphsim.ops.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """The weights of one operation.

    module: path as transformers has it; "" where the structure does not say
    matrix: outputs and inputs of a product or a table, None for other weights
    bias: elements beside the matrix
    format: that the weights are in, None where it is the activations'
    experts: of a stack, 0 otherwise
    optional: another operation's weights, which a checkpoint may hold once more
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


_SHARED = "shared_transformer."


@dataclass(slots=True)
class Place:
    """One layer of the structure, or what lies outside of all layers.

    path: of the layer (`layers.3`), "" outside; label: how the model itself writes it
    kind: layers of one kind are built of the same operations
    weights: by their paths below the layer; unnamed: those that have no module
    stacks: of experts, by the paths of their lists
    """

    path: str
    label: str
    kind: int
    weights: dict[str, list[Weight]] = field(default_factory=dict)
    unnamed: list[Weight] = field(default_factory=list)
    stacks: dict[str, list[Weight]] = field(default_factory=dict)

    def add(self, weight: Weight) -> None:
        """Take a weight in, below its path."""
        below = plain(weight.module).removeprefix(f"{self.path}." if self.path else "")
        if weight.experts:
            self.stacks.setdefault(below.rpartition(".")[0], []).append(weight)
        elif weight.module:
            self.weights.setdefault(below, []).append(weight)
        else:
            self.unnamed.append(weight)


def places_of(config: ModelConfig, precision: Precision) -> list[Place]:
    """Every layer of the model, and what lies outside; the latter comes first."""
    places = {"": Place("", "", 0)}
    graph = build(config, prefill(1.0, 1.0), precision)
    for kind, (op, firsts, prefix) in enumerate(_ops(graph, range(1), "", config.layer_prefix)):
        weight = _weight(op)
        if weight is None:
            continue
        for first in firsts:
            index = str(first + op.layer)
            module = weight.module.replace("{}", index)
            path = scope_of(plain(module)) if module else plain(prefix.replace("{}", index)).rstrip(".")
            label = prefix.replace("{}", index).rstrip(".") or module
            place = places.setdefault(path, Place(path, label, kind))
            place.add(Weight(**{**_values(weight), "module": module}))
    _gather_shared(list(places.values()))
    _number_kinds(list(places.values()))
    return list(places.values())


def _gather_shared(places: list[Place]) -> None:
    """What layers add to a transformer that they share lies in a checkpoint where its weights do.

    Of several such transformers, layers use one after the other (Zamba2, arXiv 2411.15242, section 2).
    """
    users = [place for place in places if any(below.startswith(_SHARED) for below in place.weights)]
    owners = [place for place in users if not all(w.optional for w in _of_shared(place))]
    owners = [
        place for place in owners if any(w.elements and "_adapter_list" not in w.module for w in _of_shared(place))
    ]
    for i, place in enumerate(users):
        owner = owners[i % len(owners)]
        for below in [below for below in place.weights if "_adapter_list." in below]:
            pairs = below.rpartition(".")[0]
            plain_pairs = {"matrix": None, "optional": False, "module": f"{owner.label}.{pairs}"}
            own = [Weight(**{**_values(w), **plain_pairs}) for w in place.weights.pop(below) if w.elements]
            owner.weights.setdefault(pairs, []).extend(own)


def _of_shared(place: Place) -> list[Weight]:
    return [weight for below, ws in place.weights.items() if below.startswith(_SHARED) for weight in ws]


def _values(weight: Weight) -> dict[str, object]:
    return {name: getattr(weight, name) for name in Weight.__slots__}


def _number_kinds(places: list[Place]) -> None:
    """Layers with the same weights are of one kind."""
    kinds: dict[object, int] = {}
    for place in places:
        named = [*place.weights.items(), *place.stacks.items()]
        own = tuple((below, tuple((w.role, w.elements, w.matrix) for w in ws)) for below, ws in named)
        loose = tuple((w.role, w.elements) for w in place.unnamed)
        place.kind = kinds.setdefault((own, loose), len(kinds))


def _ops(graph: nx.DiGraph, firsts: range, prefix: str, layers: str) -> Iterator[tuple[Op, range, str]]:
    """Every operation, the first layers of the repeats it lies in, and the template of these layers' paths."""
    for _, op in graph.nodes(data="op"):
        if not isinstance(op, Repeat):
            yield op, firsts, prefix
        elif prefix:  # repeated within a layer: counted where it lies
            for inner, _, _ in _ops(op.body, firsts, prefix, layers):
                for _ in range(op.times):
                    yield inner, firsts, prefix
        else:
            own = range(op.first_layer, op.first_layer + op.times * op.layers, op.layers)
            yield from _ops(op.body, own, _template(op.body) or layers, layers)


def _template(body: nx.DiGraph) -> str:
    for _, op in body.nodes(data="op"):
        module = getattr(op, "module", "")
        if "{}" in module:
            return str(module[: module.index("{}") + 2]) + "."
    return ""


def _weight(op: Op) -> Weight | None:
    if isinstance(op, Gemm) and op.shared:
        return Weight(role=op.role, module=op.module, elements=0, bytes=0.0, matrix=_matrix(op), optional=True)
    elements = round(float(op.parameters))
    if not elements:
        return None
    common = {"role": op.role, "elements": elements, "bytes": float(op.weight_storage_bytes)}
    module = str(getattr(op, "module", ""))
    if isinstance(op, HeadGemm):
        return Weight(module=module, format=op.weights, **common)  # type: ignore[arg-type]
    if isinstance(op, ExpertGemm):
        down, experts = op.split is Sharding.ROW, int(op.experts)
        bias = round(float(op.n)) * experts if op.bias else 0
        return Weight(
            module=module, matrix=_matrix(op), bias=bias, format=op.weights, experts=experts, down=down, **common
        )  # type: ignore[arg-type]
    if isinstance(op, Gemm):
        bias = round(float(op.n)) if op.bias else 0
        return Weight(module=module, matrix=_matrix(op), bias=bias, format=op.weights, **common)  # type: ignore[arg-type]
    if isinstance(op, Embedding):
        table = (round(float(op.entries)), round(float(op.width)))
        return Weight(module=module, matrix=table, format=op.weights, **common)  # type: ignore[arg-type]
    return Weight(module=module, **common)  # type: ignore[arg-type]


def _matrix(op: Gemm) -> tuple[int, int]:
    return round(float(op.n)), round(float(op.k))
