"""Axolotl's YAML. Keys and defaults: axolotl-ai-cloud/axolotl, docs/config-reference and src/axolotl/utils/schemas."""

from __future__ import annotations

from graphsim.training.config_files.adapters import tell_bits, tell_lora, tell_nested, tell_targets
from graphsim.training.config_files.config_values import PACKED, PADDED, Source
from graphsim.training.config_files.sharding import read_deepspeed_key, read_fsdp
from graphsim.training.config_files.trainer import (
    read_checkpointing,
    read_clipping,
    read_compile,
    read_length,
    read_mixed_precision,
    read_optimizer,
    tell_attention,
    use_liger,
)

KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
LIGER = {
    "liger_rope": "rope", "liger_rms_norm": "norm", "liger_layer_norm": "norm", "liger_glu_activation": "activation",
    "liger_swiglu": "activation", "unsloth_rms_norm": "norm", "unsloth_rope": "rope", "unsloth_lora_mlp": "lora",
    "unsloth_lora_qkv": "lora", "unsloth_lora_o": "lora", "flash_attn_rms_norm": "norm",
}  # fmt: skip
"""Flags of single kernels, by the operations that they fuse."""
ATTENTION = {
    "flash_attention": "fa2", "sdp_attention": "sdpa", "xformers_attention": "sdpa", "flex_attention": "flex_attention",
    "eager_attention": "eager",
}  # fmt: skip


def read_axolotl(source: Source) -> None:
    """Read an Axolotl file."""
    told = source.told
    source.has("axolotl", "trainer")
    source.tell("model", source.text("base_model"), "base_model")
    told.suppose("recipe", "axolotl")
    _method(source)
    _batch(source)
    read_optimizer(source, "optimizer")
    read_checkpointing(source, default=False)
    read_mixed_precision(source)
    for key in ("bfloat16", "float16"):
        if source.flag(key):
            source.tell("recipe.autocast", False, key)
    if source.flag("float32"):
        source.tell("precision", "fp32", "float32")
    offloading = source.fields.raw("activation_offloading")
    if offloading not in (None, False):
        told.add("offload", "activations")
    read_clipping(source, "max_grad_norm")
    read_compile(source)
    read_length(source)
    _kernels(source)
    version = source.count("fsdp_version")
    read_fsdp(source, source.fields.raw("fsdp"), "fsdp", version)
    read_deepspeed_key(source)
    _degrees(source)
    _refuse(source)


def _method(source: Source) -> None:
    adapter = source.text("adapter")
    if adapter in ("lora", "qlora"):
        source.tell("method", "relora" if source.flag("relora") else "lora", "adapter")
        if adapter == "qlora" and not source.flag("gptq"):
            source.tell("bits", "4", "adapter")
    elif adapter is not None:
        source.fields.problem("adapter", "is not simulated; allowed: lora, qlora, or nothing for training in full")
    else:
        source.tell("method", "full", "base_model")
    if source.flag("gptq"):
        source.told.values["method"] = "gptq-lora"
    if adapter is not None:
        tell_bits(source)
        nested = source.below("bnb_config_kwargs")
        tell_nested(nested, "bnb_4bit_use_double_quant", True)
        for key in ("llm_int8_has_fp16_weight", "bnb_4bit_quant_type", "bnb_4bit_quant_storage", "llm_int8_threshold"):
            nested.fields.raw(key)
    for key in ("load_in_4bit", "load_in_8bit", "bnb_config_kwargs", "relora", "gptq"):
        source.fields.raw(key)
    _adapter(source, adapter is not None)
    every = source.count("jagged_restart_steps") or source.count("relora_steps")
    if source.told.get("method") == "relora":
        if every is None:
            source.fields.problem("relora", "needs jagged_restart_steps: the steps between two merges")
        source.tell("plan.relora_every", every, "jagged_restart_steps")
        rewarm = source.count("jagged_restart_warmup_steps", least=0) or source.count("relora_warmup_steps", least=0)
        source.tell("plan.rewarm_steps", rewarm, "jagged_restart_warmup_steps")
        source.told.suppose("plan.pruned", source.fields.number("relora_prune_ratio", 0.9, most=1.0))
    for key in ("jagged_restart_warmup_steps", "relora_warmup_steps", "relora_prune_ratio", "relora_prune_method"):
        source.fields.raw(key)


def _adapter(source: Source, adapted: bool) -> None:
    keys = {
        "lora_r": "r", "lora_alpha": "lora_alpha", "peft_use_dora": "use_dora", "peft_use_rslora": "use_rslora",
        "peft_layers_to_transform": "layers_to_transform", "peft_layers_pattern": "layers_pattern",
        "peft_layer_replication": "layer_replication", "peft_trainable_token_indices": "trainable_token_indices",
    }  # fmt: skip
    lists = {"lora_modules_to_save": "modules_to_save", "lora_target_parameters": "target_parameters"}
    if not adapted:
        for key in (*keys, *lists, "lora_dropout", "lora_target_modules", "lora_target_linear"):
            source.fields.raw(key)
        return
    tell_lora(source, keys, names=lists)
    if source.flag("lora_target_linear"):
        source.tell("lora.target_modules", "all-linear", "lora_target_linear")
        source.fields.raw("lora_target_modules")
    else:
        tell_targets(source, "lora_target_modules")


def _batch(source: Source) -> None:
    micro, accumulate = source.count("micro_batch_size"), source.count("gradient_accumulation_steps")
    source.tell("batch", micro, "micro_batch_size")
    source.tell("accumulate", accumulate, "gradient_accumulation_steps")
    whole = source.count("batch_size")
    if whole is not None and accumulate is None:
        if whole % (micro or 1):
            source.fields.problem("batch_size", f"is not allowed; expected a multiple of micro_batch_size {micro or 1}")
        source.tell("accumulate", max(whole // (micro or 1), 1), "batch_size")
    source.told.suppose("batch", 1)
    source.told.suppose("accumulate", 1)
    source.tell("seq_len", source.count("sequence_len") or source.count("max_packed_sequence_len"), "sequence_len")
    source.told.suppose("seq_len", 512)
    if source.flag("sample_packing"):
        source.note("sample_packing", PACKED)
    elif not source.flag("pad_to_sequence_len"):
        source.told.note(PADDED)
    source.fields.raw("pad_to_sequence_len")


def _kernels(source: Source) -> None:
    for key, kind in LIGER.items():
        if source.flag(key):
            source.told.add("fused", kind)
    kernels = [key for key in KERNELS if source.flag(key)]
    if kernels:
        source.tell("recipe", "axolotl-lora-kernels", kernels[0])
        if len(kernels) < len(KERNELS):
            source.note(kernels[0], "counts for MLP, q, k, v and o alike")
    linear = source.flag("liger_fused_linear_cross_entropy") or source.flag("cut_cross_entropy")
    use_liger(source, (), linear_loss=bool(linear or source.flag("unsloth_cross_entropy_loss")))
    chunks = source.count("chunked_cross_entropy_num_chunks") or 8
    if source.flag("chunked_cross_entropy"):
        source.told.suppose("recipe.loss", {"kept_bytes": 4, "peak_bytes": 4 + 10 / chunks})
    if source.flag("liger_cross_entropy") or source.flag("flash_attn_cross_entropy"):
        source.told.suppose("recipe.loss", {"kept_bytes": 2, "peak_bytes": 10, "moved_bytes": 14, "kernels": 4})
        source.told.add("fused", "loss")
    source.fields.raw("liger_use_token_scaling")
    source.fields.raw("plugins")
    chosen = [(key, name) for key, name in ATTENTION.items() if source.flag(key)]
    named = source.text("attn_implementation")
    for key, name in [*chosen[:1], *([("attn_implementation", named)] if named else [])]:
        tell_attention(source, name, key)


def _degrees(source: Source) -> None:
    told = source.told
    context = source.count("context_parallel_size") or source.count("sequence_parallel_degree")
    source.tell("degree.cp", context, "context_parallel_size")
    source.fields.raw("sequence_parallel_degree")
    source.tell("degree.tp", source.count("tensor_parallel_size"), "tensor_parallel_size")
    shard, replicas = source.count("dp_shard_size"), source.count("dp_replicate_size")
    if shard is not None:
        source.tell("degree.dp", shard * (replicas or 1), "dp_shard_size")
        if replicas and replicas > 1:
            source.tell("degree.shard_group", shard, "dp_shard_size")
        if shard > 1:
            told.suppose("sharding", "fsdp2")
    source.tell("devices", source.count("world_size") or source.count("ray_num_workers"), "world_size")


def _refuse(source: Source) -> None:
    """Refuse settings that train something that is not simulated."""
    for key, what in (
        ("rl", "reinforcement learning and preferences have further models and passes"),
        ("reward_model", "a reward model has a head of its own"),
        ("process_reward_model", "a reward model has a head of its own"),
        ("unfrozen_parameters", "training part of the weights"),
        ("overrides_of_model_config", "a changed architecture; write its config.json and name that"),
    ):
        if source.fields.raw(key):
            source.fields.problem(key, f"is not simulated: {what}")
