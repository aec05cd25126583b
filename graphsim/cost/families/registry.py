"""The cost families: the kernels of each one, and their rows in the reference schema."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from graphsim.errors import ConfigError, choices_text

ANY: tuple[str, ...] = ()
"""Names that depend on the measurements, such as those of expert kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One operator family and the form of its rows.

    name: name of its module in `cost/families`
    numbers: columns with positive numbers
    groups: columns that have one value for each shape
    layout: columns of a whole shape, whose rows are held out together when a fit is evaluated
    hints: like `groups`, but a frame may lack them
    ops: values of column `op` that belong to it
    composed: whether its rows are whole blocks, whose time is that of a graph of other families' operations
    fits: for a composed block, the family whose parameters its `fit` returns, if any
    """

    name: str
    numbers: tuple[str, ...]
    groups: tuple[str, ...]
    layout: tuple[str, ...]
    ops: tuple[str, ...]
    hints: tuple[str, ...] = ()
    composed: bool = False
    fits: str = ""

    @property
    def module(self) -> Any:
        """The module with `shape_of`, `latency_s`, `roofline_s` and `fit`; it describes its fits in files by:

        LEVELS: the names that lead to a fit, level by level; `ANY` if they depend on the measurements
        SURFACES: possible layouts of its surfaces
        needed: the required constants of the fit at given names

        The module of a composed block offers `block_s`, and `fit` where a family is fitted to its rows, which
        `fits` names (`graphsim/composed`).
        """
        return import_module(f"graphsim.{'composed' if self.composed else 'cost.families'}.{self.name}")


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(name="gemm", numbers=("m", "n", "k"), groups=("dtype",), layout=("n", "k"), ops=("gemm",)),
        Family(
            name="elementwise", numbers=("message_size",), groups=("op", "dtype", "kernel"), layout=("message_size",),
            ops=("elementwise", "copy", "host_to_device"),
        ),
        Family(
            name="attention", numbers=("batch", "seq_len", "kv_len", "heads", "kv_heads", "head_dim"),
            groups=("op", "kv_dtype"), layout=("heads", "kv_heads", "head_dim", "window"), hints=("dtype",),
            ops=("context_attention", "generation_attention"),
        ),
        Family(
            name="moe", numbers=("m", "hidden", "inter", "topk", "experts"), groups=("dtype", "distribution"),
            layout=("hidden", "inter", "topk", "experts", "tp", "ep"), hints=("kernel",), ops=("moe",),
        ),
        Family(
            name="collectives", numbers=("message_size", "num_devices"), groups=("op", "dtype"),
            layout=("message_size", "num_devices"), hints=("kernel",),
            ops=("all_reduce", "all_gather", "reduce_scatter", "alltoall", "custom_allreduce"),
        ),
        Family(
            name="recurrent", numbers=("batch", "seq_len"), groups=("op", "phase", "kernel"),
            layout=("k_heads", "v_heads"), hints=("framework", "framework_version"),
            ops=("gdn:gdn", "kda:kda", "mamba2:mamba2"),
        ),
        Family(
            name="encoder_attention", numbers=("batch", "seq_len", "heads", "head_dim"), groups=("dtype",),
            layout=("heads", "head_dim"), ops=("encoder_attention",),
        ),
        Family(
            name="expert_exchange", numbers=("tokens", "hidden", "topk", "experts"), groups=("op",),
            layout=("hidden", "topk", "experts", "ep"),
            hints=("kernel", "comm_backend", "phase", "dtype", "distribution"),
            ops=(
                "moe_a2a:moe_a2a", "trtllm_alltoall:alltoall_prepare", "trtllm_alltoall:alltoall_dispatch",
                "trtllm_alltoall:alltoall_combine", "wideep_deepep_ll", "wideep_deepep_normal",
            ),
        ),
        Family(
            name="hyper_connections", numbers=("tokens", "hidden", "hc_mult", "num_sites"), groups=("op",),
            layout=("hidden", "tokens"), ops=("mhc_module:pre", "mhc_module:post"),
        ),
        Family(name="quantize", numbers=("m", "k"), groups=("dtype",), layout=("k",), ops=("scale_matrix",)),
        Family(
            name="mla", numbers=("batch", "seq_len", "kv_len", "heads"), groups=("op", "kv_dtype"), layout=("heads",),
            ops=("context_mla", "generation_mla"),
        ),
        Family(
            name="batched_gemm", numbers=("tokens", "heads"), groups=("op", "dtype"), layout=("heads",),
            ops=("mla_bmm:mla_gen_pre", "mla_bmm:mla_gen_post"),
        ),
        Family(name="sparse", numbers=(), groups=(), layout=(), ops=()),  # fitted to whole blocks: see COMPOSED
        Family(name="mla_block", numbers=(), groups=(), layout=(), ops=()),  # fitted to whole blocks: see COMPOSED
    )
}  # fmt: skip
"""All cost families by name."""

FAMILY_OF = {op: family for family in FAMILIES.values() for op in family.ops}
"""The family of each `op` of the reference schema that is a kernel."""

COMPOSED: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="mla", composed=True, numbers=("batch", "seq_len", "kv_len", "heads"),
            groups=("op", "model", "heads", "gemm_dtype", "kv_dtype", "dtype"), layout=("heads",),
            hints=("framework", "kernel"), ops=("mla_context_module", "mla_generation_module"), fits="mla_block",
        ),
        Family(
            name="sparse", composed=True, numbers=("batch", "seq_len", "kv_len", "heads", "tp"),
            groups=("op", "model", "heads", "tp", "gemm_dtype", "kv_dtype"), layout=("heads", "tp"),
            hints=("framework", "kernel"), fits="sparse",
            ops=(
                "dsa_context_module", "dsa_generation_module", "dsa_context_module:dsa_context_module",
                "dsa_context_module:dsa_context_module_skip_indexer", "dsa_generation_module:dsa_generation_module",
                "dsa_generation_module:dsa_generation_module_skip_indexer", "dsv4_csa_context_module",
                "dsv4_csa_generation_module", "dsv4_hca_context_module", "dsv4_hca_generation_module",
                "msa_context_module", "msa_generation_module",
            ),
        ),
    )
}  # fmt: skip
"""Whole blocks priced as compositions, by the name of their module in `graphsim/composed`."""

COMPOSED_OF = {op: block for block in COMPOSED.values() for op in block.ops}
"""The composition of each `op` of the reference schema that is a whole block."""


def family_of(op: str) -> Family:
    """The family that prices an op, or the composition. Raises ConfigError listing the known ops."""
    known = FAMILY_OF | COMPOSED_OF
    if op not in known:
        raise ConfigError(f"op '{op}' is not known; {choices_text(op, known)}")
    return known[op]
