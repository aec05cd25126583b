"""From the format of each module of a checkpoint to the precision of its model.

`modules_of` lists the modules that a checkpoint may quantise, each with its names in checkpoints; `settled` turns a
decision for each into the shortest precision: formats of whole kinds, then single modules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

import networkx as nx

from graphsim.errors import ConfigError, choices_text
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.phase import prefill
from graphsim.ops import Embedding, Gemm, Repeat, Sharding
from graphsim.ops.formats import FORMATS, Format
from graphsim.ops.precision import ALIKE, ModuleFormat, ModuleFormats, Precision, load_precision
from graphsim.ops.type_guards import is_expert_gemm


class Kind(Enum):
    """The kind of a module for a quantiser.

    LINEAR: an nn.Linear of a block, a tower, or in front of the blocks
    BARE: a router, or another GEMM with weights that no nn.Linear holds
    """

    LINEAR = "linear"
    EXPERTS = "experts"
    HEAD = "head"
    TABLE = "table"
    BARE = "bare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """Weights that have one format.

    path: `{}` standing for the layer's index
    layer: the index, -1 outside of layers
    names: for each module of a checkpoint that it holds, all spellings of its name
    usual: its format under a precision that states only one format (a router is not quantised)
    attention: whether it is one of attention's projections
    tied: its weights are another module's
    size: number of weights
    experts: how many experts share the path, each with weights of its own, 0 for none
    """

    path: str
    layer: int
    kind: Kind
    names: tuple[tuple[str, ...], ...]
    usual: bool
    attention: bool
    tied: bool
    size: float
    experts: int = 0


Decide = Callable[[Module], Format]
"""Says in which format a checkpoint stores a module."""

_MARK = replace(load_precision("bf16"), weights=FORMATS["fp8"])
"""Distinguishes modules that are quantised by default from those that are not."""


def modules_of(config: ModelConfig, words: str | None = None) -> list[Module]:
    """All modules of a model whose weights a checkpoint may quantise.

    words: text that contains every relevant word of the names; spellings with other words are left out
    """
    graph = build(config, prefill(1.0, 1.0).with_towers, _MARK)
    found: dict[Module, list[int]] = {}
    for op, layers in _found(graph):
        found.setdefault(_module(op, words, config.layer_prefix), []).extend(layers)
    return [_in_layer(module, layer) for module, layers in found.items() for layer in dict.fromkeys(layers)]


def _in_layer(module: Module, layer: int) -> Module:
    if layer < 0:
        return module
    index = str(layer)
    names = tuple(tuple(name.replace("{}", index) for name in part) for part in module.names)
    return replace(module, layer=layer, names=names)


def settled(config: ModelConfig, decide: Decide, cache: Format | None = None, words: str | None = None) -> Precision:
    """The precision of a checkpoint that stores each module in the format returned by `decide`.

    cache: the format of its KV cache
    words: as in `modules_of`
    """
    modules = modules_of(config, words)
    formats = [decide(module) for module in modules]
    plain = load_precision("bf16", None if cache is None else cache.name)
    usual = [(module, own) for module, own in zip(modules, formats, strict=True) if module.usual]
    of_experts = _most([(m, own) for m, own in usual if m.kind is Kind.EXPERTS])
    of_attention = _most([(m, own) for m, own in usual if m.attention])
    rest = [(m, own) for m, own in usual if m.kind is not Kind.EXPERTS and not m.attention]
    weights = _most(rest) or of_attention or of_experts or plain.activations
    precision = replace(
        plain, weights=weights, experts=None if of_experts == weights else of_experts,
        attention=None if of_attention == weights else of_attention,
    )  # fmt: skip
    return replace(precision, modules=_own(precision, modules, formats))


def require_modules(config: ModelConfig, precision: Precision) -> None:
    """Raise ConfigError for a precision that names a module, or a layer of one, that the model does not have."""
    if not precision.modules:
        return
    layers: dict[str, set[int]] = defaultdict(set)
    for module in modules_of(config, ""):
        layers[module.path].add(module.layer)
    for entry in precision.modules:
        if entry.path not in layers:
            raise ConfigError(
                f"precision: '{entry.path}' is not a module of {config.name}; {choices_text(entry.path, layers)}"
            )
        if beyond := set(entry.layers) - layers[entry.path]:
            raise ConfigError(f"precision: layer {min(beyond)} of {config.name} has no module '{entry.path}'")


def _own(precision: Precision, modules: Iterable[Module], formats: Iterable[Format]) -> ModuleFormats:
    """The modules that are not in the format of their kind."""
    layers: dict[str, set[int]] = defaultdict(set)
    apart: dict[tuple[str, Format], set[int]] = defaultdict(set)
    for module, own in zip(modules, formats, strict=True):
        layers[module.path].add(module.layer)
        if own != _usual(precision, module):
            apart[module.path, own].add(module.layer)
    entries = [
        ModuleFormat(path=path, format=own, layers=() if some == layers[path] else tuple(sorted(some)))
        for (path, own), some in apart.items()
    ]
    return ModuleFormats(tuple(entries)) if entries else ALIKE


def _usual(precision: Precision, module: Module) -> Format:
    if not module.usual:
        return precision.activations
    if module.kind is Kind.EXPERTS:
        return precision.of_experts
    return (precision.attention if module.attention else None) or precision.weights


def _most(found: Iterable[tuple[Module, Format]]) -> Format | None:
    """The format of most of the weights, the narrower of two; None where there are none."""
    sizes: dict[Format, float] = defaultdict(float)
    for module, own in found:
        sizes[own] += module.size
    return max(sizes, key=lambda own: (sizes[own], -own.bytes)) if sizes else None


def _found(graph: nx.DiGraph, layers: range | None = None) -> Iterator[tuple[Gemm | Embedding, Iterable[int]]]:
    """Operations with weights and a path, each with the layers that it represents, -1 outside of them."""
    for _, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            stands_for = range(op.first_layer, op.first_layer + op.layers * op.times, op.layers)
            yield from _found(op.body, stands_for if layers is None else layers)
        elif isinstance(op, Gemm | Embedding) and op.module and not (isinstance(op, Gemm) and op.factor):
            outside = layers is None or "{}" not in op.module
            yield op, (-1,) if outside else (first + op.layer for first in layers or ())


def _module(op: Gemm | Embedding, words: str | None, blocks: str) -> Module:
    usual = isinstance(op, Gemm) and op.weights == _MARK.weights
    bare = not op.linear or (not usual and op.module.startswith(blocks))
    return Module(
        path=op.module, layer=-1, kind=_special(op) or (Kind.BARE if bare else Kind.LINEAR), names=_names(op, words),
        attention="attn" in op.tags, usual=usual, tied=isinstance(op, Gemm) and op.shared,
        size=float(op.parameters) or float(getattr(op, "n", 0.0) * getattr(op, "k", 0.0)),
        experts=op.of if is_expert_gemm(op) else 0,
    )  # fmt: skip


def _special(op: Gemm | Embedding) -> Kind | None:
    if isinstance(op, Embedding):
        return Kind.TABLE
    if is_expert_gemm(op):
        return Kind.EXPERTS
    return Kind.HEAD if op.head else None


def _names(op: Gemm | Embedding, words: str | None) -> tuple[tuple[str, ...], ...]:
    """By module of the checkpoint; of an expert's, those of one expert, then of all, then transformers 5's own."""
    if not is_expert_gemm(op):
        return (_known(spellings(op.module), words),)
    within, _, _ = op.module.rpartition(".")
    parts = (_DOWN,) if op.split is Sharding.ROW else (_GATE, _UP) if op.gated else (_UP,)
    listed = [(*(f"{within}.0.{each}" for each in part), within, op.module) for part in parts]
    return tuple(_known([spelled for name in names for spelled in spellings(name)], words) for names in listed)


def _known(names: Iterable[str], words: str | None) -> tuple[str, ...]:
    """The spellings that differ from the first one by words in the text."""
    first, *others = dict.fromkeys(names)
    if words is None:
        return (first, *others)
    usual = set(first.split("."))
    return (first, *(name for name in others if all(word in usual or word in words for word in name.split("."))))


_GATE, _UP, _DOWN = ("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")
"""Names of an expert's weights in checkpoints."""

_RENAMED = ((".mlp.", ".block_sparse_moe."), (".block_sparse_moe.", ".mlp."))
"""Names of transformers 5, with those in checkpoints of Mixtral and similar models."""


def spellings(path: str) -> tuple[str, ...]:
    """A module's path in classes of other versions: with the language model or the towers nested differently."""
    found = [path]
    bare = path.replace("language_model.", "", 1)
    if bare.startswith(("model.layers.", "model.embed_tokens")) or not bare.startswith("model."):
        found += [
            bare,
            *(f"{front}{bare.removeprefix('model.')}" for front in ("model.language_model.", "language_model.model.")),
        ]
        found.append(f"language_model.{bare}")
    else:
        found.append(bare.removeprefix("model."))
    if ".experts." in path or path.endswith((".mlp.gate", ".block_sparse_moe.gate")):
        found += [name.replace(old, new) for name in found for old, new in _RENAMED if old in name]
    return tuple(dict.fromkeys(found))
