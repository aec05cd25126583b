"""Recipes are data: read strictly, with a source for each field, and one may change another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from graphsim.errors import ConfigError
from graphsim.training import recipe as recipes
from graphsim.training.optimizers import list_optimizers
from graphsim.training.recipe import Chain, Recipe, list_recipes, load_recipe

FOLDER = Path(recipes.__file__).parent / "recipes"
NO_FIELDS = {"inherits", "title", "references", "sources", "name"}
ASKED = (
    "peft", "transformers", "fms-hf-tuning", "trl", "unsloth", "axolotl", "llama-factory", "torchtune", "torchtitan",
    "megatron-lm", "megatron-bridge", "nemo-automodel", "mlperf", "llm-foundry",
)  # fmt: skip


def own(name: str) -> dict[str, Any]:
    """What a recipe's file itself states."""
    data: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return data


def refused(ref: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        load_recipe(ref)
    return str(raised.value)


def test_every_trainer_has_a_recipe() -> None:
    assert set(ASKED) <= set(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_every_field_that_a_file_sets_has_a_source_of_its_own(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.title
    for key in own(name).keys() - NO_FIELDS:
        source = recipe.sources.get(key, "")
        assert source and not source.startswith("inherited from "), f"{name}.yaml sets {key} without a source"


@pytest.mark.parametrize("name", list_recipes())
def test_every_field_that_differs_from_the_defaults_has_a_source(name: str) -> None:
    recipe, blank = load_recipe(name), Recipe(name="")
    for key in Recipe.__dataclass_fields__.keys() - NO_FIELDS:
        if getattr(recipe, key) != getattr(blank, key):
            assert recipe.sources.get(key), (name, key)


@pytest.mark.parametrize("name", list_recipes())
def test_a_loss_holds_no_more_behind_the_head_than_at_it(name: str) -> None:
    loss = load_recipe(name).loss
    assert loss.after_bytes <= loss.kept_bytes <= loss.peak_bytes


@pytest.mark.parametrize("name", list_recipes())
def test_what_is_fused_moves_no_more_than_what_is_written_out(name: str) -> None:
    """A chain is at least one kernel each way, and moves at least its result: 2 bytes, and as much as it reads."""
    for chain in load_recipe(name).chains:
        if chain.forward_kernels:
            assert chain.forward_bytes >= 4 and chain.backward_bytes >= 4, (name, chain)
            assert chain.backward_kernels >= 1


def test_a_recipe_changes_another_part_by_part() -> None:
    peft = load_recipe("peft")
    mine = load_recipe(
        {"inherits": "peft", "name": "mine", "loss": {"peak_bytes": 20}, "chains": {"Rope": {"forward_bytes": 4}}}
    )
    assert mine.name == "mine" and mine.loss.peak_bytes == 20 and mine.loss.kept_bytes == peft.loss.kept_bytes
    assert (
        mine.chain("Rope").forward_bytes == 4 and mine.chain("Rope").backward_bytes == peft.chain("Rope").backward_bytes
    )
    assert mine.chain("RMSNorm") == peft.chain("RMSNorm") and mine.optimizer == peft.optimizer
    assert mine.chain("Embedding") == Chain(kind="Embedding")
    assert mine.sources["optimizer"].startswith("inherited from transformers: ")


def test_an_inherited_source_names_the_file_that_first_stated_it() -> None:
    assert load_recipe("unsloth-2023").sources["fused"].startswith("inherited from unsloth: unslothai/unsloth")


def test_a_path_is_read_like_a_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("inherits: torchtune\noverlap: 0.5\nlaunch_s: {value: 3 us, source: measured}\nfused: [norm]\n")
    mine = load_recipe(file)
    assert (mine.name, mine.overlap, mine.launch_s, mine.fused) == ("mine", 0.5, 3e-6, ("norm",))
    assert mine.sources["launch_s"] == "measured"
    assert load_recipe(str(file)) == mine == load_recipe(mine)


def test_names_in_other_spellings() -> None:
    assert load_recipe("LLaMA Factory") == load_recipe("llama_factory") == load_recipe("llamafactory")
    assert load_recipe("NeMo") == load_recipe("megatron-bridge")


def test_all_problems_are_told_at_once() -> None:
    said = refused(
        {"inherits": "peft", "colour": 1, "overlap": 2, "sharding": "fsdp3", "fused": ["norms"], "optimizer": "adamax",
         "chains": {"Softmax": {}}, "loss": {"peak": 1}, "wrapper_s": {"lora": "3 GB"}, "sources": {"speed": "x"}}
    )  # fmt: skip
    for part in (
        "colour is not a known key", "overlap = 2 is not allowed; expected a number from 0 to 1", "sharding = 'fsdp3'",
        "did you mean 'norm'?", "optimizer = 'adamax'", "chains.Softmax is not a known key", "loss.peak is not a known",
    ):  # fmt: skip
        assert part in said, said
    assert "(and 1 more)" in said


@pytest.mark.parametrize(
    ("ref", "part"),
    [
        ("peftt", "did you mean 'peft'?"),
        ("no/such.yaml", "there is no such file"),
        (3, "expected a name"),
        ("", "expected"),
        ({"inherits": 3}, "inherits = 3 is not allowed"),
        ("../recipes/peft", "is not known"),
        ("x" * 5000, "is not known"),
    ],
)
def test_a_reference_that_means_nothing_is_answered_in_a_sentence(ref: Any, part: str) -> None:
    assert part in refused(ref)


def test_a_circle_of_files_is_named(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(f"inherits: {second}\n")
    second.write_text(f"inherits: {first}\n")
    assert "first -> second -> first is a circle" in refused(first)


def test_optimizers_of_recipes_are_known() -> None:
    assert {load_recipe(name).optimizer for name in list_recipes()} <= set(list_optimizers())


def test_what_is_otherwise_where_fsdp_shares_weights() -> None:
    amp = load_recipe("fms-hf-tuning-foak-amp")
    assert amp.weight_format == "given" and amp.upcasts
    shared = amp.shared("fsdp1", 4)
    assert shared.weight_format == "fp32" and not shared.upcasts and shared.fused == amp.fused
    assert amp.shared("fsdp1", 1) is amp and amp.shared("zero2", 4) is amp  # one device shares nothing
    assert load_recipe("torchtune").shared("fsdp2", 8) == load_recipe("torchtune")
    assert "under_fsdp.sharding is not a known key" in refused({"inherits": "peft", "under_fsdp": {"sharding": "ddp"}})
