"""The layers of a model file: a number, or a list of groups that differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.layers.base import Layer
from graphsim.models.yaml import mixers, sections
from graphsim.models.yaml.blocks import Blocks
from graphsim.models.yaml.feed_forward import feed_forward
from graphsim.models.yaml.overrides import Overrides
from graphsim.units import amount_text, bounds_text

MOST_LAYERS = 10_000
_HINTS = {
    **{name: f" (mixer: {name})" for name in mixers.SECTIONS[1:]},
    **{name: f" (feed_forward: {name})" for name in ("mlp", "moe")},
}

Levels = tuple[Fields, ...]


def read_layers(model: Fields, hidden: int, blocks: Blocks) -> tuple[Layer, ...]:
    """One description per layer."""
    reader = _Reader(model=model, hidden=hidden, blocks=blocks)
    given = model.raw("layers")
    if isinstance(given, list):
        layers = reader.groups(given)
    else:
        times: int = model.integer("layers", most=MOST_LAYERS)
        layers = (reader.layer((model,)),) * times
    reader.finish()
    return layers


def read_block_layers(section: Fields, blocks: Blocks) -> tuple[Layer, ...]:
    """One description per layer of a section whose layers are all blocks: groups that name them."""
    given = list(section.sequence("layers", required=True))
    return _Reader(model=section, hidden=blocks.hidden, blocks=blocks, blocks_alone=True).groups(given)


@dataclass(slots=True, kw_only=True)
class _Reader:
    """Reads the layers of a model, or of a section of it.

    blocks_alone: whether all of them must be blocks
    """

    model: Fields
    hidden: int
    blocks: Blocks
    blocks_alone: bool = False

    def groups(self, given: list[Any]) -> tuple[Layer, ...]:
        """The layers of a list of groups."""
        layers: list[Layer] = []
        if not given:
            self.model.problem(
                "layers", f"is empty; expected a number {bounds_text(1, MOST_LAYERS)}, or a list of groups"
            )
        for pattern, times in self._patterns(given):
            body = [self.layer(levels) for levels in pattern]
            if len(layers) + len(body) * times > MOST_LAYERS:
                self.model.problems.append(f"layers: more than {amount_text(MOST_LAYERS)} in all, the most allowed")
                break
            layers += body * times
        return tuple(layers)

    def _patterns(self, given: list[Any]) -> Iterator[tuple[list[Levels], int]]:
        """The pattern of each group (each layer as levels of overrides) and its number of repetitions."""
        for i, entry in enumerate(given[:MOST_LAYERS]):
            group = self.model.child(entry, self.model.name(f"layers[{i}]"))
            times: int = group.integer("repeat", 1, most=MOST_LAYERS)
            if "pattern" not in group:
                yield [(group, self.model)], times
                continue
            pattern = group.sequence("pattern", most=MOST_LAYERS)
            if not pattern and isinstance(group.raw("pattern"), list):
                group.problem("pattern", "is empty; expected at least one layer")
            path = group.name("pattern")
            yield [(group.child(item, f"{path}[{j}]"), group, self.model) for j, item in enumerate(pattern)], times

    def layer(self, levels: Levels) -> Layer:
        """The layer described by levels of overrides, the most specific first."""
        layer = Overrides(*levels)
        name = layer.text("block", "")
        if name:
            return self.blocks.layer(name, layer) or Nothing()
        if self.blocks_alone:
            self.model.problems.append(f"{self.model.name('layers')}: every layer here names a block")
            return Nothing()
        mixer = mixers.mixer(layer, self.hidden)
        alone = mixers.kind_of(layer) in mixers.STATE_SPACE
        return sections.block(layer, mixer, feed_forward(layer, alone))

    def finish(self) -> None:
        """Note unused sections, and wrong fields even if no block needs them."""
        for key in (key for key in (*mixers.SECTIONS, "mlp", "moe") if self.model.is_idle(key)):
            self.model.raw(key)
            self.model.problems.append(f"{key} is used by no layer; drop it, or use it{_HINTS.get(key, '')}")
        if self.blocks.used:
            sections.norms(Overrides(self.model))
            self.model.raw("residual")
        elif "fields" in self.model:
            from graphsim.models.yaml.names import constants

            constants(Overrides(self.model), self.model, self.hidden)


class Nothing(Layer):
    """Placeholder for a layer that could not be read; the file's problems are raised before it is built."""

    def build(self, scope: Any, x: str) -> str:
        """Add nothing."""
        return x
