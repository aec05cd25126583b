"""A model written wholly in blocks is the catalog's: graphs, adapters, parameters, times and memory."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import to_text, validate, walk
from graphsim.models.build import build
from graphsim.models.phase import Phase, decode, mixed, prefill
from graphsim.ops.precision import load_precision
from tests.models.yaml.written import LLAMA, WRITTEN

BF16 = load_precision("bf16")
PHASES = {
    "prefill": prefill(2.0, 24.0),
    "every logit": prefill(2.0, 24.0, all_logits=True),
    "chunk": prefill(2.0, 24.0, 40.0),
    "decode": decode(3.0, 50.0),
    "mixed": mixed(prefill(1.0, 8.0), decode(3.0, 50.0)),
}
ADAPTERS: dict[str, Any] = {
    "none": None,
    "q and v": gs.LoraConfig(rank=8, target_modules=["q_proj", "v_proj"]),
    "all-linear": gs.LoraConfig(rank=8, target_modules="all-linear"),
    "words": gs.LoraConfig(rank=8, target_modules=["attn", "ffn"]),
}
DEGREES = {
    "one device": gs.Parallelism(),
    "tensor parallel": gs.Parallelism(tp=2),
    "pipeline": gs.Parallelism(pp=2),
    "experts apart": gs.Parallelism(tp=4, ep=4),
}


def described(graph: Any) -> Any:
    """Nodes with their inputs and dimensions, and what adapters see of them."""
    seen = [(getattr(op, "module", ""), getattr(op, "tags", ()), getattr(op, "bare", 0)) for _, op, _ in walk(graph)]
    return to_text(graph), seen


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("name", WRITTEN)
def test_every_step_is_the_ready_made_one(name: str, phase: Phase) -> None:
    written, ready = (build(gs.load_model(ref), phase, BF16) for ref in (WRITTEN[name], name))
    assert described(written) == described(ready)
    if len(phase.segments) == 1:
        validate(written, "logical")


@pytest.mark.parametrize("name", WRITTEN)
def test_the_model_says_of_itself_what_the_ready_made_one_does(name: str) -> None:
    written, ready = gs.load_model(WRITTEN[name]), gs.load_model(name)
    for fact in ("num_parameters", "num_layers", "vocab_size", "tied_embeddings", "generates", "max_positions"):
        assert getattr(written, fact) == getattr(ready, fact), fact
    for lora in list(ADAPTERS.values())[1:]:
        assert gs.lora_parameters(written, lora) == gs.lora_parameters(ready, lora)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["reference", "vllm"])
@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", WRITTEN)
def test_every_figure_is_that_of_the_ready_made_model(name: str, adapter: str, degrees: str, engine: str) -> None:
    if DEGREES[degrees].ep > 1 and name not in ("mixtral-8x7b",):
        pytest.skip("a dense model has no experts to deal out")
    choice: dict[str, Any] = {"lora": ADAPTERS[adapter], "parallelism": DEGREES[degrees], "engine": engine}
    found, expected = (
        gs.simulate(ref, "h100-sxm", 4, 300, 20, **{"engine": "reference", **choice}) for ref in (WRITTEN[name], name)
    )
    for figure in ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "one_time_s"):
        assert getattr(found, figure) == pytest.approx(getattr(expected, figure), rel=1e-9), figure
    for part in fields(expected.memory):
        assert getattr(found.memory, part.name) == pytest.approx(getattr(expected.memory, part.name)), part.name


def test_a_stem_with_learned_positions_is_limited_by_them() -> None:
    """PEFT's plain generation goes on beyond max_positions unless a table ends there."""
    data = {**LLAMA, "max_positions": 100, "blocks": dict(LLAMA["blocks"])}
    choice: dict[str, Any] = {"hardware": "h100-sxm", "input_tokens": 99, "output_tokens": 9, "engine": "peft"}
    gs.simulate(data, **{"engine": "reference", **choice})
    places = {"name": "places", "op": "embedding", "entries": 100, "whole": True, "module": "model.places"}
    total = {"name": "sum", "op": "add", "inputs": ["embed_tokens", "places"]}
    data["blocks"]["embeddings"] = [*LLAMA["blocks"]["embeddings"], places, total]
    with pytest.raises(gs.ConfigError, match="107 tokens are more than the 100 positions"):
        gs.simulate(data, **{"engine": "reference", **choice})


def test_a_later_stage_of_a_pipeline_holds_its_own_copy_of_tied_weights() -> None:
    model = gs.load_model(LLAMA)
    last = build(model, PHASES["decode"], BF16, range(8, 16))
    whole = build(model, PHASES["decode"], BF16)
    assert [last.nodes["lm_head"]["op"].shared, whole.nodes["lm_head"]["op"].shared] == [False, True]
