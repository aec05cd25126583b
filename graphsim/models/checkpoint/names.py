"""Normalised names of checkpoint tensors, independent of the prefixes that a checkpoint uses.

The same weight is `model.layers.0.…` in a language model's checkpoint, `language_model.model.layers.0.…` or
`model.language_model.layers.0.…` in that of a multimodal model, and `layers.0.…` in that of a headless one; experts are
under `mlp` or `block_sparse_moe` (transformers 5.24, `conversion_mapping.py`).
"""

from __future__ import annotations

import re

_WRAPPERS = {
    "model", "language_model", "text_model", "transformer", "backbone", "base_model", "gpt_neox", "thinker", "llm",
}  # fmt: skip
"""Components that only state which class contains a language model; they are dropped from the start of a path."""

_SAME = {".block_sparse_moe.": ".mlp.", ".vision_model.": "."}
"""Components that are equivalent, or redundant, after the first."""

_BUFFER = re.compile(
    r"(.*\.)?(inv_freq|rotary_emb\..*|rope_freqs\.weight|rope_factors_(long|short)\.weight|position_ids|masked_bias"
    r"|attn\.bias|attention\.bias|self_attention\.bias|num_batches_tracked|slope_rate|(query|key|diagonal)_decay"
    r"|layer_scalar|final_logits_bias|.*gate\.tid2eid|act_fn\.(beta|eps)|(input|output)_(min|max)|std_(bias|scale)"
    r"|tokenizer\..*|d2t|t2d|token_map|encoder_embedding\.global_(mean|invstd)"
    r"|summary_idxs|.*input_conditioner\.norm_(mean|std))"
)
"""Tensors that are computed, not learned, but that some checkpoints contain; token maps of drafts."""

_CORRECTION = re.compile(r"(.*\.)?(e_score_correction_bias|expert_bias|gate\.bias_correction|exp_probs_b(\.bias)?)")
"""Router corrections that balance experts: buffers in some classes of transformers, parameters in others."""

_TOWERS = re.compile(
    r"(visual|vision\w*|vit|vpm|resampler|image\w*|audio\w*|speech\w*|sound\w*|embed_(vision|audio)|multi_modal\w*"
    r"|mm_\w+|mlp1|aligner|projector|connector|talker|token2wav|code2wav|apm|tts|acoustic\w*|v|mm|a)"
)
"""First components of the names of modules outside the language model."""

ENDS = (
    {
        "shared",
        "decoder.embed_tokens",
        "embed_tokens",
        "wte",
        "word_embeddings",
        "tok_embeddings",
        "embed_in",
        "embeddings",
        "embedding.word_embeddings",
    },
    {"norm", "ln_f", "final_layernorm", "final_layer_norm", "final_norm", "norm_f", "encoder.final_layernorm"},
    {"lm_head", "output", "embed_out", "output_layer"},
)
"""Normalised paths of the token embedding, the last norm and the head, across checkpoints."""

_DRAFT = ("eh_proj", "enorm", "hnorm", "shared_head", "mtp_block", "nextn")
"""Modules of a multi-token prediction layer (DeepSeek-V3, arXiv 2412.19437, section 2.2)."""


def plain(path: str) -> str:
    """The normalised path, without components in which checkpoints of one model differ.

    >>> plain("model.language_model.layers.3.self_attn.q_proj")
    'layers.3.self_attn.q_proj'
    """
    first, dot, rest = path.partition(".")
    while dot and first in _WRAPPERS:
        path = rest
        first, dot, rest = path.partition(".")
    for part, same in _SAME.items():
        path = path.replace(part, same)
    return path


def is_buffer(name: str) -> bool:
    """Whether a tensor is a buffer rather than a weight."""
    return _BUFFER.fullmatch(name) is not None


def is_correction(path: str) -> bool:
    """Whether a tensor corrects a router's scores."""
    return _CORRECTION.fullmatch(path) is not None


def is_apart(path: str) -> bool:
    """Whether a tensor under a module is not one of its weights: a correction, or a single factor on its outputs."""
    return is_correction(path) or path.endswith(".global_scale")


def tower_of(path: str) -> str:
    """The tower or projector to which a normalised path belongs; "" if none."""
    first = path.split(".", 1)[0]
    return first if _TOWERS.fullmatch(first) else ""


def is_draft(path: str) -> bool:
    """Whether a normalised path belongs to a layer that drafts further tokens."""
    parts = path.split(".")
    return parts[0].startswith("mtp") or any(part in _DRAFT for part in parts)


def scope_of(path: str) -> str:
    """The layer that contains a normalised path, as the path up to its first index: `layers.3`; "" outside layers."""
    parts = path.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal():
            return ".".join(parts[: i + 1])
    return ""
