"""transformers' TrainingArguments, whose keys TRL, Axolotl, LLaMA-Factory and Unsloth have too."""

from __future__ import annotations

from typing import Any

from graphsim.errors import ConfigError
from graphsim.training.config_files.config_values import Source
from graphsim.training.config_files.sharding import read_deepspeed_key, read_fsdp
from graphsim.training.optimizers import load_optimizer
from graphsim.units import short

BATCH_KEYS = ("per_device_train_batch_size", "per_gpu_train_batch_size")
ELEMENTWISE = ("norm", "rope", "activation")
"""Operations that torch.compile and Liger's kernels fuse."""


def read_trainer(source: Source, *, checkpoints: bool = False) -> None:
    """The keys of TrainingArguments.

    checkpoints: whether gradient checkpointing is on by default
    """
    told = source.told
    for key in BATCH_KEYS:
        source.tell("batch", source.count(key), key)
    source.tell("accumulate", source.count("gradient_accumulation_steps"), "gradient_accumulation_steps")
    read_optimizer(source, "optim")
    read_checkpointing(source, checkpoints)
    read_mixed_precision(source)
    read_clipping(source, "max_grad_norm")
    read_compile(source)
    if source.flag("use_liger_kernel"):
        source.fields.raw("liger_kernel_config")
        use_liger(source, ("norm", "rope", "activation"), linear_loss=True)
    read_fsdp(source, source.fields.raw("fsdp"), "fsdp")
    read_deepspeed_key(source)
    read_length(source)
    implementation = source.text("attn_implementation")
    if implementation is not None:
        tell_attention(source, implementation, "attn_implementation")
    if source.flag("activation_offloading"):
        told.add("offload", "activations")


def read_length(source: Source) -> None:
    """The length of the run in steps or epochs; and how often it evaluates and saves, if stated in steps."""
    told = source.told
    steps = source.count("max_steps", least=-1)
    epochs = source.fields.number("num_train_epochs", None) or source.fields.number("num_epochs", None)
    if steps is not None and steps > 0:
        source.tell("plan.steps", steps, "max_steps")
    elif epochs:
        told.suppose("plan.epochs", epochs)
    every = source.fields.number("save_steps", None)
    if every is not None and every >= 1.0:
        told.suppose("plan.checkpoint_every", int(every))
    every = source.fields.number("eval_steps", None)
    if every is not None and every >= 1.0:
        source.note("eval_steps", "left out: give evaluate_every with evaluation_tokens, which no file has")


def read_optimizer(source: Source, key: str, told: Any = None) -> None:
    """An optimizer by a trainer's name for it."""
    name = source.text(key) if told is None else told
    if name is None:
        return
    try:
        load_optimizer(name)
    except ConfigError as error:
        source.fields.problems.append(f"{source.fields.name(key)}: {error}")
        return
    source.tell("optimizer", name, key)


def read_checkpointing(source: Source, default: bool, key: str = "gradient_checkpointing") -> None:
    """Whether and how layers are recomputed."""
    value = source.fields.raw(key)
    if isinstance(value, str) and value in ("offload", "offload_disk", "unsloth"):
        source.tell("recompute", "full", key)
        source.told.add("offload", "activations")
        if value == "offload_disk":
            source.note(key, "checkpoints lie in the host's memory here, not on a disk")
    else:
        flag = source.flag(key)
        source.tell("recompute", None if flag is None else ("full" if flag else "none"), key)
    source.told.suppose("recompute", "full" if default else "none")
    kwargs = source.below("gradient_checkpointing_kwargs")
    reentrant = kwargs.flag("use_reentrant")
    if reentrant is not None:
        kwargs.tell("recipe.checkpoint", "reentrant" if reentrant else "non_reentrant", "use_reentrant")


def read_mixed_precision(source: Source) -> None:
    """bf16 and fp16: autocast. `full` and `auto` are Axolotl's."""
    for key in ("bf16", "fp16"):
        value = source.fields.raw(key)
        flag = None if value == "auto" else True if value == "full" else source.flag(key)
        if flag:
            source.tell("recipe.autocast", True, key)
            if key == "fp16":
                source.note(key, "GEMMs run at the rate of bf16, and the loss scaler takes no time")
        elif flag is False:
            source.told.add("off", key)
    if {*source.told.get("off", ())} == {"bf16", "fp16"} and "recipe.autocast" not in source.told.values:
        source.tell("recipe.autocast", False, "bf16")


def read_clipping(source: Source, key: str) -> None:
    """Whether the gradients' norm is clipped: if a maximum is given."""
    norm = source.fields.number(key, None)
    if norm is not None:
        source.tell("recipe.clips", norm > 0.0, key)


def read_compile(source: Source, key: str = "torch_compile") -> None:
    """torch.compile, which fuses elementwise kernels."""
    if source.fields.raw(key) not in ("auto", None) and source.flag(key):
        for kind in ELEMENTWISE:
            source.told.add("fused", kind)
        source.note(key, "norms, rotary embeddings and activations count as one kernel each")


def use_liger(source: Source, kinds: tuple[str, ...], *, linear_loss: bool) -> None:
    """Liger's kernels.

    linear_loss: whether head and loss are fused, so that the logits are never materialised
    """
    for kind in kinds:
        source.told.add("fused", kind)
    if linear_loss:
        chunked_loss(source)


def chunked_loss(source: Source) -> None:
    """A loss that holds logits chunk by chunk. linkedin/Liger-Kernel, ops/fused_linear_cross_entropy.py."""
    loss = {"kept_bytes": 0, "peak_bytes": 0, "after_bytes": 0, "moved_bytes": 20, "kernels": 60, "chunks": 0}
    source.told.suppose("recipe.loss", loss)
    source.told.add("fused", "loss")


def tell_attention(source: Source, name: str, key: str) -> None:
    """An attention kernel by transformers' name for it."""
    if name == "eager":
        source.tell("recipe.attention", "unfused", key)
    elif name in ("sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "fa2", "auto") or "/" in name:
        source.tell("recipe.attention", "flash", key)
    else:
        source.note(key, f"{short(name)} is priced as a fused kernel")
