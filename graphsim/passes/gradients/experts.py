"""Gradients of mixtures of experts: of routing, of the movement of tokens, of grouped GEMMs and their factors."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from graphsim.ops import ExchangeTokens, ExpertGemm, GatherTokens, LoraA, Permute, Route, ScatterTokens, Sharding
from graphsim.ops.gradients.experts import (
    ExpertBiasGradient,
    ExpertFactorGradient,
    ExpertFactorInputGradient,
    ExpertInputGradient,
    ExpertWeightGradient,
    RouteBackward,
    RowProducts,
)
from graphsim.ops.gradients.linear import turned
from graphsim.ops.lora_experts import ExpertLoraGemm
from graphsim.passes.gradients.forward_node import ForwardNode
from graphsim.passes.gradients.rules import gradients
from graphsim.passes.gradients.scope import FP32, scaled
from graphsim.passes.trained import not_empty
from graphsim.symbolic.questions import may_be_nonzero

NUMBER_BYTES, CHOICE_BYTES = 8.0, 12.0
"""Of a row's number, and of a choice: the expert's number and its weight in fp32 (transformers 5, Mixtral's router)."""


@gradients.register
def _route(op: Route, here: ForwardNode) -> None:
    """The weights of the chosen experts go through a softmax over all; the choice has no gradient."""
    if may_be_nonzero(here.need):
        kept = [
            here.keep_own("softmax", op.tokens * op.experts, here.need, form=FP32),
            here.keep_own("chosen", op.tokens * op.chosen, here.need, each=CHOICE_BYTES),
        ]
        back = RouteBackward(
            tokens=scaled(op.tokens, here.need), experts=op.experts, chosen=op.chosen, activations=op.activations
        )
        here.give(here.flowing[0], [here.emit("backward", back, [*here.dy, *kept])])


@gradients.register
def _permute(op: Permute, here: ForwardNode) -> None:
    """Gathered rows are summed back, summed rows are gathered; the router's weights multiply the latter."""
    need, rows = here.need, op.tokens * op.chosen
    if not may_be_nonzero(need):
        return
    same = {f.name: getattr(op, f.name) for f in fields(Permute)}
    back = Permute(**same | {"gather": not op.gather, "tokens": scaled(op.tokens, need)})
    if not op.gather:
        kept = here.keep_inputs(need)
        given = here.emit("backward", back, here.dy)
        here.give(here.flowing[0], [given])
        here.scope.weighed[op.layer] = [given, *kept]
        return
    numbers = here.keep_own("numbers", rows, need, each=NUMBER_BYTES)
    here.give(here.flowing[0], [here.emit("backward", back, [*here.dy, numbers])])
    _weigh(here)


def _weigh(here: ForwardNode) -> None:
    """The gradient of a router's weights, at the gather to the experts; computed at the sum on the way back."""
    for taken in here.flowing:
        weighed = here.scope.weighed.pop(here.op.layer, None) if isinstance(taken.op, Route) else None
        if weighed and may_be_nonzero(taken.need):
            rows, width = scaled(taken.elems, taken.need), here.flowing[0].elems / taken.op.tokens  # type: ignore[attr-defined]
            exchanged = here.op.placement is Sharding.TOKENS
            products = RowProducts(rows=rows, width=width, by_tokens=exchanged, activations=here.op.activations)
            here.give(taken, [here.emit("weights_backward", products, weighed)])


@gradients.register
def _exchange(op: ExchangeTokens, here: ForwardNode) -> None:
    """Gradients of rows take the reverse path."""
    if may_be_nonzero(here.need):
        here.give(here.flowing[0], [here.emit("backward", replace(op, there=not op.there), here.dy)])
        _weigh(here)


@gradients.register
def _gathered(op: GatherTokens, here: ForwardNode) -> None:
    """Gradients of gathered rows are summed at their source."""
    if may_be_nonzero(here.need):
        x = here.flowing[0]
        back = ScatterTokens(elems=op.elems, own=x.elems, group=op.group, activations=op.activations)
        here.give(x, [here.emit("backward", back, here.dy)])
        _weigh(here)


@gradients.register
def _scattered(op: ScatterTokens, here: ForwardNode) -> None:
    """All ranks receive the gradients of all tokens."""
    if may_be_nonzero(here.need):
        back = GatherTokens(elems=op.elems, group=op.group, activations=op.activations)
        here.give(here.flowing[0], [here.emit("backward", back, here.dy)])


@gradients.register
def _experts(op: ExpertGemm, here: ForwardNode) -> None:
    """The gradient as for any GEMM, expert by expert in one grouped kernel."""
    same = {f.name: getattr(op, f.name) for f in fields(ExpertGemm)} | {"parts": (), "bias": False}
    if may_be_nonzero(here.need):
        back = ExpertInputGradient(
            **same | {"m": scaled(op.m, here.need), "n": op.k, "k": op.n, "split": turned(op.split)}
        )
        here.give(here.flowing[0], [here.emit("dgrad", back, here.dy)])
    trained = here.trained
    if may_be_nonzero(trained):
        gradient = ExpertWeightGradient(**same | {"m": scaled(op.m, trained)})
        here.emit("wgrad", gradient, [*here.keep_inputs(trained), *here.dy])
    if op.bias and may_be_nonzero(trained):
        rows = scaled(op.m, trained)
        sums = ExpertBiasGradient(rows=rows, width=op.n, vectors=op.experts, activations=op.activations)
        here.emit("bias_grad", sums, here.dy)


@gradients.register
def _expert_factor(op: ExpertLoraGemm, here: ForwardNode) -> None:
    """The cheaper order of multiplication for each expert's pair."""
    live, of_a = not_empty(op), isinstance(op, LoraA)
    need, trained = scaled(live, here.need), here.trained
    same: dict[str, Any] = {
        "of_a": of_a, "common": op.common, "further": op.further, "weights": op.weights, "activations": op.activations,
    }  # fmt: skip
    if may_be_nonzero(need):
        routing = replace(op.routing, split=turned(op.routing.split), n=op.routing.k, k=op.routing.n, parts=())
        back = ExpertFactorInputGradient(m=scaled(op.m, need), n=op.k, k=op.n, routing=routing, **same)
        here.give(here.flowing[0], [here.emit("dgrad", back, here.dy)])
    if may_be_nonzero(trained):
        gradient = ExpertFactorGradient(m=scaled(op.m, trained), n=op.n, k=op.k, routing=op.routing, **same)
        here.emit("wgrad", gradient, [*here.keep_inputs(trained), *here.dy])
