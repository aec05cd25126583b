"""LLaMA-Factory's YAML. Keys and defaults: hiyouga/LLaMA-Factory, src/llamafactory/hparams."""

from __future__ import annotations

from graphsim.training.config_files.adapters import tell_lora, tell_nested, tell_targets
from graphsim.training.config_files.config_values import PACKED, PADDED, Source
from graphsim.training.config_files.trainer import read_trainer

PROJECTED = {"use_galore": ("galore", 16), "use_apollo": ("apollo", 16)}


def read_llama_factory(source: Source) -> None:
    """Read a LLaMA-Factory file."""
    told = source.told
    source.has("llama-factory", "trainer")
    source.tell("model", source.text("model_name_or_path"), "model_name_or_path")
    unsloth = source.flag("use_unsloth")
    told.suppose("recipe", "unsloth" if unsloth else "llama-factory")
    _method(source)
    source.tell("seq_len", source.count("cutoff_len"), "cutoff_len")
    told.suppose("seq_len", 2048)
    told.suppose("batch", 8)
    told.suppose("accumulate", 1)
    _checkpointing(source)
    read_trainer(source, checkpoints=True)
    if source.flag("enable_liger_kernel"):
        for kind in ("norm", "rope", "activation"):
            told.add("fused", kind)
    if source.flag("packing") or source.flag("neat_packing"):
        source.note("packing", PACKED)
    else:
        told.note(PADDED)
    attention = {"fa2": "flash", "fa3": "flash", "sdpa": "flash", "disabled": "unfused"}
    name = source.text("flash_attn")
    if name not in (None, "auto"):
        if name in attention:
            source.tell("recipe.attention", attention[name], "flash_attn")
        else:
            source.fields.problem("flash_attn", "is not known; allowed: auto, disabled, sdpa, fa2, fa3")
    _optimizer(source)
    _formats(source)


def _method(source: Source) -> None:
    stage, kind = source.text("stage") or "sft", source.text("finetuning_type") or "lora"
    if stage not in ("pt", "sft"):
        source.fields.problem(
            "stage", "is not simulated: preferences and rewards have further models; allowed: pt, sft"
        )
    if kind == "full":
        source.tell("method", "pretrain" if stage == "pt" else "full", "finetuning_type")
    elif kind == "lora":
        source.tell("method", "lora", "finetuning_type")
    elif kind == "oft":
        source.tell("method", "oft", "finetuning_type")
        source.tell("lora.peft_type", "OFT", "finetuning_type")
    else:
        source.fields.problem("finetuning_type", "is not simulated; allowed: lora, oft, full")
    for key in ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"):
        source.fields.raw(key)
    _adapter(source, kind)
    bits = source.count("quantization_bit")
    if bits is not None:
        if bits not in (4, 8):
            source.fields.problem("quantization_bit", "is not simulated; allowed: 4, 8")
        source.tell("bits", str(bits), "quantization_bit")
        method = source.text("quantization_method")
        if method not in (None, "bnb", "bitsandbytes"):
            source.fields.problem("quantization_method", "is not simulated in training; allowed: bnb")
    for key in ("quantization_method", "quantization_type"):
        source.fields.raw(key)
    tell_nested(source, "double_quantization", True)


def _adapter(source: Source, kind: str) -> None:
    lora = {"lora_rank": "r", "lora_alpha": "lora_alpha", "use_dora": "use_dora", "use_rslora": "use_rslora"}
    oft = {"oft_rank": "r", "oft_block_size": "oft_block_size"}
    for key in (*lora, *oft, "lora_dropout", "lora_target", "oft_target", "additional_target"):
        source.fields.raw(key)
    if kind == "lora":
        tell_lora(source, lora, names={"additional_target": "modules_to_save"})
        tell_targets(source, "lora_target")
        source.told.suppose("lora.r", 8)
    elif kind == "oft":
        tell_lora(source, oft, names={"additional_target": "modules_to_save"})
        tell_targets(source, "oft_target")
    if kind in ("lora", "oft"):
        source.told.suppose("lora.target_modules", "all-linear")


def _checkpointing(source: Source) -> None:
    off = source.flag("disable_gradient_checkpointing")
    if off is not None:
        source.tell("recompute", "none" if off else "full", "disable_gradient_checkpointing")
    if source.flag("use_unsloth_gc"):
        source.told.add("offload", "activations")
    reentrant = source.flag("use_reentrant_gc")
    if reentrant is not None:
        source.tell("recipe.checkpoint", "reentrant" if reentrant else "non_reentrant", "use_reentrant_gc")


def _optimizer(source: Source) -> None:
    for flag, (name, rank) in PROJECTED.items():
        chosen = source.flag(flag)
        given = source.count(f"{name}_rank")
        gap = source.count(f"{name}_update_interval")
        if chosen:
            settings = {"name": name, "rank": given or rank, "refresh_steps": gap or 200}
            source.tell("optimizer", settings, flag)
    if source.flag("use_muon"):
        source.tell("optimizer", "muon", "use_muon")
    for key in ("use_badam", "use_adam_mini"):
        if source.flag(key):
            source.fields.problem(key, "is not simulated; expected false")


def _formats(source: Source) -> None:
    """Formats of the trained weights: in fp32 under autocast, unless pure_bf16 (model/adapter.py, init_adapter)."""
    told = source.told
    if source.flag("pure_bf16"):
        source.tell("recipe.autocast", False, "pure_bf16")
        source.tell("recipe.adapter_format", "bf16", "pure_bf16")
    elif told.get("method") in ("full", "pretrain") and not told.get("recipe.master_weights"):
        told.suppose("recipe.weight_format", "fp32")  # DeepSpeed keeps its own copies in fp32
    upcast = source.flag("upcast_layernorm")
    if upcast is not None:
        source.tell("recipe.upcasts", upcast, "upcast_layernorm")
    if source.flag("fp8"):
        source.note("fp8", "not simulated: GEMMs in fp8")
