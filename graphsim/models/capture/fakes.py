"""Temporary replacement of a model's weights by fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensor


@contextmanager
def fake_weights(model: torch.nn.Module, fake: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Replace weights and buffers by `fake` of them while the context is open; tied tensors stay tied."""
    fakes: dict[int, torch.Tensor] = {}
    with ExitStack() as stack:
        for module in model.modules():
            for store in (module._parameters, module._buffers):
                for key, tensor in store.items():
                    if tensor is None or isinstance(tensor, FakeTensor):
                        continue
                    if id(tensor) not in fakes:
                        fakes[id(tensor)] = fake(tensor)
                    stack.callback(store.__setitem__, key, tensor)
                    store[key] = fakes[id(tensor)]
        yield
