"""Which nodes are an adapter's, and what of it is trained: for every variant, strategy, engine and scheme."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora.injection import lora_parameters_of
from graphsim.lora.variants import known
from graphsim.ops import Collective
from tests.lora.variant_laws import QUICK

MODEL, RANK = "llama-3.1-8b", 8
STRATEGIES = [
    (name, strategy)
    for name, variant in known().items()
    for strategy in ("dynamic", *(() if variant.unmerged else ("merge",)))
]
ENGINES = [
    (name, strategy, engine)
    for name, strategy in STRATEGIES
    for engine in ("reference", "peft", "vllm", "vllm-0.5", "sglang")
    if known()[name].peft_type == "LORA" or engine in ("reference", "peft")
    if engine in ("reference", "peft") or strategy == "merge" or known()[name].fused
]
GROUPS = {
    "one device": gs.Parallelism(),
    "tp": gs.Parallelism(tp=2),
    "sequence parallel": gs.Parallelism(tp=2, sp=2),
    "pipeline": gs.Parallelism(tp=2, pp=2),
}


def quick(cases: list[Any]) -> list[Any]:
    """Those of variants that are checked every time as they are, the others slow."""
    return [case if case[0] in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def adapter(variant: str, strategy: str, **fields: Any) -> gs.LoraConfig:
    asked = {"rank": RANK, "blocks": 2, "invocation_tokens": 8} | fields
    return gs.LoraConfig(variant=variant, strategy=strategy, **asked)


SUM = re.compile(r"\.(lora_add|dora_scale|lora_scaled|lora_overridden)\.")
"""In the names of collectives behind a base's sum with its adapter: without the adapter, they are behind the base."""


def assert_adapters_vanish(with_adapter: nx.DiGraph, base: nx.DiGraph) -> None:
    rest = Counter(SUM.sub(".", name) for name, op, _ in walk(with_adapter) if not op.adapter)
    own = Counter(name for name, _, _ in walk(base))
    assert not rest - own, f"there for the adapter, but with adapter=False: {sorted(rest - own)}"
    assert not own - rest, f"there without the adapter, but gone or with adapter=True: {sorted(own - rest)}"


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(("variant", "strategy", "engine"), quick(ENGINES))
def test_an_adapters_nodes_are_those_that_vanish_without_one(
    variant: str, strategy: str, engine: str, group: str
) -> None:
    asked: dict[str, Any] = {"parallelism": GROUPS[group], "engine": engine}
    found = gs.build_graph(MODEL, "decode", 4, 64, lora=adapter(variant, strategy), **asked)
    assert_adapters_vanish(found, gs.build_graph(MODEL, "decode", 4, 64, **asked))


@pytest.mark.parametrize("scheme", ["vllm", "fully-sharded", "sglang", "megatron", "peft-megatron", "peft-dtensor"])
@pytest.mark.parametrize("model", [MODEL, "mixtral-8x7b"])
def test_collectives_between_the_factors_are_the_adapters_however_they_are_cut(model: str, scheme: str) -> None:
    parallelism = gs.Parallelism(tp=2)
    lora = adapter("lora", "dynamic", tp_scheme=scheme)
    found = gs.build_graph(model, "decode", 4, 64, parallelism=parallelism, lora=lora)
    base = gs.build_graph(model, "decode", 4, 64, parallelism=parallelism)
    assert_adapters_vanish(found, base)
    between = [op for _, op, _ in walk(found) if isinstance(op, Collective) and op.adapter]
    assert bool(between) == (scheme not in ("vllm", "peft-dtensor"))


@pytest.mark.parametrize(("variant", "strategy"), quick(STRATEGIES))
def test_what_is_trained_does_not_depend_on_strategy_or_engine(variant: str, strategy: str) -> None:
    lora = adapter(variant, strategy)
    dynamic = adapter(variant, "dynamic")
    expected = gs.lora_parameters(MODEL, lora)
    assert expected == gs.lora_parameters(MODEL, dynamic) > 0
    for engine in ("reference", "peft"):
        assert lora_parameters_of(gs.build_graph(MODEL, "decode", lora=dynamic, engine=engine)) == expected


@pytest.mark.parametrize(("variant", "strategy"), quick(STRATEGIES))
def test_without_an_adapter_nothing_is_trained_and_weights_are_the_models(variant: str, strategy: str) -> None:
    base = gs.build_graph(MODEL, "decode")
    assert lora_parameters_of(base) == 0
    found = gs.build_graph(MODEL, "decode", lora=adapter(variant, strategy))
    own = sum(float(op.parameters) * times for _, op, times in walk(found) if not op.adapter)
    assert (
        own == sum(float(op.parameters) * times for _, op, times in walk(base)) == gs.load_model(MODEL).num_parameters
    )


def test_there_is_a_variant_for_each_name() -> None:
    assert set(known()) >= {"lora", "rslora", "dora", "vera", "alora", "qa-lora", "bd-lora"}
    assert all(gs.LoraConfig(variant=name).kind is variant for name, variant in known().items())
