"""Settings parsed from free-text columns of a training run: framework, method, precision, sharding, recomputation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.lora.variants import known

FRAMEWORKS = (
    ("peft ", "peft-metamathqa"), ("fms-hf-tuning", "fms-hf-tuning"), ("automodel", "nemo-automodel"),
    ("megatron-bridge", "megatron-bridge"), ("torchtune", "torchtune"), ("torchtitan", "torchtitan"),
    ("foundry", "llm-foundry"), ("composer", "llm-foundry"), ("unsloth", "unsloth"), ("fsdp_qlora", "fsdp-qlora"),
    ("xtuner", "xtuner"), ("axolotl", "axolotl"), ("llama-factory", "llama-factory"), ("ms-swift", "ms-swift"),
    ("megatron", "megatron-lm"), ("nemo", "megatron-bridge"), ("trl", "trl"), ("hugging face", "peft"), ("hf", "peft"),
)  # fmt: skip
"""Recipes by words of a framework's name in lower case; the first match applies."""
LIKE = {"fsdp-qlora": "peft", "xtuner": "transformers", "ms-swift": "peft", "trl": "peft"}
"""Substitutes for recipes without a file."""

FULL = {"full": "full", "sft_full": "full", "sft": "full", "full-finetuning": "full", "fft": "full"}
"""Names in tables for methods that train all weights."""
ADAPTED = ("lora", "qlora", "gptq-lora", "relora", "int8-lora", "lora-fa", "qdora")
"""Methods with an adapter that are not separate variants."""
DETAILS = {"bdlora": "bd-lora", "dora": "dora", "rslora": "rslora", "lorafa": "lora-fa", "mica": "mica", "vera": "vera"}
"""Methods and variants that an experiment's name specifies in addition to `lora`."""

TARGETS: Mapping[str, str | tuple[str, ...]] = {
    "linear_qkv": ("q_proj", "k_proj", "v_proj"), "attention_qkv": ("q_proj", "k_proj", "v_proj"),
    "attention qkv_proj+o_proj": ("q_proj", "k_proj", "v_proj", "o_proj"), "all *_proj": "all-linear",
    "all": "all-linear", "all-linear": "all-linear", "all linear": "all-linear",
}  # fmt: skip
SHORT = {name: f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
DEFAULTS: Mapping[str, tuple[int, str | tuple[str, ...]]] = {
    "megatron-bridge": (32, ("q_proj", "k_proj", "v_proj")), "fsdp-qlora": (64, "all-linear"),
    "llama-factory": (8, "all-linear"), "unsloth": (16, "all-linear"), "peft": (16, "all-linear"),
    "torchtune": (8, ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
}  # fmt: skip
"""Default rank and targets: NeMo's and Megatron-Bridge's LoRA class, fsdp_qlora's train.py,
LLaMA-Factory's finetuning_args.py, Unsloth's notebooks, torchtune's llama3 recipes."""

PRECISIONS = (
    ("nvfp4", "nvfp4"), ("mxfp8", "mxfp8"), ("fp8-mx", "mxfp8"), ("tensorwise", "fp8"), ("rowwise", "fp8_row"),
    ("fp8", "fp8"), ("bfloat16", "bf16"), ("float16", "fp16"), ("bf16", "bf16"), ("fp16", "fp16"), ("16-bit", "bf16"),
    ("fp32", "fp32"),
)  # fmt: skip
"""Formats of GEMMs by words of a row's precision; the first match applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Sharding over data-parallel devices: a name in `graphsim.training.recipe.SHARDING` ("" for the recipe's own).

    group: number of devices that share, 0 for all
    offload: parts in host memory
    """

    name: str = ""
    group: int = 0
    offload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """Recomputation: a name in `graphsim.training.recipe.RECOMPUTE` ("" for the recipe's own), and the modules."""

    name: str = ""
    modules: tuple[str, ...] = ()
    offload: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


def recipe_of(framework: str) -> str:
    """The recipe's name. Raises ConfigError for an unknown framework."""
    plain = framework.lower()
    found = next((name for word, name in FRAMEWORKS if word in plain), None)
    if found is None:
        raise ConfigError(f"framework = {framework!r} names no recipe")
    return found


def precision_of(text: str, note: str, recipe: str) -> str | None:
    """The format of GEMMs; None for the recipe's own. `FP8 (see note)` and `FP4=True` count as well.

    MLPerf's submissions without a stated format run in FP8, unless a matching config enables FP4.
    """
    plain = text.lower()
    if "fp4=true" in note.lower():
        return "nvfp4"
    if not plain and recipe == "mlperf":
        return "fp8"
    return next((name for word, name in PRECISIONS if word in plain), None)


def method_of(text: str, note: str) -> str:
    """The method's name in `graphsim.training.methods`. Raises ConfigError for a method that is not simulated."""
    plain = text.lower().replace("_", "-")
    if text in FULL or plain in ("full", "pretrain"):
        return FULL.get(text, plain)
    experiment = re.search(r"experiment \S+?/(\S+)", note)
    words = re.split(r"[-_]", experiment[1].rstrip(";")) if experiment and plain == "lora" else []
    found = next((DETAILS[word] for word in words if word in DETAILS), plain)
    if found not in (*ADAPTED, *known()):
        raise ConfigError(f"method = {found!r} is not simulated")
    return found


def lora_of(recipe: str, method: str, rank: str, targets: str, note: str) -> LoraConfig | None:
    """The adapter of a method of `method_of`; None if it has none."""
    if method in ("full", "pretrain"):
        return None
    default_rank, default_targets = DEFAULTS.get(recipe, (16, "all-linear"))
    told = re.search(r"\br(?:ank)?[ =]?(\d+)\b", note)
    found_rank = int(float(rank)) if rank else int(told[1]) if told else default_rank
    modules = targets_of(targets) or default_targets
    more: dict[str, Any] = {"blocks": BLOCKS} if method == "bd-lora" else {}
    if method == "ia3":
        more["options"] = {"feedforward_modules": [name for name in modules if name in MLP]}
    variant = method if method in known() else "lora"
    return LoraConfig(rank=found_rank, target_modules=modules, variant=variant, **more)


MLP = ("gate_proj", "up_proj", "down_proj", "fc1", "fc2")
"""Modules whose input IA3 scales, as in feedforward_modules of PEFT's experiments."""
BLOCKS = 2
"""Blocks of BD-LoRA in PEFT's comparison, derived from its 8,429,568 trained parameters at rank 14."""


def targets_of(text: str) -> str | tuple[str, ...]:
    """Names of target modules; "" if none are stated."""
    plain = " ".join(text.split()).lower()
    if plain in TARGETS:
        return TARGETS[plain]
    names = [part for part in re.split(r"[+, ]+", text.strip()) if part]
    return tuple(SHORT.get(name, name) for name in names)


def sharing_of(text: str) -> Shared:
    """The sharding that a table's text describes. Raises ConfigError for unknown words."""
    plain = text.lower()
    offload = ("parameters", "optimizer") if "offload" in plain else ()
    group = re.search(r"(?:group |fsdp2? )(\d+)", plain)
    size = int(group[1]) if group else 0
    if not plain:
        return Shared()
    if "no_shard" in plain or plain == "ddp":
        return Shared(name="ddp")
    if "shard_grad_op" in plain or re.search(r"zero-?2", plain):
        return Shared(name="zero2")
    if "fsdp2" in plain or "optim_grads_params" in plain or re.fullmatch(r"fsdp group \d+", plain):
        return Shared(name="fsdp2", group=size, offload=offload)
    if "fsdp" in plain or "full_shard" in plain or "full shard" in plain:
        return Shared(name="fsdp1", group=size, offload=offload)
    if re.search(r"zero-?3", plain):
        return Shared(name="zero3", offload=offload)
    if "distributed optimizer" in plain or re.search(r"zero-?1", plain):
        return Shared(name="distributed_optimizer")
    raise ConfigError(f"shard = {text!r} is not understood")


def recomputed_of(text: str) -> Recomputed:
    """The recomputation that a table's text describes."""
    plain = text.lower()
    offload = ("activations",) if "offload" in plain else ()
    modules = re.search(r"\[([^\]]*)\]", plain)
    if not plain or "see scenarios" in plain:
        return Recomputed()
    if plain.startswith("none"):
        return Recomputed(name="none")
    if plain.startswith("full"):
        reentrant = {"checkpoint": "reentrant"} if "(reentrant)" in plain else {}
        return Recomputed(name="full", offload=offload, changes=reentrant)
    if modules:
        return Recomputed(name="selective", modules=tuple(modules[1].replace(",", " ").split()))
    if plain == "moe":
        return Recomputed(name="selective", modules=("moe",))
    if plain.startswith("select"):
        named = () if "per-op" in plain or "sac" in plain else ("core_attn",)
        return Recomputed(name="selective", modules=named)
    raise ConfigError(f"recompute = {text!r} is not understood")
