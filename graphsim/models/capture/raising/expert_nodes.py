"""Nodes of an MoE layer, the same as in `graphsim.models.layers.moe`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy

from graphsim.models.capture.adapters import AllLinear
from graphsim.models.capture.raising.block import Block, Claim
from graphsim.models.capture.raising.elementwise import pointwise
from graphsim.models.capture.raising.expert_products import Product, bias_of, is_empty, is_wide
from graphsim.models.capture.raising.mixtures import MADE, Mixture
from graphsim.models.capture.raising.node import Node, StepSize, count
from graphsim.models.capture.raising.products import weight_of
from graphsim.models.capture.raising.rows import is_copy
from graphsim.models.capture.rows import Row, RowInput


def _chosen(block: Block, product: Product) -> int:
    """Number of experts per token."""
    symbols = block.symbols
    lengths = (symbols.length, 1) if symbols.source is None else (symbols.length, symbols.source, 1)
    shares = [sympy.simplify(product.rows / (symbols.batch * length)) for length in lengths]
    return int(next((share for share in shares if share.is_number), 1))


def _tokens(block: Block, product: Product) -> Any:
    return sympy.simplify(product.rows / _chosen(block, product))


def _is_shared(product: Product) -> bool:
    """Whether all experts process all tokens without copies, so that one GEMM covers all their weights."""
    return product.everywhere or (bool(product.ahead) and all(_is_shared(one) for one in product.ahead))


def route(block: Block, claim: Claim) -> None:
    """Add the node that chooses experts by the router's scores."""
    mixture: Mixture = claim.facts["mixture"]
    product, rows = mixture.products[0], claim.rows
    values = [one for one in block.outside(rows) if not is_empty(one)]
    logits = max(values, key=lambda one: block.at(count(one.shape)), default=None)
    inputs, _ = block.take([] if logits is None else values)
    width = logits.shape[-1] if logits is not None else product.experts
    fields: dict[str, Any] = {"experts": int(width), "chosen": _choice(rows) or _chosen(block, product)}
    names = block.weights_of(rows)
    if learned := block.learned(names):
        fields["learned"] = learned
    elems = sympy.expand(_tokens(block, product) * fields["chosen"])
    node = Node(name=block.unique("route"), op="route", inputs=inputs, elems=elems, fields=fields, weights=tuple(names))
    mixture.route = block.add(node, [row.name for row in rows])


def _choice(rows: Sequence[Row]) -> int:
    """Number of experts that the last choice selects per token; 0 if there is no choice among the rows."""
    last = next((row for row in reversed(rows) if row.op in ("topk", "argmax")), None)
    if last is None:
        return 0
    return int(last.out[-1]) if last.op == "topk" else sum(row.op == "argmax" for row in rows)


def gather(block: Block, claim: Claim) -> None:
    """Add the node that copies each token once per chosen expert."""
    mixture: Mixture = claim.facts["mixture"]
    product: Product = claim.facts["product"]
    if mixture.routing:
        block.ensure(mixture.routing[0].name)
    inputs, taken = block.take(product.tokens[:1])
    elems = count(product.value.shape)
    chosen = int(sympy.simplify(elems / taken)) if block.less(taken, elems) else 1
    tokens = _tokens(block, product)
    fields: dict[str, Any] = {"chosen": chosen, "width": int(sympy.simplify(taken / tokens))}
    routes = (mixture.route,) if mixture.route else ()
    node = Node(
        name=block.unique("gather_tokens"), op="gather_tokens", inputs=(*inputs, *routes), elems=elems, fields=fields
    )
    block.add(node, [row.name for row in claim.rows])


def product_of(block: Block, claim: Claim) -> None:
    """Add the grouped GEMM with the weights of all experts."""
    mixture: Mixture = claim.facts["mixture"]
    product: Product = claim.facts["product"]
    if product.row.name in block.values:
        return  # the second of two GEMMs that share a node
    pair = _pair(mixture, product)
    biases = _bias_names(block, mixture, pair)
    weights = tuple(name for one in pair for name in one.weights)
    if set(weights) <= block.spent:
        _again(block, pair)
        return
    held = sum(block.parameters[name].numel() for name in weights)
    rest = held - product.experts * sum(one.n * one.k for one in pair)
    block.spent.update((*weights, *biases))
    if _is_shared(product):
        node = _shared(block, product, bool(biases))
    else:
        node = _expert_gemm(block, mixture, pair, bool(biases), claim.facts["reached"])
    node.weights = (*weights, *biases)
    block.add(node, [row.name for one in pair for row in (one.row, *one.more)])
    if rest:
        fields: dict[str, Any] = {"idle": True, "weights": rest}
        block.add(Node(name=block.unique("unused_experts"), op="compute", inputs=(), elems=0, fields=fields), [])


def _again(block: Block, pair: list[Product]) -> None:
    """Add another GEMM with weights that belong to an earlier node."""
    product, n = pair[0], sum(one.n for one in pair)
    inputs, taken = block.take([product.value])
    elems = sympy.expand(product.rows * n)
    fields: dict[str, Any] = {
        "elems": StepSize(elems), "reads": StepSize(taken), "flops": StepSize(sympy.expand(2 * elems * product.k)),
    }  # fmt: skip
    node = Node(name=block.unique("expert_pass"), op="compute", inputs=inputs, elems=elems, fields=fields)
    block.add(node, [row.name for one in pair for row in (one.row, *one.more)])


def _pair(mixture: Mixture, product: Product) -> list[Product]:
    """Gate and up GEMMs of experts that are modules, which engines fuse into one; otherwise the GEMM alone."""
    for other in mixture.products:
        if product.separate and product in other.ahead and len({(one.n, one.k) for one in other.ahead}) == 1:
            return other.ahead[::-1] if other.ahead[0].row.name > other.ahead[-1].row.name else other.ahead
    return [product]


def _bias_names(block: Block, mixture: Mixture, pair: list[Product]) -> list[str]:
    names = [weight_of(one) for product in pair for one in product.row.inputs if weight_of(one) in block.parameters]
    found = [name for name in names if not any(name in product.weights for product in pair)]
    if found and pair[0].separate:
        return [f"{name.removesuffix('.weight')}.bias" for product in pair for name in product.weights]
    behind = [row for other in mixture.products if pair[0] in other.ahead for row in other.inner]
    behind += mixture.tails.get(pair[0].row.name, [])
    return found + [name for row in behind for one in row.inputs if (name := bias_of(block, one))]


def _expert_gemm(block: Block, mixture: Mixture, pair: list[Product], bias: bool, reached: AllLinear) -> Node:
    product = pair[0]
    behind = next((other for other in mixture.products if product in other.ahead), None)
    n = sum(one.n for one in pair)
    halves = n // behind.k if behind is not None and n % behind.k == 0 else 1
    head, _, leaf = product.module.rpartition(".")
    module = product.module if len(pair) == 1 else f"{head}.gate_up_proj"
    adapted = product.separate or reached.has_parameter(product.weights[0])
    fuses = (
        tuple(one.module.rpartition(".")[2] for one in pair) if product.separate else reached.fused(product.weights[0])
    )
    _say_what_differs(block, mixture, product)
    gates = [other for other in mixture.products if other.ahead]
    fields: dict[str, Any] = {
        "n": n, "k": product.k, "experts": product.experts, "chosen": _chosen(block, product),
        "split": "row" if product.ahead else "column", "bias": bias, "module": module,
        "targets": ["ffn", "down" if product.ahead else "up+gate"],
    }  # fmt: skip
    if adapted:
        fields["all_linear"] = True
    if halves > 1:
        fields["rank_factor"] = halves
    if adapted and fuses:
        fields["fuses"] = list(fuses)
    if product.separate:
        fields["separate"] = True
    if gates and not any(_is_gated(one) for one in gates):
        fields["gated"] = False
    inputs = _worked_on(block, product)
    name = block.unique(f"expert_{module.rpartition('.')[2]}")
    return Node(name=name, op="expert_gemm", inputs=inputs, elems=sympy.expand(product.rows * n), fields=fields)


def _say_what_differs(block: Block, mixture: Mixture, product: Product) -> None:
    """Add a note if the modelling code multiplies more rows than were routed."""
    choice, chosen = _choice(mixture.routing), _chosen(block, product)
    if choice and chosen > choice:
        block.notes.append(
            f"{product.module}: every token passes {chosen} of {product.experts} experts, as the model's own code has "
            f"it; engines run the {choice} that its router chooses"
        )
    scored = max((int(row.out[-1]) for row in mixture.routing if row.kind == "softmax" or row.op == "sigmoid"
                  if row.out and isinstance(row.out[-1], int)), default=0)  # fmt: skip
    if scored > product.experts and product.ahead:
        block.notes.append(
            f"{product.module}: of {scored} scores some are no routed expert's; all {chosen} choices of a token are "
            "taken to be experts that work"
        )


def _is_gated(down: Product) -> bool:
    return sum(one.n for one in down.ahead) == 2 * down.k


def _worked_on(block: Block, product: Product) -> tuple[str, ...]:
    return block.take([product.value])[0]


def _shared(block: Block, product: Product, bias: bool) -> Node:
    """One GEMM for experts that all process every token."""
    first = not product.ahead
    n, k = (product.experts * product.n, product.k) if first else (product.n, product.experts * product.k)
    tokens = sympy.simplify(product.rows / product.experts)
    inputs = block.take([_unspread(block, product.value)])[0] if first else block.take([product.value])[0]
    fields: dict[str, Any] = {"n": n, "k": k, "m": StepSize(tokens), "module": product.module, "bias": bias,
                              "bare": True, "all_linear": False}  # fmt: skip
    name = block.unique(product.module.rpartition(".")[2])
    return Node(name=name, op="gemm", inputs=inputs, elems=sympy.expand(tokens * n), fields=fields)


def _unspread(block: Block, taken: RowInput) -> RowInput:
    """A value without its repetitions."""
    return RowInput(taken.source, (block.elems_of(taken.source),))


def nothing(block: Block, claim: Claim) -> None:
    """Add no node, for an expert without rows."""


def activation(block: Block, claim: Claim) -> None:
    """Add the activation between the experts' GEMMs."""
    product: Product = claim.facts["product"]
    rows = claim.rows
    if all(is_copy(row) or _is_view_ofbias_of(block, row) for row in rows):
        block.values.update({row.name: block.value(product.ahead[0].row.name) for row in rows})
        return
    if _is_shared(product):
        pointwise(block, claim)
        return
    inputs = tuple(dict.fromkeys(block.value(one.row.name) for one in product.ahead))
    width, elems = product.k, count(product.value.shape)
    fields: dict[str, Any] = {
        "width": width, "chosen": _chosen(block, product), "reads": sum(one.n for one in product.ahead) // width,
    }  # fmt: skip
    node = Node(name=block.unique("expert_act"), op="expert_activation", inputs=inputs, elems=elems, fields=fields)
    block.add(node, [row.name for row in rows])


def _is_view_ofbias_of(block: Block, row: Row) -> bool:
    return bool(bias_of(block, RowInput(row.name, ())))


def combine(block: Block, claim: Claim) -> None:
    """Add the node that returns results to their tokens; a mere change of order is not counted."""
    product: Product = claim.facts["product"]
    mixture: Mixture = claim.facts["mixture"]
    last, inner = claim.rows[-1], {row.name for row in claim.rows}
    takers = [row for row in claim.rows if row.op not in MADE]
    values = [one for row in takers for one in row.inputs if one.source not in inner and is_wide(block, one, product)]
    choice = {row.name for row in mixture.routing}
    values = [one for one in values if block.flows(one) and one.source not in choice]
    source = block.value(values[0].source if values else product.row.name)
    chosen, elems = _chosen(block, product), count(last.out)
    if _is_shared(product) or (chosen > 1 and not block.less(elems, count(product.row.out))):
        block.values.update(dict.fromkeys(inner, source))
        return
    fields: dict[str, Any] = {"chosen": chosen, "width": product.n}
    node = Node(name=block.unique("combine_tokens"), op="combine_tokens", inputs=(source,), elems=elems, fields=fields)
    block.add(node, inner)
