"""GEMMs of one input that only some engines run as one: `PackMore` names them for `graphsim.passes.pack`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import Gemm, Op

LATENT = {"q_a_proj": "fused_qkv_a_proj", "kv_a_proj_with_mqa": "fused_qkv_a_proj"}
"""Latent attention's down projections, by role, and their packed kernel (vLLM, SGLang: fused_qkv_a_proj)."""

DELTA = {
    "in_proj_qkv": "in_proj_qkvz",
    "in_proj_z": "in_proj_qkvz",
    "in_proj_b": "in_proj_ba",
    "in_proj_a": "in_proj_ba",
}
"""A gated delta-net's input projections (vLLM, SGLang: in_proj_qkvz, in_proj_ba)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackMore(Pass):
    """GEMMs that an engine packs in addition to those packed in checkpoints.

    latent: whether latent attention's down-projections, to queries and to keys and values, are packed
    delta: whether a
        gated delta-net's projections are
    """

    stage: ClassVar[Stage] = "sharded"

    latent: bool = False
    delta: bool = False

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Set the pack name of a GEMM."""
        named = (LATENT if self.latent else {}) | (DELTA if self.delta else {})

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if isinstance(op, Gemm) and not op.pack and not op.adapter and op.role in named:
                op = replace(op, pack=named[op.role])
            yield name, op, inputs

        return rule
