"""torchtune's YAML, whose parts are named by `_component_`. pytorch/torchtune, recipes/configs and recipes/*.py."""

from __future__ import annotations

import re

from graphsim.training.config_files.adapters import tell_lora
from graphsim.training.config_files.config_values import PACKED, PADDED, Source
from graphsim.training.config_files.trainer import chunked_loss, read_optimizer

OPTIMIZERS = {
    "torch.optim.AdamW": "adamw_foreach", "torch.optim.Adam": "adamw_foreach", "torch.optim.SGD": "sgd",
    "torch.optim.Adafactor": "adafactor", "torch.optim.Muon": "muon",
    "bitsandbytes.optim.PagedAdamW8bit": "paged_adamw_8bit", "bitsandbytes.optim.PagedAdamW": "paged_adamw_32bit",
    "bitsandbytes.optim.AdamW8bit": "adamw_8bit", "bitsandbytes.optim.AdamW": "adamw_32bit",
    "torchao.optim.AdamW8bit": "adamw_8bit",
    "torchao.prototype.low_bit_optim.AdamW8bit": "adamw_8bit", "bitsandbytes.optim.Lion8bit": "lion_8bit",
}  # fmt: skip
LINEARS = {"output_proj": "o_proj"}
"""torchtune's names of linears that differ from transformers'."""
MODELS = {"code_llama2": "codellama", "phi4_14b": "phi-4", "phi4_mini": "phi-4-mini"}
"""Prefixes of torchtune's model names that differ from all others'."""
MLP = ("gate_proj", "up_proj", "down_proj")


def read_torchtune(source: Source) -> None:
    """Read a torchtune file."""
    told = source.told
    source.has("torchtune")
    compiled = _compiled(source)
    told.suppose("recipe", "torchtune-compile" if compiled else "torchtune")
    _model(source)
    source.tell("batch", source.count("batch_size"), "batch_size")
    told.suppose("batch", 2)
    source.tell("accumulate", source.count("gradient_accumulation_steps"), "gradient_accumulation_steps")
    told.suppose("accumulate", 1)
    _data(source)
    _optimizer(source)
    _memory(source)
    loss = source.below("loss")
    _loss(loss, loss.text("_component_") or "")
    for key, degree in (
        ("tensor_parallel_dim", "tp"),
        ("context_parallel_dim", "cp"),
        ("data_parallel_shard_dim", "dp"),
    ):
        size = source.count(key, least=-1)
        source.tell(f"degree.{degree}", size if size is not None and size > 0 else None, key)
    plan = source.below("tensor_parallel_plan")
    plan.fields.raw("_component_")
    source.tell("plan.epochs", source.fields.number("epochs", None), "epochs")
    steps = source.count("max_steps_per_epoch")
    if steps is not None:
        source.tell("plan.steps", steps * int(told.values.pop("plan.epochs", 1)), "max_steps_per_epoch")


def _compiled(source: Source) -> bool:
    value = source.fields.raw("compile")
    return any(bool(part) for part in value.values()) if isinstance(value, dict) else bool(source.flag("compile"))


def _model(source: Source) -> None:
    model = source.below("model")
    component = model.text("_component_") or ""
    name = component.rsplit(".", 1)[-1]
    found = re.fullmatch(r"(lora_|qlora_|dora_|qdora_)?(\w+)", name)
    if not component or found is None:
        source.fields.problems.append("model._component_ is missing, expected torchtune.models.…")
        return
    kind = found[1] or ""
    name = re.sub(r"_(base|instruct)$", "", found[2])
    for begins, theirs in MODELS.items():
        name = theirs + name.removeprefix(begins) if name.startswith(begins) else name
    model.tell("model", name, "_component_")
    model.tell("method", "lora" if kind else "full", "_component_")
    if kind.startswith("q") or model.flag("quantize_base"):
        model.tell("bits", "4", "_component_")
    keys = ("lora_attn_modules", "apply_lora_to_mlp", "apply_lora_to_output", "lora_rank", "lora_alpha", "lora_dropout",
            "use_dora", "quantize_base")  # fmt: skip
    if kind:
        tell_lora(model, {"lora_rank": "r", "lora_alpha": "lora_alpha"})
        model.tell("lora.use_dora", True if "dora" in kind or model.flag("use_dora") else None, "use_dora")
        attention = [LINEARS.get(each, each) for each in model.names("lora_attn_modules") or ()]
        mlp = MLP if model.flag("apply_lora_to_mlp") else ()
        head = ("lm_head",) if model.flag("apply_lora_to_output") else ()
        model.tell("lora.target_modules", list(dict.fromkeys((*attention, *mlp, *head))), "lora_attn_modules")
        source.told.suppose("lora.r", 8)
    for key in keys:
        model.fields.raw(key)
    model.has("torchtune")


def _data(source: Source) -> None:
    tokenizer, dataset = source.below("tokenizer"), source.below("dataset")
    for part, key in ((tokenizer, "max_seq_len"), (dataset, "max_seq_len"), (dataset, "max_tokens_per_batch")):
        part.tell("seq_len", part.count(key), key)
    packed = dataset.flag("packed")
    if packed:
        dataset.note("packed", PACKED)
    else:
        source.told.note(PADDED)


def _optimizer(source: Source) -> None:
    optimizer = source.below("optimizer")
    component = optimizer.text("_component_")
    if component is None:
        return
    name = OPTIMIZERS.get(component)
    if name is None:
        listed = ", ".join(sorted(OPTIMIZERS))
        optimizer.fields.problem("_component_", f"is not known; allowed: {listed}")
        return
    if name == "adamw_foreach" and optimizer.flag("fused"):
        name = "adamw_fused"
    if name == "sgd" and optimizer.fields.number("momentum", 0.0):
        name = "sgd_momentum"
    read_optimizer(optimizer, "_component_", name)


def _memory(source: Source) -> None:
    told = source.told
    on = source.flag("enable_activation_checkpointing")
    source.tell("recompute", None if on is None else ("full" if on else "none"), "enable_activation_checkpointing")
    told.suppose("recompute", "none")
    if source.flag("enable_activation_offloading"):
        told.add("offload", "activations")
    if source.flag("fsdp_cpu_offload"):
        told.add("offload", "parameters")
        told.add("offload", "optimizer")
    if source.flag("optimizer_in_bwd"):
        source.tell("recipe.optimizer_in_backward", True, "optimizer_in_bwd")
    reshard = source.flag("fsdp_reshard_after_forward")
    if reshard is not None:
        source.tell("sharding", "fsdp2" if reshard else "zero2", "fsdp_reshard_after_forward")
    clip = source.fields.raw("clip_grad_norm")
    source.tell("recipe.clips", bool(clip) if clip is not None else None, "clip_grad_norm")
    name = source.text("dtype")
    if name == "fp32":
        source.tell("precision", "fp32", "dtype")
    elif name not in (None, "bf16", "fp16"):
        source.fields.problem("dtype", "is not known; allowed: bf16, fp16, fp32")


def _loss(source: Source, component: str) -> None:
    if "Liger" in component:
        chunked_loss(source)
        return
    chunks = source.count("num_output_chunks")
    if chunks is not None:
        source.tell("recipe.loss", {"kept_bytes": 4, "peak_bytes": 4 + 10 / chunks}, "num_output_chunks")
    elif component.endswith("CrossEntropyLoss") and "Linear" not in component and "Chunked" not in component:
        source.tell("recipe.loss", {"kept_bytes": 4, "peak_bytes": 14}, "_component_")
