"""Adapters in blocks of the KV cache, as in S-LoRA's unified paging (Sheng et al., MLSys 2024).

No memory is reserved for slots. An adapter takes blocks of the pool while it is on the device. Adapters of the batch
hold theirs; blocks of an idle adapter count as available, and are reclaimed in the order of the eviction policy, where
requests or other adapters need it (an adapter cache in idle memory, as in Chameleon, MICRO 2025). Idle prefixes go
before idle adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import ceil

from graphsim.errors import ConfigError
from graphsim.serving.adapter_store import AdapterStore, BlockPool
from graphsim.serving.eviction import Usage
from graphsim.serving.rules import AdapterRules
from graphsim.traffic.table import BASE


def blocks_of(adapter_bytes: Sequence[float], block_bytes: float) -> list[int]:
    """Whole blocks of the KV cache that each adapter takes; block_bytes: of one, keys and values of all layers."""
    if not block_bytes > 0.0:
        raise ConfigError(f"a block of the KV cache has {block_bytes} bytes; unified paging needs a cache that grows")
    return [ceil(size / block_bytes - 1e-9) for size in adapter_bytes]


class PagedStore(AdapterStore):
    """As an AdapterStore, with blocks of a pool in place of slots.

    A loop counts `needed` on top of the blocks of a request that it admits, and calls `settle` where the pool has
    become smaller. `rules.max_loras` only limits how many different adapters a step has.
    """

    pool: BlockPool

    def __init__(
        self,
        rules: AdapterRules,
        load_s: Callable[[int, bool], float],
        blocks: Sequence[int],
        sizes: Sequence[float] | None = None,
    ) -> None:
        """blocks: that each registered adapter takes."""
        self.blocks = blocks
        self._held: set[int] = set()
        super().__init__(rules, load_s, blocks if sizes is None else sizes)

    def attach(self, pool: BlockPool) -> None:
        """Takes the blocks of pinned adapters. Raises ConfigError where an adapter is as large as the pool."""
        largest = max(range(len(self.blocks)), key=lambda adapter: self.blocks[adapter], default=None)
        if largest is not None and self.blocks[largest] >= pool.available:
            raise ConfigError(
                f"adapter {largest} takes {self.blocks[largest]} blocks, and the KV cache has {pool.available}; "
                "unified paging needs room for an adapter and a request"
            )
        self.pool = pool
        for adapter in sorted(self._pinned):
            pool.idle_adapter_blocks += self.blocks[adapter]
            self._hold(adapter)

    def room_for(self, adapter: int, busy: Collection[int], now: float | None = None) -> bool:
        """Whether there are blocks for it; those of requests are extra."""
        return super().room_for(adapter, busy, now) and self.needed(adapter) <= self.pool.available

    def needed(self, adapter: int) -> int:
        """Blocks that an adapter takes when it joins the batch; none if it is already in it or pinned."""
        return 0 if adapter in self._held or adapter == BASE else self.blocks[adapter]

    @property
    def held_blocks(self) -> int:
        """Blocks that adapters of the batch, and pinned ones, have."""
        return sum(self.blocks[adapter] for adapter in self._held)

    def use(self, adapter: int, now: float, busy: Collection[int]) -> float:
        """As AdapterStore.use; the adapter holds its blocks from now on."""
        self.settle(now)
        stall = super().use(adapter, now, busy)
        self._hold(adapter)
        return stall

    def touch(self, adapter: int, now: float) -> None:
        """The last request of an adapter has left: its blocks become available, and it stays in them until they are
        reclaimed.
        """
        super().touch(adapter, now)
        if adapter in self._held and adapter not in self._pinned:
            self._held.remove(adapter)
            self.pool.available += self.blocks[adapter]
            self.pool.idle_adapter_blocks += self.blocks[adapter]

    def settle(self, now: float) -> None:
        """Drop idle adapters whose blocks were taken since."""
        while self.pool.idle_adapter_blocks > self.pool.available:
            stays = self._staying(self._held)
            leaving = self._leaves(self._slots, {*stays, *self._ready}, now) if self._ready else None
            leaving = self._leaves(self._slots, stays, now) if leaving is None else leaving
            if leaving is None:
                raise ValueError("blocks count as held by idle adapters, and there are none")
            self._drop(leaving, self._slots)

    def _full(self, tier: dict[int, Usage], adapter: int) -> bool:
        if tier is not self._slots:
            return super()._full(tier, adapter)
        return adapter != BASE and self.pool.idle_adapter_blocks + self.blocks[adapter] > self.pool.available

    def _can_enter(self, adapter: int, stays: Collection[int], now: float) -> bool:
        short = self.pool.idle_adapter_blocks + self.needed(adapter) - self.pool.available
        if adapter not in self._slots and short > 0:
            leaving = (each for each in self._slots if each not in stays and each not in self._held and each != BASE)
            if sum(self.blocks[each] for each in leaving) < short:
                return False
        return super()._can_enter(adapter, stays, now)

    def _bring(self, adapter: int, now: float, busy: Collection[int]) -> float:
        absent = adapter not in self._slots and adapter != BASE
        ready = super()._bring(adapter, now, busy)
        if absent:
            self.pool.idle_adapter_blocks += self.blocks[adapter]
        return ready

    def _drop(self, adapter: int, tier: dict[int, Usage]) -> None:
        if tier is self._slots and adapter != BASE:
            self.pool.idle_adapter_blocks -= self.blocks[adapter]
        super()._drop(adapter, tier)

    def _hold(self, adapter: int) -> None:
        """Mark its blocks as held by the batch rather than by an idle adapter."""
        if adapter == BASE or adapter in self._held:
            return
        self._held.add(adapter)
        self.pool.available -= self.blocks[adapter]
        self.pool.idle_adapter_blocks -= self.blocks[adapter]
