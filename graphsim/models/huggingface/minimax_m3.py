"""MiniMax-M3's language model: an indexer selects blocks of keys in most layers; experts with a shared one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    Reader,
    assemble,
    kinds,
    pre_norm,
    read_dims,
    self_attention,
    size,
    unused,
    with_drafts,
)
from graphsim.models.huggingface.moe import experts_of
from graphsim.models.layers.attention import QkNorm
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block_selection import BlockSelection
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe


def minimax_m3(fields: Fields, name: str) -> ModelConfig:
    """QK norm per head; separate MLP widths for routed experts, the shared expert and dense layers."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        shared=_mlp(size(fields, "shared_intermediate_size"), "mlp.shared_experts"),
    )
    dense = _mlp(size(fields, "dense_intermediate_size"), "mlp")
    full = self_attention(dims, qk=QkNorm.HEAD)
    section = fields.raw("sparse_attention_config", {})
    sparse = fields.child(section if isinstance(section, Mapping) else {}, "sparse_attention_config", lenient=True)
    selected = replace(full, selection=_selection(fields, sparse))
    attends = _listed(fields, "layer_types", sparse, "sparse_attention_freq", ("full_attention", "minimax_m3_sparse"))
    feeds = _listed(fields, "mlp_layer_types", fields, "moe_layer_freq", ("dense", "sparse"))
    for key, listed in (("layer_types", attends), ("mlp_layer_types", feeds)):
        if listed and len(listed) != dims.layers:
            fields.problems.append(f"{key} has {len(listed)} entries, expected one for each of {dims.layers} layers")
    blocks: list[Layer] = [
        pre_norm(selected if attention == "minimax_m3_sparse" else full, dense if feed == "dense" else moe)
        for attention, feed in zip(
            attends or ["full_attention"] * dims.layers, feeds or ["sparse"] * dims.layers, strict=False
        )
    ]
    _refuse_values(sparse, attends)
    unused(fields, "rotary_dim", "attention_bias", "index_local_blocks", "num_mtp_modules")
    return with_drafts(assemble(name, dims, blocks), fields)


def _selection(fields: Fields, sparse: Fields) -> BlockSelection:
    """The block selection, by the keys of transformers 5.24 or those of published configs, which take precedence."""
    unused(sparse, "sparse_local_block", "sparse_init_block", "sparse_score_type")
    if not sparse.flag("use_sparse_attention", True):
        sparse.problem("use_sparse_attention", "is not allowed; expected true")
    return BlockSelection(
        heads=size(sparse, "sparse_num_index_heads", default=size(fields, "index_n_heads", default=4)),
        head_dim=size(sparse, "sparse_index_dim", default=size(fields, "index_head_dim", default=128)),
        block=size(sparse, "sparse_block_size", default=size(fields, "index_block_size", default=128)),
        blocks=size(sparse, "sparse_topk_blocks", default=size(fields, "index_topk_blocks", default=16)),
    )


def _refuse_values(sparse: Fields, attends: list[str]) -> None:
    """Note a problem if the indexer adds its own values, which is not modelled; published configs disable that."""
    off = [bool(flag) for flag in sparse.sequence("sparse_disable_index_value", most=MOST_LAYERS)]
    adds = [kind == "minimax_m3_sparse" and not flag for kind, flag in zip(attends, off, strict=False)]
    if any(adds) or not sparse.flag("use_sparse_attention", True):
        sparse.problem(
            "sparse_disable_index_value" if any(adds) else "use_sparse_attention",
            "is not supported; expected sparse layers whose indexers add no values",
        )
    unused(sparse, "sparse_score_type", "sparse_local_block", "sparse_init_block")


def _listed(fields: Fields, key: str, section: Fields, flags: str, names: tuple[str, str]) -> list[str]:
    """Kinds of layers by name, or by a list of flags."""
    named, listed = kinds(fields, key, *names), section.sequence(flags, most=MOST_LAYERS)
    if not all(flag in (0, 1) for flag in listed):
        section.problem(flags, "is not allowed; expected 0 or 1 for each layer")
    return named or [names[bool(flag)] for flag in listed]


def _mlp(width: int, module: str) -> Mlp:
    return Mlp(intermediate=width, names=MlpNames(fused=f"{module}.gate_up_proj", down=f"{module}.down_proj"))


FAMILIES: dict[str, Reader] = {"minimax_m3_vl_text": minimax_m3}
"""Readers by `model_type`."""
