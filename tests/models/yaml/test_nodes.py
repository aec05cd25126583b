"""Each kind of node makes the operation that its keys describe; expected numbers are worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

import graphsim as gs
from graphsim.graph import inputs_of
from graphsim.models.build import build
from graphsim.models.phase import Phase, decode, prefill
from graphsim.ops import Attention, Op, Repeat
from graphsim.ops.precision import load_precision
from tests.models.yaml.everything import document

PROMPT, DECODE = prefill(2.0, 24.0, source_tokens=7.0), decode(3.0, 50.0, source_tokens=7.0)
FP8_CACHE = load_precision("bf16,kv=fp8")


def built(name: str, phase: Phase) -> dict[str, Op]:
    """The operations of a layer, by name, and those of the ends."""
    graph = build(gs.load_model(document(name)), phase, FP8_CACHE)
    body = next(op.body for _, op in graph.nodes(data="op") if isinstance(op, Repeat))
    return {**dict(graph.nodes(data="op")), **dict(body.nodes(data="op"))}


FACTS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("attending", "q_norm", {"rows": 48 * 8, "parameters": 64}, {"rows": 3 * 8}),
    ("attending", "angles", {"out_elems": 48 * 8, "launched": False}, {"out_elems": 3 * 8}),
    ("attending", "q_turned", {"reads": 72 / 64, "steps": 3, "in_elems": None}, {"elems": 3 * 64}),
    ("attending", "k_turned", {"elems": 48 * 16, "reads": 2}, {"reads": 2}),
    ("attending", "attention", {"pairs": 2 * (16 * 17 / 2 + 8 * 16), "sinks": 8, "soft_cap": True},
     {"pairs": 3 * 16, "kv_tokens": 3 * 16}),
    ("attending", "kv_cache", {"width": 16, "kept_tokens": 32}, {"new_tokens": 3}),
    ("attending", "scaled", {"parameters": 64, "steps": 1}, {}),
    ("biased", "table", {"tokens": 24 * 24, "parameters": 32 * 8}, {"tokens": 51}),
    ("biased", "attention", {"biases": 24 * 24 * 8}, {"biases": 51 * 8}),
    ("latent", "cache", {"state_bytes": 48 * 20, "out_elems": 48 * 20}, {"state_bytes": 153 * 20, "new_tokens": 3}),
    ("latent", "latent", {"out_elems": 48 * 16}, {"out_elems": 153 * 16}),
    ("latent", "kv_b", {"m": 48, "parameters": 16 * 128}, {"m": 153}),
    ("latent", "attend", {"pairs": 2 * 24 * 25 / 2, "head_dim": 12, "value_dim": 8}, {"pairs": 153, "decode": True}),
    ("sharing", "attention", {"kv_tokens": 48, "unchecked": True}, {"kv_tokens": 153}),
    ("sharing", "o", {"parameters": 0}, {}),
    ("crossing", "source", {"out_elems": 14 * 48}, {"out_elems": 0}),
    ("crossing", "k", {"m": 14, "parameters": 48 * 16}, {"m": 0}),
    ("crossing", "cross_cache", {"new_tokens": 14, "source": True}, {"new_tokens": 0, "kept_tokens": 21}),
    ("crossing", "cross_attention", {"pairs": 48 * 7}, {"pairs": 21}),
    ("seeing", "qkv", {"module": ""}, {}),
    ("seeing", "around", {"pairs": 2 * 24 * 24, "decode": False}, {"pairs": 3, "kv_tokens": 3}),
    ("seeing", "behind", {"pairs": 2 * (1 + 2 + 22 * 3)}, {"pairs": 3}),
    ("seeing", "fixed", {"pairs": 48 * 10, "kv_tokens": 20}, {"pairs": 30}),
    ("scanning", "conv", {"parameters": 128 * 5, "state_bytes": 2 * 128 * 4 * 2}, {"sequences": 3, "tokens": 3}),
    ("scanning", "scan", {"parameters": 36, "inputs": 128, "matrix": True}, {"state_bytes": 3 * 96 * 16 * 4}),
    ("scanning", "gate", {"reads": 2, "parameters": 1}, {}),
    ("scanning", "both", {"out_elems": 48 * 160, "launched": False}, {}),
    ("scanning", "laid", {"elems": 48 * 160, "reads": 1, "steps": 0}, {"elems": 3 * 160}),
    ("scanning", "some", {"out_elems": 48 * 96, "launched": False}, {}),
    ("routing", "router", {"bare": True, "linear": True}, {}),
    ("routing", "route", {"parameters": 8, "out_elems": 96}, {"tokens": 3}),
    ("routing", "gather", {"rows": 96, "out_elems": 96 * 64}, {"rows": 6}),
    ("routing", "up", {"m": 96, "parameters": 8 * (48 * 64 + 48), "rank_factor": 2, "fuses": ("gate_proj", "up_proj")},
     {"m": 6, "hit": 8 * (1 - 0.75**3)}),
    ("routing", "act", {"elems": 96 * 24, "reads": 2}, {}),
    ("routing", "combine", {"out_elems": 48 * 64}, {}),
    ("grouping", "headed", {"parameters": 8 * 4 * 8, "out_elems": 48 * 32, "module": ""}, {}),
    ("grouping", "grouped", {"parameters": 64 * 8, "in_elems": 48 * 32}, {}),
    ("grouping", "chosen", {"rows": 2, "width": 64}, {"rows": 3}),
    ("grouping", "pooled", {"m": 2, "parameters": 64 * 65}, {"m": 3}),
    ("grouping", "told", {"flops": 2 * 600, "launches": 3, "parameters": 7, "note": "a loop over chunks"},
     {"flops": 2 * 153, "state_bytes": 3 * 5 * 2}),
    ("grouping", "more", {"reads": 48, "in_elems": None}, {"reads": 3}),
    ("resting", "unused_proj", {"m": 0, "parameters": 12 * 65, "idle": True, "tags": ("ffn",)}, {"m": 0}),
    ("resting", "unused_table", {"parameters": 27, "idle": True, "parameter": "layers.{}.unused.table"}, {}),
    ("resting", "unused_conv", {"parameters": 24, "idle": True, "state_bytes": 0}, {"idle": True}),
    ("resting", "unused_scan", {"parameters": 6, "idle": True, "state_bytes": 0}, {"idle": True}),
    ("resting", "unused_route", {"parameters": 4, "idle": True}, {"idle": True}),
    ("resting", "unused_experts", {"parameters": 4 * 20, "idle": True}, {"idle": True}),
    ("resting", "unused_scale", {"parameters": 11, "idle": True}, {"idle": True}),
    ("resting", "unused_rest", {"parameters": 13, "idle": True}, {"idle": True}),
    ("twice", "tokens_table", {"tokens": 48, "parameters": 128 * 64, "module": "embed_tokens"}, {"tokens": 3}),
    ("twice", "places", {"parameters": 512 * 64, "whole": True, "parameter": "position_embeddings"}, {}),
    ("twice", "decoder", {"m": 2, "parameters": 128, "head": True, "linear": False}, {"m": 3}),
    ("twice", "sample", {"rows": 2, "vocab": 128}, {"rows": 3}),
    ("twice", "first", {"m": 48, "idle": False}, {"m": 0, "idle": True}),
]  # fmt: skip
"""Block, node, and what its operation says in a prompt of 2 x 24 tokens and when 3 sequences of 50 generate.

Three tokens choose 2 of 8 experts each: one is missed by all with probability (6 / 8)^3.
"""


@pytest.mark.parametrize(("block", "node", "prompt", "generating"), FACTS, ids=[f"{b}.{n}" for b, n, _, _ in FACTS])
def test_a_node_is_what_its_keys_say(block: str, node: str, prompt: dict[str, Any], generating: dict[str, Any]) -> None:
    for phase, facts in ((PROMPT, prompt), (DECODE, generating)):
        op = built(block, phase)[node]
        for name, expected in facts.items():
            found = getattr(op, name)
            assert found == (pytest.approx(expected) if isinstance(expected, float) else expected), name


def test_a_prompt_and_a_step_that_generates_run_their_own_program() -> None:
    assert {"chunks", "one"} & set(built("twice", PROMPT)) == {"chunks"}
    assert {"chunks", "one"} & set(built("twice", DECODE)) == {"one"}


def test_where_all_logits_are_wanted_no_row_is_taken() -> None:
    assert "last_tokens" in built("twice", PROMPT) and "last_tokens" not in built("twice", DECODE)


def test_a_cache_is_read_in_its_format_and_what_is_expanded_from_it_in_the_activations() -> None:
    text = yaml.safe_dump(document("latent"), sort_keys=False)
    straight = text.replace("- q\n    - kv_b\n", "- q\n    - cache\n")
    assert straight != text
    data = yaml.safe_load(straight)
    data["blocks"]["latent"] = [node for node in data["blocks"]["latent"] if node["name"] not in ("latent", "kv_b")]
    formats = {}
    for name, model in (("expanded", document("latent")), ("kept", data)):
        graph = build(gs.load_model(model), DECODE, FP8_CACHE)
        body = next(op.body for _, op in graph.nodes(data="op") if isinstance(op, Repeat))
        formats[name] = next(op.kv.name for _, op in body.nodes(data="op") if isinstance(op, Attention))
    assert formats == {"expanded": "bf16", "kept": "fp8"}


def test_skew_is_the_experts_popularity() -> None:
    data = document("routing")
    for node in data["blocks"]["routing"]:
        if node["op"] == "expert_gemm":
            node["skew"] = 1.0
    graph = build(gs.load_model(data), DECODE, FP8_CACHE)
    body = next(op.body for _, op in graph.nodes(data="op") if isinstance(op, Repeat))
    harmonic = sum(1 / rank for rank in range(1, 9))
    expected = sum(1 - (1 - min(2 / rank / harmonic, 1)) ** 3 for rank in range(1, 9))
    assert body.nodes["up"]["op"].hit == pytest.approx(expected)


def test_a_node_without_rows_hangs_on_what_enters_the_block() -> None:
    graph = build(gs.load_model(document("resting")), PROMPT, FP8_CACHE)
    body = next(op.body for _, op in graph.nodes(data="op") if isinstance(op, Repeat))
    assert [value.node for value in inputs_of(body, "unused_proj")] == ["input"]


STREAMS = """
hidden_size: 8
streams: 4
vocab_size: 10
stem: start
head: end
layers: [{repeat: 2, block: mix}]
blocks:
  start:
    - {name: table, op: embedding, entries: 10}
    - {name: spread, op: copy, elems: 4 * tokens * hidden_size}
  mix:
    - {name: one, op: part, elems: tokens * hidden_size}
    - {name: proj, op: gemm, n: 8, k: 8}
    - {name: back, op: elementwise, inputs: [proj, input], elems: 4 * tokens * hidden_size}
  end:
    - {name: one, op: part, elems: tokens * hidden_size}
    - {name: last, op: take_rows}
    - {name: lm_head, op: gemm, n: 10, k: 8, head: true}
"""


def test_a_residual_of_several_streams_goes_from_stem_to_head() -> None:
    model = gs.load_model(yaml.safe_load(STREAMS))
    assert (model.streams, model.num_parameters) == (4, 80 + 2 * 64 + 80)
    graph = build(model, DECODE, FP8_CACHE)
    assert graph.nodes["layers_0_1"]["op"].out_elems == 3 * 4 * 8
    gs.validate(graph, "logical")
    half = build(model, DECODE, FP8_CACHE, range(1, 2))
    assert half.nodes["input"]["op"].elems == 3 * 4 * 8
