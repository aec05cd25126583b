"""Roles of a model's stacks: the layers that generate, a source encoder, image and audio towers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from graphsim.errors import ConfigError
from graphsim.models.capture.blocks import EncoderValue
from graphsim.models.capture.kinds import Stack
from graphsim.models.capture.rows import Call, Row
from graphsim.models.capture.symbols import Symbols
from graphsim.models.capture.trace import Step, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A source encoder.

    stack: its layers
    outer: its output in the prompt, which the decoder's layers read
    """

    stack: Stack
    outer: EncoderValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The roles of a model's stacks.

    main: the layers that process a request's own tokens
    source: in an encoder-decoder, the encoder that they attend to
    towers: stacks that ran earlier over other inputs, in order
    """

    main: Stack
    source: Encoded | None = None
    towers: tuple[Stack, ...] = ()


def calls_of(step: Step, stack: Stack) -> list[Call]:
    """The calls of a stack's layers, in order."""
    names = set(stack.names)
    return [call for call in step.calls if call.module in names]


def roles(found: Trace) -> Roles:
    """The role of each stack, determined from the recording.

    Raises ConfigError if no list of layers processes a request's tokens.
    """
    stacks = found.stacks
    running = [stack for stack in stacks if calls_of(found.prompt, stack)]
    own = [stack for stack in running if _is_own(calls_of(found.prompt, stack), found.symbols)]
    if found.decode is not None:
        own = [stack for stack in own if calls_of(found.decode, stack)] or own
    if not own:
        raise ConfigError(f"{type(found.model).__name__} has no list of layers that runs over a request's tokens")
    main = max(own, key=lambda stack: _weights(found.model, stack))
    first = calls_of(found.prompt, main)[0].first
    before = [
        stack for stack in running
        if stack not in own and calls_of(found.prompt, stack)[0].first < first and not _decodes(found, stack)
    ]  # fmt: skip
    source = _source(found, main, before)
    towers = tuple(stack for stack in before if source is None or stack is not source.stack)
    return Roles(main=main, source=source, towers=towers)


def _decodes(found: Trace, stack: Stack) -> bool:
    return found.decode is not None and bool(calls_of(found.decode, stack))


def _is_own(calls: Sequence[Call], symbols: Symbols) -> bool:
    """Whether a stack processes the request's tokens: its input has the prompt's length as a size."""
    return any(symbols.length in getattr(size, "free_symbols", ()) for size in calls[0].taken_shape)


def _weights(model: torch.nn.Module, stack: Stack) -> int:
    parts = [parameter for name in stack.names for parameter in model.get_submodule(name).parameters()]
    return sum({id(parameter): parameter.numel() for parameter in parts}.values())


def _source(found: Trace, main: Stack, before: Sequence[Stack]) -> Encoded | None:
    """The encoder of an encoder-decoder: the last earlier stack that an input of the decoder's layers depends on."""
    if "decoder_input_ids" not in inspect.signature(found.model.forward).parameters:
        return None
    by_name = {row.name: row for row in found.prompt.rows}
    taken = {value.source: value.shape for call in calls_of(found.prompt, main) for value in call.others}
    for stack in sorted(before, key=lambda stack: -calls_of(found.prompt, stack)[0].first):
        end = calls_of(found.prompt, stack)[-1].left
        for name, shape in taken.items():
            if leads(by_name, end, name):
                return Encoded(stack=stack, outer=EncoderValue(source=name, shape=shape))
    return None


def leads(by_name: Mapping[str, Row], start: str, end: str) -> bool:
    """Whether the value `end` depends on the value `start`."""
    waiting, seen = [end], set[str]()
    while waiting:
        name = waiting.pop()
        if name == start:
            return True
        if name not in seen and name in by_name:
            seen.add(name)
            waiting += [taken.source for taken in by_name[name].inputs]
    return False
