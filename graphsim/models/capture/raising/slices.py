"""GEMMs whose results are read in slices: packed queries, keys and values, or gates packed with values."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from graphsim.models.capture.raising.node import Node

ATTENDED = ("q", "k", "v")
PASSED = ("rope", "part", "norm")
"""Operations between a GEMM and attention that do not mix heads."""


def name_slices(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with named slices of GEMM results instead of part nodes, where the parts make up the whole result."""
    users = _users(nodes)
    gone: dict[str, str] = {}
    for node in nodes:
        taken = users.get(node.name, [])
        if node.op != "gemm" or len(taken) < 2 or any(user.op != "part" for user in taken):
            continue
        if sympy.expand(sum((user.elems for user in taken), start=sympy.Integer(0)) - node.elems) != 0:
            continue
        rows = node.fields["m"].value
        widths = [sympy.simplify(user.elems / rows) for user in taken]
        if not all(width.is_Integer for width in widths):
            continue
        labels = _labels([_place(user, users) for user in taken])
        node.fields["parts"] = {label: {"width": int(width)} for label, width in zip(labels, widths, strict=True)}
        gone |= {user.name: f"{node.name}.{label}" for user, label in zip(taken, labels, strict=True)}
    return [_renamed(node, gone) for node in nodes if node.name not in gone]


def limit_cuts(nodes: Sequence[Node]) -> None:
    """Limit the tensor-parallel degree of GEMMs around attention to their number of heads."""
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        if node.op != "attention":
            continue
        heads = (node.fields["heads"], node.fields["kv_heads"], node.fields["kv_heads"])
        for source, units in zip(node.inputs, heads, strict=False):
            _limit(by_name, source, int(units))
        for user in (other for other in nodes if other.op == "gemm" and node.name in other.inputs):
            user.fields.setdefault("units", int(node.fields["heads"]))


def _limit(by_name: dict[str, Node], source: str, units: int) -> None:
    name, _, part = source.partition(".")
    node = by_name.get(name)
    if node is None:
        return
    if node.op == "gemm" and "parts" not in node.fields:
        node.fields.setdefault("units", units)
    elif node.op == "gemm" and part:
        node.fields["parts"][part].setdefault("units", units)
    elif node.op == "rope" and len(node.inputs) == 2 and part:
        _limit(by_name, node.inputs[ATTENDED.index(part)], units)
    elif node.op in PASSED and len(node.inputs) == 1:
        _limit(by_name, node.inputs[0], units)


def _users(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for node in nodes:
        for source in node.inputs:
            found.setdefault(source.partition(".")[0], []).append(node)
    return found


def _place(node: Node, users: dict[str, list[Node]]) -> str:
    """`q`, `k` or `v` if a slice ends in attention or a rotary embedding; else ""."""
    for user in users.get(node.name, []):
        if user.op in ("attention", "rope") and 1 < len(user.inputs) <= len(ATTENDED):
            return ATTENDED[[source.partition(".")[0] for source in user.inputs].index(node.name)]
        if user.op == "norm":
            return _place(user, users)
    return ""


def _labels(places: list[str]) -> list[str]:
    alone = [place if place and places.count(place) == 1 else "" for place in places]
    return [place or f"part_{i + 1}" for i, place in enumerate(alone)]


def _renamed(node: Node, gone: dict[str, str]) -> Node:
    node.inputs = tuple(gone.get(source, source) for source in node.inputs)
    return node
