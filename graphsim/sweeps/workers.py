"""Pieces of work done by whichever process is free; what a broken executor loses is done again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any, TypeVar

Piece = TypeVar("Piece")
Found = TypeVar("Found")

Workers = Executor | Callable[[], Executor]
"""An executor, or a function that makes one: that can be done again when one breaks."""

AT_ONCE = 32
"""Pieces given out and not yet done."""


def done_by(
    workers: Workers | None, function: Callable[[Any], Found], todo: Sequence[Piece]
) -> Iterator[tuple[Piece, Found]]:
    """Every piece with what a function makes of it, in the order in which they are finished.

    What a broken executor loses is given to a new one where there is a function that makes it, and else done here.
    """
    if isinstance(workers, Executor):
        left = yield from _by(workers, function, todo)
    elif workers is not None:
        left, before = list(todo), len(todo) + 1
        while left and len(left) < before:  # as long as a new executor gets further than the last one
            before = len(left)
            pool = workers()
            try:
                left = yield from _by(pool, function, left)
            finally:
                pool.shutdown(cancel_futures=True)
    else:
        left = list(todo)
    for piece in left:
        yield piece, function(piece)


def _by(
    executor: Executor, function: Callable[[Any], Found], todo: Sequence[Piece]
) -> Generator[tuple[Piece, Found], None, list[Piece]]:
    """What an executor gets done; returns the pieces that it lost."""
    waiting, running = list(reversed(todo)), dict[Future[Found], Piece]()
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
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                piece = running.pop(future)
                if future.cancelled() or future.exception() is not None:
                    lost.append(piece)
                else:
                    yield piece, future.result()
    finally:
        for future in running:
            future.cancel()
    return lost
