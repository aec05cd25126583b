"""Errors in a block's program, found by building it for a few tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import networkx as nx

from graphsim.errors import GraphError
from graphsim.graph import validate
from graphsim.models.layers import custom
from graphsim.models.layers.base import Scope, Source
from graphsim.models.layers.custom.views import HandOnNode
from graphsim.models.phase import Phase
from graphsim.models.yaml.places import DECODE, HEAD, PROMPT, Place, Sizes
from graphsim.ops import EncoderOutput, Gemm, Input
from graphsim.ops.precision import load_precision
from graphsim.units import Num, amount_text


def misfits(program: custom.Program, place: Place, sizes: Sizes) -> list[str]:
    """The errors of a block, each as a sentence that continues the block's name."""
    if isinstance(program, custom.CustomBlock):
        found = next(filter(None, (list(_wrong(program, place, sizes, phase)) for phase in sizes.steps)), [])
        return [f": {problem}" for problem in (*_unused(program, place), *found)]
    both = {"prompt": (program.prompt, PROMPT), "decode": (program.decode, DECODE)}
    problems = [
        f".{name}: {problem}"
        for name, (block, phase) in both.items()
        for problem in (*_unused(block, place), *_wrong(block, place, sizes, phase))
    ]
    return problems or [f": {problem}" for problem in _differing(program, place, sizes)]


def _unused(block: custom.CustomBlock, place: Place) -> Iterator[str]:
    used = {value.node for node in block.nodes for value in node.inputs}
    for node in block.nodes[:-1]:
        if node.name not in used and not node.idle and not isinstance(node, HandOnNode):
            yield f"no later node takes the result of '{node.name}'"
    if block.nodes[-1].idle and not place.idle:
        yield f"the last node '{block.nodes[-1].name}' is one that no row passes; expected the block's result"


def _built(program: custom.Program, place: Place, sizes: Sizes, phase: Phase) -> tuple[nx.DiGraph, str]:
    scope = Scope(graph=nx.DiGraph(), phase=phase, precision=load_precision("bf16"), hidden=sizes.hidden)
    scope = replace(scope, streams=sizes.streams)
    elems = phase.tokens * sizes.hidden * sizes.streams if sizes.entering is None else sizes.entering
    entering = Input(elems=elems)
    if sizes.source and place.entered:
        encoded = sum((segment.encoded_rows for segment in phase.segments), start=0.0) * sizes.source
        outside = scope.add(custom.SOURCE, EncoderOutput(elems=encoded), [])
        scope = replace(scope, source=Source(node=outside, elems=encoded))
    x = scope.add(custom.INPUT, entering, []) if place.entered else ""
    return scope.graph, program.build(scope, x)


def _wrong(block: custom.CustomBlock, place: Place, sizes: Sizes, phase: Phase) -> Iterator[str]:
    """The errors found by building the block for one step."""
    try:
        graph, last = _built(block, place, sizes, phase)
        validate(graph)
    except GraphError as error:
        yield str(error)
        return
    found: Num = graph.nodes[last]["op"].out_elems
    if place is HEAD:
        yield from _wrong_logits(graph, last, found / phase.logit_rows, sizes.vocabulary)
        return
    if place.idle and block.nodes[-1].idle:
        return
    wide, width = sizes.hidden * sizes.streams, float(found / phase.tokens)
    if width != wide:
        expected = f"hidden_size * streams = {wide}" if sizes.streams > 1 else f"hidden_size = {wide}"
        yield f"the last node '{last}' yields {amount_text(width)} elements per token; expected {expected}"


def _wrong_logits(graph: nx.DiGraph, last: str, width: Num, vocabulary: int) -> Iterator[str]:
    heads = [name for name, op in graph.nodes(data="op") if isinstance(op, Gemm) and op.head]
    if len(heads) != 1:
        listed = f", found {', '.join(heads)}" if heads else ""
        yield f"a head has one gemm with head: true, which yields the logits{listed}"
    elif graph.nodes[heads[0]]["op"].n != vocabulary:
        found = graph.nodes[heads[0]]["op"].n
        yield f"the head's gemm '{heads[0]}' has n = {amount_text(found)}; expected vocab_size = {vocabulary}"
    if width != vocabulary:
        yield f"the last node '{last}' yields {amount_text(width)} elements per row of logits; expected {vocabulary}"


def _differing(program: custom.TwoPrograms, place: Place, sizes: Sizes) -> Iterator[str]:
    """Errors about weights that only one of two programs has."""
    prompt, decoding = (_weights(_built(program, place, sizes, phase)[0]) for phase in (PROMPT, DECODE))
    for name in sorted({*prompt, *decoding}):
        one, other = prompt.get(name, 0), decoding.get(name, 0)
        if one != other:
            whose = f"of '{name}'" if name else "outside of modules"
            yield f"prompt has {one} weights {whose}, decode {other}; expected the same, idle: true where no row passes"


def _weights(graph: nx.DiGraph) -> dict[str, int]:
    """Number of weights by module; "" for those without a module name."""
    found: dict[str, int] = {}
    for _, op in graph.nodes(data="op"):
        module = getattr(op, "module", "") or getattr(op, "parameter", "")
        found[module] = found.get(module, 0) + round(float(op.parameters))
    return found
