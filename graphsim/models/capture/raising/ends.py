"""The end of a model: logits of the positions that need them."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from graphsim.models.capture.raising.block import Block
from graphsim.models.capture.raising.node import KEEPING, Node, Sized

LOGIT_ROWS = sympy.Symbol("logit_rows", positive=True, integer=True)


MIXING = frozenset(("attention", "kv_cache", "conv", "scan", "compute", "value"))
"""Operations in which one row may see others; behind the last of them, a head works row by row."""


def hand_on(block: Block, left: str, handed: Sequence[str]) -> None:
    """Let a stem hand on what layers take beside its result, which is the last node."""
    result = block.value(left)
    for source in dict.fromkeys(block.value(source) for source in handed if source in block.values):
        name = block.unique(f"{source.replace('.', '_')}_handed")
        elems = block.nodes[source.partition(".")[0]].elems
        block.add(Node(name=name, op="hand_on", inputs=(source,), elems=elems), [])
    if list(block.nodes)[-1] != result:
        elems = block.elems_of(left)
        block.add(Node(name=block.unique("result"), op="join", inputs=(result,), elems=elems), [left])


def handed_states(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, and behind caches and states that none of them reads, that these are there for others."""
    taken = {source.partition(".")[0] for node in nodes for source in node.inputs}
    found: list[Node] = []
    for node in nodes:
        found.append(node)
        if node.op in KEEPING and node.op != "hand_on" and node.name not in taken and node is not nodes[-1]:
            found.append(Node(name=f"{node.name}_handed", op="hand_on", inputs=(node.name,), elems=node.elems))
    return found


def logits(block: Block, nodes: Sequence[Node]) -> list[Node]:
    """The head's nodes; what works row by row does so for the positions alone whose logits are asked for."""
    last = next((node for node in reversed(nodes) if node.op == "gemm" and not node.fields.get("idle")), None)
    if last is None:
        return list(nodes)
    last.fields |= {"head": True, "all_linear": _is_adapted(block, last), "split": "column"}
    first = _first_by_rows(nodes, last)
    at, rows = nodes.index(first), first.fields["m"].value
    take = Node(name=block.unique("last_tokens"), op="take_rows", inputs=first.inputs, elems=first.elems)
    first.inputs = (take.name,)
    for node in nodes[at:]:
        node.fields = {k: _per_row(v, rows) if isinstance(v, Sized) else v for k, v in node.fields.items()}
    del last.fields["m"]
    return [*nodes[:at], take, *nodes[at:]]


def _is_adapted(block: Block, last: Node) -> bool:
    """Whether PEFT's all-linear reaches the product of the logits: where a class names another output embedding.

    PEFT 0.21, `tuners/tuners_utils.py`, `_maybe_include_all_linear_layers`.
    """
    ask = getattr(block.model, "get_output_embeddings", None)
    named = ask() if ask is not None else None
    module = last.fields.get("module", "")
    if ask is None or not last.fields["all_linear"] or not module:
        return False
    return block.model.get_submodule(module) is not named


def _first_by_rows(nodes: Sequence[Node], last: Node) -> Node:
    """The first product of those at the end that work on rows apart and take nothing from further ahead."""
    mixed = [i for i, node in enumerate(nodes) if node.op in MIXING and not node.fields.get("idle")]
    start = mixed[-1] + 1 if mixed else 0
    for i, node in enumerate(nodes[start:], start):
        inner = {node.name for node in nodes[i:]}
        alone = all(source.partition(".")[0] in inner for other in nodes[i + 1 :] for source in other.inputs)
        if node.op == "gemm" and len(node.inputs) == 1 and alone and not node.fields.get("idle"):
            return node
    return last


def _per_row(size: Sized, rows: sympy.Expr) -> Sized:
    each = sympy.simplify(size.value / rows)
    return Sized(each * LOGIT_ROWS) if each.is_number and not sympy.sympify(size.value).is_number else size
