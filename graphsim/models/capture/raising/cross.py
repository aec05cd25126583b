"""Cross-attention: keys and values are computed from the encoder's output in the prompt and cached from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy

from graphsim.models.capture.raising.block import INPUT, SOURCE
from graphsim.models.capture.raising.node import Node, StepSize
from graphsim.models.capture.symbols import ENCODED

OTHERWISE = ("cached", "kept", "causal", "window")
"""Fields of self-attention that cross-attention does not have."""


def with_cross_attention(
    prompt: Sequence[Node], decode: Sequence[Node] | None, rows: Any
) -> tuple[list[Node], list[Node] | None]:
    """The programs of a decoder's layer, with attention to the encoder's output marked as cross-attention.

    In both programs, the nodes that compute its keys and values stand right before it and work on as many rows as the
    step encodes. The recorded decode step lacks these nodes, since it reads their results from the cache.

    prompt, decode: nodes of the two programs
    rows: number of the encoder's rows, all sequences together
    """
    roots = _roots(prompt)
    crossing = [node for node in prompt if _is_cross(node, roots)]
    if not crossing:
        return list(prompt), None if decode is None else list(decode)
    encoded = {node.name: node for node in prompt if roots[node.name] == {SOURCE}}
    ahead = {cross.name: _leading(cross, encoded) for cross in crossing}
    for cross in crossing:
        _say_cross(cross, encoded, rows)
    for node in encoded.values():
        _on_encoded_rows(node, rows)
    for cross in crossing:
        ahead[cross.name] = [node for node in ahead[cross.name] if node.op != "kv_cache"]
    moved = {node.name for nodes in ahead.values() for node in nodes} | {
        n.name for n in encoded.values() if n.op == "kv_cache"
    }
    return _placed(prompt, moved, ahead), None if decode is None else _joined(decode, crossing, ahead)


def _roots(nodes: Sequence[Node]) -> dict[str, set[str]]:
    """The origins of each node: the block's input, the encoder's output, values from outside."""
    found: dict[str, set[str]] = {INPUT: {INPUT}, SOURCE: {SOURCE}}
    for node in nodes:
        names = [name.partition(".")[0] for name in node.inputs]
        found[node.name] = {root for name in names for root in found[name]} or {node.name}
    return found


def _is_cross(node: Node, roots: Mapping[str, set[str]]) -> bool:
    return node.op == "attention" and len(node.inputs) > 1 and roots[node.inputs[1].partition(".")[0]] == {SOURCE}


def _leading(cross: Node, encoded: Mapping[str, Node]) -> list[Node]:
    """The nodes that compute keys and values, in order."""
    waiting, found = list(cross.inputs[1:]), set[str]()
    while waiting:
        name = waiting.pop().partition(".")[0]
        if name in encoded and name not in found:
            found.add(name)
            waiting += encoded[name].inputs
    return [node for name, node in encoded.items() if name in found]


def _on_encoded_rows(node: Node, rows: Any) -> None:
    """Express a node's sizes in the number of rows that a step encodes."""
    for key, size in node.fields.items():
        if isinstance(size, StepSize):
            each = sympy.simplify(size.value / rows)
            if each.is_number:
                node.fields[key] = StepSize(each * ENCODED)


def _say_cross(cross: Node, encoded: Mapping[str, Node], rows: Any) -> None:
    """Mark an attention node as cross-attention with its own cache and as many KV heads as its keys have."""
    inputs = [cross.inputs[0]]
    for name in cross.inputs[1:]:
        node = encoded.get(name.partition(".")[0])
        inputs += node.inputs if node is not None and node.op == "kv_cache" else [name]
    cross.inputs = tuple(dict.fromkeys(inputs))
    key = encoded.get(cross.inputs[1].partition(".")[0])
    heads = sympy.simplify(key.elems / (rows * cross.fields["head_dim"])) if key is not None else sympy.Integer(0)
    own = {"kv_heads": int(heads)} if heads.is_Integer and heads > 0 and "." not in cross.inputs[1] else {}
    cross.fields = {**{k: v for k, v in cross.fields.items() if k not in OTHERWISE}, **own, "cross": True}


def _placed(nodes: Sequence[Node], moved: set[str], ahead: Mapping[str, list[Node]]) -> list[Node]:
    """The nodes in an order in which those that compute keys and values stand right before cross-attention."""
    placed: list[Node] = []
    for node in nodes:
        if node.name in ahead:
            placed += [more for more in ahead[node.name] if more not in placed]
        if node.name not in moved:
            placed.append(node)
    return placed


def _joined(decode: Sequence[Node], crossing: Sequence[Node], ahead: Mapping[str, list[Node]]) -> list[Node]:
    """The decode step's program with the prompt's nodes whose results it reads from a cache."""
    states = {node.name for node in decode if node.op == "value" and node.source.startswith("state:")}
    found = [node for node in decode if node.op == "attention" and set(node.inputs[1:]) <= states and node.inputs[1:]]
    if len(found) != len(crossing):
        return list(decode)
    read = {name for node in found for name in node.inputs[1:]}
    nodes: dict[str, Node] = {}
    for node in decode:
        if node in found:
            cross = crossing[found.index(node)]
            nodes |= {more.name: replace(more, fields=dict(more.fields)) for more in ahead[cross.name]}
            node.inputs = (node.inputs[0], *cross.inputs[1:])
            node.fields = dict(cross.fields)
        if node.name not in read or any(node.name in other.inputs for other in decode if other not in found):
            nodes[node.name] = node
    return list(nodes.values())
