"""Blocks of the KV cache, and the prefixes whose blocks can be reused.

Requests hold blocks; the others are available. Available blocks with the keys and values of earlier prompts stay usable
until they are taken, the least recently used first and the end of a prompt before its beginning, as in vLLM's free
queue (`vllm/v1/core/block_pool.py`). Prefixes are a tree of segments under each adapter, so that the work of a request
depends on its segments and not on its tokens. A node is held or idle as a whole; it is split where a prompt diverges
within it. Keys and values that two requests have both computed are kept once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Name = Any
"""Name of a segment: the table's number, and the offset of its block in the segments before it, with their ends."""


class Segment(NamedTuple):
    """A part of a prompt: the name of its first block, that of the others, and the index after its last block."""

    first: Name
    name: Name
    end: int


class Node:
    """Blocks of a prefix from `first` up to `last` with a number of users; `parent` has the blocks before them.

    place: 0 on the device, else the number of the tier to which they were moved (`graphsim.serving.offloading`)
    """

    __slots__ = ("parent", "name", "first", "last", "users", "children", "place")

    def __init__(self, parent: Node | None, name: Name, first: int, last: int, users: int) -> None:
        self.parent, self.name, self.first, self.last, self.users = parent, name, first, last, users
        self.children: dict[Name, Node] = {}
        self.place = 0

    @property
    def size(self) -> int:
        """Blocks."""
        return self.last - self.first

    @property
    def rest_name(self) -> Name:
        """Name of the part after any of its blocks, for when the node is split."""
        return self.name[-1] if isinstance(self.name, tuple) else self.name


@dataclass(slots=True, eq=False)
class Holder:
    """A holder of blocks.

    adapter: the adapter of its keys and values
    segments: parts of its prompt that others may share
    goes_on: whether its answer continues the last segment
    blocks: number of blocks held
    shared: number of them that are in the tree, up to the node `tip`
    kept: its own blocks that remain after it released them
    """

    adapter: int
    segments: tuple[Segment, ...]
    goes_on: bool
    blocks: int = field(default=0, init=False)
    shared: int = field(default=0, init=False)
    tip: Node | None = field(default=None, init=False)
    kept: Node | None = field(default=None, init=False)


class KVCache:
    """A cache of a fixed number of blocks. available: unused blocks, including idle ones of earlier prompts.

    idle_adapter_blocks: number of available blocks that still contain idle adapters (`graphsim.serving.paging`)
    """

    def __init__(self, blocks: int, block_tokens: int, *, keeps: bool) -> None:
        """keeps: whether blocks of earlier prompts are reused."""
        self.size = self.available = blocks
        self.block_tokens = block_tokens
        self.idle_adapter_blocks = 0
        self._keeps, self._idle = keeps, 0
        self._oldest: OrderedDict[Node, None] = OrderedDict()  # idle nodes, least recently used first
        self._roots: dict[int, Node] = {}

    @property
    def idle(self) -> int:
        """Available blocks with reusable keys and values of earlier prompts."""
        self._forget()
        return self._idle

    def hit(self, holder: Holder, most: int) -> tuple[int, int]:
        """Leading blocks, `most` at most, that are in the cache, and how many of these are unused."""
        if not self._keeps or (not holder.segments and holder.kept is None):
            return 0, 0
        self._forget()
        found = idle = 0
        for node, upto in self._way(holder, most):
            if not node.users:
                idle += upto - node.first
            found = upto
        kept = holder.kept
        if kept is not None and kept.first == found and kept.last > found:
            more = min(kept.last, most) - found
            if more > 0:
                return found + more, idle + more
        return found, idle

    def _way(self, holder: Holder, most: int, *, anywhere: bool = False) -> list[tuple[Node, int]]:
        """The nodes that contain a prompt's leading blocks, and the end of the shared part in each.

        anywhere: in tiers, too, not only on the device
        """
        node = self._roots.get(holder.adapter)
        way: list[tuple[Node, int]] = []
        at = 0
        last = holder.segments[-1] if holder.goes_on else None
        for segment in holder.segments:
            end = most if segment is last else min(segment.end, most)
            key = segment.first
            while at < end:
                node = node.children.get(key) if node is not None else None
                if node is None or (node.place and not anywhere):
                    return way
                at = min(node.last, end)
                way.append((node, at))
                if at < node.last:
                    return way
                key = segment.name
        return way

    def take(self, holder: Holder, found: int) -> None:
        """Give an empty holder the leading blocks that `hit` found."""
        holder.blocks = found
        holder.shared, holder.tip = 0, None
        if not self._keeps:
            return
        root = self._roots.get(holder.adapter)
        if root is None:
            root = self._roots[holder.adapter] = Node(None, None, 0, 0, 0)
        holder.tip = root
        if found:
            for node, upto in self._way(holder, found):
                root = self._divided(root, node, upto) if upto < node.last else node
                self._hold(root)
                holder.shared, holder.tip = upto, root
        kept, holder.kept = holder.kept, None
        if kept is not None and found > holder.shared:
            self.available -= found - holder.shared
            self._idle -= found - holder.shared
            kept.first = found
            if kept.first == kept.last:
                del self._oldest[kept]

    def give(self, holder: Holder, blocks: int) -> None:
        """Give a holder this many more blocks."""
        holder.blocks += blocks
        self.available -= blocks

    def share(self, holder: Holder, blocks: int) -> None:
        """Make a holder's leading blocks usable by others, as far as others can share their text."""
        if not self._keeps or not holder.segments or blocks <= holder.shared:
            return
        self._forget()
        node, at, start = holder.tip, holder.shared, 0
        if node is None:
            return
        last = holder.segments[-1]
        for segment in holder.segments:
            end = min(blocks, segment.end) if segment is not last or not holder.goes_on else blocks
            while at < end:
                name = segment.first if at == start else segment.name
                child = node.children.get(name)
                if child is not None:
                    node = self._divided(node, child, end) if child.last > end else child
                    if node.place:
                        self._return(node)
                    else:
                        self._hold(node)
                        self.available += node.last - node.first  # its own copy
                elif at > start and node.users == 1 and not node.children:
                    node.last = end
                else:
                    child = node.children[name] = Node(node, name, at, end, 1)
                    node = child
                at = node.last
            start = segment.end
            if at < start:
                break
        holder.tip, holder.shared = node, at

    def drop(self, holder: Holder, full: int, *, returns: bool, keeps: bool = True) -> None:
        """Release a holder's blocks, of which `full` are full.

        returns: whether the holder will need them again
        keeps: whether its own full blocks stay usable. Blocks of a
            holder that does not return age together with those that others may reuse; if there are none, they count as
            empty.
        """
        if self._keeps:
            if self._oldest:
                self._forget()
            if holder.goes_on and keeps:
                self.share(holder, full)
        self.available += holder.blocks - holder.shared
        if self._keeps:
            if keeps and full > holder.shared and (returns or self._oldest):
                kept = Node(holder.tip, None, holder.shared, full, 0)
                self._oldest[kept] = None
                self._idle += full - holder.shared
                holder.kept = kept if returns else None
            node = holder.tip
            while node is not None and node.parent is not None:
                node.users -= 1
                if not node.users:
                    size = node.last - node.first
                    self._oldest[node] = None
                    self._idle += size
                    self.available += size
                node = node.parent
        holder.blocks = holder.shared = 0
        holder.tip = None

    def _return(self, node: Node) -> None:
        """Blocks of a tier return to the device, into the blocks that their only user has allocated."""
        raise ValueError("a cache without tiers has all its blocks on the device")

    def _hold(self, node: Node) -> None:
        if not node.users:
            size = node.last - node.first
            self.available -= size
            self._idle -= size
            del self._oldest[node]
        node.users += 1

    def _divided(self, parent: Node, node: Node, at: int) -> Node:
        """The part of a parent's node up to a block, which becomes the parent of the rest."""
        upper, rest = Node(parent, node.name, node.first, at, node.users), node.rest_name
        parent.children[node.name] = upper
        node.parent, node.name, node.first = upper, rest, at
        upper.children[rest] = node
        if not upper.users:
            self._oldest[upper] = None
            self._oldest.move_to_end(upper, last=False)
        return upper

    def _forget(self) -> None:
        """Remove blocks that were taken since from the idle ones."""
        over = min(self._idle, self._idle + self.idle_adapter_blocks - self.available)
        while over > 0:
            node = next(iter(self._oldest))
            size = node.last - node.first
            gone = min(size, over)
            over -= gone
            self._idle -= gone
            if gone == size:
                del self._oldest[node]
            self._evict(node, gone)

    def _evict(self, node: Node, blocks: int) -> None:
        """Evict the last blocks of an idle node, or all of them."""
        node.last -= blocks
        if node.first == node.last and node.name is not None and node.parent is not None:
            del node.parent.children[node.name]
