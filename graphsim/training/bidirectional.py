"""DualPipe: micro-batches enter at both ends, and a forward of one direction overlaps a backward of the other.

arXiv 2412.19437, section 3.2.1, figure 5; the phases of a stage as github.com/deepseek-ai/DualPipe runs them
(`dualpipe/dualpipe.py`, `step`).
"""

from __future__ import annotations

from collections.abc import Iterator

from graphsim.training.slots import BOTH, FORWARD, INPUT, WEIGHT, Slot


def bidirectional_order(p: int, stage: int, m: int) -> Iterator[Slot]:
    """The slots of one stage. Chunk 0 goes down the stages with the first half of the micro-batches, chunk 1 up.

    The order is that of at least 2p micro-batches, without those that do not exist.
    """
    if p == 1:
        for i in range(m):
            yield from (Slot(FORWARD, i), Slot(BOTH, i))
        return
    half = max(p, (m + 1) // 2)
    down = (m + 1) // 2
    for slot in _Stage(p, stage, half).order():
        kept = [one for one in slot.all if one.micro_batch < (m - down if one.chunk else down)]
        named = [Slot(one.kind, one.micro_batch + (down if one.chunk else 0), one.chunk) for one in kept]
        if len(named) == 2:
            yield Slot(named[0].kind, named[0].micro_batch, named[0].chunk, named[1])
        else:
            yield from named


class _Stage:
    """Counts a stage's launches; a direction is `near` if its micro-batches reach the stage first."""

    def __init__(self, p: int, stage: int, half: int) -> None:
        self.p, self.half = p, half
        self.deep = min(stage, p - 1 - stage)
        self.outer = p // 2 - self.deep - 1
        self.chunks = (0, 1) if stage < p // 2 else (1, 0)
        self.forwards, self.backwards = [0, 0], [0, 0]
        self.delayed: list[tuple[int, int]] = []

    def forward(self, way: int) -> Slot:
        self.forwards[way] += 1
        return Slot(FORWARD, self.forwards[way] - 1, self.chunks[way])

    def backward(self, way: int, *, split: bool = False) -> Slot:
        number = self.backwards[way]
        self.backwards[way] += 1
        if split:
            self.delayed.append((number, self.chunks[way]))
        return Slot(INPUT if split else BOTH, number, self.chunks[way])

    def weight(self) -> Slot:
        return Slot(WEIGHT, *self.delayed.pop(0))

    def both(self, way: int) -> Slot:
        """A forward of one direction together with a backward of the other."""
        there, back = self.forward(way), self.backward(1 - way)
        return Slot(there.kind, there.micro_batch, there.chunk, back)

    def order(self) -> Iterator[Slot]:
        """Near forwards, both ways' forwards, split backwards of the far way, pairs, and the same in reverse."""
        yield from (self.forward(0) for _ in range(2 * self.outer))
        for _ in range(self.deep + 1):
            yield from (self.forward(0), self.forward(1))
        for _ in range(self.outer):
            yield from (self.backward(1, split=True), self.weight(), self.forward(1))
        for i in range(self.half - self.p + self.deep + 1):
            if i == 0 and self.outer == 0:  # in the middle of the pipeline, the first pair runs one after another
                yield from (self.forward(0), self.backward(1))
            else:
                yield self.both(0)
            yield self.both(1)
        for _ in range(self.outer):
            yield from (self.backward(1), self.both(1))
        ends = self.deep + 1
        for i in range(ends):
            yield self.backward(1, split=i > ends // 2 or (i == ends // 2 and self.deep % 2 == 1))
            yield self.backward(0, split=i >= ends // 2)
        for _ in range(self.outer):
            yield from (self.weight(), self.backward(0, split=True))
        yield from (self.weight() for _ in range(ends))
