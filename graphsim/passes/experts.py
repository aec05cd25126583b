"""Expert parallelism: which device holds which experts, and how tokens get there.

Within a tensor-parallel group every device has all tokens, works on its own experts' rows, and the sum over devices
is the group's all-reduce. Across replicas of the attention, tokens are exchanged with the experts' devices by
all-to-all, there and back (GShard, arXiv 2006.16668, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx
import numpy as np

from graphsim.errors import ConfigError
from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import ExchangeTokens, ExpertGemm, Op, Permute
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class DealExperts(Pass):
    """Deals the experts out to `ep` ranks; sharding by `tp` comes behind it."""

    stage: ClassVar[Stage] = "logical"

    ep: Num
    tp: Num

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Raises ConfigError if some scenarios exchange tokens and others do not: these are two different graphs."""
        ep, tp = self.ep, self.tp
        across = np.asarray(ep) > np.asarray(tp)
        if np.any(across) and not np.all(across):
            raise ConfigError(f"parallelism.ep = {ep} lies above tp = {tp} in some scenarios only; simulate them apart")
        exchange = bool(np.all(across))
        replicas = np.maximum(ep / tp, 1.0)

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if isinstance(op, ExpertGemm):
                share, tokens = op.experts / replicas, op.tokens * replicas
                yield name, replace(op, ranks=ep, by_tokens=exchange, experts=share, tokens=tokens), inputs
            elif not isinstance(op, Permute):
                yield name, op, inputs
            elif not exchange:
                yield name, replace(op, ranks=ep), inputs
            elif op.gather:
                yield name, replace(op, by_tokens=True), inputs
                yield f"{name}.all_to_all", _exchange(op, ep), [Value(name)]
            else:
                yield f"{name}.all_to_all", _exchange(op, ep), inputs
                yield name, replace(op, by_tokens=True), [Value(f"{name}.all_to_all")]

        return rule


def _exchange(op: Permute, ep: Num) -> ExchangeTokens:
    elems = op.rows * op.width
    return ExchangeTokens(role="all_to_all", elems=elems, group=ep, activations=op.activations, layer=op.layer)
