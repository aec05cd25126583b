"""The models that come with graphsim: exact structure, and graphs that are valid however they are cut and packed.

Golden files show a model's graph as text. After a change that is meant, write them again with
`GRAPHSIM_UPDATE_GOLDEN=1 python -m pytest tests/models/test_shipped_models.py` and review the difference.
"""

from __future__ import annotations

import csv
import os
from functools import cache

import networkx as nx
import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.graph import to_text, total_work, validate, walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject, lora_parameters_of
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block
from graphsim.models.layers.moe import Moe
from graphsim.models.loading import load_model
from graphsim.models.phase import Phase, decode, prefill
from graphsim.ops import Attention, ExpertGemm, Gemm, LoraGemm, Sharding
from graphsim.ops.precision import load_precision
from graphsim.passes.pack import pack
from graphsim.passes.shard import shard
from graphsim.simulation import lora_parameters
from tests.catalog import QUICK
from tests.paths import DATA, GOLDEN, REFERENCE

HYBRID = DATA / "conv-hybrid.yaml"

MODELS = QUICK
PHASES = {"prefill": prefill(2.0, 96.0), "decode": decode(4.0, 1000.0)}
BF16 = load_precision("bf16")
ALL_LINEAR = LoraConfig(rank=8, target_modules="all-linear")


@cache
def model_of(name: str) -> ModelConfig:
    return load_model(HYBRID if name == "conv-hybrid" else name)


def graph_of(name: str, phase: Phase) -> nx.DiGraph:
    return build(model_of(name), phase, BF16)


@cache
def reference() -> dict[str, dict[str, str]]:
    path = REFERENCE / "structure.csv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


SAME_STRUCTURE = {
    "llama-2-7b": "default:llama",
    "llama-3.1-8b": "meta-llama/Meta-Llama-3.1-8B",
    "llama-3.1-70b": "meta-llama/Meta-Llama-3.1-70B",
    "mistral-7b": "default:mistral",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "phi-3-mini": "default:phi3",
    "gpt-2": "default:gpt2",
    "mixtral-8x7b": "mistralai/Mixtral-8x7B-v0.1",
    "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B",
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "minimax-m2.5": "MiniMaxAI/MiniMax-M2.7",
}
"""Shipped models whose structure the reference counts hold as well."""

WINDOWED = {"phi-3-mini": 2047}
"""Windows that the published model has and the default configuration of its architecture has not."""


@pytest.mark.parametrize(("name", "theirs"), SAME_STRUCTURE.items())
def test_the_file_says_what_the_hugging_face_config_says(name, theirs):
    path = REFERENCE / "hf_configs" / f"{theirs.replace('/', '--').replace(':', '--')}_config.json"
    if not path.is_file():
        pytest.skip("no reference data")
    ours, published = model_of(name), load_model(path)
    phase = PHASES["prefill"]
    text = to_text(build(ours, phase, BF16)).replace(f" window={WINDOWED.get(name)}", "")
    assert text == to_text(build(published, phase, BF16))
    assert (ours.stem, ours.head, ours.layer_prefix) == (published.stem, published.head, published.layer_prefix)


ADAPTERS = {
    "lora_qv_r16": LoraConfig(rank=16, target_modules=["q_proj", "v_proj"]),
    "lora_all_linear_r8": ALL_LINEAR,
}


TARGETS = (
    "all-linear",
    ["attn"],
    ["ffn"],
    ["gate"],
    ["gate_proj", "up_proj", "down_proj"],
    ["w1", "w2", "w3"],
    ["lm_head"],
)


@pytest.mark.parametrize(("name", "theirs"), SAME_STRUCTURE.items())
def test_adapters_reach_the_same_modules_as_on_the_published_config(name, theirs):
    path = REFERENCE / "hf_configs" / f"{theirs.replace('/', '--').replace(':', '--')}_config.json"
    if not path.is_file():
        pytest.skip("no reference data")
    for targets in TARGETS:
        ours, published = (_trained(model, targets) for model in (name, path))
        assert ours == published, targets


def _trained(model, targets):
    """Trainable parameters, or that nothing matches."""
    try:
        return lora_parameters(model, LoraConfig(rank=8, target_modules=targets))
    except ConfigError as error:
        return type(error)


@pytest.mark.parametrize(("name", "theirs"), SAME_STRUCTURE.items())
def test_parameters_equal_what_transformers_instantiates(name, theirs):
    if theirs not in reference():
        pytest.skip("no reference data")
    assert model_of(name).num_parameters == int(reference()[theirs]["params"])


@pytest.mark.parametrize(("name", "theirs"), SAME_STRUCTURE.items())
@pytest.mark.parametrize("column", ADAPTERS)
def test_adapter_parameters_equal_pefts(name, theirs, column):
    if theirs not in reference():
        pytest.skip("no reference data")
    expected = reference()[theirs][column]
    if not expected:
        pytest.skip("PEFT finds no such module")
    graph = inject(graph_of(name, PHASES["prefill"]), ADAPTERS[column])
    assert lora_parameters_of(graph) == int(expected)


@pytest.mark.parametrize(("name", "theirs"), SAME_STRUCTURE.items())
def test_flops_equal_the_flop_counters_with_full_attention_and_all_logits(name, theirs):
    if theirs not in reference():
        pytest.skip("no reference data")
    expected = reference()[theirs]["prefill_flops_b2_s256"]
    if not expected:
        pytest.skip("the flop counter cannot count it")
    graph = graph_of(name, prefill(2.0, 256.0, all_logits=True, causal=False))
    assert total_work(graph).flops == int(expected)


@pytest.mark.parametrize("name", MODELS)
def test_gemm_flops_are_two_per_token_and_weight(name):
    model, tokens, rows = model_of(name), 2.0 * 96, 2.0
    graph = graph_of(name, PHASES["prefill"])
    gemms = [(op, times) for _, op, times in walk(graph) if isinstance(op, Gemm)]
    chosen = {layer.chosen for block in model.layers for layer in _moes(block)} or {1}
    (each,) = chosen
    head = model.hidden_size * model.vocab_size
    inside = sum(times * op.n * op.k * (each if isinstance(op, ExpertGemm) else 1) for op, times in gemms) - head
    flops = sum(times * op.work().flops for op, times in gemms)
    assert flops == 2 * tokens * inside + 2 * rows * head


def _moes(block: Layer) -> list[Moe]:
    branches = [branch for part in block.parts for branch in part.branches] if isinstance(block, Block) else []
    return [branch.layer for branch in branches if isinstance(branch.layer, Moe)]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", [*MODELS, "conv-hybrid"])
def test_graphs_are_valid_sharded_packed_and_with_adapters(name, phase):
    logical = graph_of(name, PHASES[phase])
    validate(logical)
    for graph in (logical, inject(logical, ALL_LINEAR)):
        validate(pack(graph))
        for tp in (1.0, 2.0, 8.0):
            for sequence_parallel in (False, True):
                sharded = shard(graph, tp, sequence_parallel)
                validate(sharded)
                validate(pack(sharded))


def base_flops(graph: nx.DiGraph, devices: float = 1.0) -> float:
    """Flops of the model's own matrix products and attention on all devices; copies on every device count once."""
    chosen = [(op, times) for _, op, times in walk(graph) if isinstance(op, Gemm | Attention)]
    return sum(
        times * op.work().flops * (1.0 if getattr(op, "split", None) is Sharding.REPLICATED else devices)
        for op, times in chosen
        if not isinstance(op, LoraGemm)
    )


@pytest.mark.parametrize("name", [*MODELS, "conv-hybrid"])
def test_shards_add_up_to_the_whole(name):
    graph = graph_of(name, PHASES["prefill"])
    heads = min(op.kv_heads for _, op, _ in walk(graph) if isinstance(op, Attention))
    tp = float(np.gcd(int(heads), 8))
    assert np.isclose(base_flops(shard(graph, tp), tp), base_flops(graph), rtol=1e-12)


@pytest.mark.parametrize("name", [*MODELS, "conv-hybrid"])
def test_packing_changes_neither_weights_nor_flops(name):
    graph = graph_of(name, PHASES["decode"])
    packed = pack(graph)
    assert sum(1 for _ in walk(packed)) <= sum(1 for _ in walk(graph))
    assert base_flops(packed) == base_flops(graph)
    assert total_work(packed).weight_bytes == total_work(graph).weight_bytes


@pytest.mark.parametrize("name", [*MODELS, "conv-hybrid"])
def test_the_graph_holds_every_weight_once(name):
    graph = graph_of(name, PHASES["prefill"])
    assert sum(times * op.parameters for _, op, times in walk(graph)) == model_of(name).num_parameters


@cache
def golden_graphs() -> dict[str, nx.DiGraph]:
    adapter = LoraConfig(rank=16, target_modules=["attn", "ffn"])
    llama = graph_of("llama-3.1-8b", prefill(1.0, 512.0))
    return {
        "llama-3.1-8b": llama,
        "llama-3.1-8b.lora-tp2-packed": pack(shard(inject(llama, adapter), 2.0)),
        "llama-3.1-8b.merge": inject(llama, LoraConfig(rank=16, target_modules=["attn", "ffn"], strategy="merge")),
        "gemma-2-9b.decode": graph_of("gemma-2-9b", decode(1.0, 8192.0)),
        "qwen3-8b.tp4-sp": shard(graph_of("qwen3-8b", prefill(1.0, 512.0)), 4.0, True),
        "mixtral-8x7b.lora": inject(graph_of("mixtral-8x7b", decode(8.0, 512.0)), ALL_LINEAR),
        "phi-3-mini": graph_of("phi-3-mini", prefill(1.0, 512.0)),
        "gpt-2": graph_of("gpt-2", prefill(1.0, 512.0)),
        "conv-hybrid.lora-tp2": shard(inject(graph_of("conv-hybrid", prefill(1.0, 512.0)), adapter), 2.0),
    }


@pytest.mark.parametrize("name", golden_graphs())
def test_the_graph_is_the_one_that_was_reviewed(name):
    path = GOLDEN / f"{name}.txt"
    text = to_text(golden_graphs()[name]) + "\n"
    if os.environ.get("GRAPHSIM_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), "differs; see this file's docstring for how to write golden files again"
