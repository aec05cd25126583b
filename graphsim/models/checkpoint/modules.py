"""Compares named modules of a structure with their tensors: sizes, shapes, formats and missing parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from graphsim.models.checkpoint.division import Held, Parts
from graphsim.models.checkpoint.expected import Weight
from graphsim.models.checkpoint.report import Difference
from graphsim.models.checkpoint.storage import is_turned, matrix_problem, part_kind, vector_problem

TOGETHER = 2
"""Minimum number of layers for a way of storing a module to count as the checkpoint's convention."""


def module_problems(held: Sequence[Held]) -> Iterator[tuple[Held, str, Difference]]:
    """Every module of the checkpoint that differs from the structure, with its place."""
    turned = _turned_everywhere(held)
    usual = _usual_shapes(held)
    for own in held:
        for below, parts in own.modules.items():
            weights = own.place.weights[below]
            text = _problem(weights, parts, below in turned)
            if not text and own.place.path and usual[own.place.kind, below] != _shapes(parts):
                text = f"has {_shapes_text(parts)}, unlike the same module of other layers"
            if text:
                yield own, below, Difference(module=weights[0].module, text=f"{weights[0].module} {text}")


def _problem(weights: Sequence[Weight], parts: Parts, turned: bool) -> str:
    """The problem with a module, as the end of a sentence."""
    if any(tensor.shape is None for tensor in parts.values()):
        return ""
    strange = [part for part in parts if not part_kind(part)]
    if strange:
        return f"holds '{strange[0]}', which the structure does not have there"
    matrix = next((weight for weight in weights if weight.matrix), None)
    narrow = vector_problem(parts, matrix is not None)
    if narrow:
        return narrow
    if matrix is None:
        wanted = sum(weight.elements for weight in weights)
        counted = {part: tensor for part, tensor in parts.items() if part_kind(part) != "beside"}
        found = sum(tensor.elements for tensor in (counted or parts).values())  # Grok's norms call their weights scales
        if found != wanted:
            return f"has {found} weights, the structure {wanted}"
        return "" if _are_alike(parts) else f"has {_shapes_text(parts)}, entries of unlike shapes"
    bias = sum(tensor.elements for part, tensor in parts.items() if part_kind(part) == "bias")
    if bias != matrix.bias and not (bias and "qweight" in parts):  # GPTQ writes biases of zeros
        return f"has a bias of {bias} weights, the structure one of {matrix.bias}"
    if not turned and is_turned(parts, matrix.matrix or (0, 0)):
        return f"has {_shapes_text(parts)}, the structure asks for {list(matrix.matrix or ())}"
    n, k = matrix.matrix or (0, 0)
    if matrix.optional and all(part_kind(part) == "bias" for part in parts):
        return ""
    return matrix_problem(matrix, parts, (n, k), max(n * k, matrix.elements - matrix.bias))


def _are_alike(parts: Parts) -> bool:
    """Whether the entries of a list of modules have the same shapes."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    numbered = ((path.partition("."), tensor.shape) for path, tensor in parts.items())
    return all(not first.isdecimal() or shapes.setdefault(rest, shape) == shape for (first, _, rest), shape in numbered)


def _turned_everywhere(held: Sequence[Held]) -> set[str]:
    """Modules that are stored with inputs first in every layer that has them, as in GPT-2."""
    seen: Counter[str] = Counter()
    turned: Counter[str] = Counter()
    for own in held:
        if not own.place.path:
            continue
        for below, parts in own.modules.items():
            matrix = next((weight.matrix for weight in own.place.weights[below] if weight.matrix), None)
            seen[below] += 1
            turned[below] += matrix is not None and is_turned(parts, matrix)
    return {below for below, times in turned.items() if times == seen[below] >= TOGETHER}


def _shapes(parts: Parts) -> tuple[object, ...]:
    return tuple(sorted((part, tensor.shape) for part, tensor in parts.items()))


def _usual_shapes(held: Sequence[Held]) -> dict[tuple[int, str], tuple[object, ...] | None]:
    """For each kind of layer and module, the most common shapes of its parts; None if there is no majority."""
    counts: dict[tuple[int, str], Counter[tuple[object, ...]]] = {}
    for own in held:
        for below, parts in own.modules.items():
            counts.setdefault((own.place.kind, below), Counter())[_shapes(parts)] += 1
    usual: dict[tuple[int, str], tuple[object, ...] | None] = {}
    for key, found in counts.items():
        first, *others = found.most_common(2)
        usual[key] = None if others and others[0][1] == first[1] else first[0]
    return usual


def _shapes_text(parts: Parts) -> str:
    return ", ".join(f"{part or 'weight'} {list(tensor.shape or ())}" for part, tensor in sorted(parts.items()))
