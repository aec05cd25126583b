"""Names that published checkpoints of a family have, as the modules of transformers' class are called.

Sources: transformers 5.24, `conversion_mapping.py`. What lies in front of a language model, and lists of experts, need
no entry here (`names.plain`, `stacks`); nor do fused products, which are found by their sizes (`loose`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), text) for pattern, text in pairs)


_DEEPSEEK_V4 = _rules(
    (r"^embed\.", "embed_tokens."), (r"^head\.", "lm_head."), (r"^hc_head_(fn|base|scale)", r"hc_head.hc_\1"),
    (r"\.attn\.", ".self_attn."), (r"\.ffn\.", ".mlp."), (r"\.indexer\.compressor\.", ".compressor.indexer."),
    (r"\.attn_norm\.", ".input_layernorm."), (r"\.ffn_norm\.", ".post_attention_layernorm."),
    (r"\.hc_(attn|ffn)_(fn|base|scale)", r".\1_hc.\2"), (r"\.attn_sink", ".sinks"),
    (r"\.indexer\.weights_proj\.", ".compressor.indexer.scorer.weights_proj."),
    (r"(?<!compressor)\.indexer\.wq_b\.", ".compressor.indexer.q_b_proj."),
    (r"(indexer|compressor|self_attn)\.norm\.", r"\1.kv_norm."),
    (r"\.ape$", ".position_bias"), (r"\.wq_a\.", ".q_a_proj."), (r"\.self_attn\.wq_b\.", ".self_attn.q_b_proj."),
    (r"\.wkv\.", ".kv_proj."), (r"\.wgate\.", ".gate_proj."), (r"\.wo_(a|b)\.", r".o_\1_proj."),
    (r"\.q_norm\.", ".q_a_norm."), (r"\.gate\.bias$", ".gate.e_score_correction_bias"),
    (r"\.shared_experts\.w1\.", ".shared_experts.gate_proj."),
    (r"\.shared_experts\.w2\.", ".shared_experts.down_proj."),
    (r"\.shared_experts\.w3\.", ".shared_experts.up_proj."),
)  # fmt: skip

_HY_V4 = _rules(
    (r"\.hc_pre\.", "."), (r"\.learnable_sink_param$", ".sinks"), (r"\.linear_gate\b", ".gate_proj"),
    (r"\.hc_(attn|mlp)_layer\.hc_(fn|base|scale)$", r".hc_\1_\2"),
)  # fmt: skip

_KIMI_K25 = _rules(
    (r"^language_model\.model\.blocks\.", "language_model.model.layers."),  # as transformers saves it anew
    (r"^(vision_tower\.encoder\.blocks\.\d+)\.norm1\.", r"\1.norm2."),
    (r"^(vision_tower\.encoder\.blocks\.\d+)\.norm0\.", r"\1.norm1."),
    (r"^(vision_tower\.encoder\.blocks\.\d+)\.mlp\.fc1\.", r"\1.mlp.fc2."),
    (r"^(vision_tower\.encoder\.blocks\.\d+)\.mlp\.fc0\.", r"\1.mlp.fc1."),
    (r"^(vision_tower\.encoder\.blocks\.\d+)\.wo\.", r"\1.attn.proj."),
    (r"^vision_tower\.encoder\.blocks\.", "vision_tower.layers."), (r"^vision_tower\.encoder\.", "vision_tower."),
    (r"^vision_tower\.patch_embed\.pos_emb\.weight$", "vision_tower.patch_embed.pos_emb.position_embeddings"),
    (r"^mm_projector\.proj\.0\.", "mm_projector.in_proj."), (r"^mm_projector\.proj\.2\.", "mm_projector.out_proj."),
)  # fmt: skip

_INTERN_VIT = _rules(
    (r"^language_model\.model\.encoder\.layers\.", "language_model.model.layers."),  # as transformers saves it anew
    (r"^vision_model\.encoder\.layers\.", "vision_tower.layers."), (r"^vision_model\.", "vision_tower."),
    (r"^(vision_tower\.embeddings)\.class_embedding$", r"\1.cls_token"),
    (r"^(vision_tower\.embeddings)\.patch_embedding\.", r"\1.patch_embeddings.projection."),
    (r"^(vision_tower\.embeddings)\.position_embedding$", r"\1.position_embeddings"),
    (r"^(vision_tower\.layers\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"^(vision_tower\.layers\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"^(vision_tower\.layers\.\d+)\.ls1$", r"\1.lambda_1"), (r"^(vision_tower\.layers\.\d+)\.ls2$", r"\1.lambda_2"),
    (r"^(vision_tower\.layers\.\d+)\.attn\.proj\.", r"\1.attention.projection_layer."),
    (r"^(vision_tower\.layers\.\d+)\.attn\.", r"\1.attention."),
    (r"^mlp1\.0\.", "multi_modal_projector.layer_norm."), (r"^mlp1\.1\.", "multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "multi_modal_projector.linear_2."),
)  # fmt: skip

_SPELLINGS: dict[str, Rules] = {
    "deepseek_v4": _DEEPSEEK_V4,
    "hy_v4": _HY_V4,
    "kimi_k25": _KIMI_K25,
    "qianfan_ocr": _INTERN_VIT,
}
"""Rules by `model_type`, each applied after the one before it."""


class Speller:
    """Renames the tensors of one `model_type`; names of the class itself stay as they are."""

    __slots__ = ("_rules",)

    def __init__(self, model_type: str) -> None:
        self._rules: Iterable[tuple[re.Pattern[str], str]] = _SPELLINGS.get(model_type, ())

    def __call__(self, path: str) -> str:
        """The path, as transformers has it."""
        for pattern, text in self._rules:
            path = pattern.sub(text, path)
        return path
