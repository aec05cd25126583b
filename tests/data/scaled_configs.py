"""The same architecture in other sizes: a config with fewer layers, of every kind one, and other widths and counts.

Every key has one rule, whatever the model. Head counts shrink by one factor and widths of heads by another, so that
products such as hidden = heads x head width hold on; feed-forward widths, experts, ranks, windows, chunks and the
vocabulary get values of their own. Towers lose layers only. Where a class refuses the result, a milder recipe is tried.
"""

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

RECIPES = ("sizes and head widths", "sizes", "sizes but the vocabulary", "layers and vocabulary", "layers", "unchanged")
"""What is changed, the most first."""

VOCABULARY = 4096
WINDOW = 64
CHUNK = 32
DEPTHS = (3, 4, 5)
"""How many layers are kept where no list says which kinds there are: one of these, by the name."""

TOWER_DEPTH = 3
UNLISTED = {"id2label", "label2id", "rope_parameters", "rope_scaling", "generation_config", "task_specific_params"}
TOWER = re.compile(
    r"\w*(vision|audio|qformer|perceiver|projector|acoustic|semantic|protein|speaker|diarization|streaming)\w*|"
    r"(dit|sam|vq|head|adapter|word_timestamp|depth_decoder)_config"
)
WHOLE_TOWERS = {"inkling_mm_model"}
"""Models whose towers keep their depth: a shallower one is laid out with scipy."""

TOWER_KEYS = {"image_size", "patch_size", "num_mel_bins", "input_dim"}

DEPTH_KEYS = re.compile(
    r"num_hidden_layers|n_layers?|num_layers|num_(en|de)coder_layers|decoder_num_layers|((speech|t2u)_)?(en|t2u_en|de|t2u_de)coder_layers|"
    r"num_blocks|depth|layers"
)
HEADS = re.compile(
    r"(\w+_)?(num_)?attention_heads|n_heads?|num_heads|\w*num_(key_value|kv|query|linear|key|value|sliding_attention)_heads|"
    r"linear_num_\w*heads|index_n_heads|n?(um)?_?mamba_n?(um)?_?heads|num_query_groups|decoder_attention_num_groups|num_kv_heads"
)
PRIMARY = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "mamba_num_heads")
KEY_VALUE = re.compile(r"\w*num_(key_value|kv)_heads|num_query_groups|decoder_attention_num_groups")
HEAD_WIDTH = re.compile(
    r"\w*head_?dim|d_kv|dim_head|d_head|mamba_d_head|kv_channels|d_rel|rotary_dim|query_pre_attn_scalar"
)
WIDTH = re.compile(
    r"hidden_size|d_model|n_embd|emb_dim|embed_dim|embedding_dim|hidden_size_global|attention_hidden_size|word_embed_proj_dim|lru_width|"
    r"mamba_d_ssm|cross_attention_hidden_size|moe_hidden_size|backbone_hidden_size|dim_model_base|encoder_hidden_size"
)
FEED_FORWARD = re.compile(
    r"\w*intermediate_size|\w*ffn_dim|d_ff|dim_ff|dff|d_inner|n_inner|\w*ffn_hidden_size|intermediate_size_mlp|share_expert_dim"
)
EXPERTS = re.compile(r"(moe_)?num_(local_)?experts|n_routed_experts|num_experts|zero_expert_num")
CHOSEN = re.compile(r"num_experts_per_tok(en)?|moe_topk|moe_k|top_k_experts")
GROUPS = re.compile(r"n_group|num_expert_group")
RANK = re.compile(r"(q|kv|o)_lora_rank")
STATE = re.compile(r"state_size|ssm_state_size|mamba_d_state")
WINDOWS = re.compile(
    r"sliding_window(_size)?|attention_window(_size)?|attention_chunk_size|local_attention\w*|window_size"
)
CHUNKS = re.compile(r"(mamba_)?chunk_size")
VOCABULARIES = re.compile(r"vocab_size(_per_layer_input)?|encoder_hash_byte_group_vocab|(src|tgt|decoder)_vocab_size")
PERIODS = re.compile(r"\w+_layer_period|\w*sliding_window_pattern|(en|de)coder_sparse_step|global_attn_every_n_layers")
OFFSETS = re.compile(r"\w+_layer_offset")
INDICES = re.compile(r"\w*(layer_ids|layer_ind\w+|layer_idxs|attn_idxs|indices|indexe?s|_layers)")
LINKS = re.compile(
    r"out_hidden_size|text_hidden_size|output_dim|projector_hidden_size|projection_dim|decoder_hidden_size"
)
"""Widths of what towers hand on, where they are as wide as the text."""


REPAIRS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "blenderbot": {"encoder_layers": 24},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "glm4v_moe": {"text_config": {"head_dim": 128}},
    "granitemoehybrid": {"layer_types": ["linear_attention"] * 5 + ["full_attention"] + ["linear_attention"] * 26},
    "step3p7": {"text_config": {"sliding_window": 512}},
}
"""Keys whose default the class itself cannot run: no layer with a cache, as few caches as an encoder has layers, no
number of chosen experts, heads narrower than their rotary sections, windows without a width."""


def scaled(data: dict[str, Any], recipe: str) -> dict[str, Any]:
    """The config under a recipe."""
    out: dict[str, Any] = json.loads(json.dumps(_repaired(data, REPAIRS.get(data["model_type"], {}))))
    if recipe == "unchanged":
        return out
    texts = [node for key, node in nodes(out) if not is_tower(key, node)]
    for key, node in nodes(out):
        if not is_tower(key, node):
            _shorten(node, DEPTHS[sum(map(ord, data["model_type"])) % 3])
        elif data["model_type"] not in WHOLE_TOWERS:
            _shorten(node, TOWER_DEPTH)
    _look_at_layers_that_are_left(data, out)
    if recipe == "layers":
        return out
    for node in texts if recipe != "sizes but the vocabulary" else []:
        _cut_vocabulary(node)
    if recipe == "layers and vocabulary":
        return out
    heads = [node[key] for node in texts for key in PRIMARY if type(node.get(key)) is int and node[key] > 0]
    widths = [node[key] for node in texts for key in node if WIDTH.fullmatch(key) and type(node[key]) is int]
    factor = _factor(heads, max(widths, default=0))
    narrow = Fraction(1, 2) if recipe == RECIPES[0] else Fraction(1)
    links = {width: _times(width, factor * narrow) for width in widths}
    for node in texts:
        _resize(node, factor, narrow)
        for entry in _overrides(node):
            _resize(entry, factor, narrow)
    for key, node in nodes(out):
        if is_tower(key, node):
            node.update({k: links[v] for k, v in node.items() if LINKS.fullmatch(k) and type(v) is int and v in links})
    return out


def _repaired(data: dict[str, Any], repair: dict[str, Any]) -> dict[str, Any]:
    return data | {key: _repaired(data[key], each) if isinstance(each, dict) else each for key, each in repair.items()}


def nodes(data: dict[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The config and every config within it, each with the key that it stands under."""
    yield name, data
    for key, value in data.items():
        if isinstance(value, dict) and key not in UNLISTED and key != "per_layer_config":
            yield from nodes(value, name if name and TOWER.fullmatch(name) else key)


def is_tower(key: str, node: dict[str, Any]) -> bool:
    """Whether a part of a config is of pictures or sound, or of what joins them to the text."""
    return bool(key) and (bool(TOWER.fullmatch(key)) or (bool(TOWER_KEYS & set(node)) and "vocab_size" not in node))


def _overrides(node: dict[str, Any]) -> list[dict[str, Any]]:
    """What a config says of single layers."""
    entries = node.get("per_layer_config")
    return [entry for entry in entries.values() if isinstance(entry, dict)] if isinstance(entries, dict) else []


def _shorten(node: dict[str, Any], least: int) -> None:
    """Layers left out, but one of every kind kept, in their order; lists of indices keep their places in proportion."""
    depths = {key: node[key] for key in node if DEPTH_KEYS.fullmatch(key) and type(node[key]) is int}
    whole = max(depths.values(), default=0)
    lists = [key for key, value in node.items() if isinstance(value, list) and len(value) == whole > least]
    lists = [key for key in lists if not _are_layers(node[key], whole)]
    pair = (
        2
        if any(
            set(map(str, node[key][1::2])) == {"mlp"} != set(map(str, node[key][::2])) for key in lists if node[key][1:]
        )
        else 1
    )
    kinds = [json.dumps([[node[key][i] for key in lists], _override(node, i)]) for i in range(0, whole, pair)]
    first = [kinds.index(kind) for kind in dict.fromkeys(kinds)] if lists or _overrides(node) else []
    rest = sorted(
        set(range(len(kinds))) - set(first), key=lambda i: (kinds[:i].count(kinds[i]), kinds.count(kinds[i]), i)
    )
    kept = sorted([*first, *rest[: max(least - len(first), 0)]]) if whole > least else list(range(len(kinds)))
    kept = [pair * i + j for i in kept for j in range(pair)]
    entries = node.get("per_layer_config")
    if isinstance(entries, dict):
        numbered = {int(i): entry for i, entry in entries.items()}
        node["per_layer_config"] = {str(kept.index(i)): e for i, e in numbered.items() if i in kept}
    for key in lists:
        node[key] = [node[key][i] for i in kept]
    for key, value in depths.items():
        node[key] = min(value, len(kept))
    if "num_layers_per_stack" in node:  # layers are counted as often as they are passed
        node["num_layers_per_stack"] = 2
        node["num_hidden_layers"] = 2 * node["H_cycles"] * (node["L_cycles"] + 1)
    for key, value in node.items():
        if re.search(r"first_k_dense|num_dense_layers|max_window_layers|num_kv_shared|moe_layer_start", key) and value:
            node[key] = len(kept) if value == whole else max(1, min(value, len(kept) // 2))
        elif re.search(r"moe_layer_end_index|loop_layer_index_(start|end)", key) and type(value) is int and whole:
            node[key] = max(value * len(kept) // whole, 1)
        elif key == "n_layers_per_attn_res_block":
            node[key] = 1
        elif key in ("n_input_layers", "n_output_layers", "n_recurrent_layers"):
            node[key] = len(kept) - 2 * pair if key == "n_recurrent_layers" else pair
        elif PERIODS.fullmatch(key) and type(value) is int:
            node[key] = min(value, 3)
        elif OFFSETS.fullmatch(key) and type(value) is int:
            node[key] = min(value, 1)
        elif INDICES.fullmatch(key) and _are_layers(value, whole) and whole > len(kept):
            node[key] = sorted({i * len(kept) // whole for i in value})


def _are_layers(value: object, whole: int) -> bool:
    """Whether a list names layers by their numbers, in their order."""
    return (
        isinstance(value, list) and all(type(i) is int and 0 <= i < whole for i in value) and value == sorted({*value})
    )


def _look_at_layers_that_are_left(data: dict[str, Any], out: dict[str, Any]) -> None:
    """The layers of a tower whose outputs are taken, in proportion."""
    tower = data.get("vision_config") or {}
    whole = tower.get("num_hidden_layers") or tower.get("depth") or 0
    for _, node in nodes(out):
        taken = node.get("vision_feature_layer")
        if isinstance(taken, list) and whole > TOWER_DEPTH:
            node["vision_feature_layer"] = [i * TOWER_DEPTH // whole if i >= 0 else max(i, -TOWER_DEPTH) for i in taken]


def _override(node: dict[str, Any], layer: int) -> object:
    entries = node.get("per_layer_config")
    return {int(i): entry for i, entry in entries.items()}.get(layer) if isinstance(entries, dict) else None


def _cut_vocabulary(node: dict[str, Any]) -> None:
    """Fewer tokens; the ids of special ones move into what is left."""
    for key, value in node.items():
        if VOCABULARIES.fullmatch(key) and type(value) is int and value > VOCABULARY:
            node[key] = VOCABULARY
        elif key == "unpadded_vocab_size" and type(value) is int:
            node[key] = min(value, VOCABULARY - 96)
        elif re.fullmatch(r"\w*token_(id|index)", key) and type(value) is int and value >= VOCABULARY:
            node[key] = VOCABULARY // 2 + value % (VOCABULARY // 2)


def _factor(heads: list[int], width: int) -> Fraction:
    """By what head counts shrink: to a quarter, a half or a third, whichever divides them all."""
    for parts in (4, 2, 3) if width >= 2048 else (2, 3):
        if heads and all(count % parts == 0 for count in heads):
            return Fraction(1, parts)
    return Fraction(max(round(heads[0] / 4), 1), heads[0]) if heads else Fraction(1, 2)


def _times(value: int, factor: Fraction) -> int:
    """Rounded to what is left whole, at least 1."""
    return max(round(value * factor), 1)


def _resize(node: dict[str, Any], factor: Fraction, narrow: Fraction) -> None:
    """Other widths and counts, in place."""
    groups = next((value for key, value in node.items() if GROUPS.fullmatch(key) and type(value) is int), 1) or 1
    heads = next((_times(node[key], factor) for key in PRIMARY if type(node.get(key)) is int), 0)
    for key, value in node.items():
        if isinstance(value, list) and HEADS.fullmatch(key.removesuffix("_per_layer")) and value:
            node[key] = [_times(each, factor) if type(each) is int else each for each in value]
        elif isinstance(value, list) and FEED_FORWARD.fullmatch(key):
            node[key] = [_resized(key, each, factor, narrow, groups, heads) for each in value]
        elif key == "mrope_section" and isinstance(value, list):
            node[key] = _halves(value) if narrow < 1 else value
        elif type(value) is int and value > 0:
            node[key] = _resized(key, value, factor, narrow, groups, heads)
    for key in ("rope_parameters", "rope_scaling"):
        section = (node.get(key) or {}).get("mrope_section")
        if isinstance(section, list) and narrow < 1:
            node[key]["mrope_section"] = _halves(section)


def _halves(section: list[int]) -> list[int]:
    """Parts that sum to half of what they did."""
    parts = [each // 2 for each in section]
    return [sum(section) // 2 - sum(parts[1:]), *parts[1:]]


def _resized(key: str, value: int, factor: Fraction, narrow: Fraction, groups: int, heads: int) -> int:
    """The other value of one key."""
    if KEY_VALUE.fullmatch(key):
        return max(n for n in range(1, max(_times(value, factor), 1) + 1) if not heads or heads % n == 0)
    if HEADS.fullmatch(key):
        return _times(value, factor)
    if HEAD_WIDTH.fullmatch(key):
        return _times(value, narrow)
    if WIDTH.fullmatch(key):
        return _times(value, factor * narrow)
    if FEED_FORWARD.fullmatch(key):
        return 16 * max(round(value * factor * narrow * Fraction(5, 4) / 16), 2)
    if EXPERTS.fullmatch(key):
        return value if value > 1024 else min(value, groups * max(2, 12 // groups))
    if CHOSEN.fullmatch(key):
        return min(value, 3)
    return _resized_rest(key, value)


def _resized_rest(key: str, value: int) -> int:
    if RANK.fullmatch(key):
        return max(value // 4, 32)
    if STATE.fullmatch(key):
        return max(value // 2, 8)
    if WINDOWS.fullmatch(key):
        return min(value, WINDOW)
    if CHUNKS.fullmatch(key) or key == "index_topk":
        return min(value, CHUNK)
    return value
