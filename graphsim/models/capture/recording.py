"""Activation of a recorder: functions recorded as one row, and hooks that track the running module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from graphsim.models.capture.choices import Choices
from graphsim.models.capture.recorder import Recorder
from graphsim.models.capture.rows import Call, shape_of, tensors_in

WHOLE_FUNCTIONS = {
    "linear": "linear",
    "layer_norm": "norm",
    "rms_norm": "norm",
    "group_norm": "norm",
    "instance_norm": "norm",
    "softmax": "softmax",
    "log_softmax": "softmax",
    "conv1d": "conv",
    "conv2d": "conv",
    "conv3d": "conv",
    "conv_transpose1d": "conv",
    "embedding": "embedding",
    "silu": "pointwise",
    "gelu": "pointwise",
    "mish": "pointwise",
    "softplus": "pointwise",
    "logsigmoid": "pointwise",
    "glu": "pointwise",
    "dropout": "alias",
}
"""Kind of row for each function that is recorded as one row."""


class Functions(TorchFunctionMode):
    """Function mode that records each function of `WHOLE_FUNCTIONS` as one row."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call, recorded as one row if it is one of `WHOLE_FUNCTIONS`."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        kind = WHOLE_FUNCTIONS.get(name)
        if kind is None or self.recorder.quiet or (kind == "alias" and not args):
            return func(*args, **kwargs)
        return self.recorder.whole(kind, name, lambda: func(*args, **kwargs), tensors_in((args, kwargs)))


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Context in which the model's operations are recorded, each with the module that called it."""
    hooks = []
    norms = {name for name, module in recorder.model.named_modules() if is_norm(module)}
    scopes: list[Any] = []

    def enter(name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            recorder.stack.append(name)
            if name in norms:
                scope = recorder.scope("norm")
                scope.__enter__()
                scopes.append(scope)
            if name in recorder.watched:
                recorder.calls.append(_entered(recorder, name, args, kwargs))

        return hook

    def leave(name: str) -> Any:
        def hook(module: Any, args: Any, result: Any) -> None:
            recorder.stack.pop()
            if name in norms:
                scopes.pop().__exit__(None, None, None)
            if name in recorder.watched:
                _left(recorder, name, result)

        return hook

    for name, module in recorder.model.named_modules():
        hooks.append(module.register_forward_pre_hook(enter(name), with_kwargs=True))
        hooks.append(module.register_forward_hook(leave(name), always_call=True))
    try:
        with recorder, Choices(recorder), Functions(recorder):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def is_norm(module: torch.nn.Module) -> bool:
    """Whether a module is a norm: its class name contains `Norm` and it has no submodules."""
    name = type(module).__name__
    return "Norm" in name and not any(True for _ in module.children())


def _entered(recorder: Recorder, name: str, args: Any, kwargs: Any) -> Call:
    floats = [t for t in tensors_in((args, kwargs)) if t.is_floating_point()]
    call = Call(module=name, first=len(recorder.rows))
    if floats:
        call.taken, call.taken_shape = recorder.source_of(floats[0]), shape_of(floats[0])
        call.others = tuple(recorder.taken(tensor) for tensor in floats[1:])
    return call


def _left(recorder: Recorder, name: str, result: Any) -> None:
    call = next(call for call in reversed(recorder.calls) if call.module == name and call.last < 0)
    call.last = len(recorder.rows)
    tensors = [t for t in tensors_in(result) if t.is_floating_point()]
    if tensors:
        call.left, call.left_shape = recorder.source_of(tensors[0]), shape_of(tensors[0])
