"""Deviations from the recipe's defaults by framework and note: fused kernels, losses, dropout, optimizer.

Names of configurations are fms-hf-tuning's (foundation-model-stack/fms-acceleration,
scripts/benchmarks/scenarios-*.yaml), arguments Megatron-LM's, steps those of torchtune's README.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.measured import Row
from graphsim.validation.training_cells import text_of
from graphsim.validation.training_models import arguments_of
from graphsim.validation.training_releases import exchange_overlaps, recipe_of_release

OVERLAP = 0.65
"""Fraction of the exchanges hidden by another micro-batch's compute if a script enables it: 0.6 to 0.9 for DeepSeek-V3
on GB200 and H100."""
WHOLE_LOSS = {"kept_bytes": 4.0, "peak_bytes": 12.0, "chunks": 1.0}
"""Cross-entropy of unchunked logits, as in transformers (`graphsim/training/recipes/transformers.yaml`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviations:
    """Deviations of a row from its framework's recipe.

    recipe: a variant in place of the framework's own, "" for none
    changes: fields of the recipe; a mapping has some fields of one of its parts
    optimizer: name of the optimizer, None for the recipe's own
    offload: parts in host memory, in addition to those of other columns
    """

    recipe: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str | None = None
    offload: tuple[str, ...] = ()


def changes_of(row: Row, recipe: str) -> Deviations:
    """The deviations that a row's note and framework state."""
    note, framework = text_of(row, "note"), text_of(row, "framework")
    if recipe == "fms-hf-tuning":
        return _fms(row, framework, note)
    if recipe == "torchtune":
        return _torchtune(row, note)
    if "num-layers" in arguments_of(note):
        local = arguments_of(note).get("transformer-impl") == "local"
        return Deviations(recipe="megatron-lm-local" if local else "", changes=_megatron(arguments_of(note), row))
    changes: dict[str, Any] = {}
    compiled = "torch.compile" in note and "no torch.compile" not in note
    if dropout := re.search(r"dropout (0?\.\d+|0\b)", note):
        changes["lora_dropout"] = float(dropout[1])
    if recipe == "megatron-lm" and "2022" not in framework:
        changes |= {"hidden_dropout": False, "attention_dropout": False}
    if "2022" in framework:
        changes |= {"attention": "unfused"}
    if "fsdp_qlora" in framework:
        changes["defers_reduction"] = False  # its train.py's no_sync is False by default
        changes["upcasts"] = False  # its train.py loads weights itself and calls no prepare_model_for_kbit_training
    if "async TP" in note or "AsyncTP" in note:
        changes["overlap"] = 0.9
    if recipe == "nemo-automodel" and "no clipping" in note:
        changes["clips"] = False
    if exchange_overlaps(framework, *(text_of(row, name) for name in ("model", "hardware", "precision", "pp"))):
        changes["exchange_overlap"] = OVERLAP
    variant = "torchtitan-compile" if compiled and recipe == "torchtitan" else recipe_of_release(framework)
    return Deviations(recipe=variant, changes=changes)


BIGCODE_LOSS = {
    (False, False): (2.0, 8.0), (False, True): (2.0, 6.0), (True, False): (4.0, 18.0), (True, True): (4.0, 14.0),
}  # fmt: skip
"""Bytes for each logit, kept and at the peak, of GPTBigCode by (autocast, fused cross-entropy).

Its loss keeps logits in their format (transformers 4.4x, modeling_gpt_bigcode.py, from memory; the references' peaks
agree): logits 2, a shifted copy 2, log-softmax 2, its gradient 2; one fewer if fused. Autocast adds a copy in fp32 (4),
followed by log-softmax (4), its gradient (4) and the gradient in 16 bits (2); one of 4 bytes fewer if fused."""


def _fms(row: Row, framework: str, note: str) -> Deviations:
    """The deviations of fms-hf-tuning, by the words of the configuration and the Trainer's flags."""
    config, precision = framework.rsplit("config ", 1)[-1], text_of(row, "precision").lower()
    quantised = text_of(row, "method") in ("qlora", "gptq-lora")
    under_autocast = "bf16=true" in precision or " fp16=true" in precision
    changes: dict[str, Any] = {"autocast": under_autocast}
    if "lora_dropout n/a" in note:
        changes["lora_dropout"] = 0.0
    recipe = "fms-hf-tuning" + ("-foak" if "foak" in config else "") + ("-amp" if under_autocast else "")
    if "liger" in config:
        recipe = "fms-hf-tuning-liger"
    if quantised and "foak" in config:
        early = re.search(r"(bf16|fp16)=TRUE", text_of(row, "precision"))
        recipe = "fms-hf-tuning-foak-quantised" + ("-2024" if early else "")
        recipe = "fms-hf-tuning-liger" if "liger" in config else recipe
        changes["fused"] = ("norm", "rope", "lora", "loss")
    if quantised and "baseline" not in config:
        changes["upcasts"] = False
    if "bigcode" in text_of(row, "model"):
        kept, peak = BIGCODE_LOSS[under_autocast, "foak" in config]
        changes["loss"] = {"kept_bytes": kept, "peak_bytes": peak}
    return Deviations(recipe=recipe, changes=changes)


STEPS = (
    "baseline", "packed", "compile", "chunked", "activation checkpointing", "fused into backward", "offloading",
    "8-bit", "lora", "qlora",
)  # fmt: skip
"""Words of the steps of torchtune's README, each in addition to the previous ones."""


def _torchtune(row: Row, note: str) -> Deviations:
    told, method = note.lower(), text_of(row, "method")
    if "cumulative step:" in told:
        return _cumulative(max((place for place, word in enumerate(STEPS) if word in told), default=0))
    recipe = "torchtune-compile" if "torch.compile on" in told else ""
    if method == "full" and "70B full run uses CPU offload" in note and "70B" in text_of(row, "model"):
        return Deviations(recipe=recipe, offload=("parameters", "optimizer"))
    alone = method == "full" and text_of(row, "num_devices") == "1"
    return Deviations(recipe="torchtune-single-device" if alone else recipe)


def _cumulative(last: int) -> Deviations:
    """The changes up to the given step. Raises ConfigError for the first step, whose lengths are not stated."""
    if last < STEPS.index("packed"):
        raise ConfigError("the lengths of sequences that are not packed are not stated")
    changes: dict[str, Any] = {"loss": WHOLE_LOSS} if last < STEPS.index("chunked") else {}
    if STEPS.index("fused into backward") <= last <= STEPS.index("8-bit"):
        changes["optimizer_in_backward"] = True
    return Deviations(
        recipe="torchtune-compile" if last >= STEPS.index("compile") else "",
        changes=changes,
        optimizer="adamw_8bit" if last == STEPS.index("8-bit") else None,
        offload=("activations",) if last >= STEPS.index("offloading") else (),
    )


def _allocated(local: bool, row: Row) -> float:
    """Bytes that Megatron-LM allocates in addition to the model's tensors, by implementation and device.

    Transformer Engine's cuBLAS workspace is 4 MiB, 32 MiB on Hopper (transformer_engine/pytorch/module/base.py,
    get_cublas_workspace_size_bytes); the rest is one constant from the CI's rows of one stage and one rank on the A100.
    """
    wider = "H100" in text_of(row, "hardware") and not local
    return ((LOCAL_MIB if local else ENGINE_MIB) + (28.0 if wider else 0.0)) * 2.0**20


ENGINE_MIB, LOCAL_MIB = 75.0, 125.0


def _megatron(arguments: Mapping[str, str], row: Row) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, key in (("attention-dropout", "attention_dropout"), ("hidden-dropout", "hidden_dropout")):
        if name in arguments:
            changes[key] = float(arguments[name]) > 0.0
    backend = arguments.get("attention-backend", "auto")
    if backend in ("unfused", "local") or arguments.get("transformer-impl") == "local":
        changes["attention"] = "unfused"
    changes["framework_bytes"] = _allocated(local=arguments.get("transformer-impl") != "transformer_engine", row=row)
    if arguments.get("overlap-grad-reduce") == "true":
        changes["overlap"] = 0.9
    return changes
