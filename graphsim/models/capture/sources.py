"""The encoder of an encoder-decoder, as the section `source_encoder` of a model file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sympy

from graphsim.models.capture.blocks import Raiser, Section
from graphsim.models.capture.layers import Layers, groups, named, of_stack, prefix_of
from graphsim.models.capture.stacks import Encoded
from graphsim.models.capture.symbols import Symbols
from graphsim.models.capture.trace import Step

ENCODED = "state:encoder"
"""Source of the encoder's output in a decode step."""


def source_encoder(raiser: Raiser, encoded: Encoded, main: Step, blocks: dict[str, Any]) -> dict[str, Any]:
    """The section; its blocks are added to `blocks`.

    main: the prompt with the calls of the decoder's layers
    """
    found = raiser.found
    step = of_stack(found.prompt, encoded.stack)
    first, last = step.calls[0], step.calls[-1]
    symbols, rows = _symbols(found.symbols, encoded)
    stem = Section(rows=step.rows[: first.first], left=first.taken)
    kind = str(getattr(getattr(found.model, "config", None), "model_type", "") or "captured")
    section: dict[str, Any] = {"hidden_size": int(first.taken_shape[-1]), "kind": kind}
    section["stem"] = named(blocks, "encoder_stem", raiser.program("", stem, symbols=symbols))
    layers = Layers(
        raiser=raiser, stack=encoded.stack, steps=[step], blocks=blocks, label="encoder_layer", symbols=symbols
    )
    section["layers"] = groups(layers.names())
    if last.left != encoded.outer.source:
        tail = Section(
            rows=step.rows[last.last : main.calls[0].first], entry=last.left, entry_shape=last.left_shape,
            left=encoded.outer.source,
        )  # fmt: skip
        section["tail"] = named(blocks, "encoder_tail", raiser.program("", tail, symbols=symbols))
    width = int(encoded.outer.shape[-1])
    section |= {"output_size": width} if width != section["hidden_size"] else {}
    section |= {"rows": rows} if rows else {}
    section["names"] = {"layer": prefix_of(encoded.stack)}
    return section


def behind(step: Step, encoded: Encoded) -> int:
    """Index of the first row after the encoder, which runs before everything else."""
    last = next((i for i, row in enumerate(step.rows) if row.name == encoded.outer.source), -1)
    return max(last + 1, of_stack(step, encoded.stack).calls[-1].last)


def _symbols(symbols: Symbols, encoded: Encoded) -> tuple[Symbols, int]:
    """The symbols of an encoder's step, whose length is that of the source; and its number of rows, 0 if not fixed."""
    each = sympy.simplify(encoded.outer.rows / symbols.batch)
    if symbols.source is None or symbols.source not in each.free_symbols:
        return symbols, int(each)
    return replace(symbols, length=symbols.source, source=None), 0
