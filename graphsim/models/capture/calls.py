"""Comparison of layer calls: whether two calls are equivalent, and the results of a skipped call."""

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
    """Two calls are not equivalent; the message names the argument and how it differs."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The tensors of a call, compared with those of an earlier call.

    same: paths of the arguments that are the identical tensor objects in both calls
    other: the remaining tensors by path
    """

    same: frozenset[str]
    other: dict[str, torch.Tensor]


@dataclass(slots=True)
class Call:
    """A call of a layer that ran.

    layer: the layer's index
    given: arguments by name
    result: what the layer returned
    paths: path of each argument by the object's id
    changed: paths of the tensors that the layer wrote in place
    followers: layers that were skipped because this call represents them, with their tensors
    """

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
        """Store a result and which arguments were written in place; returns the result."""
        self.result = result
        values = arguments_by_path(self.given)
        self.changed = frozenset(p for p, before in self._versions.items() if _version(values.get(p)) != before)
        return result

    def odd_ones(self, layer: int, shared: Shared) -> tuple[set[int], str]:
        """The layers that get a different tensor where the others share one, and the path of that argument.

        layer: index of the layer that is about to be skipped
        shared: its tensors, compared with this call's
        Returns an empty set if all layers agree.
        """
        for other, theirs in self.followers.items():
            for path in (shared.same & theirs.other.keys()) | (shared.other.keys() & theirs.other.keys()):
                if path in shared.same or shared.other[path] is theirs.other[path]:
                    return {other}, path
            for path in theirs.same & shared.other.keys():
                return {layer}, path
        return set(), ""


def arguments(run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by parameter name, whether given by position or by keyword."""
    try:
        bound = inspect.signature(run).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return {**{str(i): arg for i, arg in enumerate(args)}, **kwargs}
    return dict(bound.arguments)


def arguments_by_path(given: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors, containers and other objects in nested arguments, by path; plain values are left out."""
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
    """Version counter of a tensor, which grows with each write; 0 for other values and for inference tensors."""
    return value._version if isinstance(value, torch.Tensor) and not value.is_inference() else 0


def compare(call: Call, layer: int, given: Mapping[str, Any]) -> Shared:
    """Compare a layer's arguments with those of an earlier call of a layer of the same kind.

    Raises:
        Difference: they differ in structure, sizes, types or plain values; only the layers' own indices may differ.
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
    """Pairs of leaves by path; a list or dict object that both calls share is skipped, as it may have grown."""
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
    """A size in a form that can be compared without adding a guard."""
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
    """The result of a skipped layer, and the tensors that it would have created or written.

    call: the call that represents the layer
    given: the layer's arguments by path
    Arguments that the call returned are replaced by the layer's own; every other tensor is a new one of the same shape.
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
    """A new tensor with the shape and strides of another one, created outside all dispatch modes."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        return tensor.new_empty_strided(tensor.size(), tensor.stride())
