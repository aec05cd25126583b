"""The precision of a GGUF file: each module in the format of its own tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from graphsim.errors import ConfigError
from graphsim.files.ggml import BLOCKS
from graphsim.files.tensors import StoredTensor
from graphsim.models.checkpoint.division import Held, Parts, divide
from graphsim.models.checkpoint.expected import Place, Weight, places_of
from graphsim.models.checkpoint.storage import part_kind
from graphsim.models.config import ModelConfig
from graphsim.ops.formats import FORMATS, Format, format_of
from graphsim.ops.precision import ModuleFormat, ModuleFormats, Precision, load_precision

_TYPES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "NVFP4": "nvfp4_wo"}
"""Names here of llama.cpp's types, if they differ."""


def precision_of(model: ModelConfig, tensors: Mapping[str, StoredTensor], places: Sequence[Place]) -> Precision:
    """The most common format, with exceptions for modules in other formats; its name can be parsed to restore it."""
    own: dict[tuple[str, int], Format] = {}
    sizes: Counter[Format] = Counter()
    for held in divide(tensors, places).held:
        for weight, form in _formats(held):
            own[weight.template, weight.layer] = form
            sizes[form] += weight.elements
    inside = {form for (template, _), form in own.items() if "{}" in template and "+" not in form.name}
    usual = max(inside, key=lambda form: (sizes[form], form.name), default=FORMATS["bf16"])
    base = load_precision(usual.name)
    said = {
        (weight.template, weight.layer): weight.format or base.activations
        for place in places_of(model, base)
        for weights in (*place.weights.values(), *place.stacks.values())
        for weight in weights
    }
    return replace(
        base, modules=ModuleFormats(tuple(_entries({at: form for at, form in own.items() if form != said[at]})))
    )


def _entries(own: Mapping[tuple[str, int], Format]) -> Iterable[ModuleFormat]:
    """Modules whose format differs from the usual one, with the layers of each merged by format."""
    layers: dict[tuple[str, str], list[int]] = {}
    for (path, layer), form in own.items():
        layers.setdefault((path, form.name), []).append(layer)
    formats = {form.name: form for form in own.values()}
    for (path, name), found in sorted(layers.items()):
        yield ModuleFormat(path=path, format=formats[name], layers=tuple(sorted(found)) if "{}" in path else ())


def _formats(held: Held) -> Iterable[tuple[Weight, Format]]:
    """Every weight with a matrix, and the format of its tensors."""
    for below, parts in held.modules.items():
        for weight in held.place.weights[below]:
            if weight.matrix and (form := _format([parts])) is not None:
                yield weight, form
    for path, parts in held.stacks.items():
        for weight in held.place.stacks[path]:
            names = ("down",) if weight.down else ("gate_up", "gate", "up")
            chosen = [{name: tensor} for name, tensor in parts.items() if _expert_part(name) in names]
            if (form := _format(chosen)) is not None:
                yield weight, form
    loose = _format([{name: tensor} for name, tensor in held.loose.items() if len(tensor.shape or ()) > 1])
    if loose is not None:  # under another name: fused, or split in two
        for below, weights in held.place.weights.items():
            if below not in held.modules:
                yield from ((weight, loose) for weight in weights if weight.matrix and not weight.optional)


def _expert_part(name: str) -> str:
    words = [word for word in name.split(".") if word.endswith("_proj")]
    return words[0].removesuffix("_proj") if words else ""


def _format(several: Sequence[Parts]) -> Format | None:
    """The format of the main tensors; several are slices of one weight."""
    mains = [t for parts in several for part, t in parts.items() if _is_main(part) and t.elements]
    kinds = [t.dtype for t in mains]
    if len(set(kinds)) < 2:
        return _named(kinds[0]) if kinds else None
    return format_of("+".join(_named(kind).name for kind in sorted(kinds)))


def _named(dtype: str) -> Format:
    """The format of a tensor's type. Raises ConfigError for a type that is not a weight format."""
    found = format_of(_TYPES.get(dtype, dtype.lower()))
    if found is None:
        raise ConfigError(f"a weight in {dtype} is not known; allowed: {', '.join([*_TYPES, *BLOCKS])}")
    return found


def _is_main(part: str) -> bool:
    return part_kind(part.rpartition(".")[2]) == "main"
