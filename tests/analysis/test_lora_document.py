"""The LoRA document's own snippets, unchanged but for the import line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import graphsim as gs


def test_the_documents_first_snippet_runs(tmp_path: Path) -> None:
    from graphsim import LoraConfig, create_full_prefill_model, get_configs

    # fmt: off
    model_config = get_configs('llama-7b')
    model_config.lora_config = LoraConfig(enabled=True, rank=16, target_modules=['attn', 'ffn'], strategy='dynamic')
    # fmt: on
    csv_file = create_full_prefill_model(
        name=model_config, input_sequence_length=512, data_path=str(tmp_path / "output")
    )

    table = pd.read_csv(csv_file)
    kinds = set(table["op_type"])
    assert {"GEMM", "GEMM_LORA_A", "GEMM_LORA_B", "ADD"} <= kinds
    factors = table[table["op_type"] == "GEMM_LORA_A"]
    assert (factors["m"] == 512).all() and (factors["n"] == 16).all() and len(factors) == 7
    assert (table["flops"] * table["times"])[table["op_type"] == "GEMM"].sum() == 2 * 512 * (
        32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    ) + 2 * 32000 * 4096


@pytest.mark.parametrize("strategy", ["dynamic", "merge"])
def test_the_documents_second_snippet_runs_with_the_models_own_adapter(strategy: str) -> None:
    from graphsim import estimate_end_to_end_performance

    hardware = "a100-sxm-80gb"
    result = estimate_end_to_end_performance(model='llama2_7b', batch_size=4, input_tokens=2048, output_tokens=256,
                                             system_name=hardware, bits='bf16')  # fmt: skip
    alone = gs.simulate("llama-2-7b", hardware, 4, 2048, 256, engine="reference")
    assert result["ttft"] == alone.ttft_s * 1e3
    assert result["average_tpot"] == alone.tpot_s * 1e3
    assert result["total_throughput"] == alone.tokens_per_s
    config = gs.get_configs("llama2_7b")
    config.lora_config = gs.LoraConfig(strategy=strategy)
    adapted = estimate_end_to_end_performance(model=config, batch_size=4, input_tokens=2048, output_tokens=256)
    plain = estimate_end_to_end_performance(model="llama2_7b", batch_size=4, input_tokens=2048, output_tokens=256)
    if strategy == "merge":
        assert adapted["ttft"] == plain["ttft"] and adapted["one_time"] > 0
    else:
        assert adapted["ttft"] > plain["ttft"] and adapted["one_time"] == 0
    two = estimate_end_to_end_performance(model=config, batch_size=4, tensor_parallel=2)
    assert two["ttft"] < estimate_end_to_end_performance(model=config, batch_size=4)["ttft"]


def test_the_decode_table_is_one_step_behind_the_prompt(tmp_path: Path) -> None:
    path = gs.create_full_decode_model("llama-7b", 512, tmp_path, output_gen_tokens=32, batch_size=3)
    table = pd.read_csv(path)
    assert (table[table["op_type"] == "GEMM"]["m"] == 3).all()
    assert table[table["op_type"] == "ATTENTION"]["kv_tokens"].unique().tolist() == [3 * 545.0]


@pytest.mark.parametrize("spelling", ["llama-7b", "llama2_7b", "llama-2-7b", "meta-llama/Llama-2-7b-hf"])
def test_usual_spellings_name_the_same_model(spelling: str) -> None:
    assert gs.get_configs(spelling).num_parameters == 6_738_415_616


def test_an_adapter_assigned_to_one_copy_stays_there() -> None:
    gs.get_configs("llama-7b").lora_config = gs.LoraConfig()
    assert gs.get_configs("llama-7b").lora_config is None
