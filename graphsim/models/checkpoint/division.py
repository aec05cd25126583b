"""A checkpoint's tensors, distributed over the layers and modules of a structure."""

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
"""The tensors of one module, by their paths below it."""


@dataclass(slots=True)
class Held:
    """What the checkpoint holds of one place of the structure.

    modules: the parts of each module that the structure names
    stacks: the parts of each list of experts, by the path of the list
    loose: tensors that belong to none of them
    """

    place: Place
    modules: dict[str, Parts] = field(default_factory=dict)
    stacks: dict[str, Parts] = field(default_factory=dict)
    loose: Parts = field(default_factory=dict)

    def take(self, path: str, tensor: StoredTensor) -> None:
        """Give a tensor to the module with the longest path that it lies in."""
        rest = path[len(self.place.path) + 1 :] if self.place.path else path
        end = 0 if is_apart(rest) else len(rest)
        while end > 0:
            start = rest[:end]
            if start in self.place.weights:
                self.modules.setdefault(start, {})[rest[end + 1 :]] = tensor
                return
            if start in self.place.stacks and rest[end + 1 :] != "bias":  # of the experts' sum, not of one
                self.stacks.setdefault(start, {})[rest[end + 1 :]] = tensor
                return
            end = rest.rfind(".", 0, end)
        if "" in self.place.weights:
            self.modules.setdefault("", {})[rest] = tensor
        else:
            self.loose[rest] = tensor


@dataclass(slots=True)
class Division:
    """All of a checkpoint's tensors.

    beyond: by the first part of their paths, or their layer, those of which the structure has nothing
    left_out: the same, of towers and of layers that draft tokens
    """

    held: list[Held]
    beyond: dict[str, Parts]
    left_out: dict[str, Parts]
    buffers: Parts
    cache_scales: Parts


def divide(tensors: Mapping[str, StoredTensor], places: Iterable[Place], model_type: str = "") -> Division:
    """Deal every tensor out."""
    held = {place.path: Held(place) for place in places}
    out = Division(list(held.values()), {}, {}, {}, {})
    beyond: dict[str, Parts] = {}
    spell = Speller(model_type, _experts_in_turn(held, model_type))
    lists: dict[str, Parts | None] = {}  # of experts, by what stands in front of their numbers
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
    """What lies outside of all layers, where the path is of a part of one of its modules."""
    parts = path.split(".")
    fronts = (".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1))
    return outside if any(front in outside.place.weights for front in fronts) else None


def _experts_in_turn(held: Mapping[str, Held], model_type: str) -> int:
    """Experts in each of the lists that a checkpoint numbers one after the other; 0 where it has none."""
    if model_type not in IN_TURN:
        return 0
    stacks = (weights for own in held.values() for weights in own.place.stacks.values())
    return next((weights[0].experts for weights in stacks), 0)


def _list_of_experts(held: Mapping[str, Held], path: str) -> Parts | None:
    """Where the tensors of a list of experts go; None where the structure has no such list."""
    own = held.get(scope_of(path))
    below = path[len(own.place.path) + 1 :] if own is not None else ""
    return own.stacks.setdefault(below, {}) if own is not None and below in own.place.stacks else None


def _set_aside_outside(out: Division, outside: Held, known: set[str]) -> None:
    """Tensors of towers and drafts that lie outside of all layers, unless the structure has them without names."""
    unnamed = sum(weight.elements for weight in outside.place.unnamed)
    if unnamed and unnamed == sum(tensor.elements for tensor in outside.loose.values()):
        return
    for path in list(outside.loose):
        name = tower_of(path) or ("mtp" if is_draft(path) else "")
        if name and name not in known:
            out.left_out.setdefault(name, {})[path] = outside.loose.pop(path)


def _use_other_ends(outside: Held) -> None:
    """The embedding, the last norm and the head go by several names; a tied head's bias may lie beside it."""
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
