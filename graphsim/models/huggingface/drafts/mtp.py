"""Multi-token prediction (MTP) layers loaded as drafts: token and state concatenated, then one layer of the family.

DeepSeek-V3, arXiv 2412.19437, section 2.2; vLLM 0.11, `models/deepseek_mtp.py` and similar files; SGLang 0.5,
`models/deepseek_nextn.py`. The config is the whole model's, whose own layers are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Reader, assemble, pre_norm, read_dims, size, unused
from graphsim.models.huggingface.deepseek import deepseek, latent_attention
from graphsim.models.huggingface.drafts.draft import ONE_TOKEN, Draft, noted
from graphsim.models.huggingface.linear_attention import qwen3_5_moe, qwen3_next
from graphsim.models.huggingface.llama import ernie, qwen2
from graphsim.models.huggingface.moe import glm4_moe
from graphsim.models.huggingface.nemotron_h import nemotron_h
from graphsim.models.layers.drafts import JoiningStem, TargetHead
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer

_COUNTS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "n_predict", "num_mtp_layers")
"""Keys for the number of MTP layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Modules of an MTP layer under `root`: norms, projection, last norm.

    root, layer: module paths, with `{n}` for the number of layers of the whole model
    last: norm before the head; empty if there is none
    """

    root: str = "model.layers.{n}."
    layer: str = "model.layers.{n}."
    token: str = "enorm"
    state: str = "hnorm"
    join: str = "eh_proj"
    last: str = "shared_head.norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family's reader, and the config values with which its only layer is that of the draft."""

    reader: Reader
    kind: str
    names: Names = Names()
    forced: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False


def _predictor(family: Family, fields: Fields, name: str) -> ModelConfig:
    """A draft with the family's layer between the concatenated input and the target's head."""
    _one(fields)
    n = 0 if family.alone else size(fields, "num_hidden_layers", "num_layers", default=0, least=0, most=MOST_LAYERS)
    given = {"num_hidden_layers": 1, "layer_types": None, "mlp_layer_types": None, "mlp_only_layers": None}
    fields.data = {**fields.data, **given, **family.forced, "model_type": family.kind}
    base = family.reader(fields, name)
    names = family.names
    root = names.root.replace("{n}", str(n))
    stem = JoiningStem(
        vocab_size=base.vocab_size,
        projection=f"{root}{names.join}",
        token_norm=f"{root}{names.token}",
        state_norm=f"{root}{names.state}",
    )
    last = NormLayer(name=f"{root}{names.last}") if names.last else None
    unused(fields, *given, *_COUNTS)
    config = replace(
        base,
        stem=stem,
        head=TargetHead(vocab_size=base.vocab_size, norm=last),
        layer_prefix=names.layer.replace("{n}", str(n)),
        notes=(),
    )
    return noted(config, fields, "a multi-token prediction layer", "embedding and head are the target's", ONE_TOKEN)


def _one(fields: Fields) -> None:
    """Note a problem if there are several such layers, which engines run in sequence, one for each further token."""
    for key in _COUNTS:
        if fields.raw(key, 1) not in (1, True):
            fields.problem(key, "is not allowed; expected 1, as drafts of several layers are not known")


def _nemotron(fields: Fields, name: str) -> ModelConfig:
    """Layers of attention or experts in the order of `mtp_hybrid_override_pattern` or `mtp_layers_block_type`."""
    pattern = fields.text("mtp_hybrid_override_pattern", "")
    kinds = fields.sequence("mtp_layers_block_type", most=MOST_LAYERS)
    if not pattern and not kinds:
        fields.problems.append("mtp_hybrid_override_pattern is missing, expected the kinds of the draft's layers")
    fields.raw("layers_block_type")
    fields.raw("hybrid_override_pattern")
    fields.data = {
        **fields.data, "layers_block_type": list(kinds) or None, "hybrid_override_pattern": pattern or "*",
    }  # fmt: skip
    return nemotron_h(fields, name)


def _nemotron_draft(fields: Fields, name: str) -> ModelConfig:
    """A Nemotron draft, whose last norm is in the last of its layers."""
    config = _predictor(_NEMOTRON, fields, name)
    last = f"mtp.layers.{len(config.layers) - 1}.final_layernorm"
    head: Any = config.head
    return replace(config, head=replace(head, norm=NormLayer(name=last)))


def _longcat(fields: Fields, name: str) -> ModelConfig:
    """One dense layer with latent attention (vLLM 0.11, `models/longcat_flash_mtp.py`)."""
    width = size(fields, "ffn_hidden_size", "intermediate_size")
    fields.data = {**fields.data, "intermediate_size": width}
    dims = read_dims(fields, floor=True)
    unused(
        fields, "n_routed_experts", "moe_topk", "expert_ffn_hidden_size", "zero_expert_num", "zero_expert_type",
        "mla_scale_q_lora", "mla_scale_kv_lora", "router_bias", "attention_method", "num_layers", "head_dim",
        "first_k_dense_replace",
    )  # fmt: skip
    return assemble(name, dims, [pre_norm(latent_attention(fields, dims), Mlp(intermediate=dims.intermediate))])


def _ernie(fields: Fields, name: str) -> ModelConfig:
    """One dense layer, even if the whole model has experts (vLLM 0.11, `models/ernie_mtp.py`)."""
    if fields.flag("use_bias", False):
        fields.problem("use_bias", "is not allowed; expected false, as the draft's layer has no biases")
    unused(fields, *(key for key in fields.data if key.startswith("moe_")))
    return ernie(fields, name)


def _mimo(fields: Fields, name: str) -> ModelConfig:
    """A layer of Qwen2, with biases on q, k and v (vLLM 0.11, `models/mimo_mtp.py`)."""
    if not fields.flag("attention_bias", True):
        fields.problem("attention_bias", "is not allowed; expected true, as the draft's layer has biases")
    return qwen2(fields, name)


_QWEN = Names(
    root="mtp.",
    layer="mtp.layers.{}.",
    token="pre_fc_norm_embedding",
    state="pre_fc_norm_hidden",
    join="fc",
    last="norm",
)
_SPARSE = {"first_k_dense_replace": 0}
_ATTENDS = {"layer_types": ["full_attention"]}
_NEMOTRON = Family(
    reader=_nemotron,
    kind="nemotron_h",
    names=Names(root="mtp.layers.0.", layer="mtp.layers.{}.", last="final_layernorm"),
)
_FAMILIES = {
    "DeepSeekMTPModel": Family(reader=deepseek, kind="deepseek_v3", forced=_SPARSE),
    "DeepseekV32MTPModel": Family(reader=deepseek, kind="deepseek_v32", forced=_SPARSE),
    "DeepseekV3ForCausalLMNextN": Family(reader=deepseek, kind="deepseek_v3", forced=_SPARSE, alone=True),
    "Glm4MoeMTPModel": Family(reader=glm4_moe, kind="glm4_moe", forced=_SPARSE),
    "Glm4MoeForCausalLMNextN": Family(reader=glm4_moe, kind="glm4_moe", forced=_SPARSE),
    "Glm4MoeLiteMTPModel": Family(reader=deepseek, kind="glm4_moe_lite", forced=_SPARSE),
    "MiMoMTPModel": Family(
        reader=_mimo,
        kind="qwen2",
        names=Names(
            root="model.mtp_layers.0.",
            layer="model.mtp_layers.{}.",
            token="token_layernorm",
            state="hidden_layernorm",
            join="input_proj",
            last="final_layernorm",
        ),
    ),
    "ErnieMTPModel": Family(
        reader=_ernie,
        kind="ernie4_5",
        names=Names(
            root="model.",
            layer="model.mtp_block.{}.",
            token="mtp_emb_norm.0",
            state="mtp_hidden_norm.0",
            join="mtp_linear_proj.0",
            last="",
        ),
    ),
    "LongCatFlashMTPModel": Family(
        reader=_longcat,
        kind="longcat_flash",
        names=Names(root="model.mtp.layers.0.", layer="model.mtp.layers.{}.", last="final_layernorm"),
    ),
    "Qwen3NextMTP": Family(reader=qwen3_next, kind="qwen3_next", names=_QWEN, forced=_ATTENDS),
    "Qwen3_5MTP": Family(reader=qwen3_next, kind="qwen3_5_text", names=_QWEN, forced=_ATTENDS),
    "Qwen3_5MoeMTP": Family(reader=qwen3_5_moe, kind="qwen3_5_moe_text", names=_QWEN, forced=_ATTENDS),
}

_SAME = {
    "Qwen3NextForCausalLMMTP": "Qwen3NextMTP",
    "LongcatFlashForCausalLMNextN": "LongCatFlashMTPModel",
    "MiMoMTP": "MiMoMTPModel",
    "Ernie4_5_MoeForCausalLMMTP": "ErnieMTPModel",
}
"""SGLang's classes with the same modules (0.5, `models/qwen3_next_mtp.py`, `longcat_flash_nextn.py`, `mimo_mtp.py`,
`ernie4_eagle.py`)."""


def _text(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's config within a multimodal one."""
    inner = data.get("text_config")
    return inner if isinstance(inner, Mapping) else data


DRAFTS = {
    **{
        named: Draft(reader=partial(_predictor, family), kind=family.kind, part=_text)
        for named, family in (_FAMILIES | {same: _FAMILIES[other] for same, other in _SAME.items()}).items()
    },
    "NemotronHMTPModel": Draft(reader=_nemotron_draft, kind="nemotron_h", part=_text),
}
"""Drafts by the class with which engines load them."""
