"""Translates names in published checkpoints of a family to module names of its class in transformers.

Source: transformers 5.24, `conversion_mapping.py`. Prefixes of a language model and lists of experts need no entry
here (`names.plain`, `stacks`); neither do fused GEMMs, which are recognised by their sizes (`loose`).
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
    (r"\.hc_attn_layer\.hc_(fn|base|scale)", r".attn_hc.\1"),
    (r"\.hc_mlp_layer\.hc_(fn|base|scale)", r".ffn_hc.\1"), (r"\.hc_head_(fn|base|scale)", r".hc_\1"),
)  # fmt: skip

_KIMI_K25 = _rules(
    (r"^language_model\.model\.blocks\.", "language_model.model.layers."),  # as saved by transformers
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
    (r"^language_model\.model\.encoder\.layers\.", "language_model.model.layers."),  # as saved by transformers
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

_ERNIE_VL = _rules(
    (r"\bvision_model\.", "vision_tower."), (r"(spatial|temporal)_linear\.0\.", r"\1_linear.fc1."),
    (r"(spatial|temporal)_linear\.2\.", r"\1_linear.fc2."), (r"(spatial|temporal)_linear\.3\.", r"\1_linear.ln."),
    (r"\.mlp\.gate\.weight_1$", ".mlp.vision_moe.gate.weight"),
    (r"\.mlp\.gate\.weight$", ".mlp.text_moe.gate.weight"),
)  # fmt: skip

_GLM5_NEXT = _rules(
    (r"\.self_attn\.(f_a_proj\.|f_b_proj\.|dt_bias$|A_log$)", r".self_attn.forget_gate.\1"),
    (r"\.hc_(attn|ffn)_(fn|base|scale)", r".\1_hc.\2"),
)

_STEP_VL = _rules(
    (r"^vit_large_projector\.", "multi_modal_projector."),
    (r"\.moe\.gate\.", ".mlp.gate."), (r"\.moe\.router_bias$", ".mlp.gate.e_score_correction_bias"),
    (r"\.moe\.(gate|up|down)_proj\.", r".mlp.experts.\1_proj."), (r"\.share_expert\.", ".mlp.shared_experts."),
    (r"^vision_model\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^vision_model\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^vision_model\.ln_pre\.", "vision_model.pre_layernorm."),
    (r"^vision_model\.vit_downsampler", "vision_model.downsampler"),
    (r"^vision_model\.transformer\.resblocks\.", "vision_model.layers."),
    (r"^(vision_model\.layers\.\d+)\.ls_(1|2)\.gamma$", r"\1.lambda_\2"),
    (r"^(vision_model\.layers\.\d+)\.mlp\.c_fc\.", r"\1.mlp.fc1."),
    (r"^(vision_model\.layers\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
    (r"^(vision_model\.layers\.\d+)\.attn\.", r"\1.self_attn."),
    (r"^(vision_model\.layers\.\d+)\.ln_1\.", r"\1.layernorm_before."),
    (r"^(vision_model\.layers\.\d+)\.ln_2\.", r"\1.layernorm_after."),
)  # fmt: skip

_HY_V4_VL = _HY_V4 + _rules(
    (r"^(vit\.layers\.\d+)\.input_layernorm\.", r"\1.layer_norm1."),
    (r"^(vit\.layers\.\d+)\.post_attention_layernorm\.", r"\1.layer_norm2."),
    (r"^(vit\.layers\.\d+)\.mlp\.dense_h_to_4h\.", r"\1.mlp.fc1."),
    (r"^(vit\.layers\.\d+)\.mlp\.dense_4h_to_h\.", r"\1.mlp.fc2."),
    (r"^vit\.perceive\.norm\.", "vit.patch_merger.before_rms."),
    (r"^vit\.perceive\.proj\.0\.", "vit.patch_merger.proj_conv."),
    (r"^vit\.perceive\.proj\.2\.", "vit.patch_merger.proj_out."),
    (r"^vit\.perceive\.", "vit.patch_merger."), (r"^vit\.", "vision_tower."),
)  # fmt: skip

_RADIO = _rules(
    (r"^vision_model\.radio_model\.model\.blocks\.", "vision_model.encoder.layer."),
    (r"^vision_model\.radio_model\.model\.patch_generator\.", "vision_model.embeddings."),
    (r"^vision_model\.radio_model\.", "vision_model."),
    (r"^(vision_model\.embeddings)\.video_embedder\.", r"\1.video_patch_projection."),
    (r"^(vision_model\.embeddings)\.embedder\.", r"\1.patch_projection."),
    (r"^(vision_model\.embeddings)\.pos_embed$", r"\1.position_embedding"),
    (r"^(vision_model\.embeddings)\.cls_token\.token$", r"\1.cls_register_token"),
    (r"^(vision_model\.encoder\.layer\.\d+)\.attn\.proj\.", r"\1.attention.o_proj."),
    (r"^(vision_model\.encoder\.layer\.\d+)\.attn\.", r"\1.attention."),
    (r"^mlp1\.0\.", "multi_modal_projector.layer_norm."), (r"^mlp1\.1\.", "multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "multi_modal_projector.linear_2."),
    (r"^vision_projector\.vision_final_layernorm\.", "vision_final_layernorm."),
)  # fmt: skip

_MINIMAX_M3_VL = _rules(
    (r"^vision_tower\.vision_model\.embeddings\.patch_embedding\.", "vision_tower.embeddings.proj."),
    (r"^vision_tower\.vision_model\.encoder\.layers\.", "vision_tower.layers."),
    (r"^vision_tower\.vision_model\.", "vision_tower."),
    (r"^patch_merge_mlp\.linear_(1|2)\.", r"multi_modal_projector.merge_linear_\1."),
    (r"\.block_sparse_moe\.e_score_correction_bias", ".mlp.gate.e_score_correction_bias"),
    (r"\.self_attn\.index_(q|k)_(proj|norm)\.", r".self_attn.indexer.\1_\2."),
    (r"\.(mlp|shared_experts)\.(gate|up)_proj\.", r".\1.gate_up_proj.\2."),
)

_LFM3_VL = _rules(
    (r"^(model\.)?vision_tower\.patchifier\.", "vision_tower.patch_embed."),
    (r"\.self_attn\.(q|k)_layernorm\.", r".self_attn.\1_norm."),
)

_SPELLINGS: dict[str, Rules] = {
    "deepseek_v4": _DEEPSEEK_V4,
    "ernie4_5_vl_moe": _ERNIE_VL,
    "glm5_next": _GLM5_NEXT,
    "hy_v4": _HY_V4,
    "hy_v4_vl": _HY_V4_VL,
    "hyperclovax_vision_v2": _rules((r"\bvision_projector\.", "projector.")),
    "kimi_k25": _KIMI_K25,
    "lfm3_vl": _LFM3_VL,
    "minimax_m3_vl": _MINIMAX_M3_VL,
    "nemotron_h_omni": _RADIO,
    "paddleocr_vl": _rules((r"^mlp_AR\.", "projector.")),
    "qianfan_ocr": _INTERN_VIT,
    "step3p7": _STEP_VL,
}
"""Rules by `model_type`, applied in order."""


IN_TURN = {"ernie4_5_vl_moe": ("text_moe", "vision_moe")}
"""Lists of experts of equal length that a checkpoint numbers consecutively, by `model_type`."""


class Speller:
    """Renames the tensors of one `model_type`; names that the class itself uses are unchanged.

    experts: number of experts in each of the lists of `IN_TURN`
    """

    __slots__ = ("_experts", "_lists", "_rules")

    def __init__(self, model_type: str, experts: int = 0) -> None:
        self._rules: Iterable[tuple[re.Pattern[str], str]] = _SPELLINGS.get(model_type, ())
        self._lists = IN_TURN.get(model_type, ()) if experts else ()
        self._experts = experts

    def __call__(self, path: str) -> str:
        """The path in transformers."""
        front, cut, rest = path.partition(".experts.")
        if cut and self._lists:
            path = cut.join(self.expert(front, rest))
        for pattern, text in self._rules:
            path = pattern.sub(text, path)
        return path

    def expert(self, front: str, rest: str) -> tuple[str, str]:
        """The path before `experts`, with the expert's list, and the path after it, with its index in that list."""
        number, _, part = rest.partition(".")
        if not self._lists or not number.isdecimal():
            return front, rest
        which = min(int(number) // self._experts, len(self._lists) - 1)
        return f"{front}.{self._lists[which]}", f"{int(number) - which * self._experts}.{part}"
