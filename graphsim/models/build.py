"""From a model's description to the logical graph of one step: towers, stem, repeated blocks, head."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx

from graphsim.models.config import ModelConfig
from graphsim.models.layers.base import Scope, Source
from graphsim.models.layers.stack import LONGEST_PATTERN as LONGEST_PATTERN
from graphsim.models.layers.stack import stack
from graphsim.models.layers.stack import stretches as stretches
from graphsim.models.phase import Phase
from graphsim.models.source import SourceEncoder
from graphsim.ops import Input
from graphsim.ops.precision import Precision


def build(config: ModelConfig, phase: Phase, precision: Precision, stage: range | None = None) -> nx.DiGraph:
    """The logical graph of one step: projections under their Hugging Face names, no adapter, one device.

    phase: the towers are part of it if it states media, even if none
    stage: indices of the layers to build, all by default; towers and stem come with the first layer, the head with the
    last.
    """
    graph = nx.DiGraph()
    scope = Scope(graph=graph, phase=phase, precision=precision, hidden=config.hidden_size)
    stage = range(config.num_layers) if stage is None else stage
    source = None if config.source_encoder is None else _encoded(config.source_encoder, scope)
    if config.drafting is not None:
        source, phase = config.drafting.read(scope), phase.drafting(config.drafting.block)
        scope = replace(scope, phase=phase)
    if stage.start == 0:
        source = source or _seen(config, scope)
        x = _start(config, scope)
    else:
        x = scope.add("input", Input(elems=phase.tokens * config.hidden_size * config.streams), [])
    x = stack(
        replace(scope, prefix=config.layer_prefix, source=source, streams=config.streams),
        config.layers[stage.start : stage.stop],
        x,
        stage.start,
    )
    if stage.stop == config.num_layers:
        tied = config.head.tied and stage.start == 0  # another stage has the table, so this one needs its own
        replace(config.head, tied=tied).build(scope, x)
    return graph


def _start(config: ModelConfig, scope: Scope) -> str:
    """The prompt's values: of its tokens, and of the towers at the positions of images and sound."""
    values = [value for encoder in config.encoders if not encoder.seen for value in encoder.build(scope)]
    x = config.stem.build(scope)
    if not values:
        return x
    rows = sum((encoder.prompt_rows(scope.phase) for encoder in config.encoders), start=0.0)
    adds = sum(encoder.deeper for encoder in config.encoders)
    from graphsim.ops.media import PlaceRows

    place = PlaceRows(tokens=scope.tokens, rows=rows, width=config.hidden_size, adds=float(adds))
    return scope.add("place_media", place, [x, *values])


def _seen(config: ModelConfig, scope: Scope) -> Source | None:
    """Rows of a tower that cross-attention reads; None in a step that computes none."""
    for encoder in config.encoders:
        values = encoder.build(scope) if encoder.seen else []
        if values:
            return Source(node=values[0], elems=encoder.seen_of(scope.phase) * config.hidden_size)
    return None


def _encoded(encoder: SourceEncoder, outer: Scope) -> Source:
    """The encoder's output; in a step that encodes nothing, its weights on no rows."""
    phase = outer.phase.encoding()
    scope = replace(outer, phase=phase, hidden=encoder.hidden_size, label="encoder.")
    x = stack(replace(scope, prefix=encoder.layer_prefix), encoder.layers, encoder.stem.build(scope, ""))
    x = x if encoder.tail is None else encoder.tail.build(scope, x)
    return Source(node=x, elems=phase.tokens * (encoder.output_size or encoder.hidden_size))
