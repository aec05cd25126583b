"""Pieces of work done by whichever process is free; what a broken executor loses is done again."""

from __future__ import annotations

import os
import time
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
    """Makes executors of processes: `asked` of them, but no more than there are cores, or pieces of work."""

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


class Standing:
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
    """Workers for several calls of `done_by`, and what to call behind the last one."""
    if workers is None or _executor(workers) is not None or not callable(workers):
        return workers, lambda: None
    found = Standing(workers)
    return found, found.drop


def done_by(
    workers: Workers | None, function: Callable[[Any], Found], todo: Sequence[Piece]
) -> Iterator[tuple[Piece, Found]]:
    """Every piece with what a function makes of it, in the order in which they are finished.

    What a broken executor loses is given to a new one where there is a function that makes it, and else done here.
    """
    executor = _executor(workers)
    if executor is not None:
        left = yield from _by(executor, function, todo)
    elif callable(workers):
        left, before = list(todo), len(todo) + 1
        used = isinstance(workers, Standing) and workers.current  # and may have broken since
        while left and len(left) < before:  # as long as a new executor gets further than the last one
            before, used = len(left) + used, False
            pool = workers.of(len(left)) if isinstance(workers, Processes) else workers()
            try:
                left = yield from _by(pool, function, left)
            finally:
                if not isinstance(workers, Standing):
                    pool.shutdown(cancel_futures=True)
                elif left:
                    workers.drop()
    else:
        left = list(todo)
    for piece in left:
        yield piece, function(piece)


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
    executor: Submits, function: Callable[[Any], Found], todo: Sequence[Piece]
) -> Generator[tuple[Piece, Found], None, list[Piece]]:
    """What an executor gets done; returns the pieces that it lost."""
    waiting, running = list(reversed(todo)), dict[Any, Piece]()
    lost = list[Piece]()
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                piece = waiting.pop()
                try:
                    running[executor.submit(function, piece)] = piece
                except RuntimeError:  # a broken pool, or one that was shut down, takes nothing more
                    lost += [piece, *reversed(waiting)]
                    waiting.clear()
            for future in _first_done(running):
                piece = running.pop(future)
                if future.cancelled() or future.exception() is not None:
                    lost.append(piece)
                else:
                    yield piece, future.result()
    finally:
        for future in running:
            future.cancel()
    return lost
