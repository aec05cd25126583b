"""Calls of layers beside each other: whether two are alike, and what the second yields if the first stands for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from graphsim.models.capture.indices import INDEX_NAME

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.SymInt, torch.SymFloat)


class Difference(Exception):
    """Two calls are not alike: which argument, and how."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Of the tensors of a call, by path: those that are the very tensors of the call before, and the others."""

    same: frozenset[str]
    other: dict[str, torch.Tensor]


@dataclass(slots=True)
class Call:
    """What a layer was given, by the names of its arguments, and what it returned; who was passed over in its place."""

    layer: int
    given: dict[str, Any]
    result: Any = None
    paths: dict[int, str] = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    followers: dict[int, Shared] = field(default_factory=dict)
    _versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = arguments_by_path(self.given)
        self.paths = {id(value): path for path, value in reversed(values.items())}
        self._versions = {path: _version(value) for path, value in values.items()}

    def returned(self, result: Any) -> Any:
        """Note a result, and which arguments were written in place."""
        self.result = result
        values = arguments_by_path(self.given)
        self.changed = frozenset(p for p, before in self._versions.items() if _version(values.get(p)) != before)
        return result

    def odd_ones(self, layer: int, shared: Shared) -> tuple[set[int], str]:
        """The followers, or the layer that would be one, that were given another tensor where the rest share one."""
        for other, theirs in self.followers.items():
            for path in (shared.same & theirs.other.keys()) | (shared.other.keys() & theirs.other.keys()):
                if path in shared.same or shared.other[path] is theirs.other[path]:
                    return {other}, path
            for path in theirs.same & shared.other.keys():
                return {layer}, path
        return set(), ""


def arguments(run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names that a function knows them by, whether given by position or by name."""
    try:
        bound = inspect.signature(run).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return {**{str(i): arg for i, arg in enumerate(args)}, **kwargs}
    return dict(bound.arguments)


def arguments_by_path(given: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors, containers and other objects among nested arguments, by their place; no plain values."""
    return {path: value for path, value in _walk(given, "") if not isinstance(value, (*PLAIN, tuple))}


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if path:
        yield path, value
    for name, entry in _entries(value):
        yield from _walk(entry, f"{path}.{name}" if path else name)


def _entries(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(str(name), entry) for name, entry in value.items()]
    return [(str(i), entry) for i, entry in enumerate(value)] if isinstance(value, list | tuple) else []


def _version(value: Any) -> int:
    """How often a tensor was written to; 0 for what is no tensor or keeps no count."""
    return value._version if isinstance(value, torch.Tensor) and not value.is_inference() else 0


def compare(call: Call, layer: int, given: Mapping[str, Any]) -> Shared:
    """Set a layer's arguments beside those of an earlier call of a layer of its kind.

    Raises:
        Difference: they differ in structure, sizes, types or plain values; the layers' own indices may.
    """
    same: set[str] = set()
    other: dict[str, torch.Tensor] = {}
    for path, one, two in _pairs(call.given, given, ""):
        if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
            if _layout(one) != _layout(two):
                raise Difference(f"{path} has shape {_layout(two)[0]}, not {_layout(one)[0]}")
            if one is two:
                same.add(path)
            else:
                other[path] = two
        elif not _alike(path, one, two, call.layer, layer):
            raise Difference(f"{path} is {_text(two)}, not {_text(one)}")
    return Shared(frozenset(same), other)


def _pairs(one: Any, two: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Leaves side by side; a list or a dict that both were given is one and may have grown between the calls."""
    if isinstance(one, dict | list) and one is two:
        return
    if not isinstance(one, dict | list | tuple) or type(one) is not type(two):
        yield path, one, two
        return
    ones, twos = _entries(one), _entries(two)
    if [name for name, _ in ones] != [name for name, _ in twos]:
        raise Difference(f"{path or 'the call'} holds {[n for n, _ in twos]}, not {[n for n, _ in ones]}")
    for (name, a), (_, b) in zip(ones, twos, strict=True):
        yield from _pairs(a, b, f"{path}.{name}" if path else name)


def _layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tuple(map(_size, tensor.shape)), tensor.dtype, tensor.device


def _size(size: Any) -> Any:
    """A size that can be compared without a guard."""
    return size.node.expr if isinstance(size, torch.SymInt | torch.SymFloat) else size


def _alike(path: str, one: Any, two: Any, layer: int, other_layer: int) -> bool:
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.SymInt | torch.SymFloat):
        return bool(_size(one) == _size(two))
    if isinstance(one, int) and not isinstance(one, bool):
        is_index = INDEX_NAME.match(path.rpartition(".")[2]) is not None
        return one == two or is_index or one - layer == two - other_layer
    return bool(one == two) if isinstance(one, PLAIN) else True


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, PLAIN) else type(value).__name__


def stand_in(call: Call, given: Mapping[str, Any]) -> tuple[Any, list[torch.Tensor]]:
    """What a layer would return for its arguments if it did as the call did; and the tensors that are its doing.

    What the call returned of its own arguments is returned of these; all else is a new tensor of the same shape.
    """
    leaves, structure = tree_flatten(call.result, is_leaf=lambda value: id(value) in call.paths)
    made: dict[int, torch.Tensor] = {}
    found = [given[path] for path in call.changed if path in given]
    results: list[Any] = []
    for leaf in leaves:
        if id(leaf) in call.paths:
            results.append(given[call.paths[id(leaf)]])
        elif isinstance(leaf, torch.Tensor):
            if id(leaf) not in made:
                made[id(leaf)] = _fresh(leaf)
            results.append(made[id(leaf)])
        else:
            results.append(leaf)
    return tree_unflatten(results, structure), [*found, *made.values()]


def _fresh(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as another one, made where no mode sees it."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        return tensor.new_empty_strided(tensor.size(), tensor.stride())
