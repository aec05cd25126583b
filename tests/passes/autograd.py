"""Graphs of training steps for tests: one linear, one layer, one model; and what autograd keeps of them."""

from __future__ import annotations

from typing import Any

import networkx as nx

from graphsim.graph import Value, add, validate, walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject
from graphsim.models.build import build
from graphsim.models.loading import load_model
from graphsim.models.phase import prefill
from graphsim.ops import Embedding, Input, KeptValue, Loss, Op, Repeat
from graphsim.ops.direction import Direction
from graphsim.ops.precision import load_precision
from graphsim.passes.backward import backward
from graphsim.passes.backward_rules import BackwardRules
from graphsim.passes.trained import mark_trained

BF16 = load_precision("bf16")


def step_of(
    model: Any, lora: LoraConfig | None = None, tokens: float = 256.0, batch: float = 1.0, **further: Any
) -> nx.DiGraph:
    """The training step of a model. further: fields of BackwardRules and arguments of mark_trained."""
    graph = build(load_model(model, check=False), prefill(batch, tokens, all_logits=True), BF16)
    return trained_step(inject(graph, lora), lora is None, **further)


def trained_step(
    graph: nx.DiGraph, base: bool, embeddings: bool = True, freeze_a: bool = False, **rules: Any
) -> nx.DiGraph:
    """The step of a forward graph whose adapter is in it."""
    marked = mark_trained(graph, base=base, adapters=not base, embeddings=embeddings, freeze_a=freeze_a)
    step = backward(marked, BackwardRules(**rules))
    validate(step, "logical")
    return step


def layer_of(body: nx.DiGraph, width: float, rows: float = 256.0) -> nx.DiGraph:
    """A model of one layer, whose input `rows` x `width` requires a gradient where the rules say so."""
    graph = nx.DiGraph()
    add(graph, "embed", Embedding(tokens=rows, entries=1000.0, width=width))
    add(graph, "layer", Repeat(body=body, times=1), ["embed"])
    result: Op = body.nodes[list(body)[-1]]["op"]
    add(graph, "loss", Loss(rows=rows, vocab=result.out_elems / rows), ["layer"])
    return graph


def body_of(width: float, rows: float = 256.0, **ops: Op) -> nx.DiGraph:
    """Operations in a row, behind an input of `rows` x `width`."""
    body = nx.DiGraph()
    before = add(body, "input", Input(elems=rows * width))
    for name, op in ops.items():
        before = add(body, name, op, [Value(before)])
    return body


def kept_in(step: nx.DiGraph, repeat: str = "") -> dict[str, float]:
    """Bytes that hooks see in one turn of a repeat's backward, by the name of the storage."""
    graph = step.nodes[repeat]["op"].body if repeat else step
    ops = {name: op for name, op in graph.nodes(data="op") if isinstance(op, KeptValue) and not op.again}
    return {name: float(op.kept_bytes) for name, op in ops.items()}


def flops(graph: nx.DiGraph, *directions: Direction) -> float:
    """Matrix flops of these directions, additions of adapters left out, as PyTorch's counter does."""
    counted = (
        op.work().flops * times
        for _, op, times in walk(graph)
        if op.direction in directions and not type(op).__name__.startswith("LoraAdd")
    )
    return float(sum(counted))
