"""Exact structure of whole models against counts that transformers, PEFT and torch's flop counter gave."""

from __future__ import annotations

import csv
from functools import cache

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.ops import Attention, Gemm
from graphsim.ops.precision import load_precision
from tests.paths import REFERENCE

COVERED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2")
BATCH, LENGTH = 2.0, 256.0
pytestmark = pytest.mark.skipif(not (REFERENCE / "structure.csv").is_file(), reason="no reference data")


@cache
def rows() -> dict[str, dict[str, str]]:
    path = REFERENCE / "structure.csv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file) if row["model_type"] in COVERED}


@cache
def model(name: str) -> gs.ModelConfig:
    stem = name.replace("default:", "default--").replace("/", "--")
    return gs.load_model(REFERENCE / "hf_configs" / f"{stem}_config.json")


@pytest.mark.parametrize("name", rows())
def test_every_weight_is_counted_once(name: str) -> None:
    assert model(name).num_parameters == int(rows()[name]["params"])


@pytest.mark.parametrize("name", rows())
@pytest.mark.parametrize(
    ("column", "lora"),
    [
        ("lora_qv_r16", gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"])),
        ("lora_all_linear_r8", gs.LoraConfig(rank=8, target_modules="all-linear")),
    ],
)
def test_an_adapter_has_as_many_parameters_as_pefts(name: str, column: str, lora: gs.LoraConfig) -> None:
    if not rows()[name][column]:
        with pytest.raises(gs.ConfigError, match="matches no module"):
            gs.lora_parameters(model(name), lora)
        return
    assert gs.lora_parameters(model(name), lora) == int(rows()[name][column])


@pytest.mark.parametrize("name", rows())
def test_flops_equal_the_flop_counters_with_full_attention_and_all_logits(name: str) -> None:
    phase = prefill(BATCH, LENGTH, all_logits=True, causal=False)
    graph = build(model(name), phase, load_precision("bf16"))
    assert gs.total_work(graph).flops == int(rows()[name]["prefill_flops_b2_s256"])


@pytest.mark.parametrize("name", rows())
def test_gemm_flops_are_two_per_token_and_weight_and_attention_the_rest(name: str) -> None:
    """2 flops per token and weight of every matrix, plus q k^T and p v over full squares, and nothing else."""
    config = model(name)
    phase = prefill(BATCH, LENGTH, all_logits=True, causal=False)
    ops = list(walk(build(config, phase, load_precision("bf16"))))
    weights = sum(times * op.n * op.k for _, op, times in ops if isinstance(op, Gemm))
    products = sum(times * op.work().flops for _, op, times in ops if isinstance(op, Gemm))
    assert products == 2 * BATCH * LENGTH * weights
    squares = sum(
        times * 4 * BATCH * LENGTH**2 * op.heads * op.head_dim for _, op, times in ops if isinstance(op, Attention)
    )
    assert products + squares == int(rows()[name]["prefill_flops_b2_s256"])
