"""Recording of a prompt step of a model and the decode step after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from graphsim.errors import ConfigError
from graphsim.models.capture.attended import settle
from graphsim.models.capture.fakes import fake_weights
from graphsim.models.capture.inputs import CACHES, decode_inputs, decode_module, given_inputs, prompt_inputs
from graphsim.models.capture.instantiate import one_line
from graphsim.models.capture.kernels import kernels
from graphsim.models.capture.kinds import Stack
from graphsim.models.capture.names import visible
from graphsim.models.capture.patches import patched
from graphsim.models.capture.recorder import Recorder
from graphsim.models.capture.recording import recording
from graphsim.models.capture.rows import Call, Row, shape_of, tensors_in
from graphsim.models.capture.skipping import KindsDiffer, SkippedLayers, run_one_of_each
from graphsim.models.capture.specialised import fail_if_specialised
from graphsim.models.capture.symbols import Symbols

HINTS = {"batch": 3, "length": 53, "source": 37}
"""Values of the symbols while the model's code runs: primes that are not sizes of any model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One recorded step.

    rows: its operations
    calls: its calls of layers
    given: shapes of its floating-point inputs by name
    left: source of the result
    kept: sources of the cache tensors that the next step reads
    """

    rows: list[Row]
    calls: list[Call]
    given: Mapping[str, tuple[Any, ...]]
    left: str
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The recorded steps of a model.

    model: the model
    symbols: symbols of the sizes
    prompt: the prompt step
    decode: the decode step; None if the model returns no cache
    why: the reason why there is no decode step
    kept: shapes of the tensors that the prompt leaves in the cache, by name
    stacks: lists of layers with their kinds; only the first layer of each kind was run
    """

    model: torch.nn.Module
    symbols: Symbols
    prompt: Step
    decode: Step | None
    why: str
    kept: Mapping[str, tuple[Any, ...]]
    stacks: Sequence[Stack]


def trace(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor] | None = None) -> Trace:
    """Run both steps of a model on the meta device, one layer of each kind.

    inputs: example tensors of the prompt, [batch, length, …] each; by default, made from the signature of forward
    Raises ConfigError if the model's own code does not run with symbolic sizes, with its error message.
    """
    with kernels(model), patched(model):
        return run_one_of_each(model, lambda passed: _traced(model, passed, inputs))


def _traced(model: torch.nn.Module, passed: SkippedLayers, inputs: Mapping[str, torch.Tensor] | None) -> Trace:
    faker = _Faker()
    with fake_weights(model, faker.of), torch.no_grad(), enable_python_dispatcher(), faker.mode:
        given = _given(model, faker, inputs)
        prompt, result = _step(model, model, passed, given, {}, "prompt")
        kept = _states(result)
        symbols = faker.symbols(type(model).__name__)
        decode, why = None, ""
        try:
            more = decode_inputs(model, faker.make, given, result, batch=HINTS["batch"])
        except ConfigError as error:
            why = str(error)
        if not why and _reads_all_again(more):
            why = f"{type(model).__name__} reads the whole sequence again for every token"
        if not why:
            decode, _ = _step(model, decode_module(model), passed, more, kept, "decode step")
        faker.symbols(type(model).__name__)
    return Trace(
        model=model, symbols=symbols, prompt=prompt, decode=decode, why=why,
        kept={name: shape_of(tensor) for name, tensor in kept.items()}, stacks=passed.stacks,
    )  # fmt: skip


def _given(model: torch.nn.Module, faker: _Faker, inputs: Mapping[str, torch.Tensor] | None) -> dict[str, Any]:
    if inputs is None:
        batch, length, source = HINTS["batch"], HINTS["length"], HINTS["source"]
        return prompt_inputs(model, faker.make, batch=batch, length=length, source_length=source)
    return given_inputs(model, faker.make, inputs, batch=HINTS["batch"], length=HINTS["length"])


def _step(
    model: torch.nn.Module,
    part: torch.nn.Module,
    passed: SkippedLayers,
    given: Mapping[str, Any],
    kept: Mapping[str, Any],
    what: str,
) -> tuple[Step, Any]:
    """One step and its result.

    model: the model
    part: the module that runs the step, usually the model
    passed: the skipped layers
    given: arguments of the step
    kept: cache tensors by name
    what: name of the step, for messages
    """
    watched = frozenset(name for stack in passed.given for name in stack.names)
    recorder = Recorder(model, watched, passed.source)
    floats = {f"float:{key}": value for key, value in given.items() if _is_float(value)}
    recorder.name_values({**{f"state:{name}": tensor for name, tensor in kept.items()}, **floats})
    try:
        with visible(recorder), recording(recorder):
            result = part(**given)
    except (ConfigError, KindsDiffer):
        raise
    except Exception as error:
        where = recorder.stack[-1] or type(model).__name__
        raise ConfigError(
            f"the {what} of {type(model).__name__} does not run on symbols, in {where}: {one_line(error)}"
        ) from error
    buffers = {name: tuple(tensor.shape) for name, tensor in model.named_buffers()}
    settle(recorder.rows, frozenset(name for name, _ in model.named_parameters()), buffers)
    logits = next((t for t in tensors_in(result) if t.is_floating_point()), None)
    shapes = {key: shape_of(value) for key, value in floats.items()}
    left = recorder.source_of(logits) if logits is not None else ""
    kept_on = frozenset(recorder.source_of(tensor) for tensor in _states(result).values())
    return Step(rows=recorder.rows, calls=recorder.calls, given=shapes, left=left, kept=kept_on), result


def _reads_all_again(given: Mapping[str, Any]) -> bool:
    """Whether a decode step takes all tokens again, as it does without a KV cache."""
    ids = [value for value in given.values() if isinstance(value, torch.Tensor) and not value.is_floating_point()]
    return any(value.dim() == 2 and isinstance(value.shape[1], torch.SymInt) for value in ids)


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


class _Faker:
    """Fake tensors with named symbolic sizes."""

    def __init__(self) -> None:
        self.environment = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=self.environment, allow_non_fake_inputs=True)
        self._made: dict[str, Any] = {}

    def make(self, tensor: torch.Tensor, names: Mapping[int, str]) -> torch.Tensor:
        """A fake tensor for a meta tensor.

        tensor: the meta tensor
        names: names of the symbolic dimensions
        """
        for i, name in names.items():
            if name not in self._made:
                with unset_fake_temporarily():
                    one = torch.empty(tensor.shape[i], device="meta")
                context = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
                self._made[name] = self.mode.from_tensor(one, symbolic_context=context).shape[0]
        shape = [self._made[names[i]] if i in names else size for i, size in enumerate(tensor.shape)]
        with self.mode:
            return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A fake tensor for a weight or a buffer, whose sizes are numbers."""
        return self.mode.from_tensor(tensor, static_shapes=True)

    def symbols(self, where: str) -> Symbols:
        """The symbols of batch, length and source.

        Raises ConfigError if one of them was fixed to a number or tied to another size.
        """
        found = {name: size.node._expr for name, size in self._made.items() if isinstance(size, torch.SymInt)}
        fail_if_specialised(self.environment, found, where)
        for name in ("batch", "length"):
            if not isinstance(found.get(name), sympy.Symbol):
                raise ConfigError(f"{where}: nothing that it takes has a {name}")
        return Symbols(batch=found["batch"], length=found["length"], source=found.get("source"))


def _states(result: Any) -> dict[str, torch.Tensor]:
    """Tensors of the caches that a step returns, by a readable name."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()

    def visit(value: Any, path: str, depth: int) -> None:
        if id(value) in seen or depth > 6:
            return
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            found[path] = value
        elif isinstance(value, Mapping):
            for key, item in value.items():
                visit(item, f"{path}.{key}", depth + 1)
        elif isinstance(value, list | tuple):
            for i, item in enumerate(value):
                visit(item, f"{path}.{i}", depth + 1)
        elif hasattr(value, "__dict__"):
            for key, item in vars(value).items():
                visit(item, f"{path}.{key}", depth + 1)

    for key in CACHES:  # only the first one found: transformers warns about older names that a result also has
        held = result.get(key) if isinstance(result, Mapping) else getattr(result, key, None)
        if held is not None:
            visit(held, key, 0)
            break
    encoded = getattr(result, "encoder_last_hidden_state", None)
    if encoded is not None:
        found["encoder"] = encoded
    return found
