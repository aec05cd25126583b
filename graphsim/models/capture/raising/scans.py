"""Nodes of recurrences and causal convolutions, recorded as graphsim's own operators."""

from __future__ import annotations

import math
from typing import Any

import sympy

from graphsim.models.capture.raising.block import Block
from graphsim.models.capture.raising.node import Node, count
from graphsim.models.capture.rows import Row, RowInput


def scan(block: Block, row: Row) -> None:
    """Add a recurrence over tokens; for the order of its inputs see `graphsim.models.capture.operators.scan`."""
    inputs, learned, states, kind, channels, shape, _, matrix = row.attributes["arguments"]
    flowing = list(row.inputs[: 1 + inputs])
    weights = block.weights_of([row])
    tokens = sympy.expand(count(row.out) / channels)
    reads = [taken for taken in flowing if block.flows(taken)]
    names, _ = block.take(_once(reads))
    elems = sum((count(taken.shape) for taken in flowing), start=sympy.Integer(0))
    fields: dict[str, Any] = {
        "channels": int(channels),
        "state": math.ceil(math.prod(shape) / channels),  # xLSTM's normaliser has few values, rounded up to one
        "reads": _number(sympy.simplify(elems / tokens)),
        "learned": block.learned(weights),
        "matrix": bool(matrix),
    }
    name = block.unique(kind)
    node = Node(name=name, op="scan", inputs=names, elems=count(row.out), fields=fields, weights=tuple(weights))
    block.add(node, [row.name])


def convolution(block: Block, row: Row) -> None:
    """Add a depthwise convolution over the tokens, whose state is the last tokens."""
    channels, taps, *_ = row.attributes["arguments"]
    weights = block.weights_of([row])
    names, _ = block.take([taken for taken in row.inputs[:1] if block.flows(taken)])
    block.spent.update(weights)
    fields: dict[str, Any] = {"channels": int(channels), "taps": int(taps), "bias": len(weights) > 1}
    name = block.unique(weights[0].rpartition(".")[0].rpartition(".")[2] if weights else "conv")
    node = Node(name=name, op="conv", inputs=names, elems=count(row.out), fields=fields, weights=tuple(weights))
    block.add(node, [row.name])


def _once(takens: list[RowInput]) -> list[RowInput]:
    return list({(taken.source, taken.offset, taken.shape): taken for taken in takens}.values())


def _number(value: Any) -> int | float:
    found = float(value)
    return int(found) if found.is_integer() else found
