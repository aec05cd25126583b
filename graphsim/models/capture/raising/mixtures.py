"""The rows of an MoE layer, found by data flow: those that route tokens, and those that return the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphsim.models.capture.raising.block import Block
from graphsim.models.capture.raising.expert_products import GATHERS, Product, bias_of, is_empty, is_wide
from graphsim.models.capture.raising.node import count
from graphsim.models.capture.raising.products import PRODUCTS, weight_of
from graphsim.models.capture.raising.rows import is_copy, is_fusable
from graphsim.models.capture.rows import Row, RowInput

_SCATTERS = "index_add index_add_ scatter_add scatter_add_ scatter_reduce index_put index_put_ sum einsum"
SCATTERS = frozenset(_SCATTERS.split())
"""Operations that write rows back to their original positions."""

_MADE = "zeros_like empty_like full_like ones_like new_zeros new_empty zeros empty full"
MADE = frozenset(_MADE.split())
_CHOOSING = (
    "topk sort argsort argmax max gather scatter scatter_ index index_select one_hot nonzero histc bincount "
    "cumsum index_put index_put_ any sum scatter_add scatter_add_ bucketize searchsorted"
)
CHOOSING = frozenset(_CHOOSING.split())


@dataclass(slots=True, kw_only=True)
class Mixture:
    """GEMMs whose rows are routed by one choice of experts.

    products: the GEMMs
    tails: for each last GEMM, the rows that return its results to their tokens
    routing: rows from the router's scores to the choice
    route: name of the routing node
    """

    products: list[Product]
    tails: dict[str, list[Row]]
    routing: list[Row] = field(default_factory=list)
    route: str = ""


def last_of(products: Sequence[Product]) -> list[Product]:
    """GEMMs whose results no other GEMM reads."""
    return [one for one in products if not any(one in other.ahead for other in products)]


def mixtures(block: Block, products: list[Product]) -> list[Mixture]:
    """GEMMs grouped by the choice that routes their rows."""
    own = {row.name for product in products for row in _rows_of(product)}
    tails = {last.row.name: _tail(block, last, own) for last in last_of(products)}
    own |= {row.name for tail in tails.values() for row in tail}
    found: list[Mixture] = []
    for product in products:
        tail = {name: rows for name, rows in tails.items() if name == product.row.name}
        mixture = Mixture(products=[product], tails=tail, routing=_routing(block, product, tail, own))
        found = _joined(block, found, mixture)
    return found


def _rows_of(product: Product) -> list[Row]:
    fetch = [product.fetch] if product.fetch is not None else []
    return [product.row, *fetch, *product.more, *product.gathers, *product.inner]


def _joined(block: Block, found: list[Mixture], new: Mixture) -> list[Mixture]:
    names = {row.name for row in new.routing}
    ahead = [one for product in new.products for one in product.ahead]
    kin = [m for m in found if names & {row.name for row in m.routing} or any(one in m.products for one in ahead)]
    for other in kin:
        new.products = [*other.products, *new.products]
        new.tails = {**other.tails, **new.tails}
        new.routing = list({row.name: row for row in (*other.routing, *new.routing)}.values())
    new.routing.sort(key=block.place)
    return [*(m for m in found if not any(m is other for other in kin)), new]


def _tail(block: Block, last: Product, own: set[str]) -> list[Row]:
    """Rows that weight a GEMM's results and return them to their tokens."""
    whole, home = count(last.row.out), False
    inside, found = {last.row.name, *(row.name for row in last.more)}, list[Row]()
    for row in block.used[block.place(last.row) + 1 :]:
        if row.name in own or not any(taken.source in inside for taken in row.inputs):
            continue
        if row.name in block.claimed:
            if not home and row.module.startswith(f"{last.row.module}."):
                inside.add(row.name)
            continue
        rest = [one for one in row.inputs if one.source not in inside and not is_empty(one)]
        if not _brings_back(block, row, rest, last, home):
            continue
        inside.add(row.name)
        found += [one for taken in rest if (one := _prepared(block, taken)) is not None and one not in found]
        found.append(row)
        home = home or block.less(count(row.out), whole)
    moving = [i for i, row in enumerate(found) if row.op in GATHERS or row.op in SCATTERS]
    end = moving[-1] + 1 if moving else 0
    while moving and end < len(found) and (is_copy(found[end]) or _is_scaling(found[end])):
        end += 1
    return found[:end]


def _brings_back(block: Block, row: Row, rest: list[RowInput], last: Product, home: bool) -> bool:
    if any(weight_of(one) in block.parameters for one in rest):
        return False
    others = [one for one in rest if block.flows(one) and _made(block, one) is None and not bias_of(block, one)]
    if home:
        return not others and (is_copy(row) or _is_scaling(row) or row.op in SCATTERS)
    narrow = not any(is_wide(block, one, last) for one in others)
    return narrow and (is_fusable(row) or row.op in GATHERS or row.op in SCATTERS)


def _is_scaling(row: Row) -> bool:
    return row.op in ("mul", "div", "mul_", "div_") and len(row.inputs) == 1


def _prepared(block: Block, taken: RowInput) -> Row | None:
    return block.row(taken.source) if bias_of(block, taken) else _made(block, taken)


def _made(block: Block, taken: RowInput) -> Row | None:
    """The row that allocates the tensor for results; None if there is none."""
    row = block.row(taken.source)
    return row if row is not None and row.op in MADE else None


def _routing(block: Block, product: Product, tails: dict[str, list[Row]], own: set[str]) -> list[Row]:
    """Rows between the router's GEMM and the rows that read the choice."""
    rows = [*_rows_of(product), *(row for tail in tails.values() for row in tail)]
    waiting = [taken.source for row in rows for taken in row.inputs if _is_narrow(block, taken, product)]
    found: dict[str, Row] = {}
    while waiting:
        row = block.row(waiting.pop())
        if row is None or row.name in found or row.name in own or row.name in block.claimed or not _chooses(row):
            continue
        found[row.name] = row
        waiting += [taken.source for taken in row.inputs if row.op not in MADE and not is_empty(taken)]
    return sorted(found.values(), key=block.place)


def _chooses(row: Row) -> bool:
    if row.kind not in ("aten", "pointwise", "softmax") or row.op in PRODUCTS:
        return False
    return is_fusable(row) or row.op in CHOOSING


def _is_narrow(block: Block, taken: RowInput, product: Product) -> bool:
    return not is_empty(taken) and not is_wide(block, taken, product)
