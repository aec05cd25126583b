"""An adapter's tensors compared with the model: every targeted module has its own tensors, in matching shapes.

Names as PEFT 0.21 saves them (`utils/save_and_load.py`, get_peft_model_state_dict): the module's path after
`base_model.model.`, then the parameter; without the adapter's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import networkx as nx

from graphsim.errors import ConfigError
from graphsim.lora.adapter_weights import AdapterTensors
from graphsim.lora.beside import Beside
from graphsim.lora.config import LoraConfig
from graphsim.lora.targets import Targets, modules_of
from graphsim.ops import Embedding, ExpertGemm, Gemm, Norm

NAMED = 3
"""Differences that an error names; it counts the others."""

_PREFIX = re.compile(r"^(base_model\.(model\.)?)?")

Shapes = dict[str, tuple[int, ...]]


def check_tensors(graph: nx.DiGraph, lora: LoraConfig, tensors: AdapterTensors) -> None:
    """Raise ConfigError, naming modules, if the tensors of a file do not match the adapter on the model."""
    tied = any(isinstance(op, Gemm) and op.head and op.shared for _, op in graph.nodes(data="op"))
    every = modules_of(graph, every=True)
    targets = Targets(lora, tied)
    expected = _expected(every, targets, Beside(lora=lora, tied=tied))
    stacks = _stacks(every, targets)
    paths = {path for _, path in every}
    found = {_name(key): shape for key, shape in tensors.shapes.items()}
    problems = list(_differences(expected, found, paths | {f"{path}.ln_tuning_layers" for path in paths}))
    problems += _differing_stacks(stacks, found)
    problems += [
        f"{name} is of no module of the model that the adapter is on"
        for name in found
        if name not in expected and _is_strange(name, lora, paths, {*stacks})
    ]
    if problems:
        more = f" (and {len(problems) - NAMED} more)" if len(problems) > NAMED else ""
        raise ConfigError(f"{tensors.path}: does not fit the model: {'; '.join(problems[:NAMED])}{more}")


def _expected(modules: list[tuple[Any, str]], targets: Targets, beside: Beside) -> Shapes:
    """The tensors that the adapter has, except for those of stacks of experts."""
    found: Shapes = {}
    lora = targets.lora
    for op, path in modules:
        if isinstance(op, ExpertGemm):
            continue
        key = targets.key(op, path) if lora.kind.copies or isinstance(op, Gemm | Embedding) else None
        if key is not None:
            rank = targets.rank(key, op)
            shapes = lora.kind.table_tensors(op, rank, lora) if isinstance(op, Embedding) else None
            shapes = lora.kind.tensors(op, rank, lora) if shapes is None else shapes
            found |= {f"{path}.{part}": _whole(shape) for part, shape in shapes.items()}
        if beside.is_copied(op, path) and type(op) in (Gemm, Embedding, Norm):
            found[path] = _weights(op)
        rows = beside.rows(op, path)
        if rows:
            width = op.width if isinstance(op, Embedding) else op.k
            part = "trainable_tokens_delta" if not lora.target_modules else "token_adapter.trainable_tokens_delta"
            found[f"{path}.{part}"] = _whole((rows, width))
    return found


def _stacks(modules: list[tuple[Any, str]], targets: Targets) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of the factors of each stack of experts, regardless of their order and orientation.

    PEFT 0.21 puts one pair of E r ranks on each parameter, and wrappers of several inside each other.
    """
    found: dict[str, list[tuple[int, ...]]] = {}
    for op, path in modules:
        if isinstance(op, ExpertGemm):
            own, key = found.setdefault(path.rpartition(".")[0], []), targets.key(op, path)
            if key is not None:
                ranks = op.of * targets.rank(key, op)
                own += [_whole(tuple(sorted((ranks, size)))) for size in (op.k, op.n)]
    return found


def _differing_stacks(stacks: Mapping[str, list[tuple[int, ...]]], found: Shapes) -> Iterator[str]:
    for stack, expected in stacks.items():
        factor = re.compile(rf"{re.escape(stack)}(\.base_layer)*\.lora_[AB]")
        own = [tuple(sorted(shape)) for name, shape in found.items() if factor.fullmatch(name)]
        each = any(re.match(rf"{re.escape(stack)}\.\d+\.", name) for name in found)  # names of experts in older files
        if sorted(own) != sorted(expected) and not each:
            shown = [list(shape) for shape in sorted(expected)]
            yield f"{stack} has factors of {[list(shape) for shape in sorted(own)]}, expected {shown} in any order"


def _weights(op: Any) -> tuple[int, ...]:
    """The shape of a module's own weights."""
    if isinstance(op, Norm):
        return _whole((op.width,))
    return _whole((op.entries, op.width) if isinstance(op, Embedding) else (op.n, op.k))


def _whole(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(round(float(size)) for size in shape)


def _differences(expected: Mapping[str, tuple[int, ...]], found: Shapes, turned: set[str]) -> Iterator[str]:
    """Tensors that are missing or of another shape.

    turned: weights that a Conv1D stores transposed
    """
    for name, shape in expected.items():
        if name not in found:
            yield f"{name} of {list(shape)} is missing"
        elif found[name] != shape and not (name in turned and found[name] == shape[::-1]):
            yield f"{name} has shape {list(found[name])}, expected {list(shape)}"


def _is_strange(name: str, lora: LoraConfig, paths: set[str], stacks: set[str]) -> bool:
    """Whether a tensor belongs to no module; one of a saved module, a bias, or a whole adapter's does."""
    if any(name.startswith(f"{stack}.") for stack in stacks) or "." not in name:
        return False
    part = name.rpartition(".")[2]
    if part in lora.kind.parts:
        return True
    parts = name.split(".")
    return not {".".join(parts[:i]) for i in range(1, len(parts) + 1)} & paths


def _name(key: str) -> str:
    """A tensor's name without the common prefix and suffix."""
    return _PREFIX.sub("", key, count=1).removesuffix(".weight")
