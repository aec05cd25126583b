"""The blocks of a captured model: its stem, one block for each kind of layer, and its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from graphsim.models.capture.raising.attention import claim_attention
from graphsim.models.capture.raising.block import Block
from graphsim.models.capture.raising.cross import with_cross_attention
from graphsim.models.capture.raising.elementwise import claim_norms, pointwise
from graphsim.models.capture.raising.ends import hand_on, handed_states, logits
from graphsim.models.capture.raising.experts import claim_experts
from graphsim.models.capture.raising.idle import idle
from graphsim.models.capture.raising.node import Node, count, used
from graphsim.models.capture.raising.products import single
from graphsim.models.capture.raising.rows import live
from graphsim.models.capture.raising.sharding import shard
from graphsim.models.capture.raising.slices import limit_cuts, name_slices
from graphsim.models.capture.raising.steps import program
from graphsim.models.capture.rows import Row
from graphsim.models.capture.symbols import Symbols
from graphsim.models.capture.trace import Step, Trace
from graphsim.ops.custom import NO_FORMULA

Program = Any
"""Entries of a block, or one list of entries for each of the two steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderValue:
    """The output of an encoder, as decoder layers read it.

    source: the value's name
    shape: its shape
    """

    source: str
    shape: tuple[Any, ...]

    @property
    def rows(self) -> Any:
        """Number of rows, all sequences together."""
        return count(self.shape[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Consecutive rows of one step that become a block.

    entry: source of the block's input
    left: source of the block's result
    outer: output of an encoder, a second input
    """

    rows: Sequence[Row]
    entry: str = ""
    entry_shape: tuple[Any, ...] = ()
    left: str = ""
    outer: EncoderValue | None = None


@dataclass(slots=True, kw_only=True)
class Raiser:
    """Turns sections of a trace into programs, and keeps track of the parameters that already belong to a node."""

    found: Trace
    spent: set[str] = field(default_factory=set)
    parameters: Mapping[str, torch.nn.Parameter] = field(default_factory=dict)
    alive: dict[int, frozenset[str]] = field(default_factory=dict)
    whole: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Precompute what every section needs."""
        self.parameters = dict(self.found.model.named_parameters())
        for step in (self.found.prompt, self.found.decode):
            if step is not None:
                alive = frozenset(live(step.rows, frozenset(self.parameters)))
                whole = {row.name: count(row.out) for row in step.rows}
                whole |= {call.left: count(call.left_shape) for call in step.calls if call.left}
                whole |= {name: count(shape) for name, shape in step.given.items()}
                whole |= {f"state:{name}": count(shape) for name, shape in self.found.kept.items()}
                self.alive[id(step.rows)], self.whole[id(step.rows)] = alive, whole

    def program(
        self,
        prefix: str,
        prompt: Section,
        decode: Section | None = None,
        *,
        head: bool = False,
        stem: bool = False,
        symbols: Symbols | None = None,
    ) -> Program:
        """The program of a block in both steps, including the weights below its prefix that neither step uses.

        prefix: module path of the layer, with a trailing dot
        prompt, decode: the block's rows in each step
        head: whether the block is the output head, which ends in logits
        stem: whether the block is the stem, which may pass further values to the layers
        symbols: symbols of the rows' sizes, by default those of the model
        """
        before = set(self.spent)
        nodes = self._nodes(self.found.prompt, prefix, prompt, head, stem)
        after, self.spent = self.spent, before
        other = None
        if decode is not None and self.found.decode is not None:
            other = self._nodes(self.found.decode, prefix, decode, head, stem)
        self.spent = self.spent | after
        if prompt.outer is not None:
            nodes, other = with_cross_attention(nodes, other, prompt.outer.rows)
        rest = [name for name in self.unspent() if name.startswith(prefix)] if prefix else []
        self.spent.update(rest)
        passed = [set[str]() if step is None else _held(step) for step in (nodes, other)]
        one = self.idle([*rest, *_only(passed[1], passed[0])], prefix, "idle")
        if other is not None:
            other = [*self.idle([*rest, *_only(passed[0], passed[1])], prefix, "idle"), *other]
        return program(symbols or self.found.symbols, [*one, *nodes], other)

    def note(self, text: str) -> None:
        """Add a note on the model unless it exists already."""
        if text not in self.notes:
            self.notes.append(text)

    def spend(self, modules: Sequence[str]) -> None:
        """Mark the parameters of layers as assigned; those of a skipped layer are represented by its kind's block."""
        prefixes = tuple(f"{module}." for module in modules)
        self.spent.update(name for name in self.parameters if name.startswith(prefixes))

    def forget(self, prefix: str, tied: frozenset[str] = frozenset()) -> None:
        """Mark parameters below a prefix as unassigned, so that another layer with the same rows gets its own weights.

        prefix: module path of the layer that ran, with a trailing dot
        tied: names below the prefix whose weights both layers share
        """
        kept = {f"{prefix}{name}" for name in tied}
        self.spent = {name for name in self.spent if name in kept or not name.startswith(prefix)}

    def is_alive(self, step: Step, row: Row) -> bool:
        """Whether a row depends on weights or on values of the request."""
        return row.name in self.alive[id(step.rows)]

    def unspent(self) -> list[str]:
        """Names of the parameters that belong to no node yet."""
        return [name for name in self.parameters if name not in self.spent]

    def idle(self, names: Sequence[str], prefix: str = "", label: str = "unused") -> list[Node]:
        """Nodes for parameters that no step uses; the parameters are marked as assigned.

        names: names of the parameters
        prefix: module path of their layer, with a trailing dot
        label: name of the nodes
        """
        self.spent.update(names)
        return idle(self.found.model, self.parameters, names, prefix, label)

    def _handed_on(self, step: Step, section: Section) -> list[str]:
        """Results of a section's rows that later rows read, other than the section's result."""
        alive, own = self.alive[id(step.rows)], {row.name for row in section.rows}
        later = (row for row in step.rows if row.name in alive and row.name not in own)
        taken = dict.fromkeys(taken.source for row in later for taken in row.inputs)
        return [source for source in taken if source in own & alive and source != section.left]

    def _nodes(self, step: Step, prefix: str, section: Section, head: bool, stem: bool) -> list[Node]:
        handed = self._handed_on(step, section) if stem else []
        block = Block(
            model=self.found.model, symbols=self.found.symbols, rows=section.rows, prefix=prefix,
            entry=section.entry, entry_elems=count(section.entry_shape), whole=self.whole[id(step.rows)],
            alive=self.alive[id(step.rows)], leaves=frozenset({section.left, *handed}), parameters=self.parameters,
            spent=self.spent,
            kept=step.kept, keeps_nothing=self.found.decode is None,
            encoded=section.outer.source if section.outer else "",
            encoded_elems=count(section.outer.shape) if section.outer else 0,
        )  # fmt: skip
        claim_norms(block)
        claim_attention(block)
        if not self.found.symbols.each:
            claim_experts(block)
        block.fuse(pointwise)
        block.run(single)
        if stem:
            hand_on(block, section.left, handed)
        nodes = handed_states(name_slices(used(list(block.nodes.values()))))
        self.notes += [note for note in dict.fromkeys(block.notes) if note not in self.notes]
        notes = (str(node.fields.get("note", "")).partition(f"{NO_FORMULA}: ") for node in nodes)
        self.unknown.update(name for _, found, name in notes if found)
        shard(nodes)
        limit_cuts(nodes)
        return logits(block, nodes) if head else nodes


def _held(nodes: Sequence[Node]) -> set[str]:
    return {name for node in nodes for name in node.weights}


def _only(names: set[str], others: set[str]) -> list[str]:
    """Weights that one step uses and the other does not."""
    return sorted(names - others) if others else []
