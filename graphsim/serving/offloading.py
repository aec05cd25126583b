"""Tiers of the KV cache: evicted prefixes move to host memory, and from there to disk.

Blocks of a tier are loaded back instead of recomputed if that takes less time (LMCache, arXiv 2510.09665; vLLM's native
offloading; SGLang's HiCache; TensorRT-LLM's host cache). Each block of a prefix is in one place: the device, or one
tier. On every path from the root of the tree no block is in a nearer tier than its predecessor, as the end of a prompt
is evicted first, so loadable blocks continue where the device's own blocks end. Copies to a tier overlap the steps and
do not lengthen them. Blocks of a preempted request that nobody else can use are not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphsim.serving.cache import Holder, KVCache, Node

READS = ("stall", "overlapped")
WRITES = ("through", "back")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Storage for blocks evicted from the device.

    name: for reports
    blocks: that it holds in addition to those that are on the device or in a nearer tier as well
    setup_s: seconds of each load
    block_s: of each block of it, to the device
    """

    name: str
    blocks: int
    setup_s: float = 0.0
    block_s: float = 0.0


class TieredCache(KVCache):
    """A KVCache whose evicted prefix blocks move to tiers. stored: blocks in each tier."""

    def __init__(self, blocks: int, block_tokens: int, tiers: Sequence[Tier], *, keeps: bool) -> None:
        super().__init__(blocks, block_tokens, keeps=keeps)
        self.tiers = tuple(tiers)
        self.stored = [0] * len(self.tiers)
        self._orders: list[OrderedDict[Node, None]] = [OrderedDict() for _ in self.tiers]

    def beyond(self, holder: Holder, found: int, most: int) -> list[tuple[int, int]]:
        """Blocks of a prompt in tiers after those that `hit` found: tiers' indices and blocks, in order."""
        if not self._keeps or not holder.segments:
            return []
        runs: list[tuple[int, int]] = []
        for node, upto in self._way(holder, most, anywhere=True):
            if not node.place or upto <= found:
                continue
            if node.first > found:
                break
            blocks = upto - found
            if runs and runs[-1][0] == node.place - 1:
                blocks += runs.pop()[1]
            runs.append((node.place - 1, blocks))
            found = upto
        return runs

    def _return(self, node: Node) -> None:
        self._leave(node)
        node.place, node.users = 0, 1

    def _divided(self, parent: Node, node: Node, at: int) -> Node:
        place = node.place
        if not place:
            return super()._divided(parent, node, at)
        upper, rest = Node(parent, node.name, node.first, at, 0), node.rest_name
        upper.place = place
        parent.children[node.name] = upper
        node.parent, node.name, node.first = upper, rest, at
        upper.children[rest] = node
        self._orders[place - 1][upper] = None
        return upper

    def _evict(self, node: Node, blocks: int) -> None:
        if node.name is None:
            super()._evict(node, blocks)
        else:
            self._put(node if blocks == node.size else self._cut(node, node.last - blocks), 0)

    def _put(self, node: Node, tier: int) -> None:
        """Put blocks into the nearest tier with any capacity, starting with this one; the oldest blocks move on to the
        next.
        """
        while tier < len(self.tiers) and not self.tiers[tier].blocks:
            tier += 1
        if tier == len(self.tiers):
            if node.parent is not None:
                del node.parent.children[node.name]
            return
        order = self._orders[tier]
        node.place = tier + 1
        self.stored[tier] += node.size
        order[node] = None
        self._join(node)
        while (over := self.stored[tier] - self.tiers[tier].blocks) > 0:
            oldest = next(iter(order))
            if oldest.size <= over:
                self._leave(oldest)
            else:
                oldest = self._cut(oldest, oldest.last - over)
                self.stored[tier] -= over
            self._put(oldest, tier + 1)

    def _leave(self, node: Node) -> None:
        del self._orders[node.place - 1][node]
        self.stored[node.place - 1] -= node.size

    def _cut(self, node: Node, at: int) -> Node:
        """The part of a node from a block on, as its only child, whose place is set by the caller."""
        rest = Node(node, node.rest_name, at, node.last, 0)
        rest.children = node.children
        for child in rest.children.values():
            child.parent = rest
        node.children, node.last = {rest.name: rest}, at
        return rest

    def _join(self, node: Node) -> None:
        """Merge a node with its only continuation, if that is in the same tier."""
        child = node.children.get(node.rest_name)
        if child is None or len(node.children) > 1 or child.place != node.place:
            return
        del self._orders[node.place - 1][child]
        node.last, node.children = child.last, child.children
        for further in node.children.values():
            further.parent = node


@dataclass(slots=True)
class Loads:
    """Whether blocks of tiers are worth loading.

    computes_s: seconds to compute a prompt's tokens after cached ones, for an adapter: (tokens, past, adapter)
    """

    cache: TieredCache
    computes_s: Callable[[int, int, int], float]

    def worth(self, holder: Holder, tokens: int, found: int) -> tuple[int, list[tuple[int, int, float]]]:
        """Blocks to load after those found, by tier: (index, blocks, seconds)."""
        cache, size = self.cache, self.cache.block_tokens
        whole_s = self.computes_s(tokens - found * size, found * size, holder.adapter)
        best, kept, least_s = 0, 0, whole_s
        parts: list[tuple[int, int, float]] = []
        seconds, there = 0.0, found
        for tier, blocks in cache.beyond(holder, found, (tokens - 1) // size):
            way = cache.tiers[tier]
            part_s = way.setup_s + blocks * way.block_s
            parts.append((tier, blocks, part_s))
            seconds, there = seconds + part_s, there + blocks
            left_s = seconds + self.computes_s(tokens - there * size, there * size, holder.adapter)
            if left_s <= least_s:
                best, kept, least_s = there - found, len(parts), left_s
        return best, parts[:kept]
