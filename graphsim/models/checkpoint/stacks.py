"""Compares experts of a structure with their tensors: one stack for all, or separate weights for each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from graphsim.models.checkpoint.division import Held, Parts
from graphsim.models.checkpoint.expected import Weight
from graphsim.models.checkpoint.modules import TOGETHER
from graphsim.models.checkpoint.report import Difference
from graphsim.models.checkpoint.storage import is_wide, matrix_problem, part_kind, vector_problem

_UP = (
    "gate_up_proj", "gate_proj", "up_proj", "w1", "w3", "w13", "v1", "fc1", "linear_1", "linear_v", "linear_fc1",
    "dense_h_to_4h", "input_linear", "gate_up", "gate", "up", "wi", "wi_0", "wi_1", "linear",
)  # fmt: skip
"""Names in checkpoints of an expert's first weight, or of its halves."""

_DOWN = (
    "down_proj", "w2", "w2_weight", "fc2", "linear_2", "linear_fc2", "dense_4h_to_h", "output_linear", "down", "wo",
)  # fmt: skip
"""Names in checkpoints of an expert's second weight."""

_STACKED = re.compile(r"(?P<name>.+?)(?:_(?P<part>blocks|scales|bias|weight_\w+|weight|scale_inv|scale\w*|qweight))?")

Experts = dict[str, dict[int, Parts]]
"""The parts of each expert's weights, by the weight's name; expert -1 if all are in one stack."""


def stack_problems(held: Sequence[Held]) -> Iterator[tuple[Held, str, Difference]]:
    """Every list of experts, or single expert, that differs from the structure, with its place."""
    lists = [parts for own in held for parts in own.stacks.values()]
    found = [(own, path, _experts(parts)) for own in held for path, parts in own.stacks.items()]
    seen = Counter(name for _, _, experts in found for name in experts)
    usual = _usual_stacks(found)
    for (own, path, experts), parts in zip(found, lists, strict=True):
        weights = own.place.stacks[path]
        label = weights[0].module.rpartition(".")[0]
        problems = list(_problems(weights, experts, seen))
        if not problems:
            stack = _stack_shapes(experts)
            problems = [
                (name, "is stored unlike the same weight of other layers")
                for name in stack
                if stack[name] != usual[own.place.kind, path].get(name)
            ]
        named = "expert_" if any(name.startswith("expert_") for name in parts) else ""  # Switch Transformers, NLLB
        for module, text in problems:
            module = f"{named}{module}" if module[:1].isdecimal() else module
            name = f"{label}.{module}" if module else label
            yield own, path, Difference(module=name, text=f"{name} {text}")


def _experts(parts: Parts) -> Experts:
    found: Experts = {}
    for path, tensor in parts.items():
        first, _, rest = path.partition(".")
        first = first.removeprefix("expert_")
        if first.isdecimal():
            name, _, part = rest.partition(".")
            found.setdefault(name, {}).setdefault(int(first), {})[part] = tensor
            continue
        name, part = path, ""
        if rest and (part_kind(rest) or part_kind(rest.rpartition(".")[2])):
            name, _, part = path.partition(".")
        elif "." not in path and (cut := _STACKED.fullmatch(path)) is not None:
            name, part = cut["name"], cut["part"] or ""
        found.setdefault(name, {}).setdefault(-1, {})[part] = tensor
    return found


def _stack_shapes(experts: Experts) -> dict[str, tuple[object, ...]]:
    """The shapes of tensors that are one stack for all experts."""
    return {
        name: tuple(sorted((part, tensor.shape) for part, tensor in found[-1].items()))
        for name, found in experts.items()
        if -1 in found
    }


def _usual_stacks(found: Sequence[tuple[Held, str, Experts]]) -> dict[tuple[int, str], dict[str, tuple[object, ...]]]:
    """For each kind of layer, the most common shapes."""
    counts: dict[tuple[int, str], Counter[tuple[object, ...]]] = {}
    for own, path, experts in found:
        counts.setdefault((own.place.kind, path), Counter())[tuple(sorted(_stack_shapes(experts).items()))] += 1
    return {key: dict(shapes.most_common(1)[0][0]) for key, shapes in counts.items()}  # type: ignore[arg-type]


def _problems(weights: Sequence[Weight], experts: Experts, seen: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Modules under the list, each with its problem.

    seen: number of layers that have each name
    """
    for name in experts:
        if name.rpartition(".")[2] not in (*_UP, *_DOWN) and seen[name] < TOGETHER:
            yield name, "is missing in the structure"
    downs = (*_DOWN, "linear_1") if "linear_v" in experts else _DOWN  # of Grok-1
    for weight in weights:
        own = [name for name in experts if (name.rpartition(".")[2] in downs) == weight.down]
        names = [name for name in own if name.rpartition(".")[2] in (*_UP, *_DOWN)] or own
        if not names:
            yield "", f"holds no weight for {weight.module.rpartition('.')[2]}, which the structure has"
        for name in names:
            yield from _weight_problems(weight, name, experts[name], len(names))


def _weight_problems(weight: Weight, name: str, found: Mapping[int, Parts], names: int) -> Iterator[tuple[str, str]]:
    n, k = weight.matrix or (0, 0)
    matrix = (n // names, k)
    if -1 in found:
        text = _problem(weight, found[-1], matrix, weight.experts, weight.bias // names)
        if text:
            yield name, text
        return
    missing = [i for i in range(weight.experts) if i not in found]
    yield from ((f"{i}.{name}", "is missing in the checkpoint") for i in missing)
    yield from ((f"{i}.{name}", "is missing in the structure") for i in found if i >= weight.experts)
    usual = Counter(_signature(parts) for parts in found.values()).most_common(1)[0][0]
    good: dict[object, str] = {}
    for i, parts in found.items():
        signature = _signature(parts)
        if signature not in good:
            good[signature] = _problem(weight, parts, matrix, 1, weight.bias // names // weight.experts)
        text = good[signature]
        if not text and signature != usual:
            text = "is stored unlike the other experts"
        if text:
            yield f"{i}.{name}", text


def _signature(parts: Parts) -> tuple[object, ...]:
    """The properties that all experts must share; floats of all widths count as the same."""
    return tuple(sorted((part, t.shape, "float" if is_wide(t) else t.dtype) for part, t in parts.items()))


def _problem(weight: Weight, parts: Parts, matrix: tuple[int, int], experts: int, bias: int) -> str:
    if any(tensor.shape is None for tensor in parts.values()):
        return ""
    strange = [part for part in parts if not part_kind(part)]
    if strange:
        return f"holds '{strange[0]}', which the structure does not have there"
    narrow = vector_problem(parts, beside_matrix=True)
    if narrow:
        return narrow
    found = sum(tensor.elements for part, tensor in parts.items() if part_kind(part) == "bias")
    if found != bias and not (found and "qweight" in parts):
        return f"has a bias of {found} weights, the structure one of {bias}"
    return matrix_problem(weight, parts, matrix, matrix[0] * matrix[1] * experts)
