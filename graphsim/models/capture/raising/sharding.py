"""Tensor-parallel splits of captured GEMMs, their packing, and the keywords by which adapters target them.

They are derived from the data flow: a GEMM whose result reaches another GEMM through operations that work on any slice
(attention, gates, per-head norms) is sharded over its outputs, the other one over its inputs (Megatron-LM, arXiv
1909.08053, section 3); GEMMs with one input whose results meet in one operation are packed into one kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphsim.models.capture.raising.node import Node

_LOCAL = "activation elementwise copy rope attention kv_cache conv scan part join value"
LOCAL = frozenset(_LOCAL.split())
"""Operations that can work on a slice of the features."""

WORDS = {
    "q_proj": ("attn", "qkv", "query"), "k_proj": ("attn", "qkv", "key"), "v_proj": ("attn", "qkv", "value"),
    "query": ("attn", "qkv", "query"), "key": ("attn", "qkv", "key"), "value": ("attn", "qkv", "value"),
    "o_proj": ("attn", "out proj"), "out_proj": ("attn", "out proj"), "gate_proj": ("ffn", "up+gate", "gate", "w1"),
    "up_proj": ("ffn", "up+gate", "up", "w3"), "down_proj": ("ffn", "down", "w2"),
}  # fmt: skip
"""Keywords of the LoRA document's targeting table, by the usual names of modules."""


def shard(nodes: Sequence[Node]) -> None:
    """Set for each GEMM of a block how it is split and packed, and its targeting keywords."""
    by_name = {node.name: node for node in nodes}
    users: dict[str, list[Node]] = {}
    for node in nodes:
        for source in node.inputs:
            users.setdefault(source.partition(".")[0], []).append(node)
    for node in nodes:
        if node.op != "gemm" or "split" in node.fields:
            continue
        ends = list(_ends(node, users))
        if ends and all(end.op == "gemm" for end in ends) and any(_computes(by_name, users, node, end) for end in ends):
            node.fields["split"] = "column"
            for end in ends:
                end.fields["split"] = "row"
    for node in nodes:
        if node.op == "gemm":
            _aim(node, users)
    _pack(nodes, users)


def _ends(node: Node, users: dict[str, list[Node]]) -> Iterator[Node]:
    """The nodes that read a GEMM's result, behind operations that work on slices."""
    waiting, seen = list(users.get(node.name, [])), set[str]()
    while waiting:
        user = waiting.pop()
        if user.name in seen:
            continue
        seen.add(user.name)
        if user.op in LOCAL or (user.op == "norm" and _lets_pass(user, users)):
            more = users.get(user.name, [])
            if not more:
                yield user
            waiting += more
        else:
            yield user


def _lets_pass(norm: Node, users: dict[str, list[Node]]) -> bool:
    """Whether a norm keeps its input sharded: a per-head norm, or one over all queries or keys of an attention."""
    behind = users.get(norm.name, [])
    return bool(norm.fields.get("local")) or bool(behind and all(user.op in ("rope", "attention") for user in behind))


def _computes(by_name: dict[str, Node], users: dict[str, list[Node]], first: Node, last: Node) -> bool:
    """Whether any operation lies between two GEMMs; the factors of one matrix are not split."""
    return first.name not in {source.partition(".")[0] for source in last.inputs}


def _aim(node: Node, users: dict[str, list[Node]]) -> None:
    words = WORDS.get(node.fields["module"].rpartition(".")[2])
    if words is not None:
        node.fields["targets"] = list(words)


def _pack(nodes: Sequence[Node], users: dict[str, list[Node]]) -> None:
    """Pack GEMMs with the same input whose results meet in an attention or in a gate."""
    for kind, label in (("attention", "qkv_proj"), ("activation", "gate_up_proj")):
        for meeting in (node for node in nodes if node.op == kind):
            sources = [node for node in nodes if node.op == "gemm" and meeting in _meets(node, users)]
            alike = {(node.inputs, node.fields.get("split"), node.fields["bias"]) for node in sources}
            if len(sources) > 1 and len(alike) == 1 and sources[0].fields.get("split") == "column":
                for node in sources:
                    node.fields["pack"] = label


def _meets(node: Node, users: dict[str, list[Node]]) -> list[Node]:
    found, waiting, seen = [], list(users.get(node.name, [])), set[str]()
    while waiting:
        user = waiting.pop()
        if user.name in seen:
            continue
        seen.add(user.name)
        found.append(user)
        if user.op in ("rope", "part", "join", "kv_cache") or (user.op == "norm" and _lets_pass(user, users)):
            waiting += users.get(user.name, [])
    return found
