"""Compares a model's structure with the tensors of its checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from graphsim.files.tensors import StoredTensor, StoredTensors
from graphsim.models.checkpoint.division import Division, divide
from graphsim.models.checkpoint.expected import places_of
from graphsim.models.checkpoint.loose import ResolvedTensors, settle
from graphsim.models.checkpoint.modules import module_problems
from graphsim.models.checkpoint.report import CheckpointReport, Difference
from graphsim.models.checkpoint.sizes import Wrong, explained, parameters
from graphsim.models.checkpoint.stacks import stack_problems
from graphsim.models.checkpoint.storage import part_kind
from graphsim.models.config import ModelConfig
from graphsim.ops.precision import load_precision
from graphsim.units import bytes_text

_FLOATS = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}

INDEX_TOLERANCE = 0.05
"""Relative tolerance between an index's total size and the structure's bytes: the total includes scales and buffers."""


def compare(config: ModelConfig, stored: StoredTensors) -> CheckpointReport:
    """Compare the structure with the checkpoint; the report lists every module that differs.

    If the config states no format, the structure's weights are assumed to be in the checkpoint's most common format.
    """
    usual = _usual_float(stored.tensors)
    precision = config.precision or load_precision(_FLOATS[usual])
    places = places_of(config, precision)
    structure_bytes = sum(weight.bytes for place in places for weight in place)
    division = divide(stored.tensors, places, config.model_type)
    wrong: Wrong = {}
    for own, below, difference in (*module_problems(division.held), *stack_problems(division.held)):
        wrong.setdefault((own.place.path, below), []).append(difference)
    settled = settle(division.held)
    differences = [each for found in wrong.values() for each in found]
    differences += [*settled.differences, *_beyond(division), *_total(stored, division, structure_bytes)]
    return CheckpointReport(
        model=config.name,
        source=stored.source,
        precision=precision.name,
        parameters=config.num_parameters,
        bytes=structure_bytes,
        checkpoint_parameters=parameters(division, wrong, settled) if stored.complete else None,
        checkpoint_bytes=stored.total_bytes,
        explained_bytes=sum(t.bytes for t in explained(division, wrong, settled)) if stored.complete else None,
        differences=tuple(dict.fromkeys(differences)),
        notes=tuple(_notes(division, settled, stored, usual)),
    )


def _usual_float(tensors: Mapping[str, StoredTensor]) -> str:
    """The most common format of unquantised matrices; BF16 if there are none."""
    matrices = (name for name, tensor in tensors.items() if tensor.dtype in _FLOATS and len(tensor.shape or ()) > 1)
    found = Counter(tensors[name].dtype for name in matrices if part_kind(name.rpartition(".")[2]) != "beside")
    return max(_FLOATS, key=lambda dtype: found[dtype])


def _beyond(division: Division) -> Iterator[Difference]:
    for scope, parts in division.beyond.items():
        first = next(iter(parts))
        text = f"{scope} is missing in the structure ({len(parts)} tensors: {first}{', …' if len(parts) > 1 else ''})"
        yield Difference(module=scope, text=text)


def _total(stored: StoredTensors, division: Division, structure_bytes: float) -> Iterator[Difference]:
    """A difference between an index's total size and the structure's, for checkpoints of unknown shapes and formats."""
    if stored.complete or division.left_out or not stored.total_bytes:
        return
    if abs(stored.total_bytes - structure_bytes) > INDEX_TOLERANCE * stored.total_bytes:
        text = (
            f"the whole model takes {bytes_text(structure_bytes)} in the format that the config says, "
            f"{bytes_text(stored.total_bytes)} in the checkpoint"
        )
        yield Difference(module="", text=text)


def _notes(division: Division, settled: ResolvedTensors, stored: StoredTensors, usual: str) -> Iterator[str]:
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
    if copies := list(_copies(division)):
        yield f"the checkpoint holds {copies[0]} although it is tied to another weight"
    if others := list(dict.fromkeys(_other_floats(division, usual))):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield f"stored in other floats than {usual}: {others[0]}{more}; engines load them in the model's format"


def _copies(division: Division) -> Iterator[str]:
    for own in division.held:
        for below, weights in own.place.weights.items():
            if below in own.modules and all(weight.optional for weight in weights):
                yield weights[0].module


def _other_floats(division: Division, usual: str) -> Iterator[str]:
    """Notes on matrices whose floats differ in width from the usual format."""
    for own in division.held:
        front = f"{own.place.label}." if own.place.label else ""
        for below, parts in (*own.modules.items(), *own.stacks.items(), ("", own.loose)):
            for part, tensor in parts.items():
                if tensor.dtype != usual and tensor.dtype in _FLOATS and len(tensor.shape or ()) > 1:
                    path = ".".join(name for name in (below, part) if name).removesuffix(".weight")
                    if part_kind(part.rpartition(".")[2]) != "beside" or not below:
                        yield f"{front}{path} ({tensor.dtype})"
