"""What each module of a model dispatches, and layers as a user may write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Rows(TorchDispatchMode):
    """What each module dispatches: operation, shapes taken and given, flops by PyTorch's formula."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {id(module): name for name, module in model.named_modules()}
        self.stack = [""]
        self.rows: list[tuple[str, Any]] = []
        self.flops: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        shapes = [str(tuple(t.shape)) for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        self.rows.append((self.stack[-1], (str(func), *shapes)))
        if func._overloadpacket in flop_registry:
            flops = flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
            self.flops[self.stack[-1]] += flops
        return result

    def of(self, layer: str) -> list[Any]:
        """The rows of a layer, with the names of modules inside it."""
        return [(m[len(layer) :], row) for m, row in self.rows if m == layer or m.startswith(layer + ".")]


@contextmanager
def rows_of(model: nn.Module) -> Iterator[Rows]:
    rows = Rows(model)
    enter = nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: rows.stack.append(rows.names.get(id(module), rows.stack[-1]))
    )
    leave = nn.modules.module.register_module_forward_hook(
        lambda module, args, result: (rows.stack.pop(), None)[1], always_call=True
    )
    try:
        with rows:
            yield rows
    finally:
        enter.remove()
        leave.remove()


class Layer(nn.Module):
    """A user's layer: a product, a sum with a shift, an index of its own and whatever a test sets on it."""

    def __init__(self, index: int, width: int = 8, **settings: Any) -> None:
        super().__init__()
        self.number, self.inner = index, nn.Linear(width, width)
        for name, value in settings.items():
            setattr(self, name, value)

    def forward(self, x: Any, shift: Any = None) -> Any:
        return self.inner(x) if shift is None else self.inner(x) + shift


class Model(nn.Module):
    """Layers in a row, each with the shift that `shifts` has for it."""

    def __init__(self, layers: list[nn.Module], shifts: list[int] | None = None) -> None:
        super().__init__()
        self.layers, self.shifts = nn.ModuleList(layers), shifts

    def forward(self, x: Any) -> Any:
        made = {number: torch.zeros(8) for number in self.shifts or []}
        for i, layer in enumerate(self.layers):
            x = layer(x, made[self.shifts[i]]) if self.shifts else layer(x)
        return x
