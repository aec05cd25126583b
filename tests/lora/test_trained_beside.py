"""What an adapter trains beside its factors: what it weighs, and what it costs in a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.ops.adapter_weights import BuiltWeights

VOCAB, HIDDEN, LAYERS = 1000, 64, 4
MODEL: dict[str, Any] = {
    "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB, "tie_word_embeddings": True,
}  # fmt: skip
UNTIED = MODEL | {"tie_word_embeddings": False}
Q = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
ROWS = LAYERS * 8 * (HIDDEN + HIDDEN)
BATCH = 3


def adapter(**fields: Any) -> gs.LoraConfig:
    return gs.LoraConfig.from_peft(Q | fields)


def step(model: dict[str, Any], lora: gs.LoraConfig | None, engine: str = "peft") -> nx.DiGraph:
    graph = gs.build_graph(model, "decode", BATCH, 64, lora=lora, engine=engine)
    gs.validate(graph, "launched" if engine == "peft" else "lowered")
    return graph


def moved(graph: nx.DiGraph, part: str) -> float:
    return sum(float(op.work().memory_bytes) * n for name, op, n in walk(graph) if name.endswith(part))


def weights(model: dict[str, Any], lora: gs.LoraConfig) -> tuple[float, float]:
    memory = gs.simulate(model, "h100-sxm", lora=lora, engine="reference").memory
    return float(memory.weights_bytes), float(memory.adapters_bytes)


def test_a_tied_adapter_is_a_product_over_the_vocabulary_in_every_step() -> None:
    """PEFT 0.21, ensure_weight_tying: the embedding's factors, turned round, on the head as well."""
    plain, tied = (adapter(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=x) for x in (False, True))
    assert gs.lora_parameters(MODEL, tied) - gs.lora_parameters(MODEL, plain) == 8 * (VOCAB + HIDDEN)
    flops = [gs.total_work(step(MODEL, lora, "reference")).flops for lora in (plain, tied)]
    assert flops[1] - flops[0] == pytest.approx(2 * BATCH * 8 * (VOCAB + HIDDEN) + BATCH * VOCAB)
    assert gs.lora_parameters(UNTIED, tied) == gs.lora_parameters(UNTIED, plain)


@pytest.mark.parametrize(("model", "tables"), [(MODEL, 2), (UNTIED, 1)])
def test_trained_rows_have_a_table_written_again_in_every_step(model: dict[str, Any], tables: int) -> None:
    """PEFT 0.21, tuners/trainable_tokens/layer.py: index_copy of the whole table, twice where the head shares it."""
    lora = adapter(trainable_token_indices=[1, 2, 3])
    assert gs.lora_parameters(model, lora) == ROWS + 3 * HIDDEN
    found = [op for _, op, _ in walk(step(model, lora, "reference")) if isinstance(op, BuiltWeights)]
    assert len(found) == tables and {float(op.elems) for op in found} == {VOCAB * HIDDEN}
    assert moved(step(model, lora, "reference"), ".lora_tokens") == tables * 2 * 2 * VOCAB * HIDDEN + 3 * HIDDEN * 2
    assert weights(model, lora)[1] - weights(model, adapter())[1] == 2 * 3 * HIDDEN


def test_a_module_that_is_saved_is_a_copy_that_runs_in_the_place_of_the_models() -> None:
    lora = adapter(modules_to_save=["lm_head"])
    assert gs.lora_parameters(UNTIED, lora) == ROWS + VOCAB * HIDDEN
    assert weights(UNTIED, lora)[1] - weights(UNTIED, adapter())[1] == 2 * VOCAB * HIDDEN
    work, plain = (gs.total_work(step(UNTIED, one)) for one in (lora, adapter()))
    assert (work.flops, work.memory_bytes) == (plain.flops, plain.memory_bytes)


def test_trained_biases_take_no_memory_of_their_own() -> None:
    model = MODEL | {"model_type": "qwen2"}  # with biases of q, k and v
    lora = adapter(bias="all")
    assert gs.lora_parameters(model, lora) == ROWS + LAYERS * (HIDDEN + 32 + 32)
    assert gs.lora_parameters(model, adapter(bias="lora_only")) == ROWS + LAYERS * HIDDEN
    assert weights(model, lora) == weights(model, adapter())


@pytest.mark.slow
def test_replicated_layers_share_weights_and_have_adapters_of_their_own() -> None:
    """PEFT 0.21, layer_replication: layers 0, 1, 2, 1, 2, 3."""
    lora = adapter(layer_replication=[[0, 3], [1, 4]])
    assert gs.lora_parameters(MODEL, lora) == ROWS * 6 / LAYERS
    assert weights(MODEL, lora)[0] == weights(MODEL, adapter())[0]
    assert weights(MODEL, lora)[1] == weights(MODEL, adapter())[1] * 6 / LAYERS
    deep, own = (gs.simulate(MODEL, "h100-sxm", lora=one, engine="peft") for one in (lora, adapter()))
    assert deep.memory.kv_cache_bytes == own.memory.kv_cache_bytes * 6 / LAYERS and deep.tpot_s > 1.3 * own.tpot_s
    with pytest.raises(gs.ConfigError, match=r"parallelism\.pp = 2 is not allowed with lora\.layer_replication"):
        gs.simulate(MODEL, "h100-sxm", lora=lora, parallelism=gs.Parallelism(pp=2), engine="reference")


def test_merged_nothing_of_it_is_left() -> None:
    fields: dict[str, Any] = {"trainable_token_indices": [1], "bias": "all", "modules_to_save": ["norm"]}
    merged = replace(adapter(**fields), strategy="merge")
    assert {name for name, op, _ in walk(step(MODEL, merged, "reference")) if op.adapter and not op.once} == set()


def test_norms_that_are_tuned_are_copies_and_take_no_longer() -> None:
    lora = gs.LoraConfig.from_peft({"peft_type": "LN_TUNING"})
    assert gs.lora_parameters(MODEL, lora) == (2 * LAYERS + 1) * HIDDEN
    tuned, base = (gs.total_work(step(MODEL, one)) for one in (lora, None))
    assert (tuned.flops, tuned.memory_bytes) == (base.flops, base.memory_bytes)
    report = gs.match_report(MODEL, lora)
    assert set(report.module[report.matched]) >= {"model.norm", "model.layers.3.post_attention_layernorm"}
