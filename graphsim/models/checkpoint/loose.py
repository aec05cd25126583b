"""What is left when named modules have their tensors: missing modules, tensors without one, weights without names.

A structure does not name every weight (a scan's, sinks, corrections of a router), and a checkpoint may name modules
otherwise than transformers does. Both are settled layer by layer: layers of one kind must hold the same tensors, and
what they hold beyond the named modules must be as many weights as the structure has without a name. A module that is
missing in all layers, where a tensor of other name stands for it in all of them, goes by another name in the checkpoint.
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
from graphsim.models.checkpoint.storage import is_wide, part_kind

_PACKED = ("I32", "U8", "I8", "F8_E4M3", "F8_E5M2", "F4")


@dataclass(slots=True)
class Settled:
    """explained: loose tensors that stand for weights of the structure, by the place that holds them."""

    differences: list[Difference] = field(default_factory=list)
    explained: dict[str, list[StoredTensor]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


def settle(held: Sequence[Held]) -> Settled:
    """All that named modules leave open."""
    out = Settled()
    absent = _absent_everywhere(held)
    seen = Counter(path for own in held for path in own.loose)
    kinds: dict[int, list[Held]] = {}
    for own in held:
        kinds.setdefault(own.place.kind if own.place.path else -1, []).append(own)
    for layers in kinds.values():
        _settle_kind(layers, absent, seen, out)
    return out


def _missing(own: Held) -> dict[str, list[Weight]]:
    """Modules of the structure that have no tensor."""
    plain = {below: ws for below, ws in own.place.weights.items() if below not in own.modules}
    stacks = {below: ws for below, ws in own.place.stacks.items() if below not in own.stacks}
    return {below: ws for below, ws in (plain | stacks).items() if not all(weight.optional for weight in ws)}


def _absent_everywhere(held: Sequence[Held]) -> set[str]:
    """Modules that several layers of the structure have and no layer of the checkpoint."""
    wanted: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for own in held:
        if own.place.path:
            wanted.update([*own.place.weights, *own.place.stacks])
            lost.update(list(_missing(own)))
    return {below for below, times in lost.items() if times == wanted[below] >= TOGETHER}


def _settle_kind(layers: Sequence[Held], absent: set[str], seen: Mapping[str, int], out: Settled) -> None:
    names = Counter(_names(own) for own in layers)
    usual = max(names, key=lambda found: (names[found], len(found)))
    for own in layers:
        missing = _missing(own)
        if _names(own) != usual:
            out.differences += _odd(own, dict(usual), missing)
            continue
        named = {below: ws for below, ws in missing.items() if below in absent}
        wanted = sum(weight.elements for weight in own.place.unnamed)
        counts = {path: _elements(path, tensor, own) for path, tensor in own.loose.items()}
        found, sure = sum(counts.values()), sum(n for path, n in counts.items() if not is_correction(path))
        blind = any(tensor.shape is None for tensor in own.loose.values())
        often = all(seen[path] >= TOGETHER for path in own.loose)
        if (
            named
            and often
            and (blind or wanted + sum(w.elements for ws in named.values() for w in ws) in (found, sure))
        ):
            out.renamed |= {below: ", ".join(sorted({_module(path) for path in own.loose})) for below in named}
            missing = {below: ws for below, ws in missing.items() if below not in named}
        elif not (wanted in (found, sure) or (blind and wanted) or (wanted and _all_names_only(own))):
            out.differences += _unlike(own, wanted, found)
            out.differences += [_gone(ws) for ws in missing.values()]
            continue
        narrow = [path for path, tensor in own.loose.items() if not is_wide(tensor) and len(tensor.shape or ()) < 2]
        out.differences += [_narrow(own, path) for path in narrow if part_kind(path.rpartition(".")[2]) != "beside"]
        out.explained[own.place.path] = list(own.loose.values())
        out.differences += [_gone(ws) for ws in missing.values()]


def _all_names_only(own: Held) -> bool:
    return any(tensor.shape is None for parts in own.modules.values() for tensor in parts.values())


def _names(own: Held) -> tuple[tuple[str, tuple[int, ...] | None], ...]:
    return tuple(sorted((path, tensor.shape) for path, tensor in own.loose.items()))


def _module(path: str) -> str:
    return path.removesuffix(".weight").removesuffix(".bias")


def _elements(path: str, tensor: StoredTensor, own: Held) -> int:
    """Weights of a tensor that no module names; packed ones by the bits of the structure's own formats."""
    packed = any(other.dtype in _PACKED for other in own.loose.values())
    if packed and part_kind(path.rpartition(".")[2]) == "beside":
        return 0
    if tensor.dtype in ("I32", "U8"):
        forms = [w.format for ws in own.place.weights.values() for w in ws if w.format is not None]
        bits = min((form.bytes for form in forms), default=1.0) // 0.125
        return int(8 * tensor.bytes / bits) if bits else tensor.elements
    return tensor.elements


def _gone(weights: Sequence[Weight]) -> Difference:
    module = weights[0].module if not weights[0].experts else weights[0].module.rpartition(".")[0]
    return Difference(module=module, text=f"{module} is missing in the checkpoint")


def _narrow(own: Held, path: str) -> Difference:
    name = f"{own.place.label}.{path}" if own.place.label else path
    text = f"{name} is stored in {own.loose[path].dtype}, the structure in 16 bits or more"
    return Difference(module=name, text=text)


def _odd(own: Held, usual: dict[str, tuple[int, ...] | None], missing: dict[str, list[Weight]]) -> Iterator[Difference]:
    """A layer whose loose tensors are not those of the other layers of its kind."""
    label = f"{own.place.label}." if own.place.label else ""
    for path, shape in usual.items():
        if path not in own.loose:
            name = label + path
            yield Difference(module=name, text=f"{name} is missing in the checkpoint, other layers have it")
        elif own.loose[path].shape != shape:
            name = label + path
            text = f"{name} has shape {list(own.loose[path].shape or ())}, in other layers it is {list(shape or ())}"
            yield Difference(module=name, text=text)
    for path in own.loose:
        if path not in usual:
            name = label + path
            yield Difference(module=name, text=f"{name} is missing in the structure")
    yield from (_gone(weights) for weights in missing.values())


def _unlike(own: Held, wanted: int, found: int) -> list[Difference]:
    """A layer that holds other weights without names than the structure has."""
    label = own.place.label
    if wanted:
        roles = ", ".join(dict.fromkeys(weight.role for weight in own.place.unnamed))
        listed = ", ".join(sorted(own.loose)[:4]) or "no tensor"
        where = label or "outside of the layers"
        text = f"{where}: {roles} have {wanted} weights in the structure, {found} in the checkpoint ({listed})"
        return [Difference(module=f"{label}.{roles}" if label else roles, text=text)]
    modules = dict.fromkeys(_module(path) for path in own.loose)
    names = [f"{label}.{module}" if label else module for module in modules]
    return [Difference(module=name, text=f"{name} is missing in the structure") for name in names]
