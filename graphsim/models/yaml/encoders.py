"""Encoders of a model file: the encoder of an encoder-decoder, and image and audio towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphsim.files.reading import REQUIRED, Fields
from graphsim.models.layers.base import Layer
from graphsim.models.layers.encoder import Cut, Encoder, Rows, Section
from graphsim.models.media import MOST_PIXELS
from graphsim.models.phase import Phase, Segment
from graphsim.models.source import SourceEncoder
from graphsim.models.yaml.blocks import Blocks
from graphsim.models.yaml.ends import layer_prefix
from graphsim.models.yaml.layers import Nothing, read_block_layers
from graphsim.models.yaml.overrides import says_nothing
from graphsim.models.yaml.places import Place, Sizes
from graphsim.models.yaml.sections import MOST_TOKENS, MOST_WIDTH
from graphsim.units import bounds_text

MEDIA = ("image", "sound", "none")
MOST_SECONDS, DEFAULT_SIZE = 10**6, (1024, 1024)
SEQUENCES, SOURCE_ROWS = 3.0, 11.0
"""Numbers of sequences and source rows for which blocks are built as a check when they are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoders:
    """The encoders of a model file."""

    source: SourceEncoder | None
    towers: tuple[Encoder, ...]

    @property
    def width(self) -> int:
        """Width of the rows that the decoder's layers attend to; 0 if there are none."""
        if self.source is not None:
            return self.source.output_size or self.source.hidden_size
        return next((tower.sections[-1].hidden for tower in self.towers if tower.seen), 0)


def read_encoders(fields: Fields, blocks: Blocks) -> Encoders:
    """The source encoder, if there is one, and the towers."""
    source = _source(fields.mapping("source_encoder"), blocks) if "source_encoder" in fields else None
    given = fields.sequence("encoders", most=100)
    towers = [_tower(fields.child(entry, f"encoders[{i}]"), blocks) for i, entry in enumerate(given)]
    return Encoders(source=source, towers=tuple(towers))


def _step(rows: float) -> Phase:
    """A step with a few sequences of this many rows, with bidirectional attention."""
    segment = Segment(sequences=SEQUENCES, new_tokens=rows)
    return Phase(name="encoder", segments=(segment,), logit_rows=0.0, causal=False)


def _source(fields: Fields, blocks: Blocks) -> SourceEncoder:
    hidden = fields.integer("hidden_size", most=MOST_WIDTH) or 1
    output = fields.integer("output_size", 0, least=0, most=MOST_WIDTH)
    rows = fields.integer("rows", 0, least=0, most=MOST_TOKENS)
    step = _step(float(rows) or SOURCE_ROWS)
    inner = replace(blocks, hidden=hidden, streams=1, source=0, steps=(step,))
    tail = Sizes(hidden=output or hidden, entering=float(step.tokens) * hidden, steps=(step,))
    return SourceEncoder(
        kind=fields.text("kind", "captured"),
        hidden_size=hidden,
        stem=_block(fields, "stem", inner, Sizes(hidden=hidden, steps=(step,)), entered=False),
        layers=read_block_layers(fields, inner),
        tail=_block(fields, "tail", inner, tail) if "tail" in fields else None,
        layer_prefix=layer_prefix(fields.mapping("names"), "model.encoder.layers.{}."),
        output_size=output,
        rows=rows,
        start_tokens=fields.integer("start_tokens", 1, most=MOST_TOKENS),
        max_positions=fields.integer("max_positions", 0, least=0, most=MOST_TOKENS),
    )


def _block(
    fields: Fields, key: str, blocks: Blocks, sizes: Sizes, *, entered: bool = True, idle: bool = False
) -> Layer:
    """The block that a key names.

    entered: whether the block has an input
    idle: whether the block may consist of unused weights only
    """
    name = fields.text(key)
    place = Place(name=key, entered=entered, idle=idle)
    return (blocks.part(fields, key, place, sizes) if name else None) or Nothing()


def _tower(fields: Fields, blocks: Blocks) -> Encoder:
    media = fields.text("media", choices=MEDIA)
    entries = fields.sequence("sections", required=True, most=1_000)
    sections: list[Section] = []
    for i, entry in enumerate(entries):
        sections.append(_section(fields.child(entry, fields.name(f"sections[{i}]")), blocks, sections, media == "none"))
    if not sections:
        fields.problem("sections", "is not allowed; expected a list of sections, at least one")
    cut = _cut(fields, media or MEDIA[0], sections)
    return Encoder(
        name=fields.text("name") or "encoder",
        cut=cut,
        sections=tuple(sections),
        fed=fields.flag("fed", media != "none"),
        seen=fields.flag("seen", False),
    )


def _cut(fields: Fields, media: str, sections: Sequence[Section]) -> Cut:
    """How a request's images or audio are split into units, with the rows of the first section."""
    rows = sections[0].rows.fixed if sections else 1
    seconds = fields.number("seconds", 30.0, least=1e-3, most=MOST_SECONDS)
    size = fields.sequence("image_size", most=2) or DEFAULT_SIZE
    native = fields.flag("native", False)
    if not (len(size) == 2 and all(isinstance(side, int) and 1 <= side <= MOST_PIXELS for side in size)):
        fields.problem("image_size", f"is not allowed; expected height and width {bounds_text(1, MOST_PIXELS)}")
        size = DEFAULT_SIZE
    if media != "sound":
        says_nothing(fields, ("seconds",), f"media: {media}")
    if media != "image":
        says_nothing(fields, ("image_size", "native"), f"media: {media}")
    from graphsim.models.layers.recorded import NoPieces, RecordedClips, RecordedImages

    if media == "none":
        return NoPieces()
    if media == "sound":
        return RecordedClips(rows=rows, seconds=seconds)
    return RecordedImages(rows=rows, pixels=size[0] * size[1] if native else 0)


def _section(fields: Fields, blocks: Blocks, before: Sequence[Section], idle: bool) -> Section:
    """A section of layers or of one block; the first section is a block that computes rows from a request's media."""
    idle = fields.flag("idle", idle)
    hidden = fields.integer("hidden_size", 1 if idle else blocks.hidden, most=MOST_WIDTH)
    rows = fields.integer("rows", 1 if idle else REQUIRED, most=MOST_TOKENS) or 1
    step = _step(float(rows))
    inner = replace(blocks, hidden=hidden, streams=1, source=0, steps=(step,), idle=idle)
    prefix = layer_prefix(fields.mapping("names"), "") if "names" in fields else ""
    if "block" not in fields and before:
        layers = read_block_layers(fields, inner)
    else:
        says_nothing(fields, ("layers", "names"), "block")
        main = [section for section in before if not section.beside and not section.idle]
        entering = SEQUENCES * main[-1].rows.fixed * main[-1].hidden if main else 0.0
        sizes = Sizes(hidden=hidden, entering=entering, steps=(step,))
        layers = (_block(fields, "block", inner, sizes, entered=bool(before), idle=idle),)
    return Section(
        layers=layers,
        hidden=hidden,
        rows=Rows(fixed=rows),
        prefix=prefix,
        beside=fields.flag("beside", False),
        idle=idle,
    )
