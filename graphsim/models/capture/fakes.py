"""Fake tensors in place of a model's weights for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensor


@contextmanager
def fake_weights(model: torch.nn.Module, fake: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Weights and buffers as `fake` makes them; tied ones stay one."""
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
