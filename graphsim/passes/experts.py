"""Expert parallelism: which device holds which experts, and how tokens reach them.

Within a tensor-parallel group every device has all tokens, works on its own experts' rows, and the sum over devices
is the group's all-reduce. Across replicas of the attention, tokens are exchanged with the experts' devices, there and
back (GShard, arXiv 2006.16668, section 3), as the engine does it: a copy for each expert of a token, one for each rank
that holds some of them (DeepEP), or all tokens to all ranks.

The graph is that of the busiest rank, for which a layer waits (`graphsim.ops.expert_ranks`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx
import numpy as np

from graphsim.errors import ConfigError
from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import ExchangeTokens, ExpertActivation, ExpertGemm, GatherTokens, Op, Permute, ScatterTokens
from graphsim.ops.expert_ranks import hottest_ratio, ranks_reached
from graphsim.ops.formats import FORMATS, Format
from graphsim.units import Num

FP8_ROWS = Format(name="fp8", bytes=1.0 + 4.0 / 128.0, compute="fp8")
"""Rows in fp8 with an fp32 scale for 128 numbers (DeepEP, `low_latency_dispatch` and the README of its kernels)."""

NARROW = {"model": {}, "fp8": {"fp8": FP8_ROWS}, "quantised": {"fp8": FP8_ROWS, "fp4": FORMATS["nvfp4"]}}
"""For each format in which an engine sends rows, the format sent to experts of each compute format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DealExperts(Pass):
    """Distributes the experts over `ep` ranks; sharding by `tp` runs after it.

    placement: a name of `graphsim.ops.expert_ranks.PLACEMENTS`
    redundant: number of extra copies of popular experts
    dispatch: a copy of a token for each of its `experts`, for each of the `ranks` that hold any of them, or for `all`
        ranks
    sent_as: a name of NARROW: the format in which tokens are sent to their experts
    kernels: the kernels of the exchange, a name of `graphsim.ops.dispatch.EXCHANGES`; "" for a plain all-to-all
    """

    stage: ClassVar[Stage] = "logical"

    ep: Num
    tp: Num
    placement: str = "random"
    redundant: int = 0
    dispatch: str = "experts"
    sent_as: str = "model"
    kernels: str = ""

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Raises ConfigError if some scenarios exchange tokens and others do not: these need two different graphs."""
        ep, tp = self.ep, self.tp
        across = np.asarray(ep) > np.asarray(tp)
        if np.any(across) and not np.all(across):
            raise ConfigError(
                f"parallelism.ep = {ep} lies above tp = {tp} in some scenarios only; simulate those separately"
            )
        exchange = bool(np.all(across))
        stacks = {op.layer: op for _, op in graph.nodes(data="op") if isinstance(op, ExpertGemm)}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if not isinstance(op, ExpertGemm | ExpertActivation | Permute):
                yield name, op, inputs
                return
            stack = stacks[op.layer]
            if isinstance(op, ExpertGemm):
                yield name, self._dealt(op, exchange), inputs
            elif isinstance(op, ExpertActivation):
                yield name, replace(op, elems=op.elems * self._hottest(stack)), inputs
            elif not exchange:
                yield name, replace(op, ranks=ep, chosen=op.chosen * self._hottest(stack)), inputs
            else:
                yield from self._exchanged(name, op, inputs, stack)

        return rule

    def _hottest(self, stack: ExpertGemm) -> Num:
        return hottest_ratio(stack.of, stack.chosen, stack.skew, self.ep, self.placement, self.redundant)

    def _dealt(self, op: ExpertGemm, exchange: bool) -> ExpertGemm:
        replicas, hottest = np.maximum(self.ep / self.tp, 1.0), self._hottest(op)
        return replace(
            op, ranks=self.ep, by_tokens=exchange, experts=(op.experts + self.redundant) / replicas,
            tokens=op.tokens * replicas, m=op.m * hottest, placed=self.placement,
            copies=self.redundant, hottest=hottest,
        )  # fmt: skip

    def _exchanged(self, name: str, op: Permute, inputs: list[Value], stack: ExpertGemm) -> Iterator[Step]:
        moved = f"{name}.all_to_all"
        if self.dispatch != "experts":
            yield from self._sent(name, moved, op, inputs, stack)
        elif op.gather:
            yield name, replace(op, by_tokens=True), inputs
            yield moved, self._copies(op, stack, op.chosen * self._hottest(stack)), [Value(name)]
        else:
            yield moved, self._copies(op, stack, op.chosen * self._hottest(stack)), inputs
            yield name, replace(op, by_tokens=True), [Value(moved)]

    def _sent(self, name: str, moved: str, op: Permute, inputs: list[Value], stack: ExpertGemm) -> Iterator[Step]:
        """One copy of a token for each rank, or for all: rows are expanded after the exchange, and summed before it."""
        rows = op.chosen * self._hottest(stack)
        copies = self._received(stack)
        if op.gather:
            there = self._gathered(op) if self.dispatch == "all" else self._copies(op, stack, copies)
            yield moved, there, inputs
            behind = 1.0 if self.dispatch == "all" else copies
            yield name, replace(op, by_tokens=True, tokens=op.tokens * behind, chosen=rows / behind), [Value(moved)]
            return
        ahead = replace(op, by_tokens=True, tokens=op.tokens * copies, chosen=rows / copies)
        yield f"{name}.sum", ahead, inputs
        if self.dispatch == "all":
            yield name, self._scattered(op), [Value(f"{name}.sum")]
            return
        yield moved, self._copies(op, stack, copies), [Value(f"{name}.sum")]
        yield name, replace(op, by_tokens=True, chosen=copies), [Value(moved)]

    def _received(self, stack: ExpertGemm) -> Num:
        """Copies of tokens that the busiest rank receives, by the tokens of each rank; at most all of them."""
        if self.dispatch == "all":
            return self.ep * 1.0
        return np.minimum(ranks_reached(stack.of, stack.chosen, self.ep) * self._hottest(stack), self.ep)

    def _copies(self, op: Permute, stack: ExpertGemm, copies: Num) -> ExchangeTokens:
        narrow = NARROW[self.sent_as].get(stack.weights.compute) if op.gather else None
        exchange = ExchangeTokens(
            role="all_to_all", elems=op.tokens * copies * op.width, group=self.ep, layer=op.layer,
            activations=narrow or op.activations, there=op.gather,
        )  # fmt: skip
        if not self.kernels:
            return exchange
        return replace(
            exchange,
            kernels=self.kernels,
            tokens=op.tokens * 1.0,
            width=op.width,
            chosen=float(stack.chosen),
            experts=float(stack.of),
        )

    def _gathered(self, op: Permute) -> GatherTokens:
        whole = op.tokens * np.maximum(self.ep / self.tp, 1.0) * op.width
        return GatherTokens(
            role="all_gather", elems=whole, group=self.ep, activations=op.activations, layer=op.layer
        )  # fmt: skip

    def _scattered(self, op: Permute) -> ScatterTokens:
        own = op.tokens * op.width
        whole = own * np.maximum(self.ep / self.tp, 1.0)
        return ScatterTokens(
            role="reduce_scatter", elems=whole, own=own, group=self.ep, activations=op.activations, layer=op.layer
        )  # fmt: skip
