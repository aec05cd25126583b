"""Lowering: the three logical nodes of an adapter become the kernels that an engine launches.

Runs behind sharding and packing.
"""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.graph.rewriting import Value, add, inputs_of
from graphsim.lora.schemes import SCHEMES
from graphsim.ops import Elementwise, Launch, LoraAdd, LoraGemm, Repeat, Sharding
from graphsim.ops.lora_experts import ExpertLoraAdd, LoraDelta
from graphsim.passes.engine import Engine, source, terms
from graphsim.passes.fused import ends, fuse


def lower(graph: nx.DiGraph, engine: Engine) -> nx.DiGraph:
    """The graph with the engine's own kernels; the graph itself where these are the logical nodes."""
    if engine.lora.strategy == "dynamic":
        if engine.profile.kernels == "fused":
            _require_in_place(engine)
            graph = ends(fuse(graph, engine), engine)
        elif engine.profile.kernels == "eager_modules":
            graph = _modules(_materialised(graph, engine), engine)
    return graph


def _require_in_place(engine: Engine) -> None:
    """Raise ConfigError where B's slices must be gathered before they are added: fused kernels add as they expand."""
    name = engine.lora.chosen_scheme or engine.profile.tensor_parallel
    scheme = SCHEMES[name]
    if scheme.row_b is Sharding.COLUMN and not scheme.row_in_place:
        allowed = choices_text(name, [other for other in SCHEMES if other != name])
        raise ConfigError(
            f"lora.tp_scheme = '{name}' is not allowed with engine '{engine.profile.name}': its kernels add in place; "
            f"{allowed}"
        )


def _materialised(graph: nx.DiGraph, engine: Engine) -> nx.DiGraph:
    """Experts' adapters as PEFT runs them: in every forward, W + B A of all experts is written, and then used.

    PEFT 0.21, `tuners/lora/layer.py`, ParamWrapper (`target_parameters`): a parametrisation of the whole tensor.
    """
    factors: dict[str, tuple[str, str, str]] = {}
    for name, op in graph.nodes(data="op"):
        if isinstance(op, ExpertLoraAdd):
            b, base = terms(graph, name)
            factors[source(graph, base.node)] = (inputs_of(graph, b.node)[0].node, b.node, name)
    gone = {name for found in factors.values() for name in found}
    stands_for = {joined: base for base, (_, _, joined) in factors.items()}
    out = nx.DiGraph()
    for name, op in graph.nodes(data="op"):
        if name in gone:
            continue
        inputs: list[Value | str] = [
            Value(stands_for.get(value.node, value.node), value.parts) for value in inputs_of(graph, name)
        ]
        if name in factors:
            a = graph.nodes[factors[name][0]]["op"]
            delta = LoraDelta(
                role=f"{op.role}.lora_delta", n=op.n, k=op.k, rank=a.n * np.minimum(a.m, 1.0), copies=op.experts,
                weights=op.weights, factors=a.weights, scratch_passes=engine.profile.merge_passes,
                activations=op.activations, layer=op.layer,
            )  # fmt: skip
            inputs.append(add(out, f"{name}.lora_delta", delta))
        mine = replace(op, body=_materialised(op.body, engine)) if isinstance(op, Repeat) else op
        add(out, name, mine, inputs)
    return out


def _modules(graph: nx.DiGraph, engine: Engine) -> nx.DiGraph:
    """One module call per adapter: A, B, a scaling and an addition, each a kernel for each adapter present."""
    out = nx.DiGraph()
    for name, op in graph.nodes(data="op"):
        inputs = inputs_of(graph, name)
        mine = replace(op, body=_modules(op.body, engine)) if isinstance(op, Repeat) else op
        if isinstance(op, LoraGemm | LoraAdd):
            mine = replace(op, launches=engine.lora.active_adapters)
        if type(op) is LoraAdd and engine.lora.kind.scaled:
            b = terms(graph, name)[0].node
            scale = Elementwise(
                role=f"{op.serves[0]}.lora_scale", elems=op.added, activations=op.activations,
                layer=op.layer, adapter=True,
            )  # fmt: skip
            scaled = add(out, f"{name.rpartition('.')[0]}.lora_scale", scale, [b])
            inputs = [Value(scaled) if value.node == b else value for value in inputs]
        add(out, name, mine, inputs)
    return out


def eager(graph: nx.DiGraph) -> nx.DiGraph:
    """Every kernel waits for the host to start it; the host starts them one after another."""
    out = nx.DiGraph()
    for name, op in graph.nodes(data="op"):
        inputs: list[Value | str] = list(inputs_of(graph, name))
        if isinstance(op, Repeat):
            op = replace(op, body=eager(op.body))
        elif op.launched and not op.once:
            start = Launch(role="launch", times=op.launches, layer=op.layer, adapter=op.adapter)
            inputs.append(add(out, f"{name}.launch", start))
        add(out, name, op, inputs)
    return out
