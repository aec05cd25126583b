"""The deployment that drafts for a `Speculation`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError, InfeasibleError
from graphsim.files import catalog
from graphsim.files.reading import load_mapping
from graphsim.graph import walk
from graphsim.models.config import ModelConfig
from graphsim.models.layers.medusa import MedusaHeads, SpeculatorHeads
from graphsim.models.loading import load_model
from graphsim.models.published import KEY
from graphsim.ops import ExpertGemm
from graphsim.speculation.speculation import MTP, NGRAM, Speculation
from graphsim.units import short

MTP_CLASSES = {
    "deepseek_v3": "DeepSeekMTPModel", "deepseek_v32": "DeepseekV32MTPModel", "glm4_moe": "Glm4MoeMTPModel",
    "glm4_moe_lite": "Glm4MoeLiteMTPModel", "mimo": "MiMoMTPModel", "ernie4_5_moe": "ErnieMTPModel",
    "longcat_flash": "LongCatFlashMTPModel", "qwen3_next": "Qwen3NextMTP", "qwen3_5": "Qwen3_5MTP",
    "qwen3_5_moe": "Qwen3_5MoeMTP", "nemotron_h": "NemotronHMTPModel",
}  # fmt: skip
"""The class of a model's layers for further tokens, by the `model_type` of its config (vLLM 0.11,
`config/speculative.py`, SpeculativeConfig.hf_config_override)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """A draft for speculative decoding.

    deployment: None where no model runs
    at_once: whether one pass yields all tokens, rather than one pass per token
    reads_rows: whether it has its own cache or states, which it updates with every verified row
    """

    kind: str
    deployment: Deployment | None = None
    at_once: bool = False
    reads_rows: bool = True


NOBODY = Draft(kind="n-gram", at_once=True, reads_rows=False)


def draft_of(speculation: Speculation, target: Deployment) -> Draft:
    """The draft of a deployment.

    Raises ConfigError for an unknown draft or one that the model lacks; InfeasibleError if it cannot be sharded as
    asked.
    """
    if speculation.draft == NGRAM:
        _check_pipeline(target, NOBODY)
        return NOBODY
    model, kind = _model(speculation, target.model)
    if model.source_encoder is not None or not (model.generates or model.drafting is not None):
        raise ConfigError(
            f"speculation.draft: '{model.name}' does not generate text token by token, so it cannot draft"
        )
    _check_vocabulary(model, target.model, kind)
    at_once = model.drafting is not None or isinstance(model.head, MedusaHeads | SpeculatorHeads)
    heads = isinstance(model.head, MedusaHeads | SpeculatorHeads)
    deployment = Deployment(
        model, target.device, parallelism=_parallelism(speculation, target, model), precision=speculation.precision,
        engine=target.engine, cost=target.cost,
    )  # fmt: skip
    deployment = replace(deployment, lora=None)
    draft = Draft(kind=kind, deployment=deployment, at_once=at_once, reads_rows=not heads)
    _check_pipeline(target, draft)
    return draft


def _model(speculation: Speculation, target: ModelConfig) -> tuple[ModelConfig, str]:
    draft = speculation.draft
    if draft == MTP:
        return load_model(_own_layers(target)), "MTP layer"
    try:
        model = load_model(draft)
    except ConfigError as error:
        raise ConfigError(f"speculation.draft: {error}") from None
    return model, "heads" if any("a draft:" in note for note in model.notes) else "model"


def _own_layers(target: ModelConfig) -> Mapping[str, Any]:
    """The config of the target's layers for further tokens."""
    config = _config_of(target)
    if config is None:
        raise ConfigError(
            f"speculation.draft = 'mtp' is not allowed: the catalog has no config of '{target.name}' that states its "
            "MTP layers; give a config.json whose `architectures` name their class, another draft or 'ngram'"
        )
    inner = config.get("text_config")
    part = inner if isinstance(inner, Mapping) else config
    counted = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "n_predict")
    layers = next((part[name] for name in counted if part.get(name)), 0)
    kind = MTP_CLASSES.get(str(config.get("model_type"))) or MTP_CLASSES.get(str(part.get("model_type", "")))
    if not layers or kind is None:
        why = (
            "has no layers for further tokens" if not layers else f"has layers of a kind ({target.model_type}) not read"
        )
        raise ConfigError(
            f"speculation.draft = 'mtp' is not allowed: the config of '{target.name}' {why}; give a draft model, heads "
            f"or '{NGRAM}'"
        )
    whole = {name: config[name] for name in ("quantization_config",) if name in config}
    return {**whole, **part, "architectures": [kind]}


def _config_of(target: ModelConfig) -> Mapping[str, Any] | None:
    path = catalog.held(catalog.MODELS, target.name)
    if path is None:
        return None
    found = load_mapping(Path(path)).get(KEY)
    return found if isinstance(found, Mapping) else None


def _check_vocabulary(draft: ModelConfig, target: ModelConfig, kind: str) -> None:
    """A model's tokens have to be the target's; heads may have a smaller table of their own."""
    smaller, larger = sorted((draft.vocab_size, target.vocab_size))
    if kind == "model" and larger > ALIKE * smaller:
        raise ConfigError(
            f"speculation.draft: '{draft.name}' has {draft.vocab_size:,} tokens and '{target.name}' "
            f"{target.vocab_size:,}; expected a draft with the same tokens"
        )


ALIKE = 1.05
"""The allowed difference in size between tables of the same tokens: checkpoints of one family are padded
differently.
"""


def _parallelism(speculation: Speculation, target: Deployment, model: ModelConfig) -> Parallelism:
    """As one pipeline stage of the target, with experts distributed where there are any."""
    degrees = target.parallelism
    tp = degrees.tp if speculation.draft_tp is None else speculation.draft_tp
    return Parallelism(tp=tp, ep=degrees.ep if _has_experts(model) else 1)


def _has_experts(model: ModelConfig) -> bool:
    graph = Deployment(model).decode(1.0, 1.0)
    return any(isinstance(op, ExpertGemm) for _, op, _ in walk(graph))


WITHOUT_DRAFTS = ("slora",)
"""Engines that generate exactly one token per step (S-LoRA 18895fa8, `slora/server/router/model_infer`)."""


def check_target(target: Deployment) -> None:
    """Raise ConfigError for a model whose tokens cannot be drafted, InfeasibleError if the engine cannot verify."""
    if target.engine is not None and target.engine.name in WITHOUT_DRAFTS:
        raise InfeasibleError(
            f"speculation: engine '{target.engine.name}' does not verify drafted tokens; use vllm, sglang or trtllm"
        )
    if target.model.source_encoder is not None:
        raise ConfigError(f"speculation: '{target.model.name}' is an encoder-decoder, for which it is not simulated")
    if not target.model.generates or target.model.drafting is not None:
        raise ConfigError(f"speculation: '{target.model.name}' generates no tokens that a draft could propose")
    if np.any(np.greater(target.parallelism.cp, 1)):
        raise ConfigError(
            f"speculation: parallelism.cp = {short(target.parallelism.cp)} is not allowed; expected 1, as verifying "
            "drafted tokens over several context-parallel ranks is not simulated"
        )


STAGED = ("vllm", "vllm-deepep", "vllm-deepep-dbo")
"""Engines whose drafts run beside pipeline stages, on the last of them: vLLM's second runner, for EAGLE and DFlash
heads and MTP layers (vLLM pull requests 50514 and 46994); it runs neither draft models nor n-grams."""
UNSTAGED = "sglang"
"""SGLang 0.5.14 stops at the start unless an experimental switch is set (sgl-project/sglang pull request 30775)."""
UNSTAGED_MODELS = "trtllm"
"""TensorRT-LLM 1.2 stops with a draft model or n-grams (NVIDIA/TensorRT-LLM issue 9009)."""


def _check_pipeline(target: Deployment, draft: Draft) -> None:
    """Raise InfeasibleError for a draft that the engine does not run beside pipeline stages, ConfigError for one whose
    times are not known there.
    """
    if not np.any(np.greater(target.parallelism.pp, 1)):
        return
    engine = "" if target.engine is None else target.engine.name
    inside = draft.kind in ("heads", "MTP layer") and draft.reads_rows
    pp = f"speculation: parallelism.pp = {short(target.parallelism.pp)} is not allowed"
    if engine.startswith(UNSTAGED) or (engine.startswith(UNSTAGED_MODELS) and not inside):
        raise InfeasibleError(f"{pp} with engine '{engine}', which refuses such drafts beside pipeline stages; use 1")
    if engine and engine not in STAGED:
        raise ConfigError(f"{pp} with engine '{engine}'; drafts beside pipeline stages are simulated for vllm alone")
    if not inside:
        raise InfeasibleError(
            f"{pp} with a draft of this kind ({draft.kind}): beside pipeline stages, vllm runs EAGLE and DFlash heads "
            "and MTP layers"
        )
