"""Recorded towers as entries of the section `encoders` of a model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sympy

from graphsim.errors import ConfigError, GraphError
from graphsim.models.capture.blocks import Raiser, Section
from graphsim.models.capture.instantiate import one_line
from graphsim.models.capture.kinds import Stack
from graphsim.models.capture.layers import Layers, groups, named, of_stack, prefix_of
from graphsim.models.capture.raising.node import count
from graphsim.models.capture.rows import Call
from graphsim.models.capture.symbols import NoFormulaError, Symbols
from graphsim.models.capture.towers import Recorded
from graphsim.models.capture.trace import Trace
from graphsim.models.yaml import read_model

EACH = Symbols(batch=sympy.Symbol("images"), length=sympy.Symbol("rows"), each=True)
"""Symbols of a tower, whose sizes are plain numbers for one image or clip."""


def tower(raiser: Raiser, recorded: Recorded, name: str, blocks: dict[str, Any]) -> dict[str, Any]:
    """The entry of a recorded tower; its blocks are added to `blocks`.

    raiser: raiser of the model, which keeps track of the parameters
    recorded: the tower's run
    name: name of the entry
    blocks: blocks by name
    """
    found = replace(
        raiser.found, symbols=EACH, prompt=recorded.step, decode=None, kept={}, stacks=recorded.stacks
    )  # fmt: skip
    inner = Raiser(found=found, spent=raiser.spent)
    reader = _Sections(raiser=inner, found=found, recorded=recorded, name=name, blocks=blocks)
    sections = reader.all()
    raiser.spent = inner.spent
    way = recorded.tower
    entry: dict[str, Any] = {"name": name, "media": way.medium}
    if way.medium == "image":
        entry["image_size"] = list(way.size)
        entry |= {"native": True} if way.native else {}
    else:
        entry["seconds"] = way.seconds
    return {**entry, "sections": sections}


def what_resists(found: Trace, recorded: Recorded) -> str:
    """Why a recorded tower cannot be described in a model file; "" if it can."""
    blocks: dict[str, Any] = {}
    try:
        entry = tower(Raiser(found=found), recorded, "tower", blocks)
        stand_in = {
            "hidden_size": int(recorded.shape[-1]), "vocab_size": 1, "layers": 1, "attention": {"heads": 1},
            "mlp": {"intermediate_size": 1}, "encoders": [entry], "blocks": blocks,
        }  # fmt: skip
        read_model(stand_in, f"the {recorded.tower.medium}s' tower")
    except (ConfigError, GraphError, NoFormulaError) as error:
        return one_line(error)
    return ""


@dataclass(slots=True, kw_only=True)
class _Sections:
    """Splits a tower's rows into sections: its stacks, and the rows before, between and after them."""

    raiser: Raiser
    found: Trace
    recorded: Recorded
    name: str
    blocks: dict[str, Any]
    made: list[dict[str, Any]] = field(default_factory=list)
    taken: list[Stack] = field(default_factory=list)

    def all(self) -> list[dict[str, Any]]:
        """The sections, in order."""
        step, at, entry = self.recorded.step, 0, Section(rows=())
        for stack in self._stacks():
            calls = of_stack(step, stack).calls
            if calls[0].first < at:
                continue
            if calls[0].taken != entry.left or not self.made:
                self._block(
                    replace(entry, rows=step.rows[at : calls[0].first], left=calls[0].taken), calls[0].taken_shape
                )
            self._layers(stack, calls)
            self.taken.append(stack)
            last = calls[-1]
            at, entry = last.last, Section(rows=(), entry=last.left, entry_shape=last.left_shape, left=last.left)
        if entry.left != step.left:
            self._block(replace(entry, rows=step.rows[at:], left=step.left), self.recorded.shape)
        for other in self.recorded.others:
            outside = Section(rows=self._between(), left=other.source)
            before = len(self.made)
            self._block(replace(outside, entry=entry.entry, entry_shape=entry.entry_shape), other.shape)
            for section in self.made[before:]:
                section["beside"] = True
        return self.made

    def _stacks(self) -> list[Stack]:
        """The stacks that ran, in the order of their first calls."""
        firsts = {id(stack): of_stack(self.recorded.step, stack).calls[:1] for stack in self.found.stacks}
        running = [stack for stack in self.found.stacks if firsts[id(stack)]]
        return sorted(running, key=lambda stack: firsts[id(stack)][0].first)

    def _between(self) -> list[Any]:
        """Rows outside the layers that have a section."""
        spans = [(call.first, call.last) for stack in self.taken for call in of_stack(self.recorded.step, stack).calls]
        return [row for i, row in enumerate(self.recorded.step.rows) if not any(a <= i < b for a, b in spans)]

    def _block(self, section: Section, shape: Sequence[Any]) -> None:
        program = self.raiser.program("", section, symbols=EACH)
        if not program and self.made:
            return
        if not program:
            elems = f"{int(count(shape))}*sequences"
            program = [{"name": "what_enters", "op": "value", "inputs": [], "elems": elems}]
        block = named(self.blocks, self.name if not self.made else f"{self.name}_part", program)
        self.made.append({"block": block, **_sizes(shape)})

    def _layers(self, stack: Stack, calls: Sequence[Call]) -> None:
        """Add a section of layers, or one section per layer if the shapes differ between layers."""
        shapes = {(call.taken_shape, call.left_shape) for call in calls}
        if len(shapes) == 1 and len(next(iter(shapes))[0]) and calls[0].taken_shape == calls[0].left_shape:
            layers = Layers(
                raiser=self.raiser, stack=stack, steps=[of_stack(self.recorded.step, stack)], blocks=self.blocks,
                label=f"{self.name}_layer", symbols=EACH, alone=True,
            )  # fmt: skip
            entry: dict[str, Any] = {"layers": groups(layers.names()), "names": {"layer": prefix_of(stack)}}
            self.made.append({**entry, **_sizes(calls[0].left_shape)})
            return
        for call, following in zip(calls, [*calls[1:], None], strict=True):
            end, left = (call.last, call.left) if following is None else (following.first, following.taken)
            rows = self.recorded.step.rows[call.first : end]
            section = Section(rows=rows, entry=call.taken, entry_shape=call.taken_shape, left=left)
            self._block(section, call.left_shape if following is None else following.taken_shape)


def _sizes(shape: Sequence[Any]) -> dict[str, int]:
    width = int(shape[-1])
    return {"hidden_size": width, "rows": int(count(shape)) // width}
