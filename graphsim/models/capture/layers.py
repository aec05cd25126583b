"""The layers of a stack as named blocks, one per kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from graphsim.models.capture.blocks import EncoderValue, Raiser, Section
from graphsim.models.capture.kinds import Stack
from graphsim.models.capture.rows import Call, Row
from graphsim.models.capture.symbols import Symbols
from graphsim.models.capture.trace import Step


@dataclass(slots=True, kw_only=True)
class Layers:
    """Turns the layers of a stack into blocks.

    raiser: turns sections of rows into programs
    stack: the stack of layers
    steps: the prompt and, if the stack runs in it, the decode step, each with the calls of the stack's layers
    blocks: blocks by name, to which new ones are added
    label: name of the blocks, to which a number may be appended
    symbols: symbols of these layers' sizes, by default those of the model
    encoded: output of an encoder that the layers also read, for each step
    alone: whether the rows between one layer and the next are left out
    """

    raiser: Raiser
    stack: Stack
    steps: Sequence[Step]
    blocks: dict[str, Any]
    label: str = "layer"
    symbols: Symbols | None = None
    encoded: Sequence[EncoderValue] = ()
    alone: bool = False
    _leaders: dict[Any, str] = field(default_factory=dict)
    _first: dict[Any, int] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Name of each layer's block; new blocks are added."""
        names = [self._name(i, call) for i, call in enumerate(self.steps[0].calls)]
        self.raiser.spend(self.stack.names)
        return names

    def _name(self, i: int, call: Call) -> str:
        again = any(earlier.module == call.module for earlier in self.steps[0].calls[:i])
        kind, tied = (self.stack.keys[self.stack.names.index(call.module)], again), self._tied(call.module)
        key = (kind, tied, *(self._between(step, i) for step in self.steps))
        leader = self._first.setdefault(kind, i)
        if key not in self._leaders:
            prefix = f"{self.steps[0].calls[leader].module}."
            if i != leader and not again:
                self.raiser.forget(prefix, tied)
            sections = [
                self._section(j, i) if i == leader else self._as_leader(j, i, leader) for j in range(len(self.steps))
            ]
            self._leaders[key] = self._block(prefix, sections, again, tied)
        return self._leaders[key]

    def _tied(self, module: str) -> frozenset[str]:
        """Names, below a layer, of the parameters that it shares with an earlier layer."""
        earlier = self.stack.names[: self.stack.names.index(module)]
        held = {id(one) for name in earlier for one in self.raiser.found.model.get_submodule(name).parameters()}
        own = self.raiser.found.model.get_submodule(module).named_parameters(remove_duplicate=False)
        return frozenset(name for name, one in own if id(one) in held)

    def _between(self, step: Step, i: int) -> tuple[str, ...]:
        """The operations after a layer and before the next one."""
        if self.alone:
            return ()
        last = step.calls[i].last
        end = step.calls[i + 1].first if i + 1 < len(step.calls) else last
        return tuple(row.op for row in step.rows[last:end] if self.raiser.is_alive(step, row))

    def _block(self, prefix: str, sections: Sequence[Section], again: bool, tied: frozenset[str]) -> str:
        """The name of a layer's block, which is added unless an equal block exists.

        prefix: module path of the layer, with a trailing dot
        sections: the layer's rows in each step
        again: whether the layer has run before, so that its weights are counted already
        tied: names of parameters shared with an earlier layer
        """
        program = self.raiser.program(prefix, *both(sections), symbols=self.symbols)
        if again:
            self.raiser.note(RUNS_AGAIN)
        for entry in program["prompt"] + program["decode"] if isinstance(program, dict) else program:
            if again:
                _without_own_weights(entry)
            elif f"{entry.get('module')}.bias" in tied:
                entry.pop("bias", None)
        return named(self.blocks, self.label, program)

    def _section(self, j: int, i: int) -> Section:
        step, outer = self.steps[j], self.encoded[j] if j < len(self.encoded) else None
        call = step.calls[i]
        following = step.calls[i + 1] if i + 1 < len(step.calls) else None
        end, left = (following.first, following.taken) if following is not None else (call.last, call.left)
        if self.alone:
            end, left = call.last, call.left
        return Section(
            rows=step.rows[call.first : end], entry=call.taken, entry_shape=call.taken_shape, left=left, outer=outer
        )

    def _as_leader(self, j: int, i: int, leader: int) -> Section:
        """The section of a skipped layer: rows of the layer that represents it, and the rows after the skipped layer.

        j: index of the step
        i: index of the skipped layer's call
        leader: index of the call of the layer that ran
        """
        step, own, first = self.steps[j], self._section(j, i), self._section(j, leader)
        call, ran = step.calls[i], step.calls[leader]
        behind = [_renamed(row, call.left, ran.left) for row in step.rows[call.last : call.first + len(own.rows)]]
        left = ran.left if own.left == call.left else own.left
        return replace(first, rows=[*step.rows[ran.first : ran.last], *behind], left=left)


RUNS_AGAIN = "some layers run again with the same weights; adapters on them are counted, and priced, once"


def _without_own_weights(entry: dict[str, Any]) -> None:
    """Mark a node of a layer's second run: it shares the weights of the first, and adapters target it only once."""
    if entry["op"] == "gemm":
        entry.update(shared=True, all_linear=False)
        entry.pop("bias", None)
    if "module" in entry:
        entry["module"] = ""


def _renamed(row: Row, before: str, now: str) -> Row:
    """A row with one of its inputs replaced by another value."""
    inputs = tuple(replace(taken, source=now) if taken.source == before else taken for taken in row.inputs)
    return replace(row, inputs=inputs)


def of_stack(step: Step, stack: Stack) -> Step:
    """The step with only the calls of the stack's layers."""
    return replace(step, calls=[call for call in step.calls if call.module in stack.names])


def prefix_of(stack: Stack) -> str:
    """Module path of a layer with `{}` for its index: `model.layers.{}.`."""
    head, _, tail = stack.names[0].partition(".0.") if ".0." in stack.names[0] else (stack.names[0][:-2], "", "")
    return f"{head}.{{}}." + (f"{tail}." if tail else "")


def both(sections: Sequence[Section]) -> tuple[Section, Section | None]:
    """The sections of the prompt and of the decode step, None if there is no decode step."""
    return sections[0], sections[1] if len(sections) > 1 else None


def named(blocks: dict[str, Any], label: str, program: Any) -> str:
    """The name of a block, which is added unless an equal block exists."""
    known = next((name for name, other in blocks.items() if other == program), None)
    if known is None:
        number = sum(name == label or name.startswith(f"{label}_") for name in blocks) + 1
        known = label if number == 1 else f"{label}_{number}"
        blocks[known] = program
    return known


def groups(layers: Sequence[str]) -> list[dict[str, Any]]:
    """Layers as repeated groups; a short repeated pattern becomes one group.

    layers: name of each layer's block
    """
    for period in range(2, 13):
        times, rest = divmod(len(layers), period)
        if times > 1 and not rest and list(layers[:period]) * times == list(layers) and len(set(layers)) > 1:
            return [{"repeat": times, "pattern": [{"block": name} for name in layers[:period]]}]
    return [{"repeat": len(list(group)), "block": name} for name, group in groupby(layers)]


def entries_of(program: Any) -> list[Mapping[str, Any]]:
    """The entries of a block; those of the prompt if it has two programs."""
    return list(program["prompt"] if isinstance(program, dict) else program)
