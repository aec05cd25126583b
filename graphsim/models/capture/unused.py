"""Weights that no step of a model uses: parts of the language model, and towers if the input is text only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from graphsim.models.capture.blocks import Raiser
from graphsim.models.capture.kinds import Stack
from graphsim.models.capture.layers import groups, named, prefix_of
from graphsim.models.capture.raising.node import Node
from graphsim.models.capture.raising.steps import written

MOST_NODES = 400
"""Largest number of nodes in a block that only holds weights; further nodes go to another block."""


def unused(raiser: Raiser, main: Stack, blocks: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Unused weights of the language model as entries of the stem, and all others as sections of a tower.

    raiser: keeps track of the parameters
    main: the layers that process a request's own tokens
    blocks: blocks by name, to which new ones are added
    """
    idle_stacks = [stack for stack in raiser.found.stacks if _is_idle(raiser, stack)]
    owner = main.path.rpartition(".")[0]
    sections = [_stack(raiser, stack, blocks) for stack in idle_stacks]
    of_towers = [name for name in raiser.unspent() if idle_stacks and not _is_of_owner(name, owner, idle_stacks)]
    loose = raiser.idle(of_towers)
    rest = [written(node, {}) for node in raiser.idle(raiser.unspent())]
    if sections or loose:
        sections = [*_loose(loose, blocks), *sections]
    return rest, sections


def _is_idle(raiser: Raiser, stack: Stack) -> bool:
    """Whether no layer of a stack was called and some of its weights are unassigned."""
    called = {call.module for call in raiser.found.prompt.calls}
    left = tuple(f"{name}." for name in stack.names)
    return called.isdisjoint(stack.names) and any(name.startswith(left) for name in raiser.unspent())


def _is_of_owner(name: str, owner: str, stacks: Sequence[Stack]) -> bool:
    """Whether a parameter belongs to the language model and not to a part of it whose layers were not called."""
    inside = f"{owner}." if owner else ""
    if not name.startswith(inside):
        return False
    part = f"{inside}{name.removeprefix(inside).partition('.')[0]}."
    return not any(stack.path.startswith(part) for stack in stacks)


def _stack(raiser: Raiser, stack: Stack, blocks: dict[str, Any]) -> dict[str, Any]:
    """A section for layers that were not called, with one block per kind."""
    of_kind: dict[int, str] = {}
    for layer, kind in zip(stack.names, stack.keys, strict=True):
        if kind not in of_kind:
            nodes = raiser.idle([name for name in raiser.unspent() if name.startswith(f"{layer}.")], f"{layer}.")
            of_kind[kind] = named(blocks, "unused_layer", [written(node, {}) for node in nodes] or _NOTHING)
    raiser.spend(stack.names)
    layers = groups([of_kind[kind] for kind in stack.keys])
    return {"layers": layers, "names": {"layer": prefix_of(stack)}, "idle": True}


def _loose(nodes: Sequence[Node], blocks: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Sections for weights outside layers; at least one, since a tower starts with a block."""
    entries = [written(node, {}) for node in nodes] or _NOTHING
    for start in range(0, len(entries), MOST_NODES):
        yield {"block": named(blocks, "unused", entries[start : start + MOST_NODES]), "idle": True}


_NOTHING: list[dict[str, Any]] = [{"name": "none", "op": "compute", "inputs": [], "idle": True}]
