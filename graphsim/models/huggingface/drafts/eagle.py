"""EAGLE 1 and 2 (arXiv 2401.15077, 2406.16858): token and state concatenated and projected, then a layer of the family.

SafeAILab/EAGLE, `model/cnets1.py`; vLLM 0.11, `models/llama_eagle.py` and `models/eagle.py`; SGLang 0.5,
`models/llama_eagle.py`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, size
from graphsim.models.huggingface.drafts.draft import ONE_TOKEN, Draft, from_speculators, nested, noted
from graphsim.models.huggingface.llama import llama, qwen2
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Residual
from graphsim.models.layers.drafts import JoiningStem, TargetHead
from graphsim.models.layers.ends import Head
from graphsim.models.layers.norm import NormLayer

_BORROWED = "embedding and head are the target's"


def eagle(fields: Fields, name: str, *, family: Reader = llama, bias: bool = False) -> ModelConfig:
    """A draft with the family's layers, without the first and the last norm.

    bias: whether the projection has a bias if the config does not state it: true in SGLang's class, false in vLLM's
    """
    fused = fields.flag("fusion_bias", fields.flag("bias", bias))
    if fields.flag("layernorms", False):
        fields.problem("layernorms", "is not allowed; expected false, as such norms are not known")
    joined = "fusion_fc" if from_speculators(fields) else "fc"
    norms = ("embedding_layernorm", "hidden_states_layernorm") if fields.flag("add_para_norm", False) else ("", "")
    return _drafted(family(fields, name), fields, joined, fused, norms, skips=(True, True))


def wrapped_model(fields: Fields, name: str) -> ModelConfig:
    """A draft in vLLM's own format: the family's config under `model`, and switches for norms that are left out."""
    bias = fields.flag("eagle_fc_bias", fields.flag("bias", False))
    norms = ("enorm", "hnorm") if fields.flag("add_para_norm", False) else ("", "")
    skips = (fields.flag("skip_prenorm", True), fields.flag("skip_output_norm", True))
    fields.raw("model")
    kind = fields.text("model_type", choices=_FAMILIES)
    return _drafted(_FAMILIES.get(kind, llama)(fields, name), fields, "fc", bias, norms, skips)


_FAMILIES: dict[str, Reader] = {"llama": llama, "mistral": llama, "qwen2": qwen2}


def _drafted(
    base: ModelConfig, fields: Fields, joined: str, bias: bool, norms: tuple[str, str], skips: tuple[bool, bool]
) -> ModelConfig:
    """skips: whether the norm before the first layer, and the one after the last, are left out"""
    first, *others = base.layers
    stem = JoiningStem(
        vocab_size=base.vocab_size, projection=joined, bias=bias, token_norm=norms[0], state_norm=norms[1]
    )
    last = None if skips[1] else NormLayer(name="norm")
    head = _head(fields, base.vocab_size, last)
    config = replace(
        base,
        stem=stem,
        layers=(_without_norm(first) if skips[0] else first, *others),
        head=head,
        layer_prefix="layers.{}.",
    )
    own = head.vocab_size < base.vocab_size
    borrowed = "the embedding is the target's, the head a part of the target's," if own else _BORROWED
    return noted(config, fields, "EAGLE", borrowed, ONE_TOKEN)


def _head(fields: Fields, vocab: int, norm: NormLayer | None) -> Head:
    """The target's head, or a copy of some of its rows."""
    rows = size(fields, "truncated_vocab_size", "hot_vocab_size", default=vocab, most=vocab)
    return TargetHead(vocab_size=vocab, norm=norm) if rows == vocab else Head(vocab_size=rows, norm=norm)


def _without_norm(layer: Layer) -> Layer:
    """The layer without the norm before its attention."""
    first, *others = layer.parts if isinstance(layer, Block) else (None,)
    return Block(parts=(replace(first, norm=None), *others)) if isinstance(first, Residual) else layer


DRAFTS = {
    "EagleLlamaForCausalLM": Draft(reader=eagle, kind="llama"),
    "LlamaForCausalLMEagle": Draft(reader=partial(eagle, bias=True), kind="llama"),
    "Qwen2ForCausalLMEagle": Draft(reader=partial(eagle, family=qwen2, bias=True), kind="qwen2"),
    "EagleSpeculator": Draft(reader=eagle, kind="llama", part=nested("transformer_layer_config")),
    "EAGLEModel": Draft(reader=wrapped_model, part=nested("model")),
}
"""Drafts with the layers of Llama or Qwen2."""
