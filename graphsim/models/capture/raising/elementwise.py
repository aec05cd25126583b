"""Nodes of norms and of chains of pointwise operations that are fused into one kernel."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import sympy

from graphsim.models.capture.raising.block import Block, Claim
from graphsim.models.capture.raising.node import Node, StepSize, count
from graphsim.models.capture.raising.paths import SCALINGS, is_plain
from graphsim.models.capture.raising.products import PRODUCTS
from graphsim.models.capture.raising.rows import NONLINEAR, SUMS, is_copy
from graphsim.models.capture.rows import Row


def claim_norms(block: Block) -> None:
    """Claim the rows of norm modules, and norms called as functions."""
    scoped = [row for row in block.used if _scope(row)]
    for _, group in groupby(scoped, _scope):
        rows = list(group)
        if not any(_leaves(block, row, rows) for row in rows[:-1]):
            block.claim(rows, norm)
    for row in block.used:
        if row.kind == "norm" and not _scope(row):
            block.claim([row], norm)


def _scope(row: Row) -> str:
    return next((scope for scope in row.scopes if scope.startswith("norm#")), "")


def _leaves(block: Block, row: Row, rows: list[Row]) -> bool:
    """Whether any row outside `rows` reads a row's result."""
    names = {inner.name for inner in rows}
    return row.name in block.leaves or any(user.name not in names for user in block.users.get(row.name, []))


def norm(block: Block, claim: Claim) -> None:
    """Add a norm over the last dimension; a gate that is multiplied in before becomes a kernel of its own."""
    rows = claim.rows
    values, names = block.outside(rows), block.weights_of(rows)
    elems = count(rows[-1].out)
    if not values or len(values) > 2 or any(sympy.expand(count(value.shape) - elems) != 0 for value in values):
        pointwise(block, claim)
        return
    inputs, _ = block.take(values)
    if len(values) == 2:
        gate = {"elems": StepSize(elems), "reads": StepSize(sympy.expand(2 * elems))}
        inputs = (
            block.add(Node(name=block.unique("gate"), op="activation", inputs=inputs, elems=elems, fields=gate), []),
        )
    width = _width(block, values[0].shape[-1], names)
    count_of_rows = sympy.expand(elems / width)
    heads = sympy.simplify(count_of_rows / (count_of_rows if block.symbols.each else _tokens(block, rows[-1].out)))
    fields: dict[str, Any] = {
        "width": width,
        "rows": StepSize(count_of_rows),
        "weights": block.learned(names),
        "module": block.module_name(rows[0].module),
    }
    groups = _groups(rows, width)
    if groups > 1 or len(values) == 2:
        fields |= {"local": True, "groups": groups}
    elif claim.facts.get("heads") or (heads.is_number and heads > 1):
        fields |= {"local": True, "units": claim.facts.get("heads") or int(heads)}
    name = block.unique(rows[0].module.rpartition(".")[2] or "norm")
    node = Node(name=name, op="norm", inputs=inputs, elems=elems, fields=fields, weights=tuple(names))
    block.add(node, [rows[-1].name])


def _width(block: Block, last: Any, names: list[str]) -> int:
    """Width of the normalised rows: that of the learned weight if it is a vector, else the last dimension."""
    learned = block.parameters[names[0]].numel() if names else 0
    return int(learned) if learned and block.at(last) % learned == 0 else int(last)


def _tokens(block: Block, shape: tuple[Any, ...]) -> Any:
    """Number of rows of a result: the product of its symbolic dimensions."""
    return sympy.expand(sympy.prod([size for size in shape if sympy.sympify(size).free_symbols]))


def _groups(rows: list[Row], width: int) -> int:
    """Number of column groups with separate means, from the last dimension of the averaged value."""
    averaged = [row.inputs[0].shape[-1] for row in rows if row.op in ("mean", "var", "var_mean") and row.inputs]
    return width // int(averaged[0]) if averaged and isinstance(averaged[0], int) and width % averaged[0] == 0 else 1


def pointwise(block: Block, claim: Claim) -> None:
    """Add one kernel that reads each input once and writes its result."""
    rows, last = claim.rows, claim.rows[-1]
    values, names = block.outside(rows), block.weights_of(rows)
    elems = count(last.out)
    if not values and not names:
        block.values[last.name] = block.value(last.name)
        return
    if len(values) == 1 and not names and _moves_nothing(block, rows, values[0]):
        block.stand_in(last, values[0])
        return
    if not values:
        _of_weights(block, last, names)
        return
    inputs, taken = block.take(values)
    computing = [row for row in rows if not is_copy(row) and not _is_scaling(block, row)]
    sums = bool(computing) and all(row.op in SUMS for row in computing)
    fields: dict[str, Any] = {}
    if sums and len(inputs) > 1 and not names and sympy.expand(taken - len(inputs) * elems) == 0:
        op = "add"
    else:
        op = "activation" if any(row.op in NONLINEAR for row in rows) else "elementwise"
        fields = {"elems": StepSize(elems), "reads": StepSize(taken)}
        if not computing:
            fields["steps"] = 0
        if names:
            fields["learned"] = block.learned(names)
    module = last.module if last.module + "." != block.prefix else ""
    label = {"add": "add", "activation": "act"}.get(op, last.op.strip("_"))
    leaf = module.rpartition(".")[2]
    name = block.unique(f"{leaf}_{label}" if leaf and not leaf.isdigit() and op != "add" else label)
    block.add(Node(name=name, op=op, inputs=inputs, elems=elems, fields=fields, weights=tuple(names)), [last.name])


def _of_weights(block: Block, last: Row, names: list[str]) -> None:
    """Add a node for a value computed from weights only, such as position embeddings resized to an image."""
    elems = count(last.out)
    fields = {"elems": StepSize(elems), "weights": block.learned(names)}
    node = Node(name=block.unique(last.op.strip("_")), op="compute", inputs=(), elems=elems, fields=fields,
                weights=tuple(names))  # fmt: skip
    block.add(node, [last.name])


def _moves_nothing(block: Block, rows: list[Row], value: Any) -> bool:
    """Whether rows only change layout or format, or repeat or scale elements, which is fused into the next kernel."""
    plain = all(is_copy(row) and row.op not in ("cat", "stack") or _is_scaling(block, row) for row in rows)
    users = block.users.get(rows[-1].name, [])
    spread = bool(users) and all(user.op in PRODUCTS for user in users)
    return plain and (spread or not block.less(count(value.shape), count(rows[-1].out)))


def _is_scaling(block: Block, row: Row) -> bool:
    return row.op in SCALINGS and is_plain(block, row)
