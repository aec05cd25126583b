"""The graphs of whole sparse attention blocks, and what the host takes to start their kernels.

A block is that of the model which a row names, with the share of its heads that one device holds; the norm before it
and the all-reduce after it are not part of what was measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.cost.families.sparse import DENSE
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError
from graphsim.models.config import ModelConfig
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.compressed_attention import CompressedAttention
from graphsim.models.layers.mla import LatentAttention
from graphsim.models.loading import load_model
from graphsim.models.phase import Phase, decode, prefill
from graphsim.ops import Input, Sharding
from graphsim.ops.precision import load_precision
from graphsim.passes.pack import pack

if TYPE_CHECKING:
    import pandas as pd

CAPTURED = 256
"""Sequences of a decode step up to which all measured engines replay a graph; SGLang's blocks of 512 take as long as
eager ones."""

LONG = 131_072
"""Keys of a sequence from which SGLang's host prepares longer tables; measured between 66,000 and 131,000."""

_WIDE = (
    "kv_b_proj",
    "indexer.weights_proj",
    "compressor.kv_proj",
    "compressor.gate_proj",
    "compressor.indexer.kv_proj",
    "compressor.indexer.gate_proj",
    "compressor.indexer.scorer.weights_proj",
)
"""Modules that engines keep in 16 bits: absorbed GEMMs, weights of heads, weights for the pooling of windows (vLLM
0.24, `models/deepseek_v2.py`, `models/deepseek_v4`)."""

_PACKED = {
    "q_a_proj": "qkv_a",
    "kv_a_proj_with_mqa": "qkv_a",
    "kv_proj": "qkv_a",
    "compressor.kv_proj": "compressor_rows",
    "compressor.gate_proj": "compressor_rows",
    "indexer.kv_proj": "indexer_rows",
    "indexer.gate_proj": "indexer_rows",
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "indexer.q_proj", "indexer.k_proj"), "qkv"),
}
"""Which projections of the same input engines launch as one (vLLM 0.24: `fused_qkv_a_proj`, `fused_wqa_wkv`,
`fused_wkv_wgate`, `qkv_proj`)."""

_COPY = re.compile(r"[-_](NVFP4|FP8|MXFP4|INT4|AWQ)\b.*", re.IGNORECASE)


def method_of(op: str, kernel: str = "") -> str:
    """Which kernels run a row's block: see `ops.SparseAttention`, and DENSE."""
    if op.startswith("dsv4_"):
        return op.split("_")[1]
    if op.startswith("msa_"):
        return "msa"
    shared = op.endswith("skip_indexer")
    if "dense" in kernel:
        return DENSE[shared]
    return "dsa_shared" if shared else "dsa"


def phase_of(op: str) -> str:
    """`prefill` or `decode`."""
    return "decode" if "generation" in op else "prefill"


def block_graph(rows: pd.DataFrame) -> nx.DiGraph:
    """The graph of rows of one op, model, head count, format and kernel; its numbers are arrays over the rows.

    Raises ConfigError for a model that is not known, or without such attention.
    """
    first = rows.iloc[0]
    model = _model(str(first["model"]))
    method = method_of(str(first["op"]), str(first.get("kernel", "")))
    layer = _cut(_layer(model, method), method, float(first["heads"]))
    formats = [str(first["gemm_dtype"]), f"kv={'fp8' if str(first['kv_dtype']).startswith('fp8') else 'bf16'}"]
    formats += [f"{model.layer_prefix}self_attn.{name}=bf16" for name in _WIDE]
    graph = nx.DiGraph()
    scope = Scope(
        graph=graph, phase=_phase(rows), precision=load_precision(",".join(formats)), hidden=model.hidden_size,
        prefix=model.layer_prefix,
    )  # fmt: skip
    layer.build(scope, scope.add("input", Input(elems=scope.tokens * model.hidden_size), []))
    for name in set(_PACKED) & set(graph):
        graph.nodes[name]["op"] = replace(graph.nodes[name]["op"], pack=_PACKED[name], split=Sharding.COLUMN)
    return pack(graph)


def _model(name: str) -> ModelConfig:
    """The model, or the one that it is a quantised copy of: a row states its formats itself."""
    known = _COPY.sub("", name.rsplit("/", 1)[-1])
    return load_model(known)


def _layer(model: ModelConfig, method: str) -> Layer:
    for layer in model.layers:
        for part in _parts(layer):
            if _serves(part, method):
                return part
    raise ConfigError(f"model '{model.name}' has no attention of the kind '{method}'")


def _parts(layer: Any) -> Iterator[Layer]:
    """A layer and the layers that it is made of."""
    if isinstance(layer, Layer):
        yield layer
    if is_dataclass(layer) and not isinstance(layer, type):
        for field in fields(layer):
            value = getattr(layer, field.name)
            for part in value if isinstance(value, tuple) else (value,):
                if is_dataclass(part):
                    yield from _parts(part)


def _serves(layer: Layer, method: str) -> bool:
    if isinstance(layer, CompressedAttention):
        pool = layer.compression
        return method == (("csa" if pool.indexer else "hca") if pool else "window")
    if isinstance(layer, LatentAttention):
        return layer.indexer is not None and method in ("dsa", "dsa_shared", *DENSE)
    return isinstance(layer, SelfAttention) and layer.selection is not None and method == "msa"


def _cut(layer: Layer, method: str, heads: float) -> Layer:
    """With the device's share of heads, key heads, an indexer's heads and groups."""
    if isinstance(layer, LatentAttention):
        indexer = None if method in DENSE else layer.indexer
        return replace(
            layer, heads=int(heads), indexer=indexer, reuses=method == "dsa_shared", absorbs_prompts=indexer is not None
        )
    if isinstance(layer, CompressedAttention):
        return replace(layer, heads=int(heads), groups=max(round(layer.groups * heads / layer.heads), 1))
    if isinstance(layer, SelfAttention) and layer.selection:
        share = heads / layer.heads
        selection = replace(layer.selection, heads=max(round(layer.selection.heads * share), 1))
        return replace(layer, heads=int(heads), kv_heads=max(round(layer.kv_heads * share), 1), selection=selection)
    return layer


def _phase(rows: pd.DataFrame) -> Phase:
    batch, new, keys = (rows[name].to_numpy(dtype=float) for name in ("batch", "seq_len", "kv_len"))
    if phase_of(str(rows["op"].iloc[0])) == "decode":
        return decode(batch, keys - 1.0)
    return prefill(batch, new, keys - new)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWork:
    """Properties of a row's whole block, each 1 or 0.

    eager: kernels are started one by one
    fp8, fp4: GEMMs quantise
    long: keys are LONG or more
    """

    eager: Array
    fp8: Array
    fp4: Array
    long: Array


LEAST_REST = 0.2
"""The least share of the other families' time of a block's kernels that an engine's fusions leave."""


def block_work(rows: pd.DataFrame) -> BlockWork:
    """The work of the rows of one op."""
    formats = rows["gemm_dtype"].astype(str)
    captured = phase_of(str(rows["op"].iloc[0])) == "decode"
    eager = rows["batch"].to_numpy(dtype=float) > CAPTURED if captured else np.ones(len(rows))
    return BlockWork(
        eager=np.asarray(eager, dtype=float), fp8=formats.str.startswith("fp8").to_numpy().astype(float),
        fp4=formats.str.contains("fp4").to_numpy().astype(float),
        long=(rows["kv_len"].to_numpy(dtype=float) >= LONG).astype(float),
    )  # fmt: skip


def device_s(c: Mapping[str, float], work: BlockWork, rest_s: Array, sparse_s: Array) -> Array:
    """Seconds of a block's kernels on the device.

    rest_s: of those that other families price, each as a kernel of its own
    sparse_s: of the others
    fused_s: share of the first that the engine saves by fusing them; fused_fp8_s: more with 8-bit GEMMs, quantised in
        the kernels ahead; start_s: extra time of a block without sparse kernels
    """
    saved_s = c["fused_s"] + c["fused_fp8_s"] * work.fp8
    left_s = np.maximum(rest_s - saved_s, LEAST_REST * rest_s)
    return np.asarray(left_s + c.get("start_s", 0.0) + sparse_s)


def host_s(c: Mapping[str, float], work: BlockWork) -> Array:
    """Seconds in which the host starts a block's kernels, where no graph is replayed.

    host_s: with 16-bit GEMMs; fp8_s, fp4_s: more with quantised ones; long_s: more with LONG keys or more
    """
    seconds = c["host_s"] + c["fp8_s"] * work.fp8 + c["fp4_s"] * work.fp4 + c["long_s"] * work.long
    return np.asarray(seconds * work.eager)
