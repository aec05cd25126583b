"""The trainers' own files are read as what they say; what nobody knows is named, and refused where it would count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.training.config_files.finish import TrainingFile
from graphsim.training.config_files.known_keys import known_keys, shapes
from graphsim.training.config_files.reader import READERS, format_of, read_training_config
from graphsim.training.methods import load_method
from graphsim.training.optimizers import load_optimizer
from graphsim.training.recipe import load_recipe
from tests.training import config_examples as examples

TEXTS = {
    "axolotl": examples.AXOLOTL, "llama-factory": examples.LLAMA_FACTORY, "torchtune": examples.TORCHTUNE,
    "trl": examples.TRL, "accelerate": examples.ACCELERATE,
}  # fmt: skip
DATA = {
    "unsloth": examples.UNSLOTH, "training_arguments": examples.TRAINING_ARGUMENTS, "adapter_config": examples.LORA,
    "deepspeed": examples.DEEPSPEED,
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Every example as a file, by its format."""
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    for name, data in DATA.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    return {path.stem: path for path in tmp_path.iterdir()}


def read(text: str, tmp_path: Path, **changes: Any) -> TrainingFile:
    """A YAML text with some lines in the place of others: `key=value`, or a key taken out with None."""
    lines = [line for line in text.strip().splitlines() if line.split(":")[0] not in changes]
    more = [f"{key}: {json.dumps(value)}" for key, value in changes.items() if value is not None]
    file = tmp_path / "config.yaml"
    file.write_text("\n".join([*lines, *more]) + "\n")
    return read_training_config(file, devices=8)


def refused(*given: Any, **named: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        read_training_config(*given, **named)
    return str(raised.value)


def test_formats_are_told_apart_by_their_keys(files: dict[str, Path]) -> None:
    assert set(files) == set(READERS)
    for name, path in files.items():
        assert read_training_config(path).formats == (name,)


def test_axolotl(files: dict[str, Path]) -> None:
    found = read_training_config(files["axolotl"], devices=8)
    said, lora = found.train, found.train["lora"]
    assert (said["model"], said["batch"], said["seq_len"], said["accumulate"]) == (
        "meta-llama/Llama-3.1-8B",
        2,
        4096,
        4,
    )
    assert said["method"].name == "qlora" and said["method"].base_format == "nf4_dq" and said["method"].upcasts
    assert (lora.rank, lora.alpha, lora.target_modules) == (32, 16, "all-linear")
    assert lora.modules_to_save == ("embed_tokens", "lm_head")
    assert load_optimizer(said["optimizer"]).pageable and said["recompute"] == "full"
    recipe = load_recipe(said["recipe"])
    assert recipe.lora_dropout == 0.05 and recipe.checkpoint == "non_reentrant" and recipe.autocast
    assert said["parallelism"] == Parallelism(dp=8) and found.plan == {"epochs": 3.0}
    assert any("sample_packing" in note and "squares" in note for note in found.notes) and not found.unknown


def test_axolotl_kernels_and_sharding(tmp_path: Path) -> None:
    found = read(
        examples.AXOLOTL, tmp_path, liger_rms_norm=True, liger_fused_linear_cross_entropy=True, lora_mlp_kernel=True,
        lora_qkv_kernel=True, lora_o_kernel=True, adapter="lora", load_in_4bit=None, fsdp_version=2,
        fsdp_config={"offload_params": True, "reshard_after_forward": True}, context_parallel_size=2,
    )  # fmt: skip
    recipe = load_recipe(found.train["recipe"])
    assert set(recipe.fused) == {"norm", "activation", "lora", "loss"} and recipe.loss.chunks == 0
    assert found.train["sharding"] == "fsdp2" and set(found.train["offload"]) == {"parameters", "optimizer"}
    assert found.train["parallelism"] == Parallelism(dp=4, cp=2) and found.train["method"] == "lora"


def test_axolotl_relora(tmp_path: Path) -> None:
    found = read(
        examples.AXOLOTL, tmp_path, adapter="lora", load_in_4bit=None, relora=True, jagged_restart_steps=150,
        jagged_restart_warmup_steps=10,
    )  # fmt: skip
    assert load_method(found.train["method"]).merges
    assert (found.plan["relora_every"], found.plan["rewarm_steps"], found.plan["pruned"]) == (150, 10, 0.9)


def test_llama_factory(files: dict[str, Path]) -> None:
    found = read_training_config(files["llama-factory"], devices=4)
    said, lora = found.train, found.train["lora"]
    assert (said["batch"], said["seq_len"], said["accumulate"], said["method"]) == (1, 8192, 16, "lora")
    assert (lora.rank, lora.target_modules, lora.modules_to_save) == (16, ("q_proj", "v_proj"), ("embed_tokens",))
    assert said["sharding"] == "zero3" and set(said["offload"]) == {"optimizer", "parameters"}
    recipe = load_recipe(said["recipe"])
    assert {"norm", "rope", "activation"} <= set(recipe.fused) and recipe.recompute == "full"
    assert found.plan == {"epochs": 2.0, "checkpoint_every": 200}


def test_llama_factory_trains_in_fp32_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    changes = {
        "finetuning_type": "full",
        "deepspeed": None,
        "lora_rank": None,
        "lora_target": None,
        "additional_target": None,
    }
    assert load_recipe(read(examples.LLAMA_FACTORY, tmp_path, **changes).train["recipe"]).weight_format == "fp32"
    pure = read(examples.LLAMA_FACTORY, tmp_path, **changes, pure_bf16=True, bf16=None).train
    assert load_recipe(pure["recipe"]).weight_format == "given" and not load_recipe(pure["recipe"]).autocast
    lora = load_recipe(read(examples.LLAMA_FACTORY, tmp_path, pure_bf16=True, bf16=None).train["recipe"])
    assert lora.adapter_format == "bf16" and lora.chain("LoraInput") == load_recipe("peft-bf16").chain("LoraInput")


def test_llama_factory_galore(tmp_path: Path) -> None:
    found = read(
        examples.LLAMA_FACTORY, tmp_path, finetuning_type="full", use_galore=True, galore_rank=128,
        galore_update_interval=500, lora_rank=None, lora_target=None, additional_target=None,
    )  # fmt: skip
    optimizer = load_optimizer(found.train["optimizer"])
    assert (optimizer.shape, optimizer.rank, optimizer.refresh_steps) == ("projected", 128, 500)


def test_torchtune(files: dict[str, Path]) -> None:
    found = read_training_config(files["torchtune"])
    said, lora = found.train, found.train["lora"]
    assert gs.load_model(said["model"]).name == "llama-3.1-8b" and said["method"].name == "qlora"
    assert lora.target_modules == ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (said["seq_len"], said["batch"], said["accumulate"], said["optimizer"]) == (4096, 2, 8, "adamw_fused")
    assert said["offload"] == ("activations",) and found.plan == {"steps": 200}
    recipe = load_recipe(said["recipe"])
    assert "norm" in recipe.fused and recipe.clips and not said["method"].upcasts


def test_trl(files: dict[str, Path]) -> None:
    found = read_training_config(files["trl"])
    said = found.train
    assert said["method"].base_format == "nf4"  # TRL does not quantise scales twice unless it is asked to
    assert (said["lora"].rank, said["lora"].target_modules, said["recompute"]) == (32, "all-linear", "full")
    recipe = load_recipe(said["recipe"])
    assert recipe.lora_dropout == 0.05 and recipe.autocast and recipe.loss.chunks == 0


def test_unsloth(files: dict[str, Path]) -> None:
    sorted_ones, flat = read_training_config(files["unsloth"]), {}
    for part in examples.UNSLOTH.values():
        flat |= part
    for found in (sorted_ones, read_training_config(flat)):
        said = found.train
        assert said["method"].base_format == "nf4_dq" and said["lora"].rank == 16 and said["batch"] == 2
        assert load_recipe(said["recipe"]).offload == ("activations",) and said["optimizer"] == "adamw_8bit"
        assert found.plan == {"steps": 60} and not found.unknown
    plain = read_training_config({**flat, "use_gradient_checkpointing": True})
    assert load_recipe(plain.train["recipe"]).offload == () and plain.train["recompute"] == "full"


def test_arguments_adapter_and_launcher_together(files: dict[str, Path]) -> None:
    found = read_training_config(files["training_arguments"], files["adapter_config"], files["accelerate"])
    said = found.train
    assert said["model"] == "mistralai/Mistral-7B-v0.1" and said["lora"].variant == "dora"
    assert said["parallelism"] == Parallelism(dp=8) and said["sharding"] == "fsdp1" and said["seq_len"] == 1024
    recipe = load_recipe(said["recipe"])
    assert recipe.autocast and recipe.lora_dropout == 0.1 and recipe.chain("LoraInput").forward_bytes == 12
    assert found.plan == {"steps": 1000, "checkpoint_every": 250}
    backwards = read_training_config(files["accelerate"], files["adapter_config"], files["training_arguments"])
    assert {**backwards.train, "lora": 0} == {**said, "lora": 0} and backwards.plan == found.plan


def test_deepspeed_beside_a_trainers_file(files: dict[str, Path]) -> None:
    for arguments in (
        {**examples.TRAINING_ARGUMENTS, "deepspeed": "deepspeed.json"},  # given as well
        {**examples.TRAINING_ARGUMENTS, "deepspeed": examples.DEEPSPEED},
    ):
        more = [files["deepspeed"]] if isinstance(arguments["deepspeed"], str) else []
        found = read_training_config(arguments, *more)
        assert found.train["sharding"] == "zero2" and found.train["offload"] == ("optimizer",)
        assert load_recipe(found.train["recipe"]).master_weights
    files["training_arguments"].write_text(json.dumps({**examples.TRAINING_ARGUMENTS, "deepspeed": "deepspeed.json"}))
    assert read_training_config(files["training_arguments"]).train["sharding"] == "zero2"  # found beside it


def test_a_whole_batch_has_to_be_what_its_parts_make(files: dict[str, Path]) -> None:
    deepspeed = {**examples.DEEPSPEED, "train_batch_size": 64}
    assert read_training_config(examples.TRAINING_ARGUMENTS, deepspeed, devices=8).train["accumulate"] == 2
    assert "64 is not 4 x 2 x 1 = 8" in refused(examples.TRAINING_ARGUMENTS, deepspeed)


def test_two_files_that_contradict_each_other() -> None:
    said = refused(examples.TRAINING_ARGUMENTS, {**examples.DEEPSPEED, "train_micro_batch_size_per_gpu": 1})
    assert "train_micro_batch_size_per_gpu = 1 contradicts the mapping: per_device_train_batch_size = 4" in said


def test_devices_that_share_in_two_ways(tmp_path: Path, files: dict[str, Path]) -> None:
    said = refused(files["llama-factory"], files["accelerate"])
    assert "llama-factory.yaml: deepspeed = zero3 contradicts settings of FSDP" in said


def test_a_model_given_beside_the_files_is_taken_instead(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(examples.AXOLOTL.replace("meta-llama/Llama-3.1-8B", "nobody/nothing-7B"))
    assert read_training_config(file, model="llama-3.1-8b").train["model"] == "llama-3.1-8b"


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("qwen2_5.lora_qwen2_5_7b_instruct", "qwen2.5-7b"),
        ("code_llama2.lora_code_llama2_7b", "codellama-7b"),
        ("llama3_3.llama3_3_70b", "llama-3.3-70b"),
        ("mistral.qlora_mistral_7b", "mistral-7b"),
    ],
)
def test_torchtunes_names_of_models(component: str, name: str) -> None:
    data = {"model": {"_component_": f"torchtune.models.{component}", "lora_attn_modules": ["q_proj"]}}
    assert gs.load_model(read_training_config(data).train["model"]).name == name


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    found = read(examples.AXOLOTL, tmp_path, favourite_colour="blue")
    assert found.unknown == ("favourite_colour",)
    assert any("favourite_colour = 'blue': not a known key" in note for note in found.notes)


def test_an_unknown_key_that_may_shape_memory_or_time_is_refused_unless_it_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(examples.AXOLOTL + "quantum_batch_fusion: 4\nlora_dropuot: 0.3\n")
    said = refused(file)
    assert "quantum_batch_fusion = 4 is not a known key, and its name suggests that it affects memory or time" in said
    assert "lora_dropuot = 0.3 is not a known key" in said
    assert read_training_config(file, ignore="all").unknown == ("quantum_batch_fusion", "lora_dropuot")
    assert "lora_dropuot" in refused(file, ignore=["quantum_batch_fusion"])


def test_a_known_key_that_is_not_simulated_is_a_note(tmp_path: Path) -> None:
    found = read(examples.AXOLOTL, tmp_path, tiled_mlp=True, s2_attention=False)
    noted = [note for note in found.notes if "not simulated" in note]
    assert len(noted) == 1 and "tiled_mlp = True" in noted[0] and not found.unknown


@pytest.mark.parametrize(
    ("text", "changes", "part"),
    [
        ("AXOLOTL", {"rl": "dpo"}, "rl = 'dpo' is not simulated"),
        ("AXOLOTL", {"micro_batch_size": 0}, "micro_batch_size = 0 is not allowed; expected a whole number from 1"),
        ("AXOLOTL", {"optimizer": "adamw_8bits"}, "did you mean 'adamw_8bit'?"),
        (
            "AXOLOTL",
            {"base_model": "nobody/nothing-7B"},
            "nobody/nothing-7B: no such model file, and no id of the catalog",
        ),
        ("AXOLOTL", {"lora_r": -3}, "r = -3"),
        ("AXOLOTL", {"adapter": "llama-adapter"}, "allowed: lora, qlora, or nothing"),
        ("AXOLOTL", {"unfrozen_parameters": ["lm_head"]}, "training part of the weights"),
        ("LLAMA_FACTORY", {"stage": "dpo"}, "stage = 'dpo' is not simulated"),
        ("LLAMA_FACTORY", {"finetuning_type": "freeze"}, "allowed: lora, oft, full"),
        ("LLAMA_FACTORY", {"quantization_bit": 3}, "quantization_bit = 3"),
        ("LLAMA_FACTORY", {"deepspeed": "my_settings.json"}, "names no file next to this one"),
        ("LLAMA_FACTORY", {"use_badam": True}, "use_badam = True is not simulated"),
        ("TRL", {"gradient_checkpointing": "yes please"}, "gradient_checkpointing = 'yes please'"),
        ("TRL", {"torch_dtype": "int3"}, "torch_dtype = 'int3' is not known"),
        ("ACCELERATE", {"distributed_type": "XLA"}, "distributed_type = 'XLA' is not simulated"),
        ("ACCELERATE", {"mixed_precision": "bf8"}, "mixed_precision = 'bf8' is not known"),
    ],
)
def test_what_cannot_be_is_answered_in_a_sentence(
    text: str, changes: dict[str, Any], part: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as raised:
        read(getattr(examples, text), tmp_path, **changes)
    assert part in str(raised.value) and str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "no/such.yaml",
        3,
        {},
        {"hello": "world"},
        {"base_model": 3},
        {"base_model": ["a"]},
        {"base_model": "x" * 5000},
        {"zero_optimization": 3},
        {"zero_optimization": {"stage": 9}},
        {"distributed_type": []},
        {"peft_type": "LORA", "r": "x"},
        {"base_model": "llama-3.1-8b", "fsdp": 7},
        {"base_model": "llama-3.1-8b", "fsdp": ["full"], "fsdp_config": 3},
        {"base_model": "llama-3.1-8b", "deepspeed": 3},
        {"output_dir": "x", "fsdp": "full_shard", "fsdp_config": "\0"},
        "\0.yaml",
        "~nobody/x.yaml",
        {"model": {"_component_": 7}},
        {"model": {"_component_": "torchtune.models.x"}, "optimizer": {"_component_": "a.B"}},
    ],
)
def test_bad_input_is_never_a_traceback(ref: Any) -> None:
    assert len(refused(ref)) < 5000


def test_devices_and_ignore_are_checked() -> None:
    assert "devices = 0 is not allowed" in refused(examples.TRAINING_ARGUMENTS, devices=0)
    assert "ignore" in refused(examples.TRAINING_ARGUMENTS, ignore=[3])
    assert "expected a multiple" in refused(
        {"base_model": "llama-3.1-8b", "sequence_len": 512, "context_parallel_size": 3}, devices=8
    )


def test_a_model_beside_the_file_is_meant(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
              "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "max_position_embeddings": 512}  # fmt: skip
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config))
    found = read(examples.AXOLOTL, tmp_path, base_model="./ours")
    assert gs.load_model(found.train["model"]).num_layers == 2


def test_a_key_has_one_meaning_only() -> None:
    """No key of a format is both neutral and noted, and those that readers would refuse are known by their words."""
    for name in ("trainer", "deepspeed", "deepspeed.zero", "accelerate", "accelerate.fsdp", "axolotl", "llama-factory",
                 "trl", "unsloth", "torchtune"):  # fmt: skip
        known = known_keys(name)
        assert known.neutral.keys().isdisjoint(known.noted), name
        assert all(known.neutral.values()) and all(known.noted.values())
    assert shapes("train_micro_batch_size") and shapes("sequence_len") and shapes("loraRank2_rank")
    assert not shapes("favourite_colour") and not shapes("run_name")


def test_every_format_is_tried_in_some_order() -> None:
    for name, data in DATA.items():
        flat = dict(examples.UNSLOTH["peft"]) if name == "unsloth" else data
        assert format_of(flat, "x") == name


@pytest.mark.parametrize("name", ["axolotl", "llama-factory", "torchtune", "trl"])
def test_what_is_read_can_be_trained(name: str, files: dict[str, Path]) -> None:
    """The arguments are those of `train`, and its setup says what the file did."""
    from graphsim.training.train import setup_of

    said = dict(read_training_config(files[name], devices=8).train)
    setup = setup_of(said.pop("model"), "h100-sxm", **said)
    assert setup.batch == said["batch"] and setup.seq_len == said["seq_len"]
    assert setup.deployment.parallelism.dp == 8
