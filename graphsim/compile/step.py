"""One step of an engine as a function: for simulators that ask for many steps, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphsim.compile.symbols import numbers_of, with_symbols
from graphsim.cost.base import CostModel
from graphsim.deployment.arguments import deployed
from graphsim.deployment.deployment import Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.graph import Pass
from graphsim.lora.config import LoraConfig
from graphsim.models.phase import decode, mixed, prefill
from graphsim.ops.precision import Precision
from graphsim.symbolic.expr import NotRecordable, Tape
from graphsim.symbolic.program import Program
from graphsim.units import Num, as_number, short

_ASKED = ("prefill_tokens", "prefill_sequences", "past_tokens", "decode_batch", "context")


def compile_step(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef | None = None,
    passes: Sequence[Pass] = (),
) -> CompiledStep:
    """The time of one step of a deployment, as a function of what the step holds; it equals what `simulate` gives.

    `step(prefill_tokens=512)` is a prompt step, `step(decode_batch=8, context=1024)` a decode step, both together a
    mixed one, as with chunked prefill. The arguments are those of `Deployment`, or a deployment itself.
    Raises ConfigError for arrays over scenarios, or a cost function that cannot be recorded.
    """
    deployment = deployed(
        model, hardware, parallelism=parallelism, lora=lora, precision=precision, cost=cost, engine=engine,
        passes=passes,
    )  # fmt: skip
    inference = Inference(deployment=deployment, requests=Requests(batch=1, input_tokens=1, output_tokens=1))
    if inference.scenarios is not None:
        raise ConfigError("compile_step takes one deployment, found arrays of scenarios; use sweep for these")
    try:
        return CompiledStep(inference)
    except NotRecordable as error:
        raise ConfigError(f"compile_step cannot record this deployment: {error}; use simulate") from None


class CompiledStep:
    """A step's time in seconds as a function. Made by `compile_step`; arguments may also be arrays that broadcast."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._programs: dict[tuple[bool, bool], Program] = {}
        self._program(True, True)
        kept = numbers_of(inference)
        self._adapters = "active_adapters" in kept
        self._inputs = {name: float(value) for name, value in kept.items()}

    def __call__(
        self,
        prefill_tokens: Num = 0.0,
        decode_batch: Num = 0.0,
        context: Num = 0.0,
        adapters: Num | None = None,
        *,
        prefill_sequences: Num = 1.0,
        past_tokens: Num = 0.0,
    ) -> Num:
        """Seconds of a step.

        prefill_tokens: new tokens of each of `prefill_sequences`, behind `past_tokens` that are cached already
        decode_batch: sequences that get one token each, with `context` tokens in the cache
        adapters: distinct adapters among the step's requests, by default the LoraConfig's
        Through a pipeline, it is the time of one micro-batch's way through all stages.
        Raises ConfigError for negative numbers, or adapters where there is no LoraConfig.
        """
        values = (prefill_tokens, prefill_sequences, past_tokens, decode_batch, context)
        inputs: dict[str, Num] = dict(self._inputs)
        for name, value in zip(_ASKED, values, strict=True):
            inputs[name] = value if type(value) is float and value >= 0.0 else _checked(name, value)
        if adapters is not None:
            if not self._adapters:
                raise ConfigError("adapters are given, but the step was compiled without a dynamic LoraConfig")
            inputs["active_adapters"] = _checked("adapters", adapters)
        program = self._program(_some(prefill_tokens), _some(decode_batch))
        seconds: Num = program(inputs)[0]
        return seconds

    def _program(self, prompts: bool, generates: bool) -> Program:
        """The formula of a step with prompts, generation, or both."""
        if (prompts, generates) not in self._programs:
            self._programs[prompts, generates] = self._record(prompts, generates)
        return self._programs[prompts, generates]

    def _record(self, prompts: bool, generates: bool) -> Program:
        tape = Tape()
        recorded = with_symbols(self._inference, tape)
        asked: dict[str, Any] = {name: tape.variable(name) for name in _ASKED}
        sequences = asked["prefill_sequences"] * np.minimum(asked["prefill_tokens"], 1.0)
        prompt = prefill(sequences, asked["prefill_tokens"], asked["past_tokens"])
        generation = decode(asked["decode_batch"], asked["context"])
        phase = mixed(prompt, generation) if prompts and generates else prompt if prompts else generation
        return Program([recorded.time_s(recorded.deployment.step([phase]))])


def _some(value: Num) -> bool:
    return isinstance(value, np.ndarray) or value != 0


def _checked(name: str, value: Num) -> Num:
    number = value if isinstance(value, np.ndarray) and value.dtype.kind in "iuf" else as_number(value)
    if number is None or not np.all(np.greater_equal(number, 0.0) & np.isfinite(number)):
        raise ConfigError(f"step: {name} = {short(value)} is not allowed; expected a number from 0")
    return number
