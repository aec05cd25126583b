"""A request while it is alive in an engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphsim.serving.cache import Holder, Segment
from graphsim.serving.rows import plain
from graphsim.traffic.table import RequestTable


@dataclass(slots=True, eq=False)
class Request(Holder):
    """One of them: its row in the table, what it asks for, and how far it is.

    computed: tokens whose keys and values are in the cache, and generated: tokens of its answer; while it generates,
        both follow from `joined`, the engine's count of decode steps when it began less its tokens then
    order: its number among all admissions; end: the count of decode steps at which it has all its tokens
    over: whether it was answered or given up; last_token_s: when it got a token before a preemption
    """

    row: int
    inputs: int
    outputs: int
    priority: int
    sent_s: float
    computed: int = field(default=0, init=False)
    generated: int = field(default=0, init=False)
    order: int = field(default=-1, init=False)
    joined: int = field(default=0, init=False)
    end: int = field(default=-1, init=False)
    generates: bool = field(default=False, init=False)
    over: bool = field(default=False, init=False)
    last_token_s: float = field(default=-1.0, init=False)

    @property
    def tokens(self) -> int:
        """Tokens of its prompt and its answer so far, while it does not generate."""
        return self.inputs + self.generated

    @property
    def most_cached(self) -> int:
        """Tokens that it may ever have in the cache: the last one of its answer gets no place there."""
        return self.inputs + self.outputs - 1


class RequestMaker:
    """Makes requests of a table's rows, which it reads through views: these give plain numbers."""

    def __init__(self, table: RequestTable, block_tokens: int) -> None:
        self._prefixes, self._block_tokens = table.prefixes, block_tokens
        columns = (table.adapter, table.input_tokens, table.output_tokens, table.priority)
        self._adapter, self._inputs, self._outputs, self._priority = map(plain, columns)

    def one(self, row: int, sent_s: float) -> Request:
        """The request of a row, as it is sent."""
        inputs = self._inputs[row]
        segments: tuple[Segment, ...] = ()
        goes_on = False
        if self._prefixes is not None:
            names, ends = self._prefixes.of(row)
            if names:
                goes_on = ends[-1] >= inputs
                segments = tuple(_segments(names, [min(end, inputs) for end in ends], self._block_tokens, goes_on))
        return Request(
            self._adapter[row], segments, goes_on, row, inputs, self._outputs[row], self._priority[row], sent_s
        )  # fmt: skip


def _segments(names: list[int], ends: list[int], block_tokens: int, goes_on: bool) -> Iterator[Segment]:
    """Segments in blocks: a block belongs to the segment of its last token, and is named by all that lie in it."""
    at = 0
    inside: tuple[int, ...] = ()
    for place, (name, end) in enumerate(zip(names, ends, strict=True)):
        last = end // block_tokens
        if last > at or (goes_on and place == len(names) - 1):
            yield Segment((*inside, name) if inside else name, name, last)
            at, inside = last, ()
        if end % block_tokens:
            inside = (*inside, name, end)
