"""Drafts for speculative decoding, by the class in `architectures`; each is a model with weights of its own.

A class whose name is like a draft's and that is not in the table is an error; it is never read as its base family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.models.huggingface.drafts import dflash, eagle, eagle3, heads, mtp
from graphsim.models.huggingface.drafts.draft import Draft
from graphsim.units import short

DRAFTS: dict[str, Draft] = {
    **eagle3.DRAFTS, **eagle.DRAFTS, **heads.DRAFTS, **dflash.DRAFTS, **mtp.DRAFTS,
}  # fmt: skip
"""Drafts by class name in vLLM, SGLang, SpecForge and speculators."""

_BY_TYPE = {
    "medusa": "MedusaModel", "eagle": "EAGLEModel", "mlp_speculator": "MLPSpeculatorPreTrainedModel",
    "deepseek_mtp": "DeepSeekMTPModel", "mimo_mtp": "MiMoMTPModel", "glm4_moe_mtp": "Glm4MoeMTPModel",
    "ernie_mtp": "ErnieMTPModel", "longcat_flash_mtp": "LongCatFlashMTPModel", "qwen3_next_mtp": "Qwen3NextMTP",
    "nemotron_h_mtp": "NemotronHMTPModel",
}  # fmt: skip
"""Classes by `model_type`, for those that only drafts have."""

_SPECULATORS = {"eagle": "EagleSpeculator", "eagle3": "Eagle3Speculator", "dflash": "DFlashDraftModel"}
"""Classes by `speculators_model_type`."""

_LIKE_A_DRAFT = re.compile(r"Eagle3?(Deep)?$|^P?(Eagle|EAGLE)3?[A-Z]|Medusa|MTP|NextN|DFlash|DSpark|Speculator|Draft")


def draft_of(data: Mapping[str, Any], where: str) -> Draft | None:
    """The reader of a draft's config; None if the config describes a whole model.

    Raises ConfigError for an unknown class whose name is like a draft's.
    """
    kind = data.get("speculators_model_type")
    if kind is not None:
        if not isinstance(kind, str) or kind not in _SPECULATORS:
            found = f"{where}: speculators_model_type = {short(kind)} is not known"
            raise ConfigError(f"{found}; {choices_text(kind, _SPECULATORS)}")
        return DRAFTS[_SPECULATORS[kind]]
    named = _class_of(data)
    if named in DRAFTS:
        return DRAFTS[named]
    if named == "LlamaForCausalLM" and data.get("draft_vocab_size") is not None:
        return DRAFTS["LlamaForCausalLMEagle3"]  # as in yuhuili's EAGLE-3 checkpoints
    if _LIKE_A_DRAFT.search(named) and not named.endswith("ForConditionalGeneration"):
        raise ConfigError(
            f"{where}: architectures = {short([named])} is a draft that is not known; {choices_text(named, DRAFTS)}"
        )
    return None


def _class_of(data: Mapping[str, Any]) -> str:
    """The class that a config states, directly or by its type."""
    listed = data.get("architectures")
    named = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], str) else ""
    kind = data.get("model_type")
    return _BY_TYPE.get(kind, named) if isinstance(kind, str) and named not in DRAFTS else named
