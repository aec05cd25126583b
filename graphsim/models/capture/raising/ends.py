"""The end of a model: logits of the positions that need them."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from graphsim.models.capture.raising.block import Block
from graphsim.models.capture.raising.node import KEEPING, Node, StepSize

LOGIT_ROWS = sympy.Symbol("logit_rows", positive=True, integer=True)


MIXING = frozenset(("attention", "kv_cache", "conv", "scan", "compute", "value"))
"""Operations in which rows may depend on other rows; after the last of them, a head works row by row."""


def hand_on(block: Block, left: str, handed: Sequence[str]) -> None:
    """Add a node that passes further values of a stem to the layers, and its result as the last node.

    left: source of the stem's result
    handed: sources of the further values
    """
    result = block.value(left)
    for source in dict.fromkeys(block.value(source) for source in handed if source in block.values):
        name = block.unique(f"{source.replace('.', '_')}_handed")
        elems = block.nodes[source.partition(".")[0]].elems
        block.add(Node(name=name, op="hand_on", inputs=(source,), elems=elems), [])
    if list(block.nodes)[-1] != result:
        elems = block.elems_of(left)
        block.add(Node(name=block.unique("result"), op="join", inputs=(result,), elems=elems), [left])


def handed_states(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, with a node after each otherwise unread cache or state that passes it to other blocks."""
    taken = {source.partition(".")[0] for node in nodes for source in node.inputs}
    found: list[Node] = []
    for node in nodes:
        found.append(node)
        if node.op in KEEPING and node.op != "hand_on" and node.name not in taken and node is not nodes[-1]:
            found.append(Node(name=f"{node.name}_handed", op="hand_on", inputs=(node.name,), elems=node.elems))
    return found


def logits(block: Block, nodes: Sequence[Node]) -> list[Node]:
    """The head's nodes; row-wise operations at the end are limited to the positions whose logits are needed."""
    last = next((node for node in reversed(nodes) if node.op == "gemm" and not node.fields.get("idle")), None)
    if last is None:
        return list(nodes)
    last.fields |= {"head": True, "all_linear": _is_adapted(block, last), "split": "column"}
    first = _first_by_rows(nodes, last)
    at, rows = nodes.index(first), first.fields["m"].value
    take = Node(name=block.unique("last_tokens"), op="take_rows", inputs=first.inputs, elems=first.elems)
    first.inputs = (take.name,)
    for node in nodes[at:]:
        node.fields = {k: _per_row(v, rows) if isinstance(v, StepSize) else v for k, v in node.fields.items()}
    del last.fields["m"]
    return [*nodes[:at], take, *nodes[at:]]


def _is_adapted(block: Block, last: Node) -> bool:
    """Whether PEFT's all-linear targets the GEMM of the logits: if the class declares another output embedding.

    PEFT 0.21, `tuners/tuners_utils.py`, `_maybe_include_all_linear_layers`.
    """
    ask = getattr(block.model, "get_output_embeddings", None)
    named = ask() if ask is not None else None
    module = last.fields.get("module", "")
    if ask is None or not last.fields["all_linear"] or not module:
        return False
    return block.model.get_submodule(module) is not named


def _first_by_rows(nodes: Sequence[Node], last: Node) -> Node:
    """The first GEMM of the row-wise operations at the end that depend on no earlier nodes except its input."""
    mixed = [i for i, node in enumerate(nodes) if node.op in MIXING and not node.fields.get("idle")]
    start = mixed[-1] + 1 if mixed else 0
    for i, node in enumerate(nodes[start:], start):
        inner = {node.name for node in nodes[i:]}
        alone = all(source.partition(".")[0] in inner for other in nodes[i + 1 :] for source in other.inputs)
        if node.op == "gemm" and len(node.inputs) == 1 and alone and not node.fields.get("idle"):
            return node
    return last


def _per_row(size: StepSize, rows: sympy.Expr) -> StepSize:
    each = sympy.simplify(size.value / rows)
    return StepSize(each * LOGIT_ROWS) if each.is_number and not sympy.sympify(size.value).is_number else size
