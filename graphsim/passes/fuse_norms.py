"""Norms fused into other kernels: with the residual sum, and with the all-reduce before it.

The sum after a block is normalised by the first norm of the next one. So in the body of a repeat, the last sum is
fused with the first norm, and the body's result stands for both the sum and its normalised value; the norm of the
first block is placed before the repeat, and the norm after the repeat is the last block's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Step, Value, inputs_of, rewrite
from graphsim.ops import Add, AddNorm, Input, Norm, Op, Repeat
from graphsim.ops.fused_norms import NORMED, SUM
from graphsim.ops.structure import last_node
from graphsim.ops.type_guards import is_all_reduce
from graphsim.units import Num

if TYPE_CHECKING:
    from graphsim.ops import AllReduce, AllReduceNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fused:
    """A sum and its norm; reduced: the all-reduce that they are fused into, "" for none; border: whether at the end of
    a body.
    """

    add: str
    norm: str
    reduced: str = ""
    border: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseNorms(Pass):
    """Fuses the residual sum into RMSNorms, and both into the all-reduce that yields one of the terms.

    limits: numbers of devices, and the largest message in bytes up to which norms are fused into all-reduces; empty
        where they never are; rows: largest number of rows for that, 0 for any
    is_body: whether the graph is a repeat's body
    """

    limits: tuple[tuple[float, float], ...] = ()
    rows: float = 0.0
    is_body: bool = False

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """The body is rewritten separately."""
        return rewrite(repeat.body, replace(self, is_body=True))

    def rule(self, graph: nx.DiGraph) -> Rule:
        """A fused kernel is placed after its last input; consumers take its parts."""
        pairs = self._pairs(graph)
        starts = {pair.reduced or pair.add: pair for pair in pairs}
        adds = {pair.add: pair for pair in pairs}
        norms = {pair.norm: pair for pair in pairs}
        given: dict[str, list[Value]] = {}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in starts:
                given[name] = inputs
            if name in norms:
                yield inputs[0] if norms[name].border else Value(inputs[0].node, (NORMED,))
            elif name in adds and adds[name].reduced:
                pair = adds[name]
                residual = next(value for value in inputs if value.node != pair.reduced)
                yield pair.reduced, self._reduced(graph, pair), [*given[pair.reduced], residual]
                yield Value(pair.reduced, () if pair.border else (SUM,))
            elif name in starts and starts[name].reduced:
                yield Value(name)
            elif name in adds:
                yield _named(graph, adds[name]), self._added(graph, adds[name]), inputs
                if not adds[name].border:
                    yield Value(_named(graph, adds[name]), (SUM,))
            elif isinstance(op, Repeat) and _border(graph.nodes[name]["op"].body) is not None:
                yield from self._repeated(graph, name, op, inputs)
            elif _is_behind_repeat(graph, name):
                yield inputs[0]
            else:
                yield name, op, inputs

        return rule

    def _pairs(self, graph: nx.DiGraph) -> list[_Fused]:
        found = []
        for name, op in graph.nodes(data="op"):
            norm = _norm_of(graph, name) if _is_sum(graph, name, op) else ""
            if norm:
                found.append(_Fused(add=name, norm=norm, reduced=self._reduced_by(graph, name)))
        border = _border(graph) if self.is_body else None
        if border is not None:
            found.append(replace(border, reduced=self._reduced_by(graph, border.add)))
        return found

    def _reduced_by(self, graph: nx.DiGraph, add: str) -> str:
        """The all-reduce that yields one of a sum's terms, with no other consumer."""
        sources = [value.node for value in inputs_of(graph, add)]
        terms = [name for name in sources if is_all_reduce(graph.nodes[name]["op"])]
        return next((name for name in terms if self.limits and graph.out_degree(name) == 1), "")

    def _added(self, graph: nx.DiGraph, pair: _Fused) -> AddNorm:
        norm: Norm = graph.nodes[pair.norm]["op"]
        shown = graph.nodes[pair.add]["op"] if pair.border else norm
        return AddNorm(
            role=shown.role, rows=norm.rows, width=norm.width, vectors=norm.vectors, module=norm.module,
            reused=norm.reused, activations=norm.activations, layer=shown.layer, residency=norm.residency,
        )  # fmt: skip

    def _reduced(self, graph: nx.DiGraph, pair: _Fused) -> AllReduceNorm:
        from graphsim.ops import AllReduceNorm

        reduced: AllReduce = graph.nodes[pair.reduced]["op"]
        norm: Norm = graph.nodes[pair.norm]["op"]
        return AllReduceNorm(
            role=reduced.role, elems=reduced.elems, group=reduced.group, activations=reduced.activations,
            layer=reduced.layer, residency=reduced.residency, rows=norm.rows, width=norm.width, vectors=norm.vectors,
            apart=self._apart(reduced, norm),
        )  # fmt: skip

    def _apart(self, reduced: AllReduce, norm: Norm) -> Num:
        """1 if the message or the group is too large for the norm to be fused into the all-reduce."""
        most: Num = 0.0
        for devices, limit in reversed(self.limits):
            most = np.where(np.less_equal(reduced.group, devices), limit, most)[()]
        fits = np.less_equal(reduced.payload_bytes, most) & np.greater(reduced.group, 1.0)
        if self.rows:
            fits = fits & np.less_equal(norm.rows, self.rows)
        return np.where(fits, 0.0, 1.0)[()]

    def _repeated(self, graph: nx.DiGraph, name: str, op: Repeat, inputs: list[Value]) -> Iterator[Step]:
        """A repeat whose blocks normalise for the next one, after the first block's norm."""
        ahead = graph.nodes[inputs_of(graph, name)[0].node]["op"]
        if not (isinstance(ahead, Repeat) and _border(ahead.body) is not None):
            body = graph.nodes[name]["op"].body
            border = _border(body)
            first: Norm = body.nodes[border.norm if border else ""]["op"]
            yield f"{name}.first_norm", replace(first, layer=0), inputs[:1]
            inputs = [Value(f"{name}.first_norm"), *inputs[1:]]
        yield name, op, inputs


def _named(graph: nx.DiGraph, pair: _Fused) -> str:
    """The node of a sum with its norm: the norm's, unless that is another block's."""
    return pair.add if pair.border else pair.norm


def _is_sum(graph: nx.DiGraph, name: str, op: Op) -> bool:
    """Whether a node adds two unsharded values of the base model."""
    values = inputs_of(graph, name)
    return type(op) is Add and len(values) == 2 and not op.adapter and not any(value.parts for value in values)


def _is_norm(graph: nx.DiGraph, name: str) -> bool:
    """Whether a node is an RMSNorm of whole rows, of one value."""
    op = graph.nodes[name]["op"]
    plain = type(op) is Norm and not op.local and not op.groups and not op.adapter
    return plain and len(graph.pred[name]) == 1 and bool(np.all(np.less(op.vectors, 2.0)))


def _norm_of(graph: nx.DiGraph, name: str) -> str:
    """The only norm that takes a value; "" for none or several."""
    norms = [user for user in graph.succ[name] if _is_norm(graph, user) and not graph.edges[name, user].get("parts")]
    return norms[0] if len(norms) == 1 else ""


def _border(body: nx.DiGraph) -> _Fused | None:
    """A body's last sum and its first norm; None if they are not one block's residual and the next one's norm."""
    last = last_node(body)
    entries = [name for name, op in body.nodes(data="op") if isinstance(op, Input)]
    if len(entries) != 1 or not _is_sum(body, last, body.nodes[last]["op"]):
        return None
    norm = _norm_of(body, entries[0])
    return _Fused(add=last, norm=norm, border=True) if norm else None


def _is_behind_repeat(graph: nx.DiGraph, name: str) -> bool:
    """Whether a node is the norm of a repeat's result that is already normalised."""
    if not _is_norm(graph, name):
        return False
    ahead = graph.nodes[inputs_of(graph, name)[0].node]["op"]
    return isinstance(ahead, Repeat) and _border(ahead.body) is not None and _norm_of_repeat(graph, name)


def _norm_of_repeat(graph: nx.DiGraph, name: str) -> bool:
    return _norm_of(graph, inputs_of(graph, name)[0].node) == name
