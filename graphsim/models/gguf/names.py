"""Maps llama.cpp's tensor names to the modules of a structure (gguf 0.19, `tensor_mapping.py`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from graphsim.files.tensors import StoredTensor
from graphsim.models.checkpoint.expected import Place

_OUTSIDE = {
    "token_embd": ("embed_tokens", "wte", "word_embeddings", "embeddings", "embed_in", "tok_embeddings"),
    "token_embd_norm": ("word_embeddings_layernorm", "embedding_norm"),
    "position_embd": ("wpe", "embed_positions"),
    "output_norm": ("norm", "ln_f", "norm_f", "final_layernorm", "final_layer_norm", "final_norm", "embedding_norm"),
    "output": ("lm_head", "embed_out", "output_layer", "output"),
}

_INSIDE = {
    "attn_norm": (
        "input_layernorm", "ln_1", "norm_1", "ln_mlp", "temporal_pre_norm", "operator_norm", "attention_layernorm",
        "attention_norm", "norm",
    ),
    "attn_norm_2": ("ln_attn",),
    "attn_qkv": ("qkv_proj", "query_key_value", "attn.c_attn", "Wqkv", "in_proj_qkv"),
    "attn_gate": ("in_proj_z",),
    "attn_q": ("q_proj", "wqkv", "W_pack"),
    "attn_k": ("k_proj", "wqkv", "W_pack"),
    "attn_v": ("v_proj", "wqkv", "W_pack"),
    "attn_output": (
        "o_proj", "attn.c_proj", "self_attn.dense", "attention.dense", "self_attention.dense", "attn.out_proj",
        "self_attn.out_proj", "attention.wo",
    ),
    "attn_q_norm": ("q_norm", "q_layernorm", "query_layernorm"),
    "attn_k_norm": ("k_norm", "k_layernorm", "key_layernorm"),
    "attn_q_a": ("q_a_proj",),
    "attn_q_b": ("q_b_proj",),
    "attn_kv_a_mqa": ("kv_a_proj_with_mqa",),
    "attn_kv_b": ("kv_b_proj",),
    "attn_q_a_norm": ("q_a_layernorm",),
    "attn_kv_a_norm": ("kv_a_layernorm",),
    "post_attention_norm": ("post_self_attn_layernorm", "post_attention_layernorm"),
    "ffn_norm": (
        "pre_feedforward_layernorm", "pre_ff_layernorm", "ffn_norm", "ln_2", "norm_2", "feedforward_layernorm",
        "post_attention_layernorm",
    ),
    "post_ffw_norm": ("post_feedforward_layernorm", "post_mlp_layernorm"),
    "ffn_gate": ("gate_proj", "feed_forward.w1", "input_linear"),
    "ffn_up": ("up_proj", "input_linear", "gate_up_proj", "feed_forward.w3", "dense_h_to_4h", "c_fc", "fc1", "fc_in"),
    "ffn_down": ("down_proj", "feed_forward.w2", "dense_4h_to_h", "mlp.c_proj", "fc2", "fc_out", "output_linear"),
    "ffn_gate_inp": ("mlp.gate", "router", "feed_forward.gate", "gate.wg", "mixer.gate", "router.layer", "gate"),
    "ssm_in": ("in_proj", "in_proj_qkvz"),
    "ssm_x": ("x_proj",),
    "ssm_dt": ("dt_proj",),
    "ssm_dt_norm": ("dt_layernorm",),
    "ssm_b_norm": ("b_layernorm",),
    "ssm_c_norm": ("c_layernorm",),
    "ssm_out": ("mixer.out_proj", "mamba.out_proj", "linear_attn.out_proj"),
    "ssm_norm": ("mixer.norm", "mamba.norm", "linear_attn.norm"),
    "ssm_ba": ("in_proj_ba",),
    "ssm_beta": ("in_proj_b",),
    "ssm_alpha": ("in_proj_a",),
    "shortconv.in_proj": ("conv.in_proj",),
    "shortconv.out_proj": ("conv.out_proj",),
}  # fmt: skip
"""Possible endings of the module's path for each of llama.cpp's names; the first one found in a layer is used."""

_FUSED = ("input_linear", "wqkv", "W_pack")
"""Modules that GGUF files store in slices."""

_EXPERT = re.compile(r"ffn_(?P<part>gate_up|gate|up|down)(?:_exps|\.(?P<number>\d+))")
_SHARED = re.compile(r"ffn_(gate|up|down)_shexp")


def renamed(tensors: Mapping[str, StoredTensor], places: Iterable[Place]) -> dict[str, StoredTensor]:
    """The tensors under the paths of the structure's modules; those without a module keep their names."""
    by_index = {place.path.rpartition(".")[2]: place for place in places if place.path}
    outside = next(place for place in places if not place.path)
    known: dict[tuple[int, str], str] = {}
    return {_path(name, by_index, outside, known): tensor for name, tensor in tensors.items()}


def _path(name: str, by_index: Mapping[str, Place], outside: Place, known: dict[tuple[int, str], str]) -> str:
    stem, dot, part = name.rpartition(".")
    if not dot or part not in ("weight", "bias", "scale", "input_scale"):
        stem, part = name, ""
    place, front = outside, ""
    if name.startswith("blk."):
        _, index, stem = (stem.split(".", 2) + ["", ""])[:3]
        if index not in by_index:
            return f"layers.{index}.{stem}.{part}".rstrip(".")
        place = by_index[index]
        front = f"{place.path}."
    key = (place.kind, stem)
    if key not in known:
        known[key] = _module(stem, place)
    return f"{front}{known[key]}.{part}".rstrip(".")


def _module(stem: str, place: Place) -> str:
    expert = _EXPERT.fullmatch(stem)
    if expert is not None and place.stacks:
        number = f"{expert['number']}." if expert["number"] else ""
        return f"{next(iter(place.stacks))}.{number}{expert['part']}_proj"
    if stem == "ffn_gate_inp_shexp":
        return next((path for path in place.weights if path.endswith("shared_expert_gate")), stem)
    shared = _SHARED.fullmatch(stem) is not None
    own = stem.removesuffix("_shexp")
    for same in (True, False):  # an MLP may be named as shared even without experts
        for end in (_INSIDE if place.path else _OUTSIDE).get(own, ()):
            for path in place.weights:
                if (path == end or path.endswith(f".{end}")) and (_is_shared(path) == shared) is same:
                    return f"{path}.{own}" if end in _FUSED else path
    return stem


def _is_shared(path: str) -> bool:
    return "shared_expert" in path or "shared_mlp" in path
