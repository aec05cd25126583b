"""Assigns a checkpoint's tensors to the layers and modules of a structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphsim.files.tensors import StoredTensor
from graphsim.models.checkpoint.expected import Place
from graphsim.models.checkpoint.names import (
    ENDS,
    is_apart,
    is_buffer,
    is_correction,
    is_draft,
    plain,
    scope_of,
    tower_of,
)
from graphsim.models.checkpoint.spellings import IN_TURN, Speller
from graphsim.models.checkpoint.storage import is_cache_scale

Parts = dict[str, StoredTensor]
"""The tensors of one module, by their paths relative to it."""


@dataclass(slots=True)
class Held:
    """The checkpoint's tensors for one place of the structure.

    modules: tensors of each module that the structure names
    stacks: tensors of each list of experts, by the path of the list
    loose: tensors that belong to neither
    """

    place: Place
    modules: dict[str, Parts] = field(default_factory=dict)
    stacks: dict[str, Parts] = field(default_factory=dict)
    loose: Parts = field(default_factory=dict)

    def take(self, path: str, tensor: StoredTensor) -> None:
        """Assign a tensor to the innermost module that contains it."""
        rest = path[len(self.place.path) + 1 :] if self.place.path else path
        end = 0 if is_apart(rest) else len(rest)
        while end > 0:
            start = rest[:end]
            if start in self.place.weights:
                self.modules.setdefault(start, {})[rest[end + 1 :]] = tensor
                return
            if start in self.place.stacks and rest[end + 1 :] != "bias":  # added to the experts' sum, not to one expert
                self.stacks.setdefault(start, {})[rest[end + 1 :]] = tensor
                return
            end = rest.rfind(".", 0, end)
        if "" in self.place.weights:
            self.modules.setdefault("", {})[rest] = tensor
        else:
            self.loose[rest] = tensor


@dataclass(slots=True)
class Division:
    """A checkpoint's tensors by place of the structure.

    beyond: tensors without a counterpart in the structure, by the first component of their paths or by layer
    left_out: tensors of towers and draft layers, by the same keys
    """

    held: list[Held]
    beyond: dict[str, Parts]
    left_out: dict[str, Parts]
    buffers: Parts
    cache_scales: Parts


def divide(tensors: Mapping[str, StoredTensor], places: Iterable[Place], model_type: str = "") -> Division:
    """Assign every tensor to a place."""
    held = {place.path: Held(place) for place in places}
    out = Division(list(held.values()), {}, {}, {}, {})
    beyond: dict[str, Parts] = {}
    spell = Speller(model_type, _experts_in_turn(held, model_type))
    lists: dict[str, Parts | None] = {}  # of experts, by the path before their indices
    for name, tensor in tensors.items():
        front, cut, rest = name.partition(".experts.")
        if cut and not is_correction(rest):
            front, rest = spell.expert(front, rest)
            if front not in lists:
                lists[front] = _list_of_experts(held, plain(spell(f"{front}.experts")))
            parts = lists[front]
            if parts is not None:
                parts[rest] = tensor
                continue
        path = plain(spell(name))
        own = held.get(scope_of(path)) or _within(held[""], path)
        if is_buffer(name):
            out.buffers[name] = tensor
        elif is_cache_scale(path):
            out.cache_scales[name] = tensor
        elif own is not None:
            own.take(path, tensor)
        else:
            beyond.setdefault(scope_of(path), {})[path] = tensor
    _use_other_ends(held[""])
    known = {path.split(".", 1)[0] for path in [*held, *held[""].place.weights]}
    _set_aside_outside(out, held[""], known)
    for scope, parts in beyond.items():
        tower = tower_of(scope)
        if (tower and tower not in known) or any(is_draft(path) for path in parts):
            out.left_out.setdefault(tower or scope, {}).update(parts)
        else:
            out.beyond[scope] = parts
    return out


def _within(outside: Held, path: str) -> Held | None:
    """The place outside all layers if the path belongs to one of its modules, else None."""
    parts = path.split(".")
    fronts = (".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1))
    return outside if any(front in outside.place.weights for front in fronts) else None


def _experts_in_turn(held: Mapping[str, Held], model_type: str) -> int:
    """Number of experts in each list if a checkpoint numbers the lists consecutively; 0 otherwise."""
    if model_type not in IN_TURN:
        return 0
    stacks = (weights for own in held.values() for weights in own.place.stacks.values())
    return next((weights[0].experts for weights in stacks), 0)


def _list_of_experts(held: Mapping[str, Held], path: str) -> Parts | None:
    """The parts to which tensors of a list of experts are added; None if the structure has no such list."""
    own = held.get(scope_of(path))
    below = path[len(own.place.path) + 1 :] if own is not None else ""
    return own.stacks.setdefault(below, {}) if own is not None and below in own.place.stacks else None


def _set_aside_outside(out: Division, outside: Held, known: set[str]) -> None:
    """Set aside tensors of towers and drafts outside all layers, unless the structure has unnamed weights there."""
    unnamed = sum(weight.elements for weight in outside.place.unnamed)
    if unnamed and unnamed == sum(tensor.elements for tensor in outside.loose.values()):
        return
    for path in list(outside.loose):
        name = tower_of(path) or ("mtp" if is_draft(path) else "")
        if name and name not in known:
            out.left_out.setdefault(name, {})[path] = outside.loose.pop(path)


def _use_other_ends(outside: Held) -> None:
    """Map alternative names of the embedding, the last norm, the head, and a tied head's bias to the structure's."""
    for path in [path for path in outside.loose if path.endswith(".bias")]:
        head = f"{path.removesuffix('.bias')}.decoder"
        if head in outside.place.weights and "bias" not in outside.modules.get(head, {}):
            outside.modules.setdefault(head, {})["bias"] = outside.loose.pop(path)
    for names in ENDS:
        ours = [
            name
            for name, weights in outside.place.weights.items()
            if name in names and name not in outside.modules and not all(weight.optional for weight in weights)
        ]
        theirs = {path.rpartition(".")[0] for path in outside.loose} & names
        if len(ours) == 1 and len(theirs) == 1:
            other = theirs.pop()
            taken = [path for path in outside.loose if path.rpartition(".")[0] == other]
            outside.modules[ours[0]] = {path[len(other) + 1 :]: outside.loose.pop(path) for path in taken}
