"""The rotary embedding before attention, in any implementation: one kernel for queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from graphsim.models.capture.raising.block import Block, Claim
from graphsim.models.capture.raising.node import Node, count
from graphsim.models.capture.raising.paths import cone, leading_only, path, turns
from graphsim.models.capture.rows import Row, RowInput


@dataclass(slots=True, kw_only=True)
class RotatedPart:
    """The rotated part of queries or keys.

    top: the complete queries or keys, rotated or not
    rows: rows that rotate
    ends: those of them whose results leave the rotation
    plain: rows between ends and top
    source: the value that is rotated
    whole: whether top consists only of the rotated part and the rest of the same value
    """

    top: RowInput
    rows: list[Row]
    ends: list[Row]
    plain: list[Row]
    source: RowInput
    whole: bool


def claim_rope(
    block: Block, query: RowInput, keys: Sequence[RowInput], *, readers: set[str], sizes: dict[str, Any]
) -> None:
    """Claim the rows that apply the rotary embedding to queries and keys.

    query: the queries
    keys: values one of which is rotated
    readers: names of the rows that read the results
    sizes: `head_dim` and `tokens` of the attention; `plain` if its cache holds the keys unchanged
    """
    asked = turned(block, query, readers)
    held = next((found for key in keys if (found := turned(block, key, readers)) is not None), None)
    if asked is not None and held is not None and asked.rows[-1].name == held.rows[-1].name:
        held = None
    both = [found for found in (asked, held) if found is not None]
    if not both:
        return
    whole = all(found.whole for found in both) and sizes["plain"]
    parts = [_part(found, whole) for found in both]
    heads = [_heads(part, sizes, whole) for part in parts]
    if not all(getattr(number, "is_Integer", False) and number > 0 for number in heads):
        return
    rows = sorted({row.name: row for found in both for row in found.rows}.values(), key=block.place)
    plain = [row for found in both for row in found.plain if row.name not in block.claimed] if whole else []
    facts = {
        "turned": both,
        "parts": parts,
        "whole": whole,
        "heads": [int(number) for number in heads],
        "head_dim": int(sizes["head_dim"] if whole else parts[0].shape[-1]),
    }
    block.claim([*rows, *plain], _rope, lazy=True, **facts)


def turned(block: Block, top: RowInput, readers: set[str]) -> RotatedPart | None:
    """The rotated part of a value; None if nothing is rotated, or if the parts come from several values."""
    way = path(block, top)
    inside = readers | {row.name for row in way.rows}
    rows: dict[str, Row] = {}
    ends: list[Row] = []
    rest: list[RowInput] = []
    for leaf in way.leaves:
        row = block.by_name.get(leaf.source)
        if row is None or row.name in block.values or row.name in block.claimed:
            rest.append(leaf)
            continue
        found = cone(block, row, inside)
        if any(turns(block, inner) for inner in found):
            rows |= {inner.name: inner for inner in found}
            ends += [row] if row not in ends else []
        else:
            rest.append(leaf)
    if not rows or block.weights_of(rows.values()):
        return None
    outside = block.outside(sorted(rows.values(), key=block.place))
    sources = {taken.source for taken in outside}
    if len(sources) != 1:
        return None
    whole = {taken.source for taken in rest} <= sources
    ordered = sorted(rows.values(), key=block.place)
    plain = leading_only(block, way.rows, readers)
    return RotatedPart(top=top, rows=ordered, ends=ends, plain=plain, source=outside[0], whole=whole)


def _part(found: RotatedPart, whole: bool) -> RowInput:
    """The part of the source that is rotated; with `whole`, including the rest that is not."""
    ends = [end.out for end in found.ends]
    shape = found.top.shape if whole else (*ends[0][:-1], sum(end[-1] for end in ends))
    return RowInput(found.source.source, shape, found.source.offset)


def _heads(part: RowInput, sizes: dict[str, Any], whole: bool) -> Any:
    width = sizes["head_dim"] if whole else part.shape[-1]
    return sympy.simplify(count(part.shape) / (sizes["tokens"] * width))


def _rope(block: Block, claim: Claim) -> None:
    """Add the node of the rotary embedding, with parts `q` and `k` if it rotates both."""
    both, parts, heads = claim.facts["turned"], claim.facts["parts"], claim.facts["heads"]
    inputs = tuple(block.take([part])[0][0] for part in parts)
    elems = [count(part.shape) for part in parts]
    name = block.unique("rope")
    fields = {"heads": heads[0], "kv_heads": heads[1] if len(both) > 1 else 0, "head_dim": claim.facts["head_dim"]}
    node = Node(name=name, op="rope", inputs=inputs, elems=sympy.expand(sum(elems)), fields=fields)
    block.add(node, [])
    if len(both) > 1:
        node.fields["part_elems"] = dict(zip("qk", elems, strict=True))
    for found, letter in zip(both, "qk", strict=False):
        value = f"{name}.{letter}" if len(both) > 1 else name
        for end in found.ends:
            block.values[end.name] = value
        if claim.facts["whole"]:
            block.values[found.top.source] = value
