"""DFlash (arXiv 2602.06036): a block of masked tokens, drafted in one pass through Qwen3-like layers.

z-lab, `dflash/model.py`, DFlashDraftModel; vLLM, `models/qwen3_dflash.py`; SpecForge, `draft/dflash.py`.
"""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    SEES_ALL,
    SLIDES,
    Dims,
    assemble,
    per_layer,
    pre_norm,
    read_dims,
    size,
    unused,
)
from graphsim.models.huggingface.drafts.draft import Draft, nested, noted
from graphsim.models.layers.attention import QkNorm
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block_draft import BlockAttention, Drafting, MaskedStem
from graphsim.models.layers.drafts import FusedFeatures, TargetHead
from graphsim.models.layers.ends import Head
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer


def dflash(fields: Fields, name: str) -> ModelConfig:
    """QK norms per head for every `model_type`; the embedding and the head are the target's."""
    said = fields.mapping("dflash_config")
    fields.text("model_type", "qwen3", choices=("qwen3", "llama"))
    for each in (fields, said):
        if each.raw("gating"):
            each.problem("gating", "is not known; expected none, as in a plain DFlash")
    dims = read_dims(fields)
    block = size(said, "block_size", default=size(fields, "block_size", default=16, least=2), least=2, most=10_000)
    width = size(fields, "target_hidden_size", default=size(said, "target_hidden_size", default=dims.hidden))
    features = FusedFeatures(
        features=_features(fields, said, dims.layers), width=width, after=NormLayer(name="hidden_norm")
    )
    for each in (fields, said):
        if not each.flag("use_aux_hidden_state", True):
            each.problem("use_aux_hidden_state", "is not allowed; expected true")
        if each.raw("projector_type") is not None:
            each.problem("projector_type", "is not known; expected none, as in a plain DFlash")
        unused(each, "mask_token_id", "pure_draft_prefix_len", "shift_label", "num_target_layers")
    drafted = size(fields, "draft_vocab_size", default=dims.vocab)
    norm = NormLayer(name="norm")
    own = drafted != dims.vocab
    head = Head(vocab_size=drafted, norm=norm) if own else TargetHead(vocab_size=drafted, norm=norm)
    layers = [pre_norm(kind, Mlp(intermediate=dims.intermediate)) for kind in _attentions(fields, said, dims)]
    stem = MaskedStem(vocab_size=dims.vocab)
    config = assemble(name, dims, layers, stem=stem, head=head, prefix="layers.{}.")
    config = replace(config, drafting=Drafting(block=block, features=features))
    step = (
        f"takes in the target's states of the tokens that are new and drafts a block of {block} at once, {block - 1} "
        "of them further tokens; each token generated stands for one such step, which the target's own is not part of"
    )
    borrowed = "the embedding is the target's" if own else "embedding and head are the target's"
    return noted(config, fields, "DFlash", borrowed, step)


def _features(fields: Fields, said: Fields, layers: int) -> int:
    """The number of target states that are fused: one per layer that is named, else one per layer of the draft."""
    keys = ("target_layer_ids", "aux_hidden_state_layer_ids", "eagle_aux_hidden_state_layer_ids")
    counts = [len(each.sequence(key, most=MOST_LAYERS)) for each in (said, fields) for key in keys]
    return next((count for count in counts if count), layers)


def _attentions(fields: Fields, said: Fields, dims: Dims) -> list[Layer]:
    """The attention of each layer; by default, windowed layers keep the causal mask within the block (vLLM)."""
    types = per_layer(fields, "layer_types", dims.layers, (SEES_ALL, SLIDES), lambda i: SEES_ALL)
    listed = "layer_types" in fields
    if said.flag("use_swa", False) and SLIDES not in types:
        types, listed = [SLIDES] * dims.layers, False
    window = size(said, "swa_window_size", default=size(fields, "sliding_window", default=0, least=0), least=0)
    if SLIDES in types and not window:
        fields.problems.append("sliding_window is missing, expected the window of the layers that slide")
    masks = [each.flag(key, None) for each, key in ((fields, "is_causal"), (said, "causal"))]
    mask = next((mask for mask in masks if mask is not None), None)
    unused(fields, "use_sliding_window", "max_window_layers")
    bias = fields.flag("attention_bias", False)
    sinks = said.flag("attention_sink_bias", fields.flag("add_swa_attention_sink_bias", False))
    return [
        BlockAttention(
            heads=dims.heads,
            kv_heads=dims.kv_heads,
            head_dim=dims.head_dim,
            window=window if kind == SLIDES else 0,
            qkv_bias=bias,
            out_bias=bias,
            qk_norm=QkNorm.HEAD,
            sinks=sinks,
            masked=listed and kind == SLIDES if mask is None else mask,
        )
        for kind in types
    ]


_DFLASH = Draft(reader=dflash, kind="qwen3", part=nested("transformer_layer_config"))
DRAFTS = dict.fromkeys(("DFlashDraftModel", "DFlashQwen3ForCausalLM"), _DFLASH)
"""Drafts that predict a block of tokens at once."""
