"""What holds of every variant of LoRA, as laws that say in a sentence what one lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import Stage, inputs_of
from graphsim.lora.injection import inject
from graphsim.lora.variants import known
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.ops import Gemm, LoraAdd, LoraGemm, Op, Repeat
from graphsim.ops.formats import FORMATS
from graphsim.ops.precision import load_precision

MODELS = ("llama-3.1-8b", "gpt-2", "gemma-2-9b", "mixtral-8x7b")
"""Separate and fused projections, two layers in one body, and experts."""

DEVICES = {
    "one device": gs.Parallelism(),
    "tp = 2": gs.Parallelism(tp=2),
    "tp = 4, ep = 2": gs.Parallelism(tp=4, ep=2),
}

QUICK = ("alora", "bd-lora", "dora", "ia3", "loha", "lora", "oft", "shira", "vera")
"""Those whose laws are checked every time: a plain pair, a part of the tokens, a block-diagonal one, a norm and a scale
behind, a scaled result, a wide product, a changed input, weights made again, and factors that modules share."""


def each_variant(names: Iterable[str] = ()) -> list[Any]:
    """The names of all variants as a test's parameters, most of them slow. names: by default those there are"""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names or known()]


ADAPTERS = 3.0
STAGE: dict[str, Stage] = {"reference": "lowered", "peft": "launched", "vllm": "lowered"}

Law = Callable[[str], Iterator[str]]
"""From a variant's name to what is wrong with it."""


@dataclass(frozen=True)
class Chain:
    """What a variant put beside a linear. nodes: its operations from the linear's input to the ADD, by name."""

    base: Gemm
    nodes: dict[str, Op]
    joined: LoraAdd


def adapter(variant: str, **fields: Any) -> gs.LoraConfig:
    """Several adapters, on everything, for some of the tokens."""
    asked = {"rank": 8, "active_adapters": ADAPTERS, "adapter_share": 0.5, "blocks": 4, "invocation_tokens": 8}
    return gs.LoraConfig(target_modules="all-linear", variant=variant, **asked | fields)


def chains(variant: str, model: str) -> list[Chain]:
    """Those of a model as the variant yields them: not yet cut, nor an engine's kernels."""
    graph = build(gs.load_model(model), prefill(2.0, 64.0), load_precision("fp16"))
    return list(_chains(inject(graph, adapter(variant, lora_dtype="fp32"))))


def _chains(graph: nx.DiGraph) -> Iterator[Chain]:
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            yield from _chains(op.body)
        elif isinstance(op, LoraAdd):
            base, _ = name.rsplit(".", 1)
            nodes: dict[str, Op] = {}
            source = inputs_of(graph, name)[-1].node
            while source.startswith(f"{base}."):
                nodes = {source: graph.nodes[source]["op"]} | nodes
                source = inputs_of(graph, source)[0].node
            yield Chain(base=graph.nodes[base]["op"], nodes=nodes, joined=op)


def each_part_takes_what_the_one_before_it_gives(variant: str) -> Iterator[str]:
    """From the linear's input, row by row, to what is added to its result."""
    for model in MODELS:
        for chain in chains(variant, model):
            before, given = "the linear's input", chain.joined.rows * chain.base.k
            for name, op in chain.nodes.items():
                taken = op.m * op.k if hasattr(op, "m") and hasattr(op, "k") else op.in_elems
                if taken is not None and taken != given:
                    yield f"{model}: '{name}' takes {taken:g} values, but {before} has {given:g}"
                before, given = f"'{name}'", op.out_elems
            if given != chain.joined.added:
                yield f"{model}: {before} has {given:g} values, but {chain.joined.added:g} are added to the linear's"


def all_parts_agree(variant: str) -> Iterator[str]:
    """On how many adapters there are, on formats, and on where in the model they are."""
    for model in MODELS:
        for chain in chains(variant, model):
            base = chain.base
            for name, op in chain.nodes.items():
                wanted: dict[str, object] = {"activations": base.activations, "layer": base.layer}
                wanted |= {"role": f"{base.role}.{name.rpartition('.')[2]}"}
                wanted |= {"adapters": ADAPTERS} if hasattr(op, "adapters") else {}
                wanted |= {"weights": FORMATS["fp32"]} if isinstance(op, LoraGemm) else {}
                for field, value in wanted.items():
                    if (found := getattr(op, field)) != value:
                        found, value = (getattr(one, "name", one) for one in (found, value))
                        yield f"{model}: '{name}' has {field} = {found}, expected {value}"


def its_graphs_are_valid(variant: str) -> Iterator[str]:
    """Of a batch, on one device and on several, as plain nodes and as engines run it."""
    engines = ("reference", "peft", *(["vllm"] if known()[variant].fused else []))
    for model in MODELS:
        for engine in engines:
            for devices, parallelism in DEVICES.items():
                if parallelism.ep > 1 and model != "mixtral-8x7b":
                    continue
                for phase in ("prefill", "decode"):
                    asked: dict[str, Any] = {"engine": engine, "parallelism": parallelism}
                    graph = gs.build_graph(model, phase, 4, 64, lora=adapter(variant), **asked)
                    try:
                        gs.validate(graph, STAGE[engine])
                    except gs.GraphError as error:
                        yield f"{model}, {phase}, engine {engine}, {devices}: {error}"


LAWS: tuple[Law, ...] = (
    each_part_takes_what_the_one_before_it_gives,
    all_parts_agree,
    its_graphs_are_valid,
)
