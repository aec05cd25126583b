"""A captured model in the form of a model file, as `graphsim.models.yaml` reads it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from graphsim.models.capture.blocks import EncoderValue, Program, Raiser, Section
from graphsim.models.capture.layers import Layers, both, entries_of, groups, of_stack, prefix_of
from graphsim.models.capture.raising.steps import written
from graphsim.models.capture.sources import ENCODED, behind, source_encoder
from graphsim.models.capture.stacks import roles as roles_of
from graphsim.models.capture.tower_sections import tower
from graphsim.models.capture.towers import Recorded
from graphsim.models.capture.trace import Step, Trace
from graphsim.models.capture.unlayered import LAYER, PREFIX, ends, has_layers
from graphsim.models.capture.unused import unused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The parts of a model file.

    entry: shape of the layers' input in a prompt step
    """

    stem: Program
    layers: list[str]
    head: Program
    prefix: str
    entry: tuple[Any, ...]
    source: dict[str, Any] | None = None
    towers: Sequence[dict[str, Any]] = ()


def document(found: Trace, name: str, media: Sequence[Recorded] = ()) -> dict[str, Any]:
    """The model file of a trace.

    found: the recorded steps
    name: name of the model
    media: recorded runs of the model's towers
    """
    raiser, blocks = Raiser(found=found), dict[str, Any]()
    parts = _layered(raiser, blocks, media) if has_layers(found) else _unlayered(raiser, blocks)
    hidden = int(parts.entry[-1])
    streams = sympy.simplify(sympy.prod(parts.entry) / (found.symbols.batch * found.symbols.length * hidden))
    data: dict[str, Any] = {
        "name": name,
        "source": _source(found),
        "model_type": str(getattr(getattr(found.model, "config", None), "model_type", "")),
        "hidden_size": hidden,
        "vocab_size": next((entry["n"] for entry in entries_of(parts.head) if entry.get("head")), 0),
        "streams": int(streams),
        "stem": "stem",
        "head": "head",
        "names": {"layer": parts.prefix},
        "source_encoder": parts.source,
        "encoders": list(parts.towers),
        "layers": groups(parts.layers),
        "blocks": {"stem": parts.stem, **blocks, "head": parts.head},
        "notes": [*raiser.notes, *_unknown(raiser), *_without_cache(found)],
    }
    positions = getattr(getattr(found.model, "config", None), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        data["max_positions"] = positions
    return {key: value for key, value in data.items() if (key, value) not in _SAY_NOTHING}


def _layered(raiser: Raiser, blocks: dict[str, Any], media: Sequence[Recorded]) -> _Parts:
    """The parts of a model with a list of layers; blocks of its layers, encoder and towers are added to `blocks`."""
    found = raiser.found
    roles = roles_of(found)
    steps = [of_stack(step, roles.main) for step in _steps(found)]
    encoder = None if roles.source is None else source_encoder(raiser, roles.source, steps[0], blocks)
    begins = 0 if roles.source is None else behind(found.prompt, roles.source)
    stems = [_stem(step, first) for step, first in zip(steps, (begins, 0), strict=False)]
    stem = raiser.program("", *both(stems), stem=True)
    outer = None if roles.source is None else roles.source.outer
    encoded = [] if outer is None else [outer, EncoderValue(source=ENCODED, shape=outer.shape)]
    layers = Layers(raiser=raiser, stack=roles.main, steps=steps, blocks=blocks, encoded=encoded).names()
    head = raiser.program("", *both([_head(step) for step in steps]), head=True)
    towers = [tower(raiser, recorded, f"{recorded.tower.medium}_tower", blocks) for recorded in media]
    rest, idle = unused(raiser, roles.main, blocks)
    return _Parts(
        stem=_with(stem, rest),
        layers=layers,
        head=head,
        prefix=prefix_of(roles.main),
        entry=steps[0].calls[0].taken_shape,
        source=encoder,
        towers=[*towers, *([{"name": "unused", "media": "none", "sections": idle}] if idle else [])],
    )


def _unlayered(raiser: Raiser, blocks: dict[str, Any]) -> _Parts:
    """The parts of a model without a list of layers, with one empty layer."""
    ahead, last = zip(*(ends(raiser.found, step) for step in _steps(raiser.found)), strict=True)
    stem, head = raiser.program("", *both(ahead), stem=True), raiser.program("", *both(last), head=True)
    rest = [written(node, {}) for node in raiser.idle(raiser.unspent())]
    blocks["layer"] = LAYER
    return _Parts(stem=_with(stem, rest), layers=["layer"], head=head, prefix=PREFIX, entry=last[0].entry_shape)


def _steps(found: Trace) -> list[Step]:
    return [step for step in (found.prompt, found.decode) if step is not None]


_SAY_NOTHING: tuple[tuple[str, Any], ...] = (
    ("streams", 1),
    ("source_encoder", None),
    ("encoders", []),
    ("notes", []),
    ("model_type", ""),
)


def _without_cache(found: Trace) -> list[str]:
    """A note if causal attention is assumed to use a KV cache although the model's code has none."""
    if found.decode is not None or not any(row.kind == "attention" for row in found.prompt.rows):
        return []
    return [f"{found.why}; its causal attention is taken to keep keys and values, as engines do"]


def _unknown(raiser: Raiser) -> list[str]:
    """A note on the operations without a cost formula."""
    if not raiser.unknown:
        return []
    names = ", ".join(sorted(raiser.unknown)[:MOST_NAMES])
    return [f"operations without a formula, priced by the bytes that they move: {names}"]


MOST_NAMES = 20


def _source(found: Trace) -> str:
    """Source of the structure: the class whose code was run, and the versions of its libraries."""
    module = type(found.model).__module__.partition(".")[0]
    version = f", {module} {sys.modules[module].__version__}" if module == "transformers" else ""
    return f"captured from {type(found.model).__name__}: torch {torch.__version__.partition('+')[0]}{version}"


def _stem(step: Step, begins: int) -> Section:
    """The rows before the layers, from row `begins` on."""
    first = step.calls[0]
    return Section(rows=step.rows[begins : first.first], left=first.taken)


def _head(step: Step) -> Section:
    last = step.calls[-1]
    return Section(rows=step.rows[last.last :], entry=last.left, entry_shape=last.left_shape, left=step.left)


def _with(program: Any, more: list[dict[str, Any]]) -> Any:
    if isinstance(program, dict):
        return {step: [*more, *entries] for step, entries in program.items()}
    return [*more, *program]
