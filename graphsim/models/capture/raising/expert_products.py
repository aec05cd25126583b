"""The GEMMs of experts: the weights of each, and how rows are routed to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch

from graphsim.models.capture.raising.block import Block
from graphsim.models.capture.raising.node import count
from graphsim.models.capture.raising.products import PRODUCTS, is_linear, weight_of
from graphsim.models.capture.raising.rows import is_copy, is_fusable
from graphsim.models.capture.rows import Row, RowInput

_GATHERS = "index index_select gather take_along_dim _unsafe_index embedding"
GATHERS = frozenset(_GATHERS.split())
"""Operations that select rows by index."""

CHOICES = frozenset(["topk", "argmax", "max", "sort", "argsort", "multinomial"])
"""Operations that choose experts."""


@dataclass(slots=True, kw_only=True)
class Product:
    """A GEMM with the weights of all experts.

    row: the recorded matrix product
    value: the activation that it multiplies
    weights: names of the parameters: one for all experts, or one per expert
    experts, n, k: number of experts, output and input width of each
    module: name of the weights for adapters
    separate: whether each expert is a module of its own
    alone: whether the row uses the weights of one expert only
    fetch: the row that gathers the weights for each token, if there is one
    more: the same GEMM for further experts, to which no rows are routed
    ahead: GEMMs whose results it reads
    inner: rows between these and it
    gathers: rows that copy tokens for their experts
    tokens: the values that are copied
    everywhere: whether all experts process all tokens without copies
    """

    row: Row
    value: RowInput
    weights: tuple[str, ...]
    experts: int
    n: int
    k: int
    module: str
    separate: bool = False
    grouped: bool = False
    alone: bool = False
    fetch: Row | None = None
    more: list[Row] = field(default_factory=list)
    ahead: list[Product] = field(default_factory=list)
    inner: list[Row] = field(default_factory=list)
    gathers: list[Row] = field(default_factory=list)
    tokens: list[RowInput] = field(default_factory=list)
    everywhere: bool = False

    @property
    def rows(self) -> Any:
        """Number of rows that are multiplied."""
        return sympy.simplify(count(self.row.out) / self.n)


def is_empty(taken: RowInput) -> bool:
    """Whether an input is empty, as for an expert without rows."""
    return any(size == 0 for size in taken.shape)


def expert_products(block: Block) -> list[Product]:
    """GEMMs with the weights of experts, in order."""
    found: dict[tuple[str, ...], Product] = {}
    by_row: dict[str, Product] = {}
    for row in block.used:
        product = _product(block, row) if row.kind == "linear" or row.op in PRODUCTS else None
        if product is None:
            continue
        if not is_empty(product.value):
            found[product.weights] = by_row[row.name] = product
        elif product.weights in found:
            found[product.weights].more.append(row)
    for product in by_row.values():
        _look_ahead(block, product, by_row)
    return _accepted(block, list(by_row.values()))


def _accepted(block: Block, products: list[Product]) -> list[Product]:
    """The GEMMs to which rows are routed or that cover all experts; a slice of a matrix alone is not an expert."""
    kept: list[Product] = []
    for product in products:
        chosen = not product.alone or any(_is_chosen(block, row) for row in product.gathers)
        first = product.grouped or (bool(product.gathers) and chosen) or product.everywhere
        if first or (product.ahead and all(one in kept for one in product.ahead)):
            kept.append(product)
    return kept


def _is_chosen(block: Block, gather: Row) -> bool:
    """Whether rows are selected by a router's choice."""
    waiting, seen = [taken.source for taken in gather.inputs[1:]], set[str]()
    while waiting:
        row = block.row(waiting.pop())
        if row is None or row.name in seen or row.kind == "linear" or row.op in PRODUCTS:
            continue
        if row.op in CHOICES:
            return True
        seen.add(row.name)
        waiting += [taken.source for taken in row.inputs]
    return False


def _product(block: Block, row: Row) -> Product | None:
    weight = next((taken for taken in row.inputs if weight_of(_behind_index(block, taken)) in block.parameters), None)
    value = next((t for t in row.inputs if t is not weight and len(t.shape) > 1 and block.flows(t)), None)
    if weight is None or value is None:
        return None
    name = weight_of(_behind_index(block, weight))
    parameter = block.parameters[name]
    first = row.inputs[0] is weight and row.op in ("bmm", "mm", "matmul")
    n, k = (row.out[-2], value.shape[-2]) if first else (row.out[-1], value.shape[-1])
    if not isinstance(n, int) or not isinstance(k, int) or parameter.dim() not in (2, 3):
        return None
    given = Product(
        row=row,
        value=value,
        weights=(name,),
        experts=0,
        n=n,
        k=k,
        module=_module(block, name),
        fetch=block.row(weight.source),
    )
    return _stacked(given, weight, parameter, row) or _single(block, given, weight, parameter)


def _stacked(given: Product, weight: RowInput, parameter: torch.nn.Parameter, row: Row) -> Product | None:
    """A GEMM with a parameter that holds all experts: with all of it, one expert's weights per row, or one expert's."""
    if row.op == "_grouped_mm":
        given.experts, given.grouped = int(weight.shape[0]), True
    elif count(weight.shape) == parameter.numel() and parameter.dim() == 3:
        given.experts = parameter.numel() // (given.n * given.k)
    elif not weight.source.startswith("weight:") and parameter.dim() == 3:
        given.experts = int(parameter.shape[0])
    elif len(weight.shape) == 2 and parameter.numel() > math.prod(weight.shape):
        given.experts, given.alone = parameter.numel() // math.prod(weight.shape), True
    return given if given.experts > 1 else None


def _single(block: Block, given: Product, weight: RowInput, parameter: torch.nn.Parameter) -> Product | None:
    """A GEMM with the linear layer of one expert among similar ones; None if there are none."""
    owner = given.row.module
    if parameter.dim() != 2 or not owner or not is_linear(block.model.get_submodule(owner)):
        return None
    alike = _alike(block, given.weights[0])
    if len(alike) < 2:
        return None
    given.weights, given.experts, given.separate = alike, len(alike), True
    given.alone = True
    given.module = block.module_name(_common(alike)).removesuffix(".weight")
    return given


def _alike(block: Block, name: str) -> tuple[str, ...]:
    """Names of the corresponding parameters in sibling modules."""
    parts, inside = name.split("."), block.prefix.count(".")
    if not name.startswith(block.prefix):
        return ()
    for at in range(len(parts) - 2, inside, -1):
        holder = block.model.get_submodule(".".join(parts[:at]))
        if not isinstance(holder, torch.nn.ModuleList | torch.nn.ModuleDict):
            continue
        keys = [key for key, one in holder.named_children() if any(True for _ in one.parameters())]
        names = [".".join([*parts[:at], key, *parts[at + 1 :]]) for key in keys]
        shape = block.parameters[name].shape
        same = [one for one in names if one in block.parameters and block.parameters[one].shape == shape]
        return tuple(same) if len(same) == len(names) else ()
    return ()


def _common(names: tuple[str, ...]) -> str:
    """Names without the expert's index: `experts.w1` for `experts.0.w1`."""
    first, second = names[0].split("."), names[1].split(".")
    return ".".join(one for one, other in zip(first, second, strict=True) if one == other)


def _module(block: Block, name: str) -> str:
    return block.module_name(name).removesuffix(".weight")


def _behind_index(block: Block, taken: RowInput) -> RowInput:
    """The weight from which each row gathers its expert's part; the value itself if it is not gathered."""
    row = block.row(taken.source)
    return row.inputs[0] if row is not None and row.op in GATHERS and row.inputs else taken


# routing of rows ----------------------------------------------------------------------------------------------------


def _look_ahead(block: Block, product: Product, by_row: dict[str, Product]) -> None:
    """Find the inputs of a GEMM: results of other GEMMs, or tokens and the rows that copy them."""
    if block.less(count(product.value.shape), product.rows * product.k):
        product.everywhere = True
        product.tokens.append(product.value)
        return
    waiting, seen = [product.value], set[str]()
    while waiting:
        taken = waiting.pop()
        row = block.row(taken.source)
        if is_empty(taken) or taken.source in seen:
            continue
        if row is not None and row.name in by_row:
            _add_once(product.ahead, by_row[row.name])
            continue
        if row is None or row.name in block.claimed or not (is_fusable(row) or row.op in GATHERS):
            product.tokens.append(taken)
            continue
        seen.add(row.name)
        if bias_of(block, taken):
            product.inner.append(row)
            continue
        mains = [one for one in row.inputs if block.flows(one) and is_wide(block, one, product)]
        if row.op in GATHERS or (is_copy(row) and row.op != "cat" and _repeats(block, row)):
            product.gathers.append(row)
            product.tokens += mains[:1]
            continue
        product.inner.append(row)
        waiting += mains
    if not product.ahead:
        product.gathers, product.inner = [*product.inner, *product.gathers] if product.gathers else [], []


def _add_once(products: list[Product], one: Product) -> None:
    if one not in products:
        products.append(one)


def is_wide(block: Block, taken: RowInput, product: Product) -> bool:
    """Whether a value has more than one element per routed row, unlike routing weights and expert indices."""
    return block.at(count(taken.shape)) > 1.5 * block.at(product.rows)


def bias_of(block: Block, taken: RowInput) -> str:
    """Name of the parameter with the experts' biases from which each row gathers its own; "" for other values."""
    row = block.row(taken.source)
    name = weight_of(row.inputs[0]) if row is not None and row.op in GATHERS and row.inputs else ""
    return name if name in block.parameters else ""


def _repeats(block: Block, row: Row) -> bool:
    """Whether a copy repeats a value once per expert."""
    given = [one for one in row.inputs if not is_empty(one) and block.flows(one)]
    return any(block.less(count(one.shape), count(row.out)) for one in given)
