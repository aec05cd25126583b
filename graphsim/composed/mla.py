"""Whole latent-attention blocks (`mla_context_module`, `mla_generation_module`), from hidden states to o_proj's result.

The block is that of the model which the rows name, with as many heads as one device holds; the norm before it and the
all-reduce after it are not part of what was measured. The engines run q_a_proj and kv_a_proj_with_mqa as one GEMM
(vLLM and SGLang, `models/deepseek_v2.py`, fused_qkv_a_proj_with_mqa; TensorRT-LLM, `_torch/modules/attention.py`, MLA).

vLLM attends short prompts by its decode kernels, in absorbed form: up to 512 new tokens with FlashAttention, 128 with
FlashMLA and one with the others (`v1/attention/backends/mla`, reorder_batch_threshold); such rows name that kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.composed.pricing import graph_s, serving
from graphsim.cost.families import mla_block
from graphsim.cost.families.formats import dtype_of
from graphsim.cost.families.mla_block import BlockShape
from graphsim.cost.families.registry import COMPOSED
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError
from graphsim.hardware import Hardware
from graphsim.models.config import ModelConfig
from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.block import Block, Residual
from graphsim.models.layers.mla import LatentAttention
from graphsim.models.loading import load_model
from graphsim.models.phase import Phase, decode, prefill
from graphsim.ops import Input
from graphsim.ops.precision import load_precision
from graphsim.passes.pack import pack

if TYPE_CHECKING:
    import pandas as pd

FUSED = ("q_a_proj", "kv_a_proj_with_mqa")
"""Projections that engines launch as one kernel."""

DECODE_KERNELS = ("FLASHMLA", "FLASH_ATTN_MLA", "FLASHINFER_MLA", "TRITON_MLA", "CUTLASS_MLA")
"""vLLM's kernels over the latent."""


def block_s(rows: pd.DataFrame, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]]) -> Array:
    """Seconds of each row's block. Raises ConfigError for a model without latent attention."""
    return mla_block.latency_s(parameters.get("mla_block", {}), hardware, _shape_of(rows, hardware, parameters))


def fit(
    frame: pd.DataFrame, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Parameters of the family `mla_block` from rows of one engine's blocks.

    parameters: of the other families, by which the kernels of the blocks are priced; those that serve the device by
        default
    """
    others = parameters or serving(frame, hardware)
    shapes: dict[tuple[str, str], list[BlockShape]] = {}
    measured: dict[tuple[str, str], list[Array]] = {}
    keys = [name for name in (*COMPOSED["mla"].groups, *COMPOSED["mla"].hints) if name in frame.columns]
    for _, rows in frame.groupby(keys, sort=True, dropna=False):
        shape = _shape_of(rows, hardware, others)
        shapes.setdefault((shape.path, shape.kv_dtype), []).append(shape)
        measured.setdefault((shape.path, shape.kv_dtype), []).append(rows["latency_us"].to_numpy(dtype=float) * 1e-6)
    found: dict[str, dict[str, Any]] = {}
    for path, kv_dtype in sorted(shapes):
        whole = _joined(shapes[path, kv_dtype])
        found.setdefault(path, {})[kv_dtype] = mla_block.fit(whole, np.concatenate(measured[path, kv_dtype]), hardware)
    return found


def _shape_of(rows: pd.DataFrame, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]]) -> BlockShape:
    batch, new, keys, heads = (rows[name].to_numpy(dtype=float) for name in ("batch", "seq_len", "kv_len", "heads"))
    product = dtype_of("gemm", str(rows["gemm_dtype"].iloc[0]))
    return BlockShape(
        kernels_s=graph_s(block_graph(rows), hardware, parameters, len(rows)), tokens=batch * new, heads=heads,
        keys=keys, format=np.full(len(rows), mla_block.FORMATS.get(product, 0.0)), path=_path_of(rows),
        kv_dtype=dtype_of("attention", str(rows["kv_dtype"].iloc[0])),
    )  # fmt: skip


def _path_of(rows: pd.DataFrame) -> str:
    """Which of PATHS the block takes."""
    if str(rows["op"].iloc[0]) == "mla_generation_module":
        return "decode"
    if _absorbs(rows):
        return "short"
    return "prefill_fp8" if str(rows["dtype"].iloc[0]) == "fp8" else "prefill"


def _absorbs(rows: pd.DataFrame) -> bool:
    return "kernel" in rows.columns and str(rows["kernel"].iloc[0]) in DECODE_KERNELS


def _joined(shapes: list[BlockShape]) -> BlockShape:
    """Concatenated; texts are those of the first."""
    numbers: dict[str, Any] = {
        name: np.concatenate([getattr(shape, name) for shape in shapes])
        for name in ("kernels_s", "tokens", "heads", "keys", "format")
    }
    return replace(shapes[0], **numbers)


def block_graph(rows: pd.DataFrame) -> nx.DiGraph:
    """The graph of the rows' block, with arrays over the rows. Raises ConfigError for a model without the like."""
    model = load_model(str(rows["model"].iloc[0]))
    attention = replace(_attention_of(model), heads=int(rows["heads"].iloc[0]), absorbs_prompts=_absorbs(rows))
    formats = f"{rows['gemm_dtype'].iloc[0]},kv={rows['kv_dtype'].iloc[0]}"
    graph = nx.DiGraph()
    scope = Scope(
        graph=graph, phase=_phase(rows), precision=load_precision(formats), hidden=model.hidden_size,
        prefix=model.layer_prefix,
    )  # fmt: skip
    attention.build(scope, scope.add("input", Input(elems=scope.tokens * model.hidden_size), []))
    if attention.q_rank:
        for name in FUSED:
            graph.nodes[name]["op"] = replace(graph.nodes[name]["op"], pack="qkv_a_proj")
    return pack(graph)


def _attention_of(model: ModelConfig) -> LatentAttention:
    for layer in model.layers:
        for part in _mixers(layer):
            if isinstance(part, LatentAttention):
                return part
    raise ConfigError(f"model '{model.name}' has no latent attention; expected one such as deepseek-v3")


def _mixers(layer: Layer) -> list[Layer]:
    parts = layer.parts if isinstance(layer, Block) else ()
    return [branch.layer for part in parts if isinstance(part, Residual) for branch in part.branches]


def _phase(rows: pd.DataFrame) -> Phase:
    batch, new, keys = (rows[name].to_numpy(dtype=float) for name in ("batch", "seq_len", "kv_len"))
    if str(rows["op"].iloc[0]) == "mla_generation_module":
        return decode(batch, keys - 1.0)
    return prefill(batch, new, keys - new)
