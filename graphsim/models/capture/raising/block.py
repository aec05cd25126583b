"""One block: its rows in, nodes of the block language out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch

from graphsim.models.capture.raising.node import Node, Sized, count
from graphsim.models.capture.raising.rows import is_fusable
from graphsim.models.capture.rows import Row, Taken
from graphsim.models.capture.symbols import Symbols

INPUT = "input"
SOURCE = "source"


@dataclass(slots=True, kw_only=True)
class Claim:
    """Rows that become nodes together, at the place of the last of them, or where they are asked for if `lazy`."""

    rows: list[Row]
    emit: Callable[[Block, Claim], None]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Block:
    """Rows of one block, and the nodes that they have become.

    prefix: of the modules of a layer, with the dot; entry: source of the value that enters
    encoded: source of an encoder's rows, which enter beside it
    whole: elements of every source of the step; leaves: sources that others take
    spent: names of parameters that earlier nodes hold
    kept: sources of what the next step gets
    keeps_nothing: the model hands on no cache, so that its causal attention is taken to read one as engines have it
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
        """Find the rows that lead to what leaves the block."""
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
        """The row that a source is, None for a value from outside and for arithmetic on positions."""
        return self.by_name.get(source)

    # what rows take ------------------------------------------------------------------------------------------------

    def flows(self, taken: Taken) -> bool:
        """Whether an input is a value that flows: no weight, and nothing about positions."""
        source = taken.source
        if source in self.alive or source in (self.entry, self.encoded):
            return True
        return source.partition(":")[0] in ("state", "float", "passed")

    def place(self, row: Row) -> int:
        """Where a row stands in the block."""
        return self.places[row.name]

    def weights_of(self, rows: Iterable[Row]) -> list[str]:
        """Names of the parameters that rows take, each once."""
        found: dict[str, None] = {}
        for row in rows:
            for taken in row.inputs:
                kind, _, name = taken.source.partition(":")
                if kind == "weight" and name in self.parameters and taken.source != self.entry:
                    found.setdefault(name)
        return list(found)

    def learned(self, names: Iterable[str]) -> int:
        """Elements of parameters that no node holds yet."""
        own = [name for name in names if name not in self.spent]
        self.spent.update(own)
        return sum(self.parameters[name].numel() for name in own)

    def outside(self, rows: Sequence[Row]) -> list[Taken]:
        """What rows take from elsewhere, each slice of each value once."""
        inner = {row.name for row in rows}
        found: dict[tuple[str, Any, Any], Taken] = {}
        for row in rows:
            for taken in row.inputs:
                if taken.source not in inner and self.flows(taken):
                    found.setdefault((taken.source, taken.offset, taken.shape), taken)
        return list(found.values())

    def elems_of(self, source: str) -> Any:
        """Elements of the node that stands for a source."""
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

    def take(self, takens: Sequence[Taken]) -> tuple[tuple[str, ...], Any]:
        """Nodes of values that are taken, parts of them where less than the whole is, and their elements together."""
        by_source: dict[str, list[Taken]] = {}
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
        """Whether a size is smaller than another at the sizes of the recording."""
        return bool(self.at(one) < self.at(other))

    def at(self, size: Any) -> float:
        """A size at plain numbers that no formula of the model's repeats."""
        values = {self.symbols.batch: 3, self.symbols.length: 5003}
        if self.symbols.source is not None:
            values[self.symbols.source] = 3001
        return float(sympy.sympify(size).subs(values))

    def value(self, source: str) -> str:
        """The node of a source; of one outside the block, a node that stands for it."""
        self.ensure(source)
        if source not in self.values and source in self.by_name and self.single is not None:
            self.single(self, self.by_name[source])  # a claim's inner result that others take too
        if source not in self.values:
            module = source.partition("|")[0].rpartition(".")[2] or "outside"
            name = self.unique(f"{module}_value")
            self.add(Node(name=name, op="value", inputs=(), elems=self.whole[source],
                          fields={"elems": Sized(self.whole[source])}, source=source), [source])  # fmt: skip
        return self.values[source]

    def _part(self, name: str, key: Any, elems: Any) -> str:
        known = self.parts.get((name, key, elems))
        if known is None:
            known = self.unique(f"{name.replace('.', '_')}_part")
            self.add(Node(name=known, op="part", inputs=(name,), elems=elems, fields={"elems": Sized(elems)}), [])
            self.parts[(name, key, elems)] = known
        return known

    # what nodes are made -------------------------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        """An identifier that no node has yet."""
        clean = "".join(c if c.isalnum() else "_" for c in name) or "node"
        clean = clean if not clean[0].isdigit() else f"n{clean}"
        clean = f"{clean}_value" if clean in (INPUT, SOURCE) else clean
        number, found = 2, clean
        while found in self.nodes:
            found, number = f"{clean}_{number}", number + 1
        return found

    def add(self, node: Node, sources: Iterable[str]) -> str:
        """Add a node that stands for sources."""
        self.nodes[node.name] = node
        self.values.update(dict.fromkeys(sources, node.name))
        return node.name

    def stand_in(self, row: Row, taken: Taken) -> None:
        """Let a row that does nothing worth a kernel stand for what it takes."""
        self.values[row.name] = self.value(taken.source)

    def module_name(self, module: str) -> str:
        """A module's path below the block's own."""
        return module.removeprefix(self.prefix)

    # the walk ------------------------------------------------------------------------------------------------------

    def claim(self, rows: list[Row], emit: Callable[[Block, Claim], None], **facts: Any) -> None:
        """Take rows that are not claimed yet."""
        claim = Claim(rows=rows, emit=emit, facts=facts)
        self.claimed.update({row.name: claim for row in rows if row.name not in self.claimed})

    def fuse(self, emit: Callable[[Block, Claim], None]) -> None:
        """Claim pointwise rows in groups: a row runs with its users where these are in one group."""
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
        """All nodes, in the order in which their rows end, before it where another node takes them."""
        self.single = single
        for row in self.used:
            claim = self.claimed.get(row.name)
            if claim is None or (claim.rows[-1].name == row.name and not claim.facts.get("lazy")):
                self.ensure(row.name)
        return list(self.nodes.values())

    def ensure(self, source: str) -> None:
        """Make the node of a row of the block unless it is there."""
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
