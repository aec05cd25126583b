"""Conversion of the rows of one block into nodes of the block language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch

from graphsim.models.capture.raising.node import Node, StepSize, count
from graphsim.models.capture.raising.rows import is_fusable
from graphsim.models.capture.rows import Row, RowInput
from graphsim.models.capture.symbols import Symbols

INPUT = "input"
SOURCE = "source"


@dataclass(slots=True, kw_only=True)
class Claim:
    """Rows that are converted together, at the position of the last of them, or on demand if `lazy`."""

    rows: list[Row]
    emit: Callable[[Block, Claim], None]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Block:
    """The rows of one block, and the nodes made from them.

    model: the model
    symbols: symbols of the sizes
    rows: the rows, in order
    prefix: module path of the layer, with a trailing dot
    entry: source of the block's input
    entry_elems: elements of the block's input
    whole: elements of every source of the step
    alive: names of the rows that depend on weights or on the request's values
    leaves: sources that rows outside the block read
    parameters: the model's parameters by name
    spent: names of parameters that belong to earlier nodes
    kept: sources of the cache tensors that the next step reads
    keeps_nothing: whether the model returns no cache; its causal attention is assumed to have one, as in engines
    encoded: source of an encoder's output, a second input
    encoded_elems: elements of the encoder's output
    """

    model: torch.nn.Module
    symbols: Symbols
    rows: Sequence[Row]
    prefix: str
    entry: str
    entry_elems: Any
    whole: Mapping[str, Any]
    alive: frozenset[str]
    leaves: frozenset[str]
    parameters: Mapping[str, torch.nn.Parameter]
    spent: set[str]
    kept: frozenset[str] = frozenset()
    keeps_nothing: bool = False
    encoded: str = ""
    encoded_elems: Any = 0
    nodes: dict[str, Node] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    parts: dict[tuple[str, Any, Any], str] = field(default_factory=dict)
    joins: dict[tuple[str, ...], str] = field(default_factory=dict)
    claimed: dict[str, Claim] = field(default_factory=dict)
    users: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    used: list[Row] = field(default_factory=list)
    by_name: dict[str, Row] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    single: Callable[[Block, Row], None] | None = None
    begun: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Find the rows that the block's results depend on."""
        self.values[self.entry] = INPUT
        if self.encoded:
            self.values[self.encoded] = SOURCE
        self.used = self._leading()
        self.by_name = {row.name: row for row in self.used}
        self.places = {row.name: i for i, row in enumerate(self.used)}
        for row in self.used:
            for source in {taken.source for taken in row.inputs}:
                self.users.setdefault(source, []).append(row)

    def _leading(self) -> list[Row]:
        wanted, found = set(self.leaves), []
        for row in reversed(self.rows):
            if row.name not in self.alive:
                continue
            if row.name in wanted or row.kind == "kv_cache":
                found.append(row)
                wanted.update(taken.source for taken in row.inputs)
        return found[::-1]

    def row(self, source: str) -> Row | None:
        """The row with this name; None for a value from outside or a row that only computes positions."""
        return self.by_name.get(source)

    # inputs of rows ------------------------------------------------------------------------------------------------

    def flows(self, taken: RowInput) -> bool:
        """Whether an input is an activation: neither a weight nor derived from positions only."""
        source = taken.source
        if source in self.alive or source in (self.entry, self.encoded):
            return True
        return source.partition(":")[0] in ("state", "float", "passed")

    def place(self, row: Row) -> int:
        """Index of a row in the block."""
        return self.places[row.name]

    def weights_of(self, rows: Iterable[Row]) -> list[str]:
        """Names of the parameters that rows read, without duplicates."""
        found: dict[str, None] = {}
        for row in rows:
            for taken in row.inputs:
                kind, _, name = taken.source.partition(":")
                if kind == "weight" and name in self.parameters and taken.source != self.entry:
                    found.setdefault(name)
        return list(found)

    def learned(self, names: Iterable[str]) -> int:
        """Number of elements of those parameters that belong to no node yet."""
        own = [name for name in names if name not in self.spent]
        self.spent.update(own)
        return sum(self.parameters[name].numel() for name in own)

    def outside(self, rows: Sequence[Row]) -> list[RowInput]:
        """Inputs of rows from other rows, without duplicate slices of a value."""
        inner = {row.name for row in rows}
        found: dict[tuple[str, Any, Any], RowInput] = {}
        for row in rows:
            for taken in row.inputs:
                if taken.source not in inner and self.flows(taken):
                    found.setdefault((taken.source, taken.offset, taken.shape), taken)
        return list(found.values())

    def elems_of(self, source: str) -> Any:
        """Number of elements of the node that represents a source."""
        self.ensure(source)
        name = self.values.get(source)
        if name == INPUT:
            return self.entry_elems
        if name == SOURCE:
            return self.encoded_elems
        if name is not None:
            node, _, part = name.partition(".")
            return self.nodes[node].fields["part_elems"][part] if part else self.nodes[node].elems
        return self.whole[source]

    def take(self, takens: Sequence[RowInput]) -> tuple[tuple[str, ...], Any]:
        """Node names of some inputs, with part nodes where only a slice is read, and their total number of elements."""
        by_source: dict[str, list[RowInput]] = {}
        for taken in takens:
            self.ensure(taken.source)
            by_source.setdefault(self.values.get(taken.source, taken.source), []).append(taken)
        names: list[str] = []
        total: Any = sympy.Integer(0)
        for group in by_source.values():
            name, whole = self.value(group[0].source), self.elems_of(group[0].source)
            sizes = {(taken.offset, taken.shape): count(taken.shape) for taken in group}
            asked = sympy.expand(sum(sizes.values()))
            if self.less(asked, whole):
                name, whole = self._part(name, tuple(sizes), asked), asked
            names.append(name)
            total += whole
        return tuple(names), sympy.expand(total)

    def less(self, one: Any, other: Any) -> bool:
        """Whether one size is smaller than another, for the values used in the recording."""
        return bool(self.at(one) < self.at(other))

    def at(self, size: Any) -> float:
        """Value of a size, for values of the symbols that no formula of the model gives by coincidence."""
        values = {self.symbols.batch: 3, self.symbols.length: 5003}
        if self.symbols.source is not None:
            values[self.symbols.source] = 3001
        return float(sympy.sympify(size).subs(values))

    def value(self, source: str) -> str:
        """Name of the node of a source; for a source outside the block, a node that represents it is added."""
        self.ensure(source)
        if source not in self.values and source in self.by_name and self.single is not None:
            self.single(self, self.by_name[source])  # an intermediate result of a claim that other rows also read
        if source not in self.values:
            module = source.partition("|")[0].rpartition(".")[2] or "outside"
            name = self.unique(f"{module}_value")
            self.add(Node(name=name, op="value", inputs=(), elems=self.whole[source],
                          fields={"elems": StepSize(self.whole[source])}, source=source), [source])  # fmt: skip
        return self.values[source]

    def _part(self, name: str, key: Any, elems: Any) -> str:
        known = self.parts.get((name, key, elems))
        if known is None:
            known = self.unique(f"{name.replace('.', '_')}_part")
            self.add(Node(name=known, op="part", inputs=(name,), elems=elems, fields={"elems": StepSize(elems)}), [])
            self.parts[(name, key, elems)] = known
        return known

    # nodes ---------------------------------------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        """An unused identifier based on a name."""
        clean = "".join(c if c.isalnum() else "_" for c in name) or "node"
        clean = clean if not clean[0].isdigit() else f"n{clean}"
        clean = f"{clean}_value" if clean in (INPUT, SOURCE) else clean
        number, found = 2, clean
        while found in self.nodes:
            found, number = f"{clean}_{number}", number + 1
        return found

    def add(self, node: Node, sources: Iterable[str]) -> str:
        """Add a node that represents some sources; returns its name."""
        self.nodes[node.name] = node
        self.values.update(dict.fromkeys(sources, node.name))
        return node.name

    def stand_in(self, row: Row, taken: RowInput) -> None:
        """Make a row that needs no kernel an alias of its input."""
        self.values[row.name] = self.value(taken.source)

    def module_name(self, module: str) -> str:
        """A module's path relative to the block's."""
        return module.removeprefix(self.prefix)

    # conversion ----------------------------------------------------------------------------------------------------

    def claim(self, rows: list[Row], emit: Callable[[Block, Claim], None], **facts: Any) -> None:
        """Claim those of the rows that are unclaimed, to be converted by `emit`."""
        claim = Claim(rows=rows, emit=emit, facts=facts)
        self.claimed.update({row.name: claim for row in rows if row.name not in self.claimed})

    def fuse(self, emit: Callable[[Block, Claim], None]) -> None:
        """Claim pointwise rows in groups: a row joins the group of its users if they are all in one group."""
        group: dict[str, list[Row]] = {}
        place = {row.name: i for i, row in enumerate(self.used)}
        for row in reversed(self.used):
            if row.name in self.claimed or not is_fusable(row):
                continue
            users = self.users.get(row.name, [])
            groups = {id(group[user.name]) for user in users if user.name in group}
            together = users and len(groups) == 1 and all(user.name in group for user in users)
            if together and row.name not in self.leaves:
                home = group[users[0].name]
                home.append(row)
            else:
                home = [row]
            group[row.name] = home
        for rows in {id(rows): rows for rows in group.values()}.values():
            self.claim(sorted(rows, key=lambda row: place[row.name]), emit)

    def run(self, single: Callable[[Block, Row], None]) -> list[Node]:
        """All nodes, in the order of the last row of each, or earlier if another node reads them."""
        self.single = single
        for row in self.used:
            claim = self.claimed.get(row.name)
            if claim is None or (claim.rows[-1].name == row.name and not claim.facts.get("lazy")):
                self.ensure(row.name)
        return list(self.nodes.values())

    def ensure(self, source: str) -> None:
        """Add the node of a row of the block unless it exists."""
        row = self.by_name.get(source)
        if row is None or source in self.values or self.single is None:
            return
        claim = self.claimed.get(source)
        key = id(row) if claim is None else id(claim)
        if key in self.begun:
            return
        self.begun.add(key)
        if claim is None:
            self.single(self, row)
        else:
            claim.emit(self, claim)
