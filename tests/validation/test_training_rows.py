"""Rows of training runs as people write them: settings, models and devices are understood, or the rest is said."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from graphsim.errors import ConfigError
from graphsim.files.measured import read_facts
from graphsim.validation.training_cases import case_of, key_of
from graphsim.validation.training_devices import device_of
from graphsim.validation.training_models import MPT_SIZES, model_of
from graphsim.validation.training_settings import (
    method_of,
    precision_of,
    recipe_of,
    recomputed_of,
    sharing_of,
    targets_of,
)
from tests.paths import REFERENCE

ROW: dict[str, Any] = {
    "id": "r", "source": "", "hardware": "NVIDIA A100-SXM4-80GB", "num_devices": "8", "framework": "torchtune",
    "model": "llama-3.2-1b", "method": "lora", "rank": "8", "targets": "q+v", "precision": "bf16", "seq_len": "2048",
    "micro_batch": "2", "grad_accum": "", "global_batch": "64", "tp": "1", "pp": "1", "vpp": "", "cp": "", "ep": "",
    "dp": "", "shard": "fsdp2", "recompute": "full", "metric": "step_time", "value": "1", "unit": "s", "note": "",
}  # fmt: skip


def test_degrees_that_are_left_out_follow_from_the_others() -> None:
    case = case_of(ROW | {"tp": "2"})
    assert (case.parallelism.tp, case.parallelism.dp, case.batch, case.accumulate) == (2, 4, 2.0, 8.0)
    assert case.tokens == 64 * 2048 and case.samples == 64


def test_experts_take_their_ranks_from_the_replicas() -> None:
    case = case_of(ROW | {"model": "mixtral-8x7b", "ep": "4", "shard": "ddp"})
    assert (case.parallelism.ep, case.parallelism.dp, case.parallelism.devices) == (4, 2, 8)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"tp": "", "shard": ""}, "tp is not stated"),
        ({"tp": "3"}, "not a multiple of tp"),
        ({"global_batch": "7"}, "not a multiple of micro_batch"),
        ({"seq_len": ""}, "seq_len is not stated"),
        ({"micro_batch": "", "global_batch": ""}, "micro_batch is not stated"),
        ({"framework": "nobody's trainer"}, "names no recipe"),
        ({"hardware": "a GPU with 12 GB"}, "names no device"),
        ({"method": "prompt_tuning"}, "not simulated"),
        ({"shard": "somehow"}, "shard = 'somehow'"),
        ({"recompute": "somewhat"}, "recompute = 'somewhat'"),
        ({"num_devices": "many"}, "num_devices = 'many' is not a number"),
    ],
)
def test_what_is_missing_or_strange_is_said(changed: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        case_of(ROW | changed)


def test_figures_of_one_run_are_one_case() -> None:
    rows = [
        ROW | {"note": "v5.1; 10 logs; one evaluation pass"},
        ROW | {"note": "v5.1; 10 logs; logged train_step_time, median of 53"},
        ROW | {"note": "v5.1; 10 logs = GBS*seq/(tokens/s/GPU*GPUs)"},
    ]
    assert len({key_of(row) for row in rows}) == 1
    assert key_of(ROW) != key_of(ROW | {"seq_len": "4096"})


def test_words_of_frameworks_precisions_and_shards() -> None:
    assert recipe_of("NeMo AutoModel (PyTorch FSDP2)") == "nemo-automodel"
    assert recipe_of("Megatron-Core via Pai-Megatron-Patch 25.04") == "megatron-lm"
    assert precision_of("bfloat16 weights; trainer bf16=False fp16=False", "", "peft") == "bf16"
    assert precision_of("FP8-MX", "", "megatron-bridge") == "mxfp8"
    assert precision_of("FP8", "FP8=True FP4=True", "mlperf") == "nvfp4"
    assert sharing_of("fsdp group 64").group == 64 and sharing_of("fsdp group 64").name == "fsdp2"
    assert sharing_of("fsdp full shard + cpu offload").offload == ("parameters", "optimizer")
    assert sharing_of("ddp (FSDP NO_SHARD)").name == "ddp" and sharing_of("SHARD_GRAD_OP").name == "zero2"
    assert recomputed_of("selective [layernorm moe_act]").modules == ("layernorm", "moe_act")
    assert recomputed_of("full (reentrant)").changes == {"checkpoint": "reentrant"}


def test_targets_and_methods_in_their_spellings() -> None:
    assert targets_of("q+k+v+o+gate+up+down")[-1] == "down_proj"
    assert targets_of("all *_proj") == "all-linear" and targets_of("linear_qkv") == ("q_proj", "k_proj", "v_proj")
    assert method_of("sft_full", "") == "full" and method_of("ln_tuning", "") == "ln-tuning"
    assert method_of("lora", "experiment lora/llama-3.2-3B-rank14-target-mlp-bdlora; optimizer AdamW") == "bd-lora"


def test_models_made_of_arguments_count_as_llm_foundry_says() -> None:
    """NumParams of llm-foundry's benchmark tables, scripts/train/benchmarking/README.md @8c8dd48f7."""
    counted = {"1b": 1315950592, "3b": 2651837440, "7b": 6658859008, "30b": 29975214080, "70b": 64862437376}
    for size, parameters in counted.items():
        model = model_of(f"MPT-{size}", "llm-foundry / Composer", "", 2048.0, 1.0)
        assert model.num_parameters == parameters and size in MPT_SIZES
    longer = model_of("MPT-3b", "llm-foundry / Composer", "", 32768.0, 1.0)
    assert longer.num_parameters == 2730480640


def test_megatrons_arguments_stand_in_the_note() -> None:
    note = "CI machine; num-layers=12 hidden-size=512 num-attention-heads=8 seq-length=1024 swiglu=true bf16=true"
    gated = model_of("gpt/gpt3_mcore", "Megatron-LM", note, 1024.0, 2.0)
    assert (gated.num_layers, gated.hidden_size, gated.vocab_size) == (12, 512, 50432)
    with pytest.raises(ConfigError, match="reinforcement"):
        model_of("gpt/gpt_grpo_tp4", "Megatron-LM", note, 1024.0, 1.0)
    with pytest.raises(ConfigError, match="hybrid"):
        model_of("hybrid/some", "Megatron-LM", note, 1024.0, 1.0)
    with pytest.raises(ConfigError, match="not a whole number"):
        model_of("gpt/gpt3_mcore", "Megatron-LM", note.replace("=512", "=some"), 1024.0, 1.0)


def test_devices_as_tables_write_them() -> None:
    assert device_of("NVIDIA DGX-GB300")[0].name == "gb300"
    assert device_of("16x NVIDIA H100-SXM5-80GB") == (device_of("h100-sxm")[0], 16)
    own, _ = device_of("H100-96GB HBM2e 2.4TB/s (Grand Teton, 500 W limit)")
    assert own.memory_bytes_per_s == 2.4e12 and own.memory_bytes == 96 * 2**30
    with pytest.raises(ConfigError, match="names no device"):
        device_of("GPU with 24 GB")


TABLES = [
    ("fms_hf_tuning_a100.csv", 0.0), ("mosaic_mpt.csv", 0.0), ("nvidia_nemo_tables.csv", 0.02),
    ("mlperf_training.csv", 0.5), ("megatron_ci_memory.csv", 0.5), ("peft_metamathqa.csv", 0.5),
    ("published_misc.csv", 0.25),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), TABLES, ids=[name for name, _ in TABLES])
def test_tables_are_understood_but_for_what_they_leave_out(name: str, most: float) -> None:
    path = REFERENCE / "training" / name
    if not path.is_file():
        pytest.skip("the tables of training are not beside the checkout")
    from graphsim.validation.training import counted

    rows: list[dict[Any, Any]] = read_facts(path, name, dtype=str, keep_default_na=False).to_dict("records")
    seen: dict[tuple[str, ...], str] = {}
    for row in counted(rows):
        if key_of(row) not in seen:
            try:
                case_of(row)
                seen[key_of(row)] = ""
            except ConfigError as error:
                seen[key_of(row)] = str(error)
    problems = pd.Series([seen[key_of(row)] for row in rows])
    assert (problems != "").mean() <= most, problems[problems != ""].value_counts().to_string()
