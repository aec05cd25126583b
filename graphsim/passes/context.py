"""Context parallelism: each rank has its part of every sequence's tokens, and attends to all of them.

Only attention reads beyond a rank's own tokens. Every rank has equally many pairs of a causal sequence: it holds two
of 2c chunks, one from the start and one from the end (Megatron-LM and TransformerEngine; arXiv 2311.09431).

* `p2p`: keys and values circulate in a ring, each part attended to while the next one is transferred (arXiv
2310.01889);
  in the backward pass their gradients circulate with them, doubling the traffic.
* `a2a`: tokens are exchanged for heads before attention, and back again after it (Ulysses, arXiv 2309.14509).
* `all_gather`: keys and values are gathered before it, in the backward pass too, and their gradients scattered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx
import numpy as np

from graphsim.errors import InfeasibleError
from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.models.phase import Segment
from graphsim.ops import AllGather, AllToAll, Attention, AttentionBackward, Op, ReduceScatter, RingPass
from graphsim.ops.elementwise import cut_kv_heads
from graphsim.ops.modules import ModuleSteps
from graphsim.ops.scan import CausalConv, Scan
from graphsim.units import Num, short

CORRECTED_BYTES = 10.0
"""Bytes moved per element when a ring step's result is added to the earlier ones: read in fp32 and 16 bits, written in
fp32 (TransformerEngine, attention/dot_product_attention/context_parallel.py, flash_attn_fwd_out_correction)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareContext(Pass):
    """Lets attention over a rank's own tokens attend to those of all `ways` ranks.

    stride: distance, in device numbers, between ranks
    exchange: `p2p`, `a2a` or `all_gather`
    Raises InfeasibleError for heads that cannot be exchanged for tokens, and for layers that pass a state along tokens.
    """

    stage: ClassVar[Stage] = "sharded"

    ways: Num
    stride: Num = 1.0
    exchange: str = "p2p"

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The wider attention, after the communication that it needs or overlapped with it."""

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if isinstance(op, Scan | CausalConv):
                raise InfeasibleError(
                    f"parallelism.cp = {short(self.ways)} is not simulated for node '{name}' ({type(op).__name__}), "
                    "which passes a state along the tokens of a sequence; allowed: 1"
                )
            if isinstance(op, Attention):
                yield from {"p2p": self._ring, "a2a": self._heads, "all_gather": self._gathered}[self.exchange](
                    name, op, inputs
                )
            else:
                yield name, op, inputs

        return rule

    def _pairs(self, op: Attention) -> Num:
        """Pairs of a rank's queries with the keys of all ranks; the same for all ranks."""
        own = op.query_tokens / np.maximum(op.sequences, 1e-9)
        alone = Segment(sequences=op.sequences, new_tokens=own).pairs(op.window, op.causal)
        whole = Segment(sequences=op.sequences, new_tokens=own * self.ways).pairs(op.window, op.causal) / self.ways
        return op.pairs * whole / np.maximum(alone, 1e-9)

    def _keys(self, op: Attention) -> Num:
        """Elements of a rank's own keys and values."""
        return op.kv_tokens * op.kv_heads * op.read_width

    def _ring(self, name: str, op: Attention, inputs: list[Value]) -> Iterator[Step]:
        """All parts but the last are attended to during the transfers; the last one waits for its arrival."""
        backward = isinstance(op, AttentionBackward)
        pairs, last = self._pairs(op), 1.0 / self.ways
        passed = RingPass(
            role=f"{op.role or name}.ring", elems=self._keys(op) * (2.0 if backward else 1.0), group=self.ways,
            stride=self.stride, activations=op.activations, layer=op.layer, direction=op.direction,
        )  # fmt: skip
        yield f"{name}.ring", passed, inputs
        yield f"{name}.earlier", replace(op, pairs=pairs * (1.0 - last)), inputs
        further = [Value(f"{name}.ring"), Value(f"{name}.earlier")]
        if not backward:
            yield f"{name}.correction", correction(name, op, self.ways), [Value(f"{name}.earlier")]
            further.append(Value(f"{name}.correction"))
        yield name, replace(op, pairs=pairs * last), [*inputs, *further]

    def _heads(self, name: str, op: Attention, inputs: list[Value]) -> Iterator[Step]:
        """All tokens of some heads; in the backward pass both exchanges come first, since its results have parts."""
        if np.any(np.mod(op.heads, self.ways) > 1e-6):
            raise InfeasibleError(
                f"parallelism.cp = {short(self.ways)} is not allowed with cp_comm = 'a2a': node '{name}' has "
                f"{short(op.heads)} heads on a device; allowed: divisors of that number"
            )
        backward = isinstance(op, AttentionBackward)
        queries, keys = op.query_tokens * op.heads * op.head_dim, self._keys(op)
        results = op.query_tokens * op.heads * op.value_dim
        ahead, behind = (results, queries + keys) if backward else (queries + keys, results)

        def exchange(elems: Num) -> AllToAll:
            return AllToAll(
                role=f"{op.role or name}.all_to_all", elems=elems, group=self.ways, stride=self.stride,
                activations=op.activations, layer=op.layer, direction=op.direction,
            )  # fmt: skip

        shared = replace(
            op, heads=op.heads / self.ways, kv_heads=cut_kv_heads(op.kv_heads, self.ways),
            query_tokens=op.query_tokens * self.ways, kv_tokens=op.kv_tokens * self.ways,
            pairs=self._pairs(op) * self.ways,
        )  # fmt: skip
        yield f"{name}.all_to_all_in", exchange(ahead), inputs
        further = [Value(f"{name}.all_to_all_in")]
        if backward:
            yield f"{name}.all_to_all_out", exchange(behind), further
            further = [Value(f"{name}.all_to_all_out")]
        yield name, shared, [*inputs, *further]
        if not backward:
            yield f"{name}.all_to_all_out", exchange(behind), [Value(name)]

    def _gathered(self, name: str, op: Attention, inputs: list[Value]) -> Iterator[Step]:
        """All keys and values; in the backward pass the scattering of their gradients comes first, too."""
        keys = self._keys(op) * self.ways
        gather, scatter = (self._over_keys(kind, name, op, keys) for kind in (AllGather, ReduceScatter))
        yield f"{name}.all_gather", gather, inputs
        further = [Value(f"{name}.all_gather")]
        if isinstance(op, AttentionBackward):
            yield f"{name}.reduce_scatter", scatter, further
            further = [Value(f"{name}.reduce_scatter")]
        yield name, replace(op, pairs=self._pairs(op)), [*inputs, *further]

    def _over_keys(self, kind: type[AllGather | ReduceScatter], name: str, op: Attention, keys: Num) -> Op:
        word = "all_gather" if kind is AllGather else "reduce_scatter"
        return kind(
            role=f"{op.role or name}.{word}", elems=keys, group=self.ways, stride=self.stride,
            activations=op.activations, layer=op.layer, direction=op.direction,
        )  # fmt: skip


def correction(name: str, op: Attention, ways: Num) -> ModuleSteps:
    """The correction of every ring result but the first: the earlier ones are scaled and added."""
    return ModuleSteps(
        role=f"{op.role or name}.correction", elems=op.out_elems * (ways - 1.0), moved_bytes=CORRECTED_BYTES,
        launches=ways - 1.0, activations=op.activations, layer=op.layer, direction=op.direction,
    )  # fmt: skip
