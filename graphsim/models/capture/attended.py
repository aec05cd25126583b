"""Pattern matching of attention written as two matrix products with a softmax between them; causality of attention."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sympy

from graphsim.models.capture.raising.products import PRODUCTS
from graphsim.models.capture.raising.rows import is_fusable, live
from graphsim.models.capture.rows import Row, RowInput, Size

SOFTMAXES = frozenset({"softmax", "_softmax", "_safe_softmax"})

TRIANGLES = frozenset({"tril", "triu"})

COMPARISONS = frozenset({"ge", "le", "gt", "lt", "greater_equal", "less_equal", "greater", "less"})


def settle(rows: list[Row], parameters: frozenset[str], buffers: Mapping[str, tuple[int, ...]]) -> None:
    """Replace decomposed attention by one row, in place, and set `causal` on every attention row.

    rows: the rows of one step, modified in place
    parameters: names of the model's parameters
    buffers: shapes of the model's buffers by name; some of these are masks
    """
    by_name = {row.name: row for row in rows}
    alive = live(rows, parameters)
    users: dict[str, list[RowInput]] = {}
    for row in rows:
        for taken in row.inputs:
            users.setdefault(taken.source, []).append(taken)
    for i, row in enumerate(rows):
        if _is_product(row, parameters) and row.name in alive:
            found = _spelt(row, by_name, alive, users, parameters)
            if found is not None:
                rows[i] = by_name[row.name] = found
    for row in rows:
        if row.kind == "attention":
            masks = row.attributes.pop("masks", None) or [row.attributes.get("mask", "")]
            hides = any(_hides_later(mask, by_name, buffers) for mask in masks if mask)
            row.attributes["causal"] = hides or (bool(row.attributes.get("is_causal")) and not any(masks))


def _is_product(row: Row, parameters: frozenset[str]) -> bool:
    """Whether a row is a matrix product of two activations."""
    return row.op in PRODUCTS and not any(_parameter(taken, parameters) for taken in row.inputs)


def _parameter(taken: RowInput, parameters: Collection[str]) -> str:
    kind, _, name = taken.source.partition(":")
    return name if kind == "weight" and name in parameters else ""


@dataclass(slots=True, kw_only=True)
class _ScorePath:
    """What lies between the query-key product and the product with the values.

    softmax: whether there is a softmax
    soft_cap: whether the scores are capped by a tanh
    scores: matrix products whose results are added up to the scores
    others: live values from outside that enter the scores
    masks: sources of the masks
    learned: parameters that enter the scores, such as attention sinks
    joins: whether columns are concatenated to the scores
    """

    softmax: bool = False
    soft_cap: bool = False
    scores: list[Row] = field(default_factory=list)
    others: list[RowInput] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    learned: list[RowInput] = field(default_factory=list)
    joins: bool = False


def _spelt(
    last: Row,
    by_name: Mapping[str, Row],
    alive: set[str],
    users: Mapping[str, list[RowInput]],
    parameters: frozenset[str],
) -> Row | None:
    """The attention row that replaces a product with the values; None if the product is not part of attention."""
    for side in (-2, -1):
        chances, value = last.inputs[side], last.inputs[-1 if side == -2 else -2]
        way = _way(chances, by_name, alive, parameters)
        size = math.prod(chances.shape)
        first = next((row for row in way.scores if _same(math.prod(row.out), size)), None)
        if not way.softmax or first is None:
            continue
        query, key = first.inputs[-2:]
        if side == -1:
            value = replace(value, shape=(*value.shape[:-2], value.shape[-1], value.shape[-2]))
        key = replace(key, shape=(*key.shape[:-2], key.shape[-1], key.shape[-2]))
        more = [RowInput(row.name, row.out) for row in way.scores if row is not first]
        return Row(
            name=last.name, kind="attention", op="attention", module=last.module, scopes=last.scopes,
            inputs=(query, key, value, *way.others, *more, *way.learned), outputs=last.outputs,
            flops=first.flops + last.flops, attributes={
                **_heads(first, users), "queries": first.out[-2], "keys": first.out[-1], "soft_cap": way.soft_cap,
                "sinks": way.joins and bool(way.learned), "masks": way.masks, "is_causal": False,
            },
        )  # fmt: skip
    return None


def _same(one: Size, other: Size) -> bool:
    return bool(sympy.expand(one - other) == 0)


def _way(chances: RowInput, by_name: Mapping[str, Row], alive: set[str], parameters: frozenset[str]) -> _ScorePath:
    """Walk from the attention weights back through pointwise rows and the softmax to the query-key products."""
    way, waiting, seen = _ScorePath(), [(chances, False)], set[str]()
    while waiting:
        taken, behind = waiting.pop(0)
        row = by_name.get(taken.source)
        if row is None or row.name in seen:
            if row is None:
                way.others.append(taken)
            continue
        seen.add(row.name)
        if _is_product(row, parameters) and behind:
            way.scores.append(row)
            waiting += [(more, behind) for more in _addend(row) if more.source in alive]
            way.masks += [more.source for more in _addend(row) if more.source not in alive]
        elif is_fusable(row):
            softmax = row.kind == "softmax" or row.op in SOFTMAXES
            way.softmax |= softmax
            way.soft_cap |= row.op in ("tanh", "tanh_") and (behind or softmax)
            way.joins |= row.op == "cat"
            for more in row.inputs:
                if _parameter(more, parameters):
                    way.learned.append(more)
                elif more.source in alive or more.source.partition(":")[0] in ("state", "float", "passed"):
                    waiting.append((more, behind or softmax))
                else:
                    way.masks.append(more.source)
        else:
            way.others.append(taken)
    return way


def _addend(row: Row) -> tuple[RowInput, ...]:
    return row.inputs[:1] if row.op in ("baddbmm", "addbmm") else ()


def _heads(first: Row, users: Mapping[str, list[RowInput]]) -> dict[str, Any]:
    """Heads and sequences, if a later row reads the scores as [sequences, heads, queries, keys]; else {}."""
    for taken in users.get(first.name, []):
        if len(taken.shape) == 4 and _same(math.prod(taken.shape), math.prod(first.out)):
            return {"heads": taken.shape[1], "sequences": (taken.shape[0],)}
    return {}


def _hides_later(source: str, by_name: Mapping[str, Row], buffers: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a mask is built from a triangular matrix or from a comparison of positions, and is therefore causal."""
    for row in _ancestors(source, by_name):
        if any(scope.startswith("causal#") for scope in row.scopes) or row.op in TRIANGLES:
            return True
        if row.op in COMPARISONS and _compares_two(row):
            return True
        if any(_triangular(taken, buffers) for taken in row.inputs):
            return True
    return _triangular(RowInput(source, ()), buffers)


def _compares_two(row: Row) -> bool:
    """Whether a comparison broadcasts two vectors to a matrix."""
    square = len(row.out) >= 2 and all(size != 1 for size in row.out[-2:])
    return square and len(row.inputs) == 2 and all(taken.shape != row.out for taken in row.inputs)


def _triangular(taken: RowInput, buffers: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a value is a buffer whose last two dimensions are equal, such as a causal mask."""
    kind, _, name = taken.source.partition(":")
    shape = buffers.get(name, ()) if kind == "weight" else ()
    return len(shape) >= 2 and shape[-1] == shape[-2] > 1


def _ancestors(source: str, by_name: Mapping[str, Row]) -> Iterator[Row]:
    waiting, seen = [source], set[str]()
    while waiting:
        row = by_name.get(waiting.pop())
        if row is not None and row.name not in seen:
            seen.add(row.name)
            yield row
            waiting += [taken.source for taken in row.inputs]
