"""Origin of an attention's keys and values: the caches that hold them, or from whose content they are computed."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphsim.models.capture.raising.block import Block
from graphsim.models.capture.raising.paths import path
from graphsim.models.capture.rows import Row, RowInput


@dataclass(slots=True, kw_only=True)
class AttentionSource:
    """An attention and the origin of its keys and values.

    row: the attention
    cache: the cache that holds its keys and values unchanged
    behind: caches from whose content its keys and values are sliced or computed
    """

    row: Row
    cache: Row | None = None
    behind: list[Row] = field(default_factory=list)


def seen_of(block: Block, row: Row) -> AttentionSource:
    """The origin of an attention's keys and values."""
    held = [_held(block, taken) for taken in row.inputs[1:3]]
    if held[0] is not None and held[0] is held[1]:
        return AttentionSource(row=row, cache=held[0])
    behind: dict[str, Row] = {}
    for taken in row.inputs[1:3]:
        behind |= {cache.name: cache for cache in _behind(block, taken)}
    if not behind and (cache := _kept_otherwise(block, row)) is not None:
        return AttentionSource(row=row, cache=cache)
    return AttentionSource(row=row, behind=list(behind.values()))


def _kept_otherwise(block: Block, row: Row) -> Row | None:
    """The row that updates a cache of the model's own code: its result goes to the next step, or extends a state."""
    fresh: list[RowInput] = []
    for taken in row.inputs[1:3]:
        leaves = path(block, taken).leaves
        if any(is_of_another_layer(block, leaf) for leaf in leaves):
            return None
        states = [leaf for leaf in leaves if leaf.source.startswith("state:")]
        new = [leaf for leaf in leaves if leaf not in states]
        joins = len(states) == 1 and len(new) == 1
        if not joins and not (len(leaves) == 1 and _is_kept(block, taken)):
            return None
        fresh.append(_new(block, taken) if joins else taken)
    return Row(
        name=f"{row.name}|cache", kind="kv_cache", op="cat", module=row.module, scopes=(), inputs=tuple(fresh),
        outputs=(row.inputs[1].shape, row.inputs[2].shape),
    )  # fmt: skip


def is_of_another_layer(block: Block, taken: RowInput) -> bool:
    """Whether a value is the content of another layer's cache."""
    return "|update|" in taken.source and taken.source not in block.by_name


def _is_kept(block: Block, taken: RowInput) -> bool:
    """Whether a value computed in this step is passed to the next step."""
    if taken.source.startswith("state:"):
        return False
    return taken.source in block.kept or any(row.name in block.kept for row in path(block, taken).rows)


def _new(block: Block, taken: RowInput) -> RowInput:
    """The new part that is appended to a state."""
    for row in path(block, taken).rows:
        states = [more for more in row.inputs if more.source.startswith("state:")]
        if row.op == "cat" and states:
            return next(more for more in row.inputs if more not in states)
    return taken


def _held(block: Block, taken: RowInput) -> Row | None:
    """The cache whose whole content a value is; None if there is none."""
    leaves = path(block, taken).leaves
    row = block.by_name.get(leaves[0].source) if len(leaves) == 1 else None
    return row if row is not None and row.kind == "kv_cache" else None


def _behind(block: Block, taken: RowInput, depth: int = 4) -> list[Row]:
    """Caches from which a value is computed through norms and projections."""
    found: list[Row] = []
    for leaf in path(block, taken).leaves:
        row = block.by_name.get(leaf.source)
        if row is None or row.kind == "attention":
            continue
        if row.kind == "kv_cache":
            found.append(row)
        elif depth:
            found += [cache for more in row.inputs if block.flows(more) for cache in _behind(block, more, depth - 1)]
    return found


def reads_alone(block: Block, seen: AttentionSource) -> bool:
    """Whether this attention is the only reader of its cache."""
    waiting = [] if seen.cache is None else [seen.cache.name]
    while waiting:
        for user in block.users.get(waiting.pop(), []):
            if user.name in {row.name for row in path(block, RowInput(user.name, user.out)).rows}:
                waiting.append(user.name)
            elif user is not seen.row:
                return False
    return True
