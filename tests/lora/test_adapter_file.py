"""Adapters from YAML and from `--lora`: the same LoraConfig as by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.cli.adapters import lora_config
from graphsim.lora.popularity import expected_distinct, popularity, uniform, zipf

TEXT = r"""
rank: 16
target_modules: [q_proj, v_proj, down_proj]
rank_pattern: {down_proj: 8, '.*layers\.(0|1)\..*': 64}
active_adapters: 4
"""
PATTERN = {"down_proj": 8, r".*layers\.(0|1)\..*": 64}


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_file_says_ranks_per_module_and_per_layer(tmp_path: Path) -> None:
    lora = gs.LoraConfig.from_yaml(written(tmp_path, TEXT))
    by_hand = gs.LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern=PATTERN)
    assert gs.lora_parameters("llama-3.1-8b", lora) == gs.lora_parameters("llama-3.1-8b", by_hand)
    report = gs.match_report("llama-3.1-8b", lora).set_index("module")["rank"]
    found = [report[f"model.layers.{i}.self_attn.q_proj"] for i in range(4)]
    assert found == [64, 64, 16, 16] and report["model.layers.5.mlp.down_proj"] == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rnk: 8", "'rnk' is not a known key; did you mean 'rank'"),
        ("rank: -8", "lora.rank = -8"),
        ("rank: .nan", "lora.rank = nan"),
        ("rank_pattern: [8]", "is not a mapping of module names to ranks"),
        ("- 8", "expected a mapping"),
        ("", "the file is empty"),
        ("alpha: x", "lora.alpha = 'x' is not allowed"),
        ("rank_pattern: {'(': 3}", "lora.rank_pattern: '(' is not a regular expression"),
        ("variant: magic", "lora.variant = 'magic' is not known"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(gs.ConfigError) as error:
        gs.LoraConfig.from_yaml(written(tmp_path, text))
    assert said in str(error.value) and "mine.yaml" in str(error.value) and "\n" not in str(error.value)


def test_the_command_line_changes_values_of_a_file(tmp_path: Path) -> None:
    changed = lora_config(f"{written(tmp_path, TEXT)},adapters=9,max_loras=16")
    assert changed and (changed.active_adapters, changed.max_loras, changed.rank) == (9, 16, 16)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "target_modules": ["q_proj"]}))
    peft = lora_config(f"{tmp_path},adapters=3")
    assert peft and (peft.rank, peft.active_adapters, peft.target_modules) == (4, 3, ("q_proj",))


def test_the_command_says_what_a_file_holds_that_is_not_known(tmp_path: Path, capsys: Any) -> None:
    config = {"r": 4, "target_modules": ["c_attn"], "brand_new_field": 1}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert main(["lora", "gpt-2", "--hardware", "l4", "--lora", str(tmp_path)]) == 0
    assert "note: unknown field of the adapter's config: brand_new_field" in capsys.readouterr().out


def test_modules_that_are_left_out_are_named_as_the_reason() -> None:
    with pytest.raises(gs.ConfigError, match="matches no module of the model that exclude_modules left in"):
        gs.lora_parameters("llama-3.1-8b", gs.LoraConfig(target_modules=["q_proj"], exclude_modules=["q_proj"]))


def test_registered_adapters_are_counted_by_their_popularity() -> None:
    found = lora_config("registered=100,popularity=zipf:1.5,share=0.5", 32)
    assert found and found.active_adapters == pytest.approx(expected_distinct(zipf(100, 1.5), 32, 0.5))
    assert popularity("one", 5).tolist() == [1, 0, 0, 0, 0]


def test_many_adapters_over_an_array_of_batches_equal_single_simulations() -> None:
    batches = np.array([1, 8, 64])
    many = gs.LoraConfig(rank=8, max_loras=50).among(uniform(50), batches)
    together = gs.simulate("llama-3.1-8b", "h100-sxm", batches, 256, 32, lora=many, engine="vllm").tpot_s
    for batch, tpot in zip(batches, together, strict=True):
        one = gs.LoraConfig(rank=8, max_loras=50).among(uniform(50), float(batch))
        alone = gs.simulate("llama-3.1-8b", "h100-sxm", int(batch), 256, 32, lora=one, engine="vllm").tpot_s
        assert tpot == pytest.approx(alone, rel=1e-9)
