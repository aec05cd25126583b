"""A prefill worker, which computes prompts and keeps their keys and values until they are transferred."""

from __future__ import annotations

from collections.abc import Iterable

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.cache import Holder
from graphsim.serving.disaggregated.decode_worker import Tell
from graphsim.serving.driven_engine import DrivenEngine
from graphsim.serving.engine import NOTHING, STEP, WAIT
from graphsim.serving.requests import Request
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.client import Client


class PrefillWorker:
    """An engine whose requests end with their first token; their blocks stay taken until they are released."""

    def __init__(
        self, rules: Rules, price: StepPrice, log: RunLog, *, client: Client, store: AdapterStore | None, tell: Tell
    ) -> None:
        self.driven = DrivenEngine(rules, price, log=log, client=client, store=store, tell=tell)
        self.log, self.store = log, store
        self._kept: dict[int, Holder] = {}
        self._requests: dict[int, Request] = {}

    def put(self, request: Request, at_s: float) -> None:
        """Queue a request that arrives then, whose prompt is to be computed; the caller must not reuse it."""
        request.outputs = 1
        self._requests[request.row] = request
        self.driven.put(request, at_s, request.row)

    def warm(self, requests: Iterable[Request]) -> None:
        """Fill the prefix cache with prompts of earlier runs, the latest ones as far as they fit."""
        cache = self.driven.engine.batch.cache
        for request in requests:
            blocks = request.inputs // self.driven.rules.block_tokens
            holder = Holder(request.adapter, request.segments, request.goes_on)
            cache.take(holder, cache.hit(holder, blocks)[0])
            cache.give(holder, blocks - holder.blocks)
            cache.share(holder, blocks)
            cache.drop(holder, blocks, returns=False)

    @property
    def next_time(self) -> float:
        """When the current event ends; the call starts it if it has not begun."""
        return self.driven.next_time

    def ends_by(self, at_s: float) -> bool:
        """Whether the current event ends by then."""
        return self.driven.engine.under_way != NOTHING and self.driven.engine.until <= at_s

    def step(self) -> None:
        """End the current event."""
        self.driven.step()

    @property
    def tokens(self) -> int:
        """Tokens of the prompts that are queued here and not computed yet."""
        return sum(request.inputs for request in self._requests.values())

    def boundary_s(self, now: float) -> float:
        """When its scheduler next runs."""
        engine = self.driven.engine
        return max(now, engine.until) if engine.under_way == STEP else now

    def keep(self, row: int) -> None:
        """Keep the blocks of a prompt that has just been computed."""
        request = self._requests.pop(row)
        batch = self.driven.engine.batch
        blocks, cache = -(-request.inputs // batch.rules.block_tokens), batch.cache
        holder = Holder(request.adapter, request.segments, request.goes_on)
        found, _ = cache.hit(holder, blocks)
        cache.take(holder, found)
        cache.give(holder, blocks - found)
        self._kept[row] = holder

    def forget(self, row: int) -> None:
        """Drop a request that was not computed here."""
        self._requests.pop(row, None)

    def release(self, row: int, now: float) -> None:
        """Another worker has received the keys and values; requests that wait for blocks here are examined again."""
        holder = self._kept.pop(row, None)
        if holder is None:
            return
        engine = self.driven.engine
        batch = engine.batch
        batch.cache.drop(holder, holder.blocks, returns=False)
        batch.retry, batch.is_full = True, False
        if engine.under_way == WAIT and batch.queue.size:
            engine.until = max(engine.now, min(now, engine.until))

    @property
    def kept_blocks(self) -> int:
        """Blocks of prompts whose transfer is pending or in progress."""
        return sum(holder.blocks for holder in self._kept.values())
