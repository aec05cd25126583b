"""EAGLE-3 (arXiv 2503.01840): fused states of three target layers, one layer on token and state, a small vocabulary.

vLLM 0.11, `models/llama_eagle3.py`; SGLang 0.5, `models/llama_eagle3.py`; SpecForge, `draft/llama3_eagle.py`;
TensorRT-LLM 1.2, `_torch/models/modeling_speculative.py`; speculators 0.3, `models/eagle3`.
"""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import assemble, pre_norm, read_dims, size, unused, windows
from graphsim.models.huggingface.drafts.draft import ONE_TOKEN, Draft, from_speculators, nested, noted
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.drafts import FeatureStem, FirstDraftLayer, FusedFeatures, TargetHead
from graphsim.models.layers.ends import Head
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer

USUAL_FEATURES = 3
"""Number of target states that are fused if the config names no layers."""


def eagle3(fields: Fields, name: str) -> ModelConfig:
    """A draft with Llama's layers, the first of which reads token and state concatenated."""
    dims = read_dims(fields)
    features = _features(fields, dims.hidden)
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    kinds = [attention_of(fields, dims, window) for window in windows(fields, dims.layers)]
    first = FirstDraftLayer(vocab_size=dims.vocab, attention=replace(kinds[0], width=2 * dims.hidden), mlp=mlp)
    layers = [first, *(pre_norm(kind, mlp) for kind in kinds[1:])]
    prefix = "layers.{}." if from_speculators(fields) or dims.layers > 1 else "midlayer."
    unused(fields, "norm_before_residual", "norm_output", "use_sliding_window", "max_window_layers")
    head = _head(fields, dims.vocab, dims.tied)
    stem = FeatureStem(vocab_size=dims.vocab, features=features)
    config = assemble(name, dims, layers, stem=stem, head=head, prefix=prefix)
    whole = isinstance(head, TargetHead)
    borrowed = "embedding and head are the target's" if whole else "the embedding is the target's"
    return noted(config, fields, "EAGLE-3", borrowed, ONE_TOKEN)


def _features(fields: Fields, hidden: int) -> FusedFeatures:
    """The fused states, and the norms before the projection (EAGLE 3.1)."""
    said = fields.mapping("eagle_config")
    for key in ("use_input_layernorm_in_first_layer", "use_last_layernorm"):
        if not said.flag(key, True):
            said.problem(key, "is not allowed; expected true, as EAGLE-3 has this norm")
    if said.flag("use_mtp_layernorm", False):
        said.problem("use_mtp_layernorm", "is not allowed; expected false, as EAGLE-3 has no such norm")
    listed = [
        len(each.sequence(key))
        for each in (fields, said)
        for key in ("eagle_aux_hidden_state_layer_ids", "aux_hidden_state_layer_ids")
    ]
    usual = next((count for count in listed if count), USUAL_FEATURES)
    count = size(fields, "num_aux_hidden_states", default=usual, most=1000)
    used = said.flag("use_aux_hidden_state", fields.flag("use_aux_hidden_state", True))
    width = size(fields, "target_hidden_size", default=hidden)
    if not used and width != hidden:
        fields.problem("target_hidden_size", f"is not allowed; expected {hidden}, as no projection is between")
    joint = said.flag("norm_before_fc", False) or fields.flag("norm_before_fc", False)
    each = fields.flag("fc_norm", False) or fields.flag("use_aux_norm", False)
    return FusedFeatures(
        features=count if used else 1,
        width=width,
        bias=fields.flag("bias", False),
        joint_norm="input_norm" if joint and used else "",
        each_norm="fc_norm" if each and used else "",
    )


def _head(fields: Fields, vocab: int, tied: bool) -> Head:
    """The draft's own head over its small vocabulary; the target's head if the config states none (SGLang 0.5)."""
    drafted = size(fields, "draft_vocab_size", default=0, least=0)
    norm = NormLayer(name="norm")
    if tied or not drafted:
        return TargetHead(vocab_size=drafted or vocab, norm=norm)
    return Head(vocab_size=drafted, norm=norm)


_EAGLE3 = Draft(reader=eagle3, kind="llama", part=nested("transformer_layer_config"))

DRAFTS = dict.fromkeys(
    (
        "LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM", "EAGLE3LlamaForCausalLM", "LlamaEagle3ForCausalLM",
        "LlamaForCausalLMEagle3Deep", "Eagle3Qwen2_5vlForCausalLM", "Eagle3Qwen3vlForCausalLM", "Eagle3Speculator",
        "Eagle3DraftModel",
    ),
    _EAGLE3,
)  # fmt: skip
"""Drafts with Llama's layers."""
