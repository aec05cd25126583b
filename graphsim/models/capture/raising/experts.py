"""MoE layers: the choice of experts, their grouped GEMMs, and the copies of tokens before and after these.

The nodes are those of `graphsim.models.layers.moe`, so that a captured MoE layer gives the same graph as a built one.
Operations that process all tokens (the router's GEMM, shared experts and their gate, projections around the experts)
are converted as usual.
"""

from __future__ import annotations

from graphsim.models.capture.adapters import AllLinear, all_linear
from graphsim.models.capture.raising import expert_nodes
from graphsim.models.capture.raising.block import Block
from graphsim.models.capture.raising.expert_products import Product, expert_products, is_empty
from graphsim.models.capture.raising.mixtures import Mixture, last_of, mixtures
from graphsim.models.capture.rows import RowInput


def claim_experts(block: Block) -> None:
    """Claim the rows of every MoE layer of a block."""
    products = expert_products(block)
    if not products:
        return
    reached = all_linear(block.model)
    for mixture in mixtures(block, products):
        if not mixture.routing and all(product.separate for product in mixture.products):
            continue  # linear layers in a list that process all rows
        _claim_routing(block, mixture)
        for product in mixture.products:
            _claim_product(block, mixture, product, reached)
        for last in last_of(mixture.products):
            tail = mixture.tails[last.row.name]
            if tail:
                block.claim(tail, expert_nodes.combine, mixture=mixture, product=last)
    for row in block.used:
        if is_empty(RowInput(row.name, row.out)):
            block.claim([row], expert_nodes.nothing)


def _claim_routing(block: Block, mixture: Mixture) -> None:
    """Claim the routing as one node, before the first row that reads the choice."""
    rows = mixture.routing
    if not rows:
        return
    starts = [block.place(row) for product in mixture.products for row in (*product.gathers, product.row)]
    before = [row for row in rows if block.place(row) < min(starts)]
    last = before[-1] if before else rows[0]
    block.claim([*(row for row in rows if row is not last), last], expert_nodes.route, mixture=mixture)


def _claim_product(block: Block, mixture: Mixture, product: Product, reached: AllLinear) -> None:
    if product.gathers:
        block.claim(sorted(product.gathers, key=block.place), expert_nodes.gather, mixture=mixture, product=product)
    inner = sorted(product.inner, key=block.place)
    if inner and product.ahead:
        block.claim(inner, expert_nodes.activation, mixture=mixture, product=product)
    fetch = [product.fetch] if product.fetch is not None else []
    block.claim(
        [*fetch, *product.more, product.row], expert_nodes.product_of, mixture=mixture, product=product, reached=reached
    )
