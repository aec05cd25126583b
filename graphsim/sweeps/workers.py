"""Pieces of work done by whichever process is free; what a broken executor loses is done again."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Piece = TypeVar("Piece")
Found = TypeVar("Found")


class Submits(Protocol):
    """What of an executor is needed: Dask's clients have it, too."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Have something done; gives a future."""


Workers = Executor | Submits | Callable[[], Executor]
"""An executor, or a function that makes one: that can be done again when one breaks."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Makes executors of processes: `asked` of them, but at most as many as there are cores or pieces of work."""

    asked: int

    def __call__(self) -> Executor:
        """As many as may run at once, where the number of pieces is unknown."""
        return self.of(self.asked)

    def of(self, pieces: int) -> Executor:
        """A pool for this many pieces of work."""
        from concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(self.at_once(pieces))

    def at_once(self, pieces: int) -> int:
        """How many processes run."""
        return max(1, min(self.asked, cores(), pieces))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


AT_ONCE = 32
"""Pieces given out and not yet done."""
LOOK_S = 0.01
"""Seconds between two looks at futures that nobody can wait for."""


class ReusedExecutor:
    """A function that makes executors, each of which is used again until it breaks: what processes know, they keep."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        self._make = make
        self._executor: Executor | None = None

    def __call__(self) -> Executor:
        """The current executor, or a new one."""
        if self._executor is None:
            self._executor = self._make()
        return self._executor

    @property
    def current(self) -> bool:
        """Whether there is one that was used before."""
        return self._executor is not None

    def drop(self) -> None:
        """The current executor is not used any more."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)


def standing(workers: Workers | None) -> tuple[Workers | None, Callable[[], None]]:
    """Workers for several calls of `done_by`, and the function to call after the last one."""
    if workers is None or _executor(workers) is not None or not callable(workers):
        return workers, lambda: None
    found = ReusedExecutor(workers)
    return found, found.drop


def done_by(
    workers: Workers | None, function: Callable[[Any], Found], todo: Sequence[Piece] | deque[Piece]
) -> Iterator[tuple[Piece, Found]]:
    """Every piece with what a function makes of it, in the order in which they are finished.

    What a broken executor loses is given to a new one where there is a function that makes it, and else done here.
    todo: a deque may get further pieces whenever a result was given; what is taken from it is in work
    """
    queue = todo if isinstance(todo, deque) else deque(todo)
    executor = _executor(workers)
    if executor is not None:
        refused = False
        while queue and not refused:
            _, lost = yield from _by(executor, function, queue)
            refused = bool(queue)
            for piece in lost:
                yield piece, function(piece)
    elif callable(workers):
        yield from _by_several(workers, function, queue)
    while queue:
        piece = queue.popleft()
        yield piece, function(piece)


def _by_several(
    workers: Callable[[], Executor], function: Callable[[Any], Found], queue: deque[Piece]
) -> Generator[tuple[Piece, Found], None, None]:
    """What executors get done of a queue, a new one for each that breaks, as long as each gets something done."""
    further = True
    while queue and further:
        used = isinstance(workers, ReusedExecutor) and workers.current  # and may have broken since
        pool = workers.of(len(queue)) if isinstance(workers, Processes) else workers()
        try:
            done, lost = yield from _by(pool, function, queue)
        finally:
            if not isinstance(workers, ReusedExecutor):
                pool.shutdown(cancel_futures=True)
        queue.extendleft(reversed(lost))
        if isinstance(workers, ReusedExecutor) and queue:
            workers.drop()
        further = done > 0 or used


def hands(workers: Workers | None) -> int:
    """How many pieces are worked on at once; as many as there are cores here, where workers do not say."""
    if workers is None:
        return 1
    if isinstance(workers, ReusedExecutor):
        return hands(workers())
    if isinstance(workers, Processes):
        return workers.at_once(AT_ONCE)
    threads = getattr(workers, "ncores", None)  # of each of Dask's workers
    found = sum(threads().values()) if callable(threads) else getattr(workers, "_max_workers", None)
    return found if isinstance(found, int) and found > 0 else cores()


def _executor(workers: Workers | None) -> Submits | None:
    """Who takes work as it is; a Dask client has an executor of its own."""
    if workers is None or isinstance(workers, type):  # a class makes executors
        return None
    own = getattr(workers, "get_executor", None)
    if callable(own):
        found: Submits = own()
        return found
    return workers if hasattr(workers, "submit") else None


def _first_done(running: Iterable[Any]) -> list[Any]:
    """Futures that are done, of which there is at least one."""
    futures = list(running)
    if all(isinstance(future, Future) for future in futures):
        return list(wait(futures, return_when=FIRST_COMPLETED).done)
    while not (done := [future for future in futures if future.done()]):
        time.sleep(LOOK_S)
    return done


def _by(
    executor: Submits, function: Callable[[Any], Found], queue: deque[Piece]
) -> Generator[tuple[Piece, Found], None, tuple[int, list[Piece]]]:
    """What an executor gets done of a queue; returns the number of pieces, and those that it lost.

    What it refuses, as a broken pool or one that was shut down does, stays in the queue.
    """
    running, lost = dict[Any, Piece](), list[Piece]()
    done, takes = 0, True
    try:
        while (queue and takes) or running:
            while queue and takes and len(running) < AT_ONCE:
                try:
                    running[executor.submit(function, queue[0])] = queue[0]
                except RuntimeError:
                    takes = False
                else:
                    queue.popleft()
            for future in _first_done(running) if running else ():
                piece = running.pop(future)
                if future.cancelled() or future.exception() is not None:
                    lost.append(piece)
                else:
                    done += 1
                    yield piece, future.result()
    finally:
        for future in running:
            future.cancel()
    return done, lost
