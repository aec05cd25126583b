"""Classification of the layers of a model's stacks into kinds, from the modules alone.

Two layers are of one kind if their classes, parameters, buffers and settings are equal, every per-layer list in the
config has equal entries for both, and every condition on the layer's own index has the same value in both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import nn

from graphsim.models.capture.indices import answers_about, index_settings

LAYER_LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
BARE_LISTS = (nn.ModuleList, nn.ModuleDict)
INDEX_LIST = re.compile(r"_(ids|idxs?|indices|indexes|layers)$")

Settings = dict[tuple[str, str], Hashable]
"""Attribute values, by the module's path below the layer and the attribute's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The layers in one container of a model.

    path: path of the container, such as `model.layers`; `layers.*` for the elements of nested lists, one after another
    names: full path of each layer, in order
    keys: kind of each layer, numbered from 0 in the order in which kinds first appear
    """

    path: str
    names: tuple[str, ...]
    keys: tuple[int, ...]

    def first(self) -> frozenset[int]:
        """Indices of the first layer of each kind."""
        return frozenset(self.keys.index(kind) for kind in set(self.keys))


class _Layer(NamedTuple):
    name: str
    position: int
    module: nn.Module


def kinds(model: nn.Module) -> list[Stack]:
    """The stacks of a model, each before the stacks inside its layers.

    Stacks inside a layer are left out if an earlier layer is of the same kind.
    """
    users = _held(model)
    found: list[Stack] = []
    alike: set[str] = set()

    def visit(module: nn.Module, path: str, config: object, in_list: bool) -> None:
        config = getattr(module, "config", config)
        for stack_path, layers in [] if isinstance(module, BARE_LISTS) and in_list else _stacks_in(module, path):
            stack = Stack(
                path=stack_path,
                names=tuple(layer.name for layer in layers),
                keys=numbered(_keys(layers, config, users)),
            )
            found.append(stack)
            alike.update(name for i, name in enumerate(stack.names) if i not in stack.first())
        for name, child in _children(module):
            inner = f"{path}.{name}" if path else name
            if inner not in alike:
                visit(child, inner, config, isinstance(module, LAYER_LISTS))

    visit(model, "", None, False)
    return found


def numbered(keys: Sequence[Hashable]) -> tuple[int, ...]:
    """Keys numbered from 0 in the order in which they first appear."""
    numbers: dict[Hashable, int] = {}
    return tuple(numbers.setdefault(key, len(numbers)) for key in keys)


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module._modules.items() if child is not None]


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t for name, t in (*module._parameters.items(), *module._buffers.items()) if t is not None}


def _stacks_in(module: nn.Module, path: str) -> Iterator[tuple[str, list[_Layer]]]:
    """The stacks whose container is this module; layers without submodules are ignored."""
    if not isinstance(module, LAYER_LISTS):
        return
    layers: list[_Layer] = []
    parts: list[_Layer] = []
    for position, (name, child) in enumerate(_children(module)):
        own = f"{path}.{name}" if path else name
        if isinstance(child, BARE_LISTS):
            inner = [(f"{own}.{part}", layer) for part, layer in _children(child) if not isinstance(layer, BARE_LISTS)]
            parts += [_Layer(name, position, layer) for name, layer in inner if layer._modules]
        elif child._modules:
            layers.append(_Layer(own, position, child))
    for stack, found in ((path, layers), (f"{path}.*" if path else "*", parts)):
        if len(found) > 1:
            yield stack, found


def _keys(layers: list[_Layer], config: object, users: Mapping[int, int]) -> list[Hashable]:
    settings = [_settings(layer.module) for layer in layers]
    indices = index_settings([layer.position for layer in layers], settings)
    lists = _lists(config, layers[-1].position + 1, set())
    holders = Counter(t for layer in layers for t in _held(layer.module))
    keys: list[Hashable] = []
    for layer, given in zip(layers, settings, strict=True):
        modules = list(layer.module.named_modules())
        shared = {t for t, times in _held(layer.module).items() if holders[t] > 1 or users[t] > times}
        structure = [(name, type(module), module.training, *_shapes(module, shared)) for name, module in modules]
        own = {where: value for where, value in given.items() if where not in indices}
        answers = [
            (name, answer)
            for name, module in modules
            for answer in answers_about(module, {attribute for inner, attribute in indices if inner == name})
        ]
        entries = [_plain(entry[layer.position]) for entry in lists]
        keys.append((tuple(structure), tuple(own.items()), tuple(answers), tuple(entries)))
    return keys


def _held(module: nn.Module) -> Counter[int]:
    """Number of modules inside a module that hold each tensor, by the tensor's id."""
    return Counter(id(t) for inner in module.modules() for t in _tensors(inner).values())


def _shapes(module: nn.Module, shared: set[int]) -> tuple[Hashable, ...]:
    """Names, types, shapes and data types of parameters and buffers; tensors shared between layers also by identity."""
    return tuple(
        (name, type(t), tuple(t.shape), t.dtype, id(t) if id(t) in shared else 0)
        for name, t in _tensors(module).items()
    )


def _settings(layer: nn.Module) -> Settings:
    return {
        (name, attribute): _plain(value)
        for name, module in layer.named_modules()
        for attribute, value in vars(module).items()
        if not attribute.startswith("_") and attribute not in ("training", "forward")
        if module.training or "drop" not in attribute
    }


def _plain(value: Any) -> Hashable:
    """A hashable form of a value, equal for equivalent values."""
    match value:
        case None | bool() | int() | float() | str() | torch.dtype() | torch.device() | torch.Size():
            return value
        case list() | tuple():
            return (type(value).__name__, *map(_plain, value))
        case set() | frozenset():
            return frozenset(map(_plain, value))
        case dict():
            return tuple((_plain(key), _plain(entry)) for key, entry in value.items())
        case torch.Tensor():
            return (tuple(value.shape), value.dtype)
        case type() | FunctionType():
            return value.__qualname__
        case _:
            return type(value).__qualname__


def _lists(config: object, layers: int, seen: set[int]) -> list[Sequence[Any]]:
    """Per-layer lists of a config and its nested configs; lists of layer indices are left out."""
    if config is None or id(config) in seen or not hasattr(config, "__dict__"):
        return []
    seen.add(id(config))
    found: list[Sequence[Any]] = []
    for name, value in vars(config).items():
        if isinstance(value, list | tuple) and len(value) == layers:
            found += [] if INDEX_LIST.search(name) and len(set(map(repr, value))) == layers else [value]
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            found += _lists(value, layers, seen)
    return found
