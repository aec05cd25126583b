"""Context parallelism of an engine: the collectives with which every rank's queries attend to all keys.

Prompts, whose tokens are distributed over ranks (`graphsim.models.rank_share`):

* `all_gather`: every rank receives all keys and values, as in vLLM and SGLang. With a replicated KV cache the new ones
  are gathered before they are written; with a sharded one, all rows are gathered after the write.
* `p2p`: parts circulate in a ring, and a rank attends to one part while it receives the next (pass-KV,
  arXiv 2411.01783).

Latent vectors are gathered with either exchange, before the projection that computes keys and values of all of them on
every rank (vLLM, `model_executor/layers/attention/mla_attention.py`). So are the keys among which an indexer chooses.

Decode with a sharded KV cache: every rank attends to its part, then the ranks gather the log-sum-exp of each query and
head, scale their results by it, and all-reduce them (vLLM, `v1/attention/ops/common.py`, cp_lse_ag_out_ar, for ranks
with the same heads).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import (
    AllGather,
    AllReduce,
    Attention,
    Gemm,
    IndexScores,
    KvCache,
    MlaAttention,
    Op,
    RingPass,
    SparseAttention,
)
from graphsim.ops.formats import FORMATS
from graphsim.ops.modules import ModuleSteps
from graphsim.passes.context import correction
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareServedContext(Pass):
    """Insert the collectives of `ways` context-parallel ranks.

    stride: number of devices from one rank to the next
    exchange: `all_gather` or `p2p`
    shares_cache: whether the KV cache is sharded over the ranks rather than replicated
    """

    stage: ClassVar[Stage] = "sharded"

    ways: Num
    stride: Num = 1.0
    exchange: str = "all_gather"
    shares_cache: bool = True

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The rule for self-attention of decoders; towers and encoders run whole on every rank."""
        latents = dict(self._latents(graph))

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if name in latents:
                yield name, op, inputs
                yield f"{name}.all_gather", latents[name][0], [Value(name)]
            elif isinstance(op, KvCache) and not op.source and self._of_prompts(graph, name):
                latent = next((source for source in graph.pred[name] if source in latents), "")
                yield from self._gathered(name, op, inputs, latent, latents[latent][1] if latent else 0.0)
            elif isinstance(op, Attention) and op.decode and self.shares_cache:
                yield from self._merged(name, op, inputs)
            elif isinstance(op, Attention) and self._rings(op):
                yield from self._ring(name, op, inputs)
            else:
                yield name, op, inputs

        return rule

    def _latents(self, graph: nx.DiGraph) -> Iterator[tuple[str, tuple[AllGather, Num]]]:
        """Nodes that produce latent vectors for keys and values, the all-gather of each, and the width of a vector."""
        for name, op in graph.nodes(data="op"):
            if not (isinstance(op, Gemm) and {"key", "value"} <= set(op.tags)):
                continue
            users = [graph.nodes[user]["op"] for user in graph.successors(name)]
            caches = [source for source in graph.pred[name] if _feeds_cache(graph, source)]
            for user in users:
                if isinstance(user, MlaAttention) and not user.decode and len(caches) == 1:
                    own: Op = graph.nodes[caches[0]]["op"]
                    elems = op.m * op.k if self.shares_cache else own.out_elems * self.ways
                    yield caches[0], (self._gather(user, "latent", elems, own.activations), op.k)

    def _gather(self, op: Op, what: str, elems: Num, activations: Any) -> AllGather:
        return AllGather(
            role=f"{op.role}.{what}", elems=elems, group=self.ways, stride=self.stride, activations=activations,
            layer=op.layer, direction=op.direction,
        )  # fmt: skip

    def _rings(self, op: Attention) -> bool:
        """Whether keys circulate in a ring: for prompts, without latent vectors or an indexer."""
        gathered = isinstance(op, MlaAttention | SparseAttention | IndexScores)
        return self.exchange == "p2p" and op.causal and not op.decode and not gathered

    def _of_prompts(self, graph: nx.DiGraph, name: str) -> bool:
        """Whether a cache's rows are gathered for prompts: some attention without a ring reads them."""
        users = [graph.nodes[user]["op"] for user in graph.successors(name)]
        return any(isinstance(user, Attention) and not user.decode and not self._rings(user) for user in users)

    def _gathered(self, name: str, op: KvCache, inputs: list[Value], latent: str, width: Num) -> Iterator[Step]:
        """A cache, with the all-gather before or after it.

        latent: the node of latent vectors, which are already gathered; "" if there is none
        width: width of a latent vector
        """
        new, further = op.new_tokens * self.ways, op.kv_heads * op.width - width
        gathered = f"{name}.all_gather"
        own = [Value(latent) if latent and value.node == f"{latent}.all_gather" else value for value in inputs]
        if self.shares_cache:
            yield name, op, own
            yield gathered, self._gather(op, "all_gather", op.kv_tokens * further, op.kv), [Value(name)]
            return
        rest = [value for value in own if value.node != latent]
        yield gathered, self._gather(op, "all_gather", new * further, op.activations), rest
        brought = [Value(gathered), *([Value(f"{latent}.all_gather")] if latent else [])]
        yield name, replace(op, new_tokens=new), brought

    def _ring(self, name: str, op: Attention, inputs: list[Value]) -> Iterator[Step]:
        """Attention to all parts but the last overlaps with the ring; the last part waits for its arrival."""
        last = 1.0 / self.ways
        passed = RingPass(
            role=f"{op.role or name}.ring", elems=op.kv_tokens * last * op.kv_heads * op.read_width, group=self.ways,
            stride=self.stride, activations=op.kv, layer=op.layer, direction=op.direction,
        )  # fmt: skip
        ring, earlier, corrected = f"{name}.ring", f"{name}.earlier", f"{name}.correction"
        yield ring, passed, inputs
        yield earlier, _part(op, 1.0 - last), inputs
        yield corrected, correction(name, op, self.ways), [Value(earlier)]
        yield name, _part(op, last), [*inputs, Value(ring), Value(earlier), Value(corrected)]

    def _merged(self, name: str, op: Attention, inputs: list[Value]) -> Iterator[Step]:
        """The sum of all ranks' results, each weighted by its part of the softmax denominator."""
        several = np.minimum(self.ways - 1.0, 1.0)
        own, sums, corrected = f"{name}.own", f"{name}.log_sum_exp", f"{name}.correction"
        yield own, op, inputs
        logs = op.query_tokens * op.heads * self.ways
        yield sums, self._gather(op, "log_sum_exp", logs, FORMATS["fp32"]), [Value(own)]
        scaled = ModuleSteps(
            role=f"{op.role or name}.correction", elems=op.out_elems * several, moved_bytes=2.0 * op.activations.bytes,
            launches=several, activations=op.activations, layer=op.layer, direction=op.direction,
        )  # fmt: skip
        yield corrected, scaled, [Value(own), Value(sums)]
        summed = AllReduce(
            role=f"{op.role or name}.all_reduce", elems=op.out_elems, group=self.ways, stride=self.stride,
            activations=op.activations, layer=op.layer, direction=op.direction,
        )  # fmt: skip
        yield f"{name}.all_reduce", summed, [Value(own), Value(corrected)]


def _feeds_cache(graph: nx.DiGraph, name: str) -> bool:
    return any(isinstance(graph.nodes[user]["op"], KvCache) for user in graph.successors(name))


def _part(op: Attention, share: Num) -> Attention:
    """The attention to a share of the keys; its inputs do not tell their number."""
    return replace(op, pairs=op.pairs * share, kv_tokens=op.kv_tokens * share, unchecked=True)
