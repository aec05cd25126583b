"""The tensors of a checkpoint that the structure explains, and the checkpoint's number of parameters."""

from __future__ import annotations

from collections.abc import Iterator

from graphsim.files.tensors import StoredTensor
from graphsim.models.checkpoint.division import Division, Held, Parts
from graphsim.models.checkpoint.loose import ResolvedTensors
from graphsim.models.checkpoint.report import Difference
from graphsim.models.checkpoint.storage import part_kind

Wrong = dict[tuple[str, str], list[Difference]]
"""Differences by place and by the path relative to it."""


def explained(division: Division, wrong: Wrong, settled: ResolvedTensors) -> Iterator[StoredTensor]:
    """Tensors that are weights of the structure, or belong to them, such as scales."""
    yield from division.cache_scales.values()
    for own in division.held:
        for below, parts in (*own.modules.items(), *own.stacks.items()):
            if (own.place.path, below) not in wrong:
                yield from parts.values()
        if own.place.path in settled.explained:
            yield from own.loose.values()


def parameters(division: Division, wrong: Wrong, settled: ResolvedTensors) -> int:
    """Number of parameters of the checkpoint: by the structure for explained tensors, by their shapes for others."""
    total = sum(_count(parts) for parts in (*division.beyond.values(), *division.left_out.values()))
    for own in division.held:
        for below, parts in (*own.modules.items(), *own.stacks.items()):
            weights = own.place.weights.get(below) or own.place.stacks.get(below, [])
            right = (own.place.path, below) not in wrong
            total += sum(weight.elements for weight in weights) if right else _count(parts)
        known = own.place.path in settled.explained and own.loose
        total += _loose(own, settled) if known else _count(own.loose)
    return total


def _loose(own: Held, settled: ResolvedTensors) -> int:
    weights = [ws for below, ws in own.place.weights.items() if below in settled.renamed and below not in own.modules]
    stacks = [ws for below, ws in own.place.stacks.items() if below in settled.renamed and below not in own.stacks]
    named = sum(weight.elements for ws in (*weights, *stacks) for weight in ws)
    return named + sum(weight.elements for weight in own.place.unnamed)


def _count(parts: Parts) -> int:
    return sum(t.elements for path, t in parts.items() if part_kind(path.rpartition(".")[2]) != "beside")
