"""A model's structure against the tensors of its checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from graphsim.files.tensors import StoredTensor, StoredTensors
from graphsim.models.checkpoint.division import Division, Held, Parts, divide
from graphsim.models.checkpoint.expected import Place, places_of
from graphsim.models.checkpoint.loose import Settled, settle
from graphsim.models.checkpoint.modules import module_problems
from graphsim.models.checkpoint.report import CheckpointReport, Difference
from graphsim.models.checkpoint.stacks import stack_problems
from graphsim.models.checkpoint.storage import part_kind
from graphsim.models.config import ModelConfig
from graphsim.ops.precision import Precision, load_precision
from graphsim.units import bytes_text

_FLOATS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_INDEX_TOLERANCE = 0.05
"""Share by which an index's total may differ from the structure's bytes: it counts scales and buffers."""


def compare(config: ModelConfig, stored: StoredTensors) -> CheckpointReport:
    """The structure and the checkpoint side by side, with every module that differs."""
    precision = config.precision or load_precision(_usual_float(stored.tensors.values()))
    places = places_of(config, precision)
    division = divide(stored.tensors, places)
    wrong: dict[tuple[str, str], list[Difference]] = {}
    for own, below, difference in (*module_problems(division.held), *stack_problems(division.held)):
        wrong.setdefault((own.place.path, below), []).append(difference)
    settled = settle(division.held)
    differences = [each for found in wrong.values() for each in found]
    differences += [*settled.differences, *_beyond(division)]
    structure_bytes = sum(weight.bytes for place in places for weight in _weights(place))
    if not stored.complete and not division.left_out:
        differences += _total_difference(stored, structure_bytes)
    explained = _explained(division, wrong, settled)
    return CheckpointReport(
        model=config.name,
        source=stored.source,
        precision=precision.name,
        parameters=config.num_parameters,
        bytes=structure_bytes,
        checkpoint_parameters=_parameters(division, wrong, settled) if stored.complete else None,
        checkpoint_bytes=stored.total_bytes,
        explained_bytes=sum(tensor.bytes for tensor in explained) if stored.complete else None,
        differences=tuple(dict.fromkeys(differences)),
        notes=tuple(_notes(division, settled, stored, precision)),
    )


def _weights(place: Place) -> Iterable:
    named = (*place.weights.values(), *place.stacks.values())
    return (*(weight for found in named for weight in found), *place.unnamed)


def _usual_float(tensors: Iterable[StoredTensor]) -> str:
    """The format that most bytes of unquantised weights are in."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.bytes
    return (
        max(_FLOATS, key=lambda dtype: (sizes[dtype], dtype == "BF16"))
        and _FLOATS[max(_FLOATS, key=lambda dtype: (sizes[dtype], dtype == "BF16"))]
    )


def _beyond(division: Division) -> list[Difference]:
    return [
        Difference(module=scope, text=f"{scope} is missing in the structure ({len(parts)} tensors: {_some(parts)})")
        for scope, parts in division.beyond.items()
    ]


def _some(names: Iterable[str]) -> str:
    first, *others = [name for name in names]
    return f"{first}, …" if others else first


def _total_difference(stored: StoredTensors, structure_bytes: float) -> list[Difference]:
    if not stored.total_bytes or abs(stored.total_bytes - structure_bytes) <= _INDEX_TOLERANCE * stored.total_bytes:
        return []
    text = (
        f"the whole model takes {bytes_text(structure_bytes)} in the format that the config says, "
        f"{bytes_text(stored.total_bytes)} in the checkpoint"
    )
    return [Difference(module="", text=text)]


def _explained(division: Division, wrong: dict, settled: Settled) -> list[StoredTensor]:
    """Tensors that are weights of the structure, or belong to them."""
    found = [tensor for parts in (division.cache_scales,) for tensor in parts.values()]
    for own in division.held:
        for below, parts in (*own.modules.items(), *own.stacks.items()):
            if (own.place.path, below) not in wrong:
                found += parts.values()
        found += settled.explained.get(own.place.path, [])
    return found


def _parameters(division: Division, wrong: dict, settled: Settled) -> int:
    """Weights of the checkpoint: as the structure counts what it explains, else as many as the shapes say."""
    total = 0
    for own in division.held:
        for below, parts in (*own.modules.items(), *own.stacks.items()):
            weights = own.place.weights.get(below) or own.place.stacks.get(below, [])
            right = (own.place.path, below) not in wrong
            total += sum(weight.elements for weight in weights) if right else _count(parts)
        renamed = own.place.path in settled.explained and own.loose
        total += _loose_count(own, settled) if renamed else _count(own.loose)
    return total + sum(_count(parts) for parts in (*division.beyond.values(), *division.left_out.values()))


def _loose_count(own: Held, settled: Settled) -> int:
    named = [ws for below, ws in own.place.weights.items() if below in settled.renamed and below not in own.modules]
    named += [ws for below, ws in own.place.stacks.items() if below in settled.renamed and below not in own.stacks]
    return sum(w.elements for ws in named for w in ws) + sum(weight.elements for weight in own.place.unnamed)


def _count(parts: Parts) -> int:
    return sum(t.elements for path, t in parts.items() if part_kind(path.rpartition(".")[2]) != "beside")


def _notes(division: Division, settled: Settled, stored: StoredTensors, precision: Precision) -> Iterable[str]:
    for name, parts in sorted(division.left_out.items()):
        size = sum(tensor.bytes for tensor in parts.values())
        much = f", {bytes_text(size)}" if size else ""
        yield f"the checkpoint holds {name} too, which is left out ({len(parts)} tensors{much})"
    if settled.renamed:
        ours, theirs = next(iter(settled.renamed.items()))
        more = f" and {len(settled.renamed) - 1} more" if len(settled.renamed) > 1 else ""
        yield f"the checkpoint has other names for {ours}{more}: {theirs}"
    if not stored.complete:
        yield "only the checkpoint's index is here, so names are compared and shapes are not"
    copies = [
        weights[0].module
        for own in division.held
        for below, weights in own.place.weights.items()
        if below in own.modules and all(weight.optional for weight in weights)
    ]
    if copies:
        yield f"the checkpoint holds {copies[0]} although it is tied to another weight"
