"""Files of the Hugging Face libraries: TrainingArguments, TRL's scripts, Unsloth's arguments, accelerate's config."""

from __future__ import annotations

from graphsim.training.config_files.adapters import tell_bits, tell_lora, tell_nested, tell_targets
from graphsim.training.config_files.config_values import PACKED, PADDED, Source
from graphsim.training.config_files.sharding import STAGES, read_fsdp_config
from graphsim.training.config_files.trainer import read_trainer

LORA = {
    "lora_r": "r", "lora_alpha": "lora_alpha", "use_dora": "use_dora", "use_rslora": "use_rslora", "bias": "bias",
    "layers_to_transform": "layers_to_transform", "layers_pattern": "layers_pattern",
}  # fmt: skip


def read_training_arguments(source: Source) -> None:
    """TrainingArguments as JSON or YAML. transformers, src/transformers/training_args.py."""
    source.has("trainer")
    source.told.suppose("batch", 8)
    source.told.suppose("accumulate", 1)
    for key in ("model_name_or_path", "model_id", "model_name"):
        source.tell("model", source.text(key), key)
    for key in ("max_seq_length", "max_length", "model_max_length"):
        source.tell("seq_len", source.count(key), key)
    read_trainer(source)


def read_trl(source: Source) -> None:
    """TRL's script arguments, ModelConfig and SFTConfig. huggingface/trl, trl/trainer/{sft,model,base}_config.py."""
    told = source.told
    source.has("trl", "trainer")
    source.tell("model", source.text("model_name_or_path"), "model_name_or_path")
    told.suppose("recipe", "trl")
    told.suppose("batch", 8)
    told.suppose("accumulate", 1)
    adapted = source.flag("use_peft")
    if adapted is not None:
        source.tell("method", "lora" if adapted else "full", "use_peft")
    if adapted:
        tell_lora(source, LORA, names={"lora_modules_to_save": "modules_to_save"})
        tell_targets(source, "lora_target_modules")
        tell_bits(source)
        told.suppose("lora.r", 16)
        told.suppose("lora.lora_alpha", 32)
        told.suppose("recipe.lora_dropout", 0.05)
    for key in (*LORA, "lora_modules_to_save", "lora_target_modules", "lora_target_parameters", "lora_dropout"):
        source.fields.raw(key)
    tell_nested(source, "use_bnb_nested_quant", False)
    for key in ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_quant_storage"):
        source.fields.raw(key)
    _length(source)
    told.suppose("seq_len", 1024)
    _dtype(source)
    kind = source.text("loss_type")
    if kind is not None and kind != "chunked_nll":
        whole = {"kept_bytes": 4, "peak_bytes": 12, "moved_bytes": 36, "kernels": 6, "chunks": 1}
        source.tell("recipe.loss", whole, "loss_type")
    read_trainer(source, checkpoints=True)


def read_unsloth(source: Source) -> None:
    """Unsloth's arguments of from_pretrained and get_peft_model, the Trainer's at the same level or below.

    unslothai/unsloth, unsloth/models/loader.py and llama.py: 4 bits and 2048 tokens by default.
    """
    told = source.told
    source.has("unsloth", "trainer", "trl")
    for key in ("model_name", "model_name_or_path"):
        source.tell("model", source.text(key), key)
    told.suppose("recipe", "unsloth")
    told.suppose("batch", 8)
    told.suppose("accumulate", 1)
    whole = source.flag("full_finetuning")
    source.tell("method", "full" if whole else "lora", "full_finetuning")
    fields = {**LORA, "r": "r"}
    if not whole:
        tell_lora(source, fields, names={"modules_to_save": "modules_to_save"})
        tell_targets(source, "target_modules")
        told.suppose("lora.r", 16)
        told.suppose("lora.target_modules", "all-linear")
        wide = source.flag("load_in_8bit") or source.flag("load_in_16bit")
        if source.flag("load_in_4bit") is not False and not wide:
            told.suppose("bits", "4")
        tell_bits(source)
    for key in (*fields, "modules_to_save", "target_modules", "load_in_4bit", "load_in_8bit", "load_in_16bit"):
        source.fields.raw(key)
    _length(source)
    told.suppose("seq_len", 2048)
    _dtype(source)
    checkpoints = source.fields.raw("use_gradient_checkpointing")
    if checkpoints is False:
        source.tell("recompute", "none", "use_gradient_checkpointing")
    elif checkpoints is True:
        source.tell("recompute", "full", "use_gradient_checkpointing")
        source.tell("recipe.offload", (), "use_gradient_checkpointing")
    elif checkpoints not in (None, "unsloth"):
        source.fields.problem("use_gradient_checkpointing", "is not allowed; expected true, false or unsloth")
    read_trainer(source, checkpoints=True)


def _length(source: Source) -> None:
    for key in ("max_length", "max_seq_length"):
        source.tell("seq_len", source.count(key), key)
    if source.flag("packing"):
        source.note("packing", PACKED)
    else:
        source.told.note(PADDED)
    if source.flag("padding_free"):
        source.note("padding_free", "sequences are still counted at their maximum length")


def _dtype(source: Source) -> None:
    for key in ("torch_dtype", "dtype"):
        name = source.text(key)
        if name in ("float32", "fp32"):
            source.tell("precision", "fp32", key)
        elif name not in (None, "auto", "bfloat16", "float16", "bf16", "fp16", "half", "None"):
            source.fields.problem(key, "is not known; allowed: auto, bfloat16, float16, float32")


def read_accelerate(source: Source) -> None:
    """accelerate's config. huggingface/accelerate, docs/source/package_reference/cli.md."""
    told = source.told
    source.has("accelerate")
    source.tell("devices", source.count("num_processes"), "num_processes")
    kind = source.text("distributed_type")
    if kind not in (None, "NO", "MULTI_GPU", "FSDP", "DEEPSPEED", "No"):
        source.fields.problem("distributed_type", "is not simulated; allowed: NO, MULTI_GPU, FSDP, DEEPSPEED")
    mixed = source.fields.raw("mixed_precision")
    if mixed is not None and mixed is not False:
        if mixed not in ("no", "fp16", "bf16", "fp8"):
            source.fields.problem("mixed_precision", "is not known; allowed: no, fp16, bf16, fp8")
        elif mixed != "no":
            source.tell("recipe.autocast", True, "mixed_precision")
            if mixed == "fp8":
                source.note("mixed_precision", "not simulated: GEMMs in fp8, they run in bf16 here")
    _fsdp(source, kind == "FSDP", mixed)
    _deepspeed(source, kind == "DEEPSPEED")
    parallel = source.below("parallelism_config")
    for name, degree in (("tp_size", "tp"), ("cp_size", "cp"), ("dp_shard_size", "dp")):
        key = f"parallelism_config_{name}"
        parallel.tell(f"degree.{degree}", parallel.count(key), key)
    replicas = parallel.count("parallelism_config_dp_replicate_size")
    if replicas and replicas > 1:
        parallel.tell("degree.shard_group", told.get("degree.dp", 1), "parallelism_config_dp_shard_size")
        told.values["degree.dp"] = told.get("degree.dp", 1) * replicas
    for key in ("parallelism_config_cp_comm_strategy", "parallelism_config_cp_backend"):
        parallel.fields.raw(key)
    parallel.has("accelerate")
    source.fields.raw("use_parallelism_config")


def _fsdp(source: Source, used: bool, mixed: object) -> None:
    config = source.below("fsdp_config")
    if used:
        read_fsdp_config(config)
        if mixed in ("bf16", "fp16"):
            source.told.suppose("recipe.weight_format", "fp32")
            source.note("fsdp_config", "trained weights are put into fp32, as accelerate does under mixed precision")
    elif source.fields.raw("fsdp_config"):
        source.note("fsdp_config", "not used, since distributed_type is not FSDP")


def _deepspeed(source: Source, used: bool) -> None:
    config = source.below("deepspeed_config")
    if not used:
        return
    stage = config.count("zero_stage", least=0)
    if stage is not None and stage > 3:
        config.fields.problem("zero_stage", "is not allowed; expected a whole number from 0 to 3")
    elif stage is not None:
        config.tell("sharding", STAGES[stage], "zero_stage")
    for key, what in (("offload_optimizer_device", "optimizer"), ("offload_param_device", "parameters")):
        if config.text(key) in ("cpu", "nvme"):
            source.told.add("offload", what)
    config.tell("accumulate", config.count("gradient_accumulation_steps"), "gradient_accumulation_steps")
    clipping = config.fields.raw("gradient_clipping")
    if isinstance(clipping, int | float) and not isinstance(clipping, bool):
        config.tell("recipe.clips", clipping > 0, "gradient_clipping")
    source.told.suppose("recipe.master_weights", True)
    for key in (
        "zero3_init_flag", "zero3_save_16bit_model", "deepspeed_multinode_launcher", "deepspeed_hostfile",
        "deepspeed_moe_layer_cls_names", "offload_optimizer_nvme_path", "offload_param_nvme_path",
    ):  # fmt: skip
        config.fields.raw(key)
    name = config.text("deepspeed_config_file")
    if name is not None:
        config.fields.problem("deepspeed_config_file", "is read only where it is given itself; give that file as well")
    config.has("accelerate")


def read_adapter_config(source: Source) -> None:
    """PEFT's adapter_config.json, or a LoraConfig's data; PEFT's reader notes unknown fields."""
    told = source.told
    if "adapter_config" in told.values:
        told.problems.append(f"{source.name}: a second adapter; expected one")
    told.values["adapter_config"] = dict(source.fields.data)
    source.tell("recipe.lora_dropout", source.fields.number("lora_dropout", None, most=0.999), "lora_dropout")
    model = source.text("base_model_name_or_path")
    if model is not None:
        told.suppose("model", model)
