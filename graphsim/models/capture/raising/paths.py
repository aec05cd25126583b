"""Rows between a projection and attention: those that engines fuse away, and rotary embeddings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from graphsim.models.capture.raising.block import Block, Claim
from graphsim.models.capture.raising.node import Node, count
from graphsim.models.capture.raising.rows import is_copy, is_fusable
from graphsim.models.capture.rows import Row, RowInput

SCALINGS = frozenset({"mul", "div", "mul_", "div_"})

SELECTIONS = frozenset({"index", "index_select"})
"""Operations that select rows or columns by indices that do not depend on data."""


@dataclass(slots=True, kw_only=True)
class Path:
    """The rows that lead to a value without moving data.

    rows: the rows
    leaves: the values that they start from
    """

    rows: list[Row] = field(default_factory=list)
    leaves: list[RowInput] = field(default_factory=list)


def is_plain(block: Block, row: Row) -> bool:
    """Whether a row is a change of layout or format, a concatenation or a scaling that is fused into attention."""
    if any(taken.source.partition(":")[2] in block.parameters for taken in row.inputs):
        return False
    if is_copy(row):
        return not is_rope(row)
    factors = [taken for taken in row.inputs if not block.flows(taken)]
    if row.op in SELECTIONS:
        return block.flows(row.inputs[0]) and len(factors) == len(row.inputs) - 1
    return row.op in SCALINGS and len(row.inputs) - len(factors) == 1 and all(_is_scale(taken) for taken in factors)


def _is_scale(taken: RowInput) -> bool:
    return not taken.shape or taken.shape[-1] == 1


def path(block: Block, taken: RowInput) -> Path:
    """The path from a value back through unclaimed plain rows."""
    found, waiting, seen = Path(), [taken], set[str]()
    while waiting:
        one = waiting.pop(0)
        row = block.by_name.get(one.source)
        open_ = row is not None and one.source not in block.values and _is_open(block, row)
        values = [more for more in row.inputs if block.flows(more)] if row is not None else []
        part = row is not None and row.op != "copy_" and block.less(count(one.shape), count(row.out))
        if row is None or not open_ or not is_plain(block, row) or (part and len(values) > 1):
            if block.flows(one):
                found.leaves.append(one)
            continue
        if row.name not in seen or part:
            seen.add(row.name)
            found.rows.append(row)
            waiting += [_chosen(block, one, row, more) for more in values]
    return found


def _chosen(block: Block, one: RowInput, row: Row, value: RowInput) -> RowInput:
    """The part of a row's input that the given part of its result depends on."""
    if row.op == "copy_":
        before = block.by_name.get(value.source)
        return value if before is None or value is not row.inputs[0] else RowInput(before.name, before.out)
    if block.less(count(one.shape), count(row.out)):
        return RowInput(value.source, one.shape, (row.name, one.offset))
    if row.op in SELECTIONS and block.less(count(row.out), count(value.shape)):
        return RowInput(value.source, row.out, row.name)
    return value


def _is_open(block: Block, row: Row) -> bool:
    claim = block.claimed.get(row.name)
    return claim is None or claim.emit is nothing


def nothing(block: Block, claim: Claim) -> None:
    """Add no node for plain rows: readers of their result get the underlying values, joined into one."""
    row = claim.rows[0]
    leaves = [leaf for taken in row.inputs if block.flows(taken) for leaf in path(block, taken).leaves]
    block.values[row.name] = together(block, leaves)


def leading_only(block: Block, rows: Sequence[Row], ends: Collection[str]) -> list[Row]:
    """Those of the rows whose results lead only to `ends`, last first."""
    inside, found = set(ends), []
    for row in sorted(rows, key=block.place, reverse=True):
        if row.name not in block.leaves and _leads_only(block, row, inside):
            inside.add(row.name)
            found.append(row)
    return found


def absorb(block: Block, rows: Sequence[Row], ends: Collection[str]) -> None:
    """Claim plain rows whose results lead only to `ends`."""
    for row in leading_only(block, rows, ends):
        if row.name not in block.claimed:
            block.claim([row], nothing, lazy=True)


def _leads_only(block: Block, row: Row, ends: Collection[str]) -> bool:
    return all(user.name in ends for user in block.users.get(row.name, []))


def cone(block: Block, end: Row, ends: Collection[str]) -> list[Row]:
    """A row and the fusable rows that lead only to it and to `ends`, in order; for a rotary function, only its own."""
    found = {end.name: end}
    waiting = [taken.source for taken in end.inputs]
    while waiting:
        row = block.by_name.get(waiting.pop(0))
        if row is None or row.name in found or row.name in block.claimed or not is_fusable(row):
            continue
        if is_rope(end) and not is_rope(row):
            continue
        if all(user.name in found or user.name in ends for user in block.users.get(row.name, [])):
            found[row.name] = row
            waiting += [taken.source for taken in row.inputs]
    return sorted(found.values(), key=block.place)


def is_rope(row: Row) -> bool:
    """Whether a row belongs to a function that applies rotary embeddings."""
    return any(scope.startswith("rope#") for scope in row.scopes)


def turns(block: Block, row: Row) -> bool:
    """Whether a row belongs to a rotary function, or multiplies by values that depend on positions only."""
    if is_rope(row):
        return True
    factors = [
        taken
        for taken in row.inputs
        if not block.flows(taken) and taken.source.partition(":")[2] not in block.parameters
    ]
    return row.op in SCALINGS and any(len(taken.shape) > 1 and not _is_scale(taken) for taken in factors)


def together(block: Block, values: Sequence[RowInput]) -> str:
    """The node of the value behind these views; a `join` node if there are several."""
    leaves = [leaf for value in values for leaf in path(block, value).leaves]
    names, elems = block.take(leaves)
    if len(names) == 1:
        return names[0]
    known = block.joins.get(names)
    if known is None:
        known = block.joins[names] = block.unique("join")
        block.add(Node(name=known, op="join", inputs=names, elems=elems), [])
    return known
