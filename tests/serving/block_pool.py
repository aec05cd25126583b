"""Blocks of the KV cache one by one, each with its name and its users: what the tree of prefixes must amount to."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

Name = tuple[object, ...]


@dataclass(eq=False)
class Asker:
    """A request as the reference loop sees it; held: names of its blocks, None where nobody else can use one."""

    row: int
    inputs: int
    outputs: int
    adapter: int
    priority: int
    sent_s: float
    segments: list[tuple[int, int]]
    place: int = 0
    order: int = -1
    computed: int = 0
    generated: int = 0
    decoding: bool = False
    over: bool = False
    held: list[Name | None] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.inputs + self.generated

    @property
    def most_cached(self) -> int:
        return self.inputs + self.outputs - 1

    def name(self, block: int, size: int) -> Name | None:
        """Of a block that others may have, too: all text up to its end."""
        end = (block + 1) * size
        if not self.segments:
            return None
        reach = 10**9 if self.segments[-1][1] >= self.inputs else self.segments[-1][1]
        if end > reach:
            return None
        text, start = [], 0
        for place, (segment, stop) in enumerate(self.segments):
            last = place == len(self.segments) - 1
            if start < end:
                text.append((segment, end if last else min(stop, end)))
            start = stop
        return (self.adapter, *text)


class Pool:
    """So many blocks: blank ones, idle ones by their last use, and those in use.

    tier: names of blocks that were evicted into a tier without end; None without one
    """

    def __init__(self, blocks: int, size: int, keeps: bool, tiered: bool = False) -> None:
        self.blocks, self.size, self.keeps = blocks, size, keeps
        self.tier: set[Name] | None = set() if tiered else None
        self.blank = blocks
        self.idle: OrderedDict[Name, None] = OrderedDict()
        self.users: dict[Name, int] = {}

    @property
    def free(self) -> int:
        return self.blank + len(self.idle)

    def _take_blank(self) -> None:
        if self.blank:
            self.blank -= 1
        else:
            name, _ = self.idle.popitem(last=False)
            if self.tier is not None and name[0] not in ("own", "gone"):
                self.tier.add(name)

    def _use(self, name: Name) -> None:
        if not self.users.get(name):
            del self.idle[name]
        self.users[name] = self.users.get(name, 0) + 1

    def known(self, name: Name | None) -> bool:
        return name is not None and (name in self.idle or self.users.get(name, 0) > 0)

    def hit(self, asker: Asker, most: int) -> tuple[list[Name], int]:
        """Names of the leading blocks that are there, and how many of these are idle."""
        found: list[Name] = []
        while self.keeps and len(found) < most:
            name, own = asker.name(len(found), self.size), ("own", asker.row, len(found))
            if self.known(name):
                assert name is not None
                found.append(name)
            elif own in self.idle:
                found.append(own)
            else:
                break
        return found, sum(name in self.idle for name in found)

    def beyond(self, asker: Asker, found: int, most: int) -> int:
        """Blocks behind those found that the tier has."""
        end = found
        while self.tier and end < most and asker.name(end, self.size) in self.tier:
            end += 1
        return end - found

    def start(self, asker: Asker, found: list[Name]) -> None:
        asker.held = []
        for name in found:
            if name[0] == "own":
                del self.idle[name]
                asker.held.append(None)
            else:
                self._use(name)
                asker.held.append(name)
        for name in [name for name in self.idle if name[:2] == ("own", asker.row)]:
            self.idle = OrderedDict(((("gone", id(asker), name) if n == name else n), None) for n in self.idle)

    def grow(self, asker: Asker, blocks: int) -> None:
        for _ in range(blocks):
            self._take_blank()
            asker.held.append(None)

    def share(self, asker: Asker, full: int) -> None:
        """Leading blocks get their names; a block whose name is there already is given back for that one."""
        if not self.keeps:
            return
        for block in range(min(full, len(asker.held))):
            name = asker.name(block, self.size)
            if name is None or asker.held[block] is not None:
                continue
            if self.known(name):
                self._use(name)
                self.blank += 1
            else:
                self.users[name] = 1
                if self.tier is not None:
                    self.tier.discard(name)
            asker.held[block] = name

    def drop(self, asker: Asker, full: int, *, returns: bool, keeps: bool) -> None:
        if self.keeps and keeps and asker.segments and asker.segments[-1][1] >= asker.inputs:
            self.share(asker, full)
        for block in reversed(range(len(asker.held))):
            name = asker.held[block]
            if name is not None:
                self.users[name] -= 1
                if not self.users[name]:
                    self.idle[name] = None
            elif self.keeps and keeps and block < full:
                own = ("own", asker.row, block) if returns else ("gone", asker.row, block, object())
                self.idle[own] = None
            else:
                self.blank += 1
        asker.held = []
