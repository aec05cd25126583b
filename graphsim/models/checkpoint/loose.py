"""What remains after tensors are assigned to named modules: missing modules, loose tensors, unnamed weights.

A structure does not name every weight (those of a scan, sinks, corrections of a router), and a checkpoint may name
modules differently from transformers. Both are resolved layer by layer: layers of one kind must hold the same tensors,
and the tensors outside named modules must have as many weights as the structure has without names. If a module is
missing in all layers, and all have tensors of other names that match it, it has another name in the checkpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from graphsim.files.tensors import StoredTensor
from graphsim.models.checkpoint.division import Held
from graphsim.models.checkpoint.expected import Weight
from graphsim.models.checkpoint.modules import TOGETHER
from graphsim.models.checkpoint.names import is_correction
from graphsim.models.checkpoint.report import Difference
from graphsim.models.checkpoint.storage import TOLERANCE, is_wide, part_kind

_PACKED = ("I32", "U8", "I8", "F8_E4M3", "F8_E5M2", "F4")


Shape = tuple[int, ...] | None

_OPEN = (-1,)
"""Stands for the usual shape if two shapes are equally frequent."""


@dataclass(slots=True)
class ResolvedTensors:
    """How loose tensors were resolved.

    explained: places whose loose tensors match weights of the structure
    renamed: modules with other names in the checkpoint, and those names
    """

    differences: list[Difference] = field(default_factory=list)
    explained: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)


def settle(held: Sequence[Held]) -> ResolvedTensors:
    """Resolve everything that is not in named modules."""
    out = ResolvedTensors()
    absent = _absent_everywhere(held)
    seen = Counter(path for own in held for path in own.loose)
    wide = {path for own in held for path, tensor in own.loose.items() if is_wide(tensor)}
    shapes = Counter((path, tensor.shape) for own in held for path, tensor in own.loose.items())
    often = {(path, tensor.shape) for own in held for path, tensor in own.loose.items() if seen[path] >= TOGETHER}
    kinds: dict[int, list[Held]] = {}
    for own in held:
        kinds.setdefault(own.place.kind, []).append(own)
    for layers in kinds.values():
        first, *others = Counter(_names(own) for own in layers).most_common(2)
        usual = dict(first[0])
        if others and others[0][1] == first[1]:  # it is unknown which of them is correct
            usual = {path: shape if usual.get(path, shape) == shape else _OPEN for path, shape in others[0][0]} | {
                path: shape for path, shape in usual.items() if path not in dict(others[0][0])
            }
        for own in layers:
            if dict(_names(own)) == usual:
                out.differences += [*_lonely(own, seen, often), *_turned(own, shapes), *_narrow(own, wide)]
                _settle_place(own, absent, seen, out)
            else:
                out.differences += [*_odd(own, usual), *map(_gone, _missing(own).values())]
    return out


def _missing(own: Held) -> dict[str, list[Weight]]:
    """Modules of the structure without tensors."""
    plain = {below: ws for below, ws in own.place.weights.items() if below not in own.modules}
    stacks = {below: ws for below, ws in own.place.stacks.items() if below not in own.stacks}
    return {below: ws for below, ws in (plain | stacks).items() if not all(w.optional and not w.bias for w in ws)}


def _absent_everywhere(held: Sequence[Held]) -> set[tuple[str, str]]:
    """Modules, with their lists of layers, that several of these layers should have and none has in the checkpoint."""
    wanted: Counter[tuple[str, str]] = Counter()
    lost: Counter[tuple[str, str]] = Counter()
    for own in held:
        if own.place.path:
            layers = own.place.path.rpartition(".")[0]
            wanted.update((layers, below) for below in (*own.place.weights, *own.place.stacks))
            lost.update((layers, below) for below in _missing(own))
    return {each for each, times in lost.items() if times == wanted[each] >= TOGETHER}


def _settle_place(own: Held, absent: set[tuple[str, str]], seen: Mapping[str, int], out: ResolvedTensors) -> None:
    """Resolve one layer whose loose tensors are the same as those of the others of its kind."""
    missing = _missing(own)
    layers = own.place.path.rpartition(".")[0]
    named = {below: ws for below, ws in missing.items() if (layers, below) in absent}
    unnamed = sum(weight.elements for weight in own.place.unnamed)
    often = all(seen[path] >= TOGETHER for path in own.loose)
    renamed = bool(named) and often and _stands_for(own, named, unnamed)
    if renamed:
        out.renamed |= {below: ", ".join(sorted({_module(path) for path in own.loose})) for below in named}
        missing = {below: ws for below, ws in missing.items() if below not in named}
        out.differences += _other_bytes(own, named)
    elif not _stands_for(own, {}, unnamed):
        out.differences += [*_unlike(own, unnamed), *map(_gone, missing.values())]
        return
    out.explained.add(own.place.path)
    out.differences += map(_gone, missing.values())


def _stands_for(own: Held, named: Mapping[str, list[Weight]], unnamed: int) -> bool:
    """Whether the loose tensors have as many weights as the renamed modules and the unnamed weights together."""
    known = (*own.loose.values(), *(tensor for parts in own.modules.values() for tensor in parts.values()))
    if any(tensor.shape is None for tensor in known):
        return bool(own.loose) == bool(named or unnamed)
    wanted = unnamed + sum(weight.elements for ws in named.values() for weight in ws)
    counts = {path: _elements(path, tensor, own) for path, tensor in own.loose.items()}
    return wanted in (sum(counts.values()), sum(n for path, n in counts.items() if not is_correction(path)))


def _elements(path: str, tensor: StoredTensor, own: Held) -> int:
    """Number of weights in a tensor outside all modules; those of packed ones follow from the structure's formats."""
    packed = any(other.dtype in _PACKED for other in own.loose.values())
    if packed and part_kind(path.rpartition(".")[2]) == "beside":
        return 0
    if tensor.dtype in ("I32", "U8"):
        forms = [w.format for ws in own.place.weights.values() for w in ws if w.format is not None]
        bits = min((form.bytes for form in forms), default=1.0) // 0.125
        return int(8 * tensor.bytes / bits) if bits else tensor.elements
    return tensor.elements


def _names(own: Held) -> tuple[tuple[str, tuple[int, ...] | None], ...]:
    return tuple(sorted((path, tensor.shape) for path, tensor in own.loose.items() if not is_correction(path)))


def _module(path: str) -> str:
    return path.removesuffix(".weight").removesuffix(".bias")


def _full(own: Held, path: str) -> str:
    return f"{own.place.label}.{path}" if own.place.label else path


def _gone(weights: Sequence[Weight]) -> Difference:
    module = weights[0].module if not weights[0].experts else weights[0].module.rpartition(".")[0]
    return Difference(module=module, text=f"{module} is missing in the checkpoint")


def _other_bytes(own: Held, named: Mapping[str, list[Weight]]) -> Iterator[Difference]:
    """Renamed modules whose tensors are not in the format that the config states."""
    stored = sum(tensor.bytes for tensor in own.loose.values())
    expected = sum(w.bytes for ws in named.values() for w in ws) + sum(w.bytes for w in own.place.unnamed)
    if stored and abs(stored - expected) > 2 * TOLERANCE * max(stored, expected) + 4096.0:
        modules = ", ".join(dict.fromkeys(_full(own, _module(path)) for path in own.loose))
        text = f"{modules} take {stored} bytes, {expected:.0f} in the format that the config says"
        yield Difference(module=_full(own, _module(next(iter(own.loose)))), text=text)


def _narrow(own: Held, wide: set[str]) -> Iterator[Difference]:
    """Narrow tensors of weights that are never quantised (such as vectors), or have 16 bits or more in other layers."""
    for path, tensor in own.loose.items():
        vector = len(tensor.shape or ()) < 2 and part_kind(path.rpartition(".")[2]) != "beside"
        if not is_wide(tensor) and (vector or path in wide or not _missing(own)):
            name = _full(own, path)
            yield Difference(module=name, text=f"{name} is stored in {tensor.dtype}, the structure in 16 bits or more")


def _lonely(own: Held, seen: Mapping[str, int], often: set[tuple[str, Shape]]) -> Iterator[Difference]:
    """Tensors of only one layer, which lacks a tensor of the same shape that several others have."""
    for path, tensor in own.loose.items():
        if seen[path] == 1 and len(own.loose) > 1:
            other = next((name for name, shape in often if shape == tensor.shape and name not in own.loose), None)
            if other is not None and own.place.path and other.rpartition(".")[0] == path.rpartition(".")[0]:
                name = _full(own, path)
                text = f"{name} is missing in the structure; other layers have {other.rpartition('.')[2]}"
                yield Difference(module=name, text=text)


def _turned(own: Held, shapes: Mapping[tuple[str, Shape], int]) -> Iterator[Difference]:
    """Matrices that are transposed relative to those of the same name in all other layers."""
    for path, tensor in own.loose.items():
        shape = tensor.shape or ()
        if len(shape) == 2 and shapes[path, shape] == 1 and shapes.get((path, shape[::-1]), 0) >= TOGETHER:
            name = _full(own, path)
            text = f"{name} has shape {list(shape)}, in other layers it is {list(shape[::-1])}"
            yield Difference(module=name, text=text)


def _odd(own: Held, usual: Mapping[str, tuple[int, ...] | None]) -> Iterator[Difference]:
    """Differences of a layer whose loose tensors are not those of the other layers of its kind."""
    for path in {**usual, **{path: None for path in own.loose if not is_correction(path)}}:
        name = _full(own, path)
        if path not in own.loose:
            yield Difference(module=name, text=f"{name} is missing in the checkpoint, other layers have it")
        elif path not in usual:
            yield Difference(module=name, text=f"{name} is missing in the structure")
        elif own.loose[path].shape != usual[path]:
            others = (
                "unlike other layers" if usual[path] == _OPEN else f"in other layers it is {list(usual[path] or ())}"
            )
            shapes = f"{list(own.loose[path].shape or ())}, {others}"
            yield Difference(module=name, text=f"{name} has shape {shapes}")


def _unlike(own: Held, unnamed: int) -> Iterator[Difference]:
    """The difference of a layer whose unnamed weights are not those of the structure."""
    if unnamed:
        roles = ", ".join(dict.fromkeys(weight.role for weight in own.place.unnamed))
        found = sum(_elements(path, tensor, own) for path, tensor in own.loose.items())
        listed = ", ".join(sorted(own.loose)[:4]) or "no tensor"
        where = own.place.label or "outside of the layers"
        text = f"{where}: {roles} have {unnamed} weights in the structure, {found} in the checkpoint ({listed})"
        yield Difference(module=_full(own, roles), text=text)
        return
    for name in dict.fromkeys(_full(own, _module(path)) for path in own.loose):
        yield Difference(module=name, text=f"{name} is missing in the structure")
