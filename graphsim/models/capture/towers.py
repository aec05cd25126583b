"""Image and audio towers, recorded once each for one image or clip of a fixed size."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from graphsim.errors import ConfigError
from graphsim.models.capture.attended import settle
from graphsim.models.capture.blocks import EncoderValue
from graphsim.models.capture.fakes import fake_weights
from graphsim.models.capture.instantiate import one_line
from graphsim.models.capture.kinds import Stack
from graphsim.models.capture.media import Tower
from graphsim.models.capture.media import towers as ways
from graphsim.models.capture.names import visible
from graphsim.models.capture.recorder import Recorder
from graphsim.models.capture.recording import recording
from graphsim.models.capture.rows import shape_of, tensors_in
from graphsim.models.capture.skipping import KindsDiffer, SkippedLayers, run_one_of_each
from graphsim.models.capture.trace import Step
from graphsim.models.capture.windows import together as windows_together

MOST_CONSTANT = 2**24
"""Largest number of elements of tensors whose values are computed while a tower runs: masks, grids and positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recorded run of a tower.

    given: its arguments
    shape: shape of the rows that it passes to the language model
    others: further results that it passes to the language model
    """

    tower: Tower
    given: Mapping[str, torch.Tensor]
    step: Step
    stacks: Sequence[Stack]
    shape: tuple[Any, ...]
    others: tuple[EncoderValue, ...]


def recorded_towers(model: torch.nn.Module) -> tuple[list[Recorded], list[str]]:
    """Recorded runs of a model's towers, and a note on each tower that cannot be run, whose weights remain unused."""
    found, notes = list[Recorded](), list[str]()
    for way in ways(model):
        try:
            found.append(run(model, way))
        except ConfigError as error:
            notes.append(idle_note(way, str(error)))
    return found, notes


def idle_note(tower: Tower, why: str) -> str:
    """The note on a tower that is left out, with the reason."""
    return f"{why}; its weights are held, and no {tower.medium} passes them"


def run(model: torch.nn.Module, tower: Tower) -> Recorded:
    """Run one layer of each kind of a tower, with the first of its candidate arguments that it accepts.

    Raises ConfigError if it accepts none, with the error message of the candidate that got furthest.
    """
    furthest, said = -1, ConfigError("")
    for given in tower.candidates:
        reached = [0]
        try:
            return run_one_of_each(model, partial(_recorded, model, tower, given, reached))
        except ConfigError as error:
            if reached[0] > furthest:
                furthest, said = reached[0], error
    raise said


def _recorded(
    model: torch.nn.Module, tower: Tower, given: Mapping[str, torch.Tensor], reached: list[int], passed: SkippedLayers
) -> Recorded:
    watched = frozenset(name for stack in passed.given for name in stack.names)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.bfloat16)
    with (
        fake_weights(model, partial(_as_if_here, mode)),
        torch.no_grad(),
        running(),
        mock.patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", MOST_CONSTANT),
        mode,
    ):
        values = {key: _constant(mode, tensor, dtype) for key, tensor in given.items()}
        recorder = Recorder(model, watched, passed.source)
        floats = {f"float:{key}": value for key, value in values.items() if value.is_floating_point()}
        recorder.name_values(floats)
        try:
            with visible(recorder), _Constants(mode), recording(recorder), _Answers():
                result = tower.call(**values)
        except (ConfigError, KindsDiffer):
            raise
        except Exception as error:
            reached[0] = len(recorder.rows)
            where = recorder.stack[-1] or type(model).__name__
            raise ConfigError(f"the {tower.medium}s' tower does not run in {where}: {one_line(error)}") from error
    buffers = {name: tuple(buffer.shape) for name, buffer in model.named_buffers()}
    settle(recorder.rows, frozenset(name for name, _ in model.named_parameters()), buffers)
    rows = windows_together(recorder.rows)
    first, others = _results(result)
    left = [EncoderValue(source=recorder.source_of(tensor), shape=shape_of(tensor)) for tensor in (first, *others)]
    apart = {
        place for place in passed.source.values() if f"passed:{place.stack}.{place.layer}" in {o.source for o in left}
    }
    if apart:
        raise KindsDiffer(apart, "its result leaves the tower")
    step = Step(
        rows=rows, calls=recorder.calls, given={key: shape_of(value) for key, value in floats.items()},
        left=left[0].source,
    )  # fmt: skip
    shape = (sum(_rows(tensor) for tensor in _parts_alike(result, first)), first.shape[-1])
    return Recorded(tower=tower, given=given, step=step, stacks=passed.stacks, shape=shape, others=tuple(left[1:]))


@contextmanager
def running() -> Iterator[None]:
    """Context in which a tower's own Python code can run without data.

    transformers 5.24 checks numbers of placeholders unless TRANSFORMERS_DISABLE_TORCH_CHECK is set. torch's log
    messages on arguments that do not fit are suppressed, since further candidates follow.
    """
    log = logging.getLogger(fake_tensor.__name__)
    quiet, log.disabled = log.disabled, True
    try:
        with mock.patch.dict(os.environ, {"TRANSFORMERS_DISABLE_TORCH_CHECK": "1"}):
            yield
    finally:
        log.disabled = quiet


def _constant(mode: FakeTensorMode, tensor: torch.Tensor, dtype: torch.dtype) -> Any:
    with unset_fake_temporarily():
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return mode.fake_tensor_converter.from_real_tensor(mode, tensor, make_constant=True)


class _Constants(TorchDispatchMode):
    """Dispatch mode that makes tensors created without tensor arguments, such as positions, constants."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.fakes = mode

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation; without tensor arguments, also compute its values."""
        kwargs = kwargs or {}
        if func._overloadpacket not in COUNTED or tensors_in((args, kwargs)):
            return func(*args, **kwargs)
        with _disable_current_modes():
            made = func(*args, **{key: value for key, value in kwargs.items() if key != "pin_memory"})
        if made.numel() > MOST_CONSTANT or made.device.type == "meta":
            return func(*args, **kwargs)
        return self.fakes.fake_tensor_converter.from_real_tensor(self.fakes, made, make_constant=True)


class _Answers(TorchFunctionMode):
    """Function mode that answers data-dependent queries on constants."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the answer if the value is known, else run the call."""
        name, known = getattr(func, "__name__", ""), getattr(args[0], "constant", None) if args else None
        if known is not None and name in ASKING and len(args) == 1:
            with _disable_current_modes():
                return getattr(known, name)()
        return func(*args, **(kwargs or {}))


ASKING = frozenset(("__index__", "__int__", "__float__", "__bool__", "item", "tolist", "numpy"))

COUNTED = frozenset(
    getattr(torch.ops.aten, name) for name in ("arange", "linspace", "zeros", "ones", "full", "tril_indices", "eye")
)


def _as_if_here(mode: FakeTensorMode, tensor: torch.Tensor) -> torch.Tensor:
    """A fake tensor on the CPU for a meta tensor; other tensors become constants, whose values are known."""
    if tensor.device.type != "meta":
        return _constant(mode, tensor, tensor.dtype)
    return FakeTensor(mode, tensor.detach(), torch.device("cpu"))


def _results(result: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The rows that a tower passes to the language model, and its further results that are passed there, too."""
    deeper = tensors_in(getattr(result, "deepstack_features", None))
    return _handed(result)[0], deeper


def _handed(result: Any) -> list[torch.Tensor]:
    pooled = getattr(result, "pooler_output", None)
    found = tensors_in(pooled if pooled is not None else result)
    floats = [tensor for tensor in found if tensor.is_floating_point()]
    if not floats:
        raise ConfigError("the tower returns nothing that a language model could take as input")
    return floats


def _parts_alike(result: Any, first: torch.Tensor) -> list[torch.Tensor]:
    """The parts of a result: an image's rows may be one tensor or several of equal width."""
    return [tensor for tensor in _handed(result) if tensor.shape[-1] == first.shape[-1]]


def _rows(tensor: torch.Tensor) -> int:
    return tensor.numel() // tensor.shape[-1]
