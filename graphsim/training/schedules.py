"""Pipeline schedules: the order in which each stage runs the forward and backward passes of its micro-batches.

A schedule is only a launch order per stage, without times. If a backward pass is split, B is its gradient of the
inputs, which the stage before waits for, and W that of the weights, which no stage waits for (zero bubble, arXiv
2401.10241); elsewhere both are one slot.

gpipe: all forward, then all backward (arXiv 1811.06965). 1f1b: a backward as soon as there is one (PipeDream-flush,
arXiv 2006.09503). interleaved: the same over several parts of the model on each stage (arXiv 2104.04473, section 2.2).
zb-h1, zb-h2: W fills the gaps, within the memory of 1f1b or with about twice as much (arXiv 2401.10241, section 3);
zb-v: two parts on each stage, down and up again (the same, section 6). dualpipe: micro-batches from both ends, so that
each stage holds two parts of the model (arXiv 2412.19437, section 3.2.1, and github.com/deepseek-ai/DualPipe).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from graphsim.deployment.parallelism import SCHEDULES
from graphsim.errors import ConfigError, choices_text
from graphsim.training.bidirectional import bidirectional_order
from graphsim.training.slots import BOTH, FORWARD, INPUT, WEIGHT, Slot
from graphsim.units import amount_text

MOST_SLOTS = 10**5
"""Most slots of a schedule: several times those of the largest published runs, and some seconds of work."""


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The launch order of each stage.

    chunks: parts of the model on each stage
    splits: whether the weights' gradients (W) are separate from the inputs'
        (B)
    synchronous: whether all stages wait for each other at the optimizer; otherwise each starts the next step as soon as
        it has finished this one (arXiv 2401.10241, section 4)
    """

    name: str
    stages: int
    micro_batches: int
    chunks: int
    splits: bool
    synchronous: bool
    orders: tuple[tuple[Slot, ...], ...]

    def route(self, micro_batch: int) -> list[tuple[int, int]]:
        """Stage and chunk of each part of the model that a micro-batch passes, in the order of the forward pass."""
        p = self.stages
        if self.name == "dualpipe" and p > 1:
            down = micro_batch < (self.micro_batches + 1) // 2
            return [(i, 0) if down else (p - 1 - i, 1) for i in range(p)]
        if self.name == "zb-v":
            return [(i, 0) for i in range(p)] + [(p - 1 - i, 1) for i in range(p)]
        return [(i, chunk) for chunk in range(self.chunks) for i in range(p)]

    @property
    def parts(self) -> int:
        """Parts that the model is cut into."""
        return len(self.route(0))

    def part(self, stage: int, chunk: int) -> int:
        """Which part of the model a chunk of a stage is, counted from the embedding."""
        if self.name == "dualpipe" and chunk:
            return self.stages - 1 - stage
        return next(i for i, place in enumerate(self.route(0)) if place == (stage, chunk))


@lru_cache(maxsize=64)
def schedule_of(name: str, stages: int, micro_batches: int, virtual: int = 1) -> Schedule:
    """The schedule of that name (`SCHEDULES`) for this many stages and micro-batches.

    virtual: parts of the model on each stage, of an interleaved one
    Raises ConfigError for an unknown name or invalid numbers.
    """
    _check(name, stages, micro_batches, virtual)
    if stages == 1 and virtual == 1:
        name = "1f1b" if name == "interleaved" else name
    m = micro_batches
    orders: Callable[[int], Iterator[Slot]]
    if name == "gpipe":
        orders = lambda stage: _all_forward_first(m)  # noqa: E731
    elif name in ("1f1b", "interleaved"):
        orders = lambda stage: _one_forward_one_backward(stages, stage, m, virtual)  # noqa: E731
    elif name in ("zb-h1", "zb-h2"):
        orders = lambda stage: _zero_bubble(stages, stage, m, twice=name == "zb-h2")  # noqa: E731
    elif name == "zb-v":
        orders = lambda stage: _there_and_back(stages, stage, m)  # noqa: E731
    else:
        orders = lambda stage: bidirectional_order(stages, stage, m)  # noqa: E731
    chunks = virtual if name == "interleaved" else 2 if name == "zb-v" or (name == "dualpipe" and stages > 1) else 1
    return Schedule(
        name=name, stages=stages, micro_batches=m, chunks=chunks,
        splits=name.startswith("zb") or (name == "dualpipe" and stages > 1),
        synchronous=name not in ("zb-h2", "zb-v"), orders=tuple(tuple(orders(stage)) for stage in range(stages)),
    )  # fmt: skip


def _check(name: str, stages: int, micro_batches: int, virtual: int) -> None:
    if name not in SCHEDULES:
        raise ConfigError(f"parallelism.schedule = {name!r} is not known; {choices_text(name, SCHEDULES)}")
    for what, value in (("pp", stages), ("micro_batches", micro_batches), ("virtual_stages", virtual)):
        if value < 1:
            raise ConfigError(f"parallelism.{what} = {value} is not allowed; expected a whole number from 1")
    if virtual > 1 and name != "interleaved":
        raise ConfigError(
            f"parallelism.virtual_stages = {virtual} is not allowed with schedule = '{name}'; expected 1, or "
            "'interleaved'"
        )
    if name == "dualpipe" and stages % 2 and stages > 1:
        raise ConfigError(
            f"parallelism.pp = {stages} is not allowed with schedule = 'dualpipe'; expected an even number"
        )
    if stages * micro_batches * virtual > MOST_SLOTS:
        raise ConfigError(
            f"accumulate = {micro_batches} is not allowed with parallelism.pp = {stages} and virtual_stages = "
            f"{virtual}; expected at most {amount_text(MOST_SLOTS // (stages * virtual))} micro-batches, "
            f"{amount_text(MOST_SLOTS)} of all stages "
            "together"
        )


def _all_forward_first(m: int) -> Iterator[Slot]:
    yield from (Slot(FORWARD, i) for i in range(m))
    yield from (Slot(BOTH, i) for i in range(m))


def _groups(m: int, p: int) -> list[range]:
    """Micro-batches that pass all chunks together: at least as many as stages, or the next chunk would have no input
    yet.

    Megatron asks the same of its last group (core/pipeline_parallel/schedules.py, microbatch_group_size_per_vp_stage).
    """
    size = next((size for size in range(p, m) if m % size == 0 or m % size >= p), m)
    return [range(i, min(i + size, m)) for i in range(0, m, size)]


def _one_forward_one_backward(p: int, stage: int, m: int, virtual: int) -> Iterator[Slot]:
    """Enough forwards for the first backward to have its gradient, then forward and backward alternately."""
    groups = _groups(m, p)
    forward = [Slot(FORWARD, i, c) for group in groups for c in range(virtual) for i in group]
    backward = [Slot(BOTH, i, c) for group in groups for c in reversed(range(virtual)) for i in group]
    ahead = p - stage - 1 if virtual == 1 else 2 * (p - stage - 1) + (virtual - 1) * len(groups[0])
    ahead = min(ahead, len(forward))
    yield from forward[:ahead]
    for there, back in zip(forward[ahead:], backward, strict=False):
        yield from (there, back)
    yield from backward[len(forward) - ahead :]


def _zero_bubble(p: int, stage: int, m: int, *, twice: bool) -> Iterator[Slot]:
    """Weight gradients are postponed until as many micro-batches are alive as on the first stage."""
    limit, ahead = (2 * p - 1, 2 * (p - stage) - 1) if twice else (p, p - stage)
    forward = backward = weight = 0
    turn = WEIGHT
    while weight < m:
        if forward < min(backward + ahead, m):
            turn = FORWARD if forward - weight < limit else WEIGHT
        elif backward < m and (forward < m or turn != INPUT):
            turn = INPUT
        else:
            turn = WEIGHT
        if turn == FORWARD:
            yield Slot(turn, forward)
            forward += 1
        elif turn == INPUT:
            yield Slot(turn, backward)
            backward += 1
        else:
            yield Slot(turn, weight)
            weight += 1


def _there_and_back(p: int, stage: int, m: int) -> Iterator[Slot]:
    """Two chunks, the second of which traverses the stages in reverse; the last stage passes values to itself.

    Orders are those of at least 2p - 1 micro-batches, without those that do not exist.
    """
    total, done = max(2 * p - 1, m), [[0, 0, 0], [0, 0, 0]]

    def run(kind: int, chunk: int) -> Slot:
        done[chunk][kind] += 1
        return Slot((FORWARD, INPUT, WEIGHT)[kind], done[chunk][kind] - 1, chunk)

    def order() -> Iterator[Slot]:
        yield from (run(0, 0) for _ in range(2 * (p - stage) - 1))
        for _ in range(stage):
            yield from (run(0, 1), run(0, 0))
        for _ in range(p - stage):
            yield from (run(0, 1), run(1, 1), run(2, 1))
        while done[1][0] < total:
            if done[0][0] < total:
                yield run(0, 0)
            yield from (run(1, 0), run(2, 0), run(0, 1), run(1, 1), run(2, 1))
        for _ in range(stage):
            yield from (run(1, 0), run(1, 1))
        for _ in range(p - stage):
            yield from (run(1, 0), run(2, 0))
        for chunk in (1, 0):
            yield from (run(2, chunk) for _ in range(total - done[chunk][2]))

    yield from (slot for slot in order() if slot.micro_batch < m)
