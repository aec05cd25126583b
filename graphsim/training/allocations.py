"""The tensors of one turn of a section, in order of allocation and release.

They are those that `graphsim.training.moments` counts; `graphsim.training.reserved` replays them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import networkx as nx

from graphsim.ops import Gemm, Input, KeptValue, Loss, LossBackward, Op
from graphsim.ops.gradients.doubled import AccumulatedGradient
from graphsim.training.alive import last_uses, result_bytes
from graphsim.training.kernels import temporary_bytes
from graphsim.training.moments import kept_in
from graphsim.training.recipe import Recipe
from graphsim.training.sections import Section
from graphsim.units import Num

At = Callable[[Num], float]
"""A number in the requested scenario."""

LOSS = "loss"
"""Name of the values saved by a loss."""


@dataclass(frozen=True, slots=True)
class Run:
    """The tensors, in bytes, of one node of a turn.

    own: the part of its result that is not saved
    kept: saved values, by name
    results: those of them that are parts of
        the result
    passing: temporary copies
    gradient: of its weights
    over: nodes whose results are used here for the last time
    enters: whether its value comes from another turn
    loss: whether the values saved by the loss are freed with it
    """

    name: str
    own: float = 0.0
    kept: tuple[tuple[str, float], ...] = ()
    results: tuple[str, ...] = ()
    passing: tuple[float, ...] = ()
    gradient: float = 0.0
    over: tuple[str, ...] = ()
    enters: bool = False
    loss: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a section, of which there are `times`.

    whole: whether it is recomputed before its backward pass, so that everything it saves is allocated to the end
    """

    name: str
    times: int
    forward: tuple[Run, ...]
    backward: tuple[Run, ...] = ()
    whole: bool = False

    @property
    def kept_bytes(self) -> float:
        """All bytes that a turn saves."""
        return sum(size for run in self.forward for _, size in run.kept)


def turn_of(section: Section, behind: Section | None, recipe: Recipe, whole: bool, at: At) -> Turn:
    """The runs of a section's turn in one scenario.

    behind: its backward section
    whole: see `Turn`
    """
    kept = {} if behind is None else kept_in(behind)
    sizes = Sizes(recipe, at)
    forward = tuple(sizes.forward(section, kept))
    backward = () if behind is None else tuple(sizes.backward(behind.graph))
    return Turn(name=section.name, times=section.times, forward=forward, backward=backward, whole=whole)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a recipe's tensors in one scenario."""

    recipe: Recipe
    at: At

    def forward(self, section: Section, kept: Mapping[str, KeptValue]) -> Iterator[Run]:
        """The runs of a turn; `kept` names the inputs that are saved, whatever their size."""
        by_node: dict[str, list[tuple[str, KeptValue]]] = {}
        for name, value in kept.items():
            by_node.setdefault(value.of.removeprefix(f"{section.name}."), []).append((name, value))
        over = _over(section.graph)
        for name, op in section.ops():
            here = [(each, self.at(value.kept_bytes), value) for each, value in by_node.get(name, ())]
            shared = sum(size for _, size, value in here if not value.what)
            sizes = tuple((each, size) for each, size, _ in here if size)
            if isinstance(op, Loss):
                sizes = (*sizes, (LOSS, self._logits(op, self.recipe.loss.kept_bytes)))
            own = 0.0 if isinstance(op, Input) else max(self._result(op) - shared, 0.0)
            results = tuple(each for each, _, value in here if not value.what)
            yield Run(
                name, own, sizes, results, self._passing(op), over=over.get(name, ()), enters=isinstance(op, Input)
            )

    def backward(self, graph: nx.DiGraph) -> Iterator[Run]:
        """The runs of a turn's backward pass. A gradient that is added to another one is freed after that."""
        over = _over(graph)
        for name, op in graph.nodes(data="op"):
            there = isinstance(op, Input) or (isinstance(op, KeptValue) and not op.again)
            added = any(isinstance(graph.nodes[after]["op"], AccumulatedGradient) for after in graph.successors(name))
            ends = op.ends and not added and not isinstance(op, AccumulatedGradient)
            own = 0.0 if there or (op.ends and not added) else self._result(op)
            form = getattr(op, "gradients", op.activations)
            gradient = self.at(op.out_elems) * form.bytes if ends else 0.0
            yield Run(
                name, own, (), (), self._passing(op), gradient, over.get(name, ()), isinstance(op, Input),
                isinstance(op, LossBackward),
            )  # fmt: skip

    def _result(self, op: Op) -> float:
        if isinstance(op, LossBackward) or (isinstance(op, Gemm) and op.head):
            chunks = self.recipe.loss.chunks
            return self.at(result_bytes(op)) * (0.0 if chunks < 1.0 else 1.0 / chunks)
        return self.at(result_bytes(op))

    def _passing(self, op: Op) -> tuple[float, ...]:
        if not isinstance(op, LossBackward):
            return tuple(filter(None, (self.at(temporary_bytes(self.recipe, op)),)))
        loss = self.recipe.loss
        left = loss.peak_bytes - loss.kept_bytes - (BF16 if loss.chunks >= 1.0 else 0.0)
        pieces = []
        while left > 0.0:
            pieces.append(self._logits(op, min(left, FP32)))
            left -= FP32
        return tuple(pieces)

    def _logits(self, op: Loss | LossBackward, each: float) -> float:
        return each * self.at(op.rows * op.vocab) / max(self.recipe.loss.chunks, 1.0)


BF16, FP32 = 2.0, 4.0
"""Bytes of a logit."""


def _over(graph: nx.DiGraph) -> dict[str, tuple[str, ...]]:
    """For each node, the values whose last use it is; the turn's own result lives on."""
    names, found = list(graph), dict[str, list[str]]()
    for name, place in last_uses(graph).items():
        if place < len(names):
            found.setdefault(names[place], []).append(name)
    return {name: tuple(over) for name, over in found.items()}


__all__ = ["LOSS", "Run", "Turn", "turn_of"]
