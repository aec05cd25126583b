"""compressed-tensors: groups of targets, each with a scheme, and a list of ignored modules.

compressed-tensors 0.15, `utils/match.py` (`is_match`, `match_targets`), `quantization/quant_args.py` and
`quantization/lifecycle/apply.py`: an exact name takes precedence over a pattern, a pattern over a class, and `ignore`
over all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from graphsim.files.reading import Fields
from graphsim.models.huggingface.quantisation.names import Test, is_linear, is_output, regular
from graphsim.models.huggingface.quantisation.stored import Stored, cache_format, refused, strings
from graphsim.models.quantised import Kind, Module
from graphsim.ops.formats import FORMATS, Format, fp8_blocks, weight_only
from graphsim.units import bounds_text

_LINEAR = ("Linear", "ColumnParallelLinear", "RowParallelLinear", "LinearBase")
_SPARSE = ("sparse-24-bitmask", "sparse-bitmask", "marlin-24")


def compressed_tensors(quant: Fields) -> Stored | None:
    """The format of each module is that of the group whose target matches it most specifically."""
    layout = quant.text("format", "dense")
    sparsity = quant.mapping("sparsity_config", lenient=True)
    if layout in _SPARSE or sparsity.text("format", "dense") in _SPARSE:
        refused(quant, "a sparse format of compressed-tensors")
        return None
    groups = quant.mapping("config_groups", lenient=True)
    targets: dict[str, Format | None] = {}
    for name in groups.data:
        group = groups.mapping(name, lenient=True)
        own = _scheme(group, group.text("format", layout))
        for target in strings(group, "targets") or ["Linear"]:
            targets.setdefault(target, own)
    ignored = strings(quant, "ignore") or []
    left_out, ignored_patterns = set(ignored), [test for _, test in _patterns(quant, ignored)]
    all_ignored = any(name in left_out for name in _LINEAR)
    patterns = _patterns(quant, sorted(targets))
    by_class = next((targets[name] for name in _LINEAR if name in targets), None)
    tables = targets.get("Embedding")

    def choose(module: Module) -> Format | None:
        names = [name for part in module.names for name in part]
        if any(name in left_out or any(test(name) for test in ignored_patterns) for name in names):
            return None
        if all_ignored and module.kind is not Kind.TABLE:
            return None
        for name in names:
            if name in targets:
                return targets[name]
        for entry, test in patterns:
            if (module.kind is not Kind.TABLE or "emb" in entry) and any(test(name) for name in names):
                return targets[entry]
        if module.kind is Kind.TABLE:
            return tables
        return by_class if is_linear(module) or is_output(module) else None

    return Stored(choose=choose, cache=_cache(quant))


def _patterns(quant: Fields, entries: list[str]) -> list[tuple[str, Test]]:
    """The entries that are patterns (starting with `re:`), each with its test."""
    found: list[tuple[str, Test]] = []
    for entry in entries:
        if entry.startswith("re:"):
            try:
                found.append((entry, regular(entry[3:])))
            except re.error as error:
                quant.problems.append(f"quantization_config: '{entry}' is not a regular expression ({error})")
    return found


def _scheme(group: Fields, layout: str) -> Format | None:
    """The format of a group's weights; None if they are not quantised."""
    if group.raw("weights") is None:
        return None
    weights = group.mapping("weights", lenient=True)
    bits = weights.integer("num_bits", 8, least=1, most=16)
    inputs = group.raw("input_activations")
    width = inputs.get("num_bits", 8) if isinstance(inputs, Mapping) else 16
    size = weights.raw("group_size")
    of_groups = size if isinstance(size, int) and size > 0 else 0
    strategy = weights.text("strategy", "group" if of_groups else "channel" if size == -1 else "tensor")
    of_groups = 0 if strategy in ("channel", "tensor", "block") else of_groups
    if bits == 16:
        return None
    if weights.text("type", "int") == "int":
        return _integers(weights, bits, width, of_groups, layout)
    return _floats(weights, bits, width, of_groups, strategy)


def _integers(weights: Fields, bits: int, width: int, group: int, layout: str) -> Format:
    zeros, ordered = not weights.flag("symmetric", True), weights.raw("actorder") in ("group", True)
    if bits == 8 and width == 8 and not group:
        return FORMATS["int8"]
    stored = 8 if layout == "int-quantized" else bits  # one value per byte, regardless of its bits
    return weight_only(stored, group, zeros=zeros, ordered=ordered)


def _floats(weights: Fields, bits: int, width: int, group: int, strategy: str) -> Format | None:
    if bits == 8:
        if strategy == "block":
            return fp8_blocks(*_block(weights))
        if group:
            return FORMATS["mxfp8"] if group == 32 else fp8_blocks(1, group)
        return FORMATS["fp8_wo" if width >= 16 else "fp8" if strategy == "tensor" else "fp8_channel"]
    if bits == 6:
        return FORMATS["mxfp6"]
    if bits == 4 and group == 32:
        return FORMATS["mxfp4_w4a4" if width == 4 else "mxfp4"]
    if bits == 4:
        return FORMATS["nvfp4_wo" if width >= 16 else "nvfp4"]
    refused(weights, f"weights of {bits} floating-point bits")
    return None


def _block(weights: Fields) -> tuple[int, int]:
    sizes = weights.sequence("block_structure", most=2) or [128, 128]
    if len(sizes) != 2 or not all(isinstance(size, int) and 0 < size <= 10_000 for size in sizes):
        weights.problem("block_structure", f"is not allowed; expected two whole numbers {bounds_text(1, 10_000)}")
        return 128, 128
    return sizes[0], sizes[1]


def _cache(quant: Fields) -> Format | None:
    if quant.raw("kv_cache_scheme") is None:
        return None
    cache = quant.mapping("kv_cache_scheme", lenient=True)
    return cache_format(cache.integer("num_bits", 8, most=16), cache.text("type", "int") == "float")


METHODS = {"compressed-tensors": compressed_tensors}
