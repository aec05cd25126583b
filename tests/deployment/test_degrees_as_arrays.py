"""Degrees of parallelism as an array give what each of them gives alone: times and memory of every model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.activations import peak_activation_bytes
from graphsim.lora.variants import known
from graphsim.ops import AllGather, Input, Norm, Slice
from tests.catalog import QUICK

DEGREES = (1.0, 2.0, 4.0)
SOME = ("gpt-2", "gpt-oss-20b")
"""Models that every variant is checked with in a plain run, the one without and the other with experts."""

PLAIN = ("gemma-2-9b", "llama-3.1-8b", "mixtral-8x7b", "qwen3-8b")
"""Models that the plain adapter is checked with besides."""


OTHER_SIZES = (
    "gpt-oss-120b", "llama-2-13b", "llama-2-70b", "llama-3.1-70b", "llama-3.1-405b", "llama-3.2-3b", "qwen2.5-72b",
    "qwen3-32b",
)  # fmt: skip
"""Models whose layers are those of another one in another size."""

MODELS = [name for name in QUICK if name not in OTHER_SIZES]


def cases() -> Iterator[object]:
    """Every model alone and with the plain adapter, with and without sequence parallelism.

    Rarer variants meet every sixth model, with it and without in turn: what a variant adds depends neither on who
    gathers its input nor on the model's other layers.
    """
    for number, model in enumerate(MODELS):
        for place, variant in enumerate(("none", *known())):
            quick = (model in SOME and variant in ("none", "lora", "dora")) or (variant == "lora" and model in PLAIN)
            common = quick or variant in ("none", "lora")
            turn = (number + place) % 12
            for sp in (False, True) if common else {0: (False,), 6: (True,)}.get(turn, ()):
                name = f"{model}-{variant}{'-sequence-parallel' if sp else ''}"
                yield pytest.param(model, variant, sp, marks=() if quick else pytest.mark.slow, id=name)


def situations(model: str, variant: str, sp: bool) -> Iterator[tuple[bool, int]]:
    """Whether experts are dealt out, and the prompt's tokens: of one, the logits take most.

    Of every model, each pair of a variant, sequence parallelism, experts dealt out or not and a length comes up.
    """
    experts = any("expert" in str(name) for name in gs.build_graph(model, expand=True))
    for ep in (False, True) if experts else (False,):
        few = variant in ("none", "lora") and ((variant == "lora") + sp + ep + MODELS.index(model)) % 2
        yield ep, 1 if few else 300


def parallelism(degrees: object, sp: bool, ep: bool) -> gs.Parallelism:
    return gs.Parallelism(tp=degrees, sp=degrees if sp else 1, ep=degrees if ep else 1)  # type: ignore[arg-type]


def figures(estimate: gs.Estimate) -> dict[str, object]:
    times = {name: getattr(estimate, name) for name in ("ttft_s", "tpot_s", "one_time_s")}
    return times | {f.name: getattr(estimate.memory, f.name) for f in fields(estimate.memory)}


@pytest.mark.parametrize(("model", "variant", "sp"), list(cases()))
def test_each_degree_of_an_array_is_that_degree_alone(model: str, variant: str, sp: bool) -> None:
    """One generated token behind the first, so that no tolerance of a sum over the context comes in."""
    blocks = 4 if variant == "bd-lora" else 1
    options = {"vector_length": 32} if variant == "vblora" else {}  # divides every width of these models
    lora = None if variant == "none" else gs.LoraConfig(rank=16, variant=variant, blocks=blocks, options=options)
    engine = "reference" if variant != "lora" else "vllm"
    for ep, tokens in situations(model, variant, sp):
        chosen = {"batch": 8, "input_tokens": tokens, "output_tokens": 2, "lora": lora, "engine": engine}
        chosen |= {"precision": "bf16"}

        def asked(degrees: object, ep: bool = ep, chosen: dict = chosen) -> dict[str, object]:  # type: ignore[type-arg]
            return figures(gs.simulate(model, "b200-sxm", parallelism=parallelism(degrees, sp, ep), **chosen))

        many = asked(np.array(DEGREES))
        for i, degree in enumerate(DEGREES):
            for name, value in asked(degree).items():
                found = np.broadcast_to(np.asarray(many[name]), (len(DEGREES),))[i]
                assert found == pytest.approx(value, rel=1e-12), (name, degree, ep, tokens)


def test_the_largest_batch_at_one_device_does_not_depend_on_the_other_scenarios() -> None:
    alone = gs.simulate(
        "llama-2-7b", "b200-sxm", 8, 1, 2, parallelism=gs.Parallelism(tp=1), engine="reference"
    ).memory.max_batch
    beside = gs.simulate(
        "llama-2-7b", "b200-sxm", 8, 1, 2, parallelism=gs.Parallelism(tp=np.array([1.0, 8.0])), engine="reference"
    )
    assert np.asarray(beside.memory.max_batch)[0] == alone


def graph_of(group: object) -> nx.DiGraph:
    """x -> gathered -> part -> normed, and x again at the end of another branch."""
    graph = nx.DiGraph()
    gs.add(graph, "x", Input(elems=100.0))
    gs.add(graph, "gathered", AllGather(elems=100.0, group=group), ["x"])  # type: ignore[arg-type]
    gs.add(graph, "part", Slice(elems=100.0 / np.asarray(group), parts=group), ["gathered"])  # type: ignore[arg-type]
    gs.add(graph, "normed", Norm(rows=1.0, width=10.0), ["part"])
    gs.add(graph, "last", Norm(rows=1.0, width=10.0), ["part"])
    return graph


def test_views_take_no_memory_and_keep_the_value_behind_them_alive() -> None:
    """In elements of two bytes: within one device x stays to the last use of its part; else all parts count."""
    assert peak_activation_bytes(graph_of(1.0)) == 2.0 * (100.0 + 10.0)
    assert peak_activation_bytes(graph_of(4.0)) == 2.0 * (100.0 + 100.0)
    np.testing.assert_array_equal(peak_activation_bytes(graph_of(np.array([1.0, 4.0]))), [220.0, 400.0])
