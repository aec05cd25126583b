"""One step of an engine as a function: for simulators that evaluate many steps, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphsim.compile import sums
from graphsim.compile.given import ADAPTERS, number, one_spelling, refuse_unaligned
from graphsim.compile.manifest import Input, inputs_of_step
from graphsim.compile.packing import packed, unpacked
from graphsim.compile.structure import structure_of
from graphsim.compile.symbols import numbers_of, with_symbols
from graphsim.cost.base import CostModel
from graphsim.deployment.arguments import deployed
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.graph import Pass
from graphsim.lora.config import LoraConfig
from graphsim.models.phase import generation_of, mixed, prompts_of
from graphsim.ops.precision import Precision
from graphsim.symbolic.expr import NotRecordable, Tape
from graphsim.symbolic.guards import Guards
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.program import Program
from graphsim.units import Num

PROMPTS = ("prompts", "prompt_tokens", "prompt_pairs", "prompt_rows", "prompts_ending")
GENERATION = ("generating", "cache_rows")


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
    """The time in seconds of one step of a deployment as a function of its contents, equal to what `simulate` gives.

    `step(prompt_tokens=512)` is a prompt step, `step(generating=8, cache_rows=8 * 1025)` a decode step, and both
    together a mixed step, as with chunked prefill. The arguments are those of `Deployment`, or a deployment itself. It
    is compiled once per process for all ranks and numbers of its adapters. The function can be pickled.
    Raises ConfigError for arrays over scenarios, and for a deployment that cannot be traced, naming the line that
    prevents it.
    """
    deployment = deployed(
        model, hardware, parallelism=parallelism, lora=lora, precision=precision, cost=cost, engine=engine,
        passes=passes, default_engine=DEFAULT_ENGINE,
    )  # fmt: skip
    return step_of(Inference(deployment=deployment, requests=Requests(batch=1, input_tokens=1, output_tokens=1)))


def step_of(inference: Inference) -> CompiledStep:
    """The time of one step of an inference, whose requests are ignored. Raises ConfigError as `compile_step` does."""
    if inference.deployment.model.source_encoder is not None:
        raise ConfigError(
            f"compile_step does not support an encoder-decoder such as '{inference.deployment.model.name}': its "
            "arguments do not distinguish rows of the encoder from tokens; use simulate or sweep"
        )
    if inference.scenarios is not None:
        raise ConfigError("compile_step takes one deployment; found arrays of scenarios; use sweep for these")
    try:
        formulas = _formulas.get(structure_of(inference), lambda: StepFormulas(inference))
    except NotRecordable as error:
        raise ConfigError(f"compile_step cannot record this deployment: {error}; use simulate") from None
    return CompiledStep(inference, formulas)


class StepFormulas:
    """The formulas of the steps of one structure: of steps with prompts, with generation, and with both.

    noted: the passes' checks of the adapter's numbers, which are the same in every kind of step
    """

    def __init__(self, inference: Inference) -> None:
        inference.check_passes()
        self._inference = inference
        self.noted = Guards(())
        self._programs = {(True, True): self._record(True, True)}

    def program(self, prompts: bool, generates: bool) -> Program:
        """The formula of one kind of step, recorded at its first use."""
        found = self._programs.get((prompts, generates))
        if found is None:
            found = self._programs[prompts, generates] = self._record(prompts, generates)
        return found

    def _record(self, prompts: bool, generates: bool) -> Program:
        tape = Tape()
        recorded = with_symbols(self._inference, tape)
        count, tokens, pairs, rows, ending = map(tape.variable, PROMPTS)
        prompt = prompts_of(count, tokens, pairs, rows, ending)  # type: ignore[arg-type]
        generation = generation_of(*map(tape.variable, GENERATION))  # type: ignore[arg-type]
        phase = mixed(prompt, generation) if prompts and generates else prompt if prompts else generation
        seconds = recorded.mixed_s(phase) if prompts else recorded.time_s(recorded.deployment.step([phase]))
        self.noted = Guards(tape.guards.values())
        return Program([seconds])


_formulas: Memo[StepFormulas] = Memo(most=64)
_restored: Memo[CompiledStep] = Memo(most=64)


def _restore(pickled: bytes) -> CompiledStep:
    """The step of a pickled inference; a process compiles it once, however often it receives it."""
    return _restored.get([pickled], lambda: step_of(unpacked(pickled, "compile_step")))


class CompiledStep:
    """A step's time in seconds as a function of sums over its sequences. Made by `compile_step`."""

    def __init__(self, inference: Inference, formulas: StepFormulas) -> None:
        self._inference, self._formulas = inference, formulas
        lora = inference.deployment.adapter
        kept = numbers_of(inference)
        self._adapters = "active_adapters" in kept
        self._inputs: dict[str, Num] = {name: float(value) for name, value in kept.items()}
        if lora is not None:  # buffers are padded for the largest rank of all adapters, not for a step's mean
            self._inputs["max_lora_rank"] = float(np.maximum(lora.max_lora_rank, lora.largest_rank))
        formulas.noted.require(self._inputs)

    @property
    def caution(self) -> str:
        """Caveats on its times, such as an unmeasured device; "" if there are none."""
        return self._inference.deployment.caution

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The sums that a call takes: name, unit, bounds, and what each is where it is not given."""
        return inputs_of_step({name: float(value) for name, value in self._inputs.items()})

    @property
    def rests_on(self) -> tuple[Any, ...]:
        """Everything that its times depend on, except for the arguments of a call, as the key of a `Memo`."""
        return (self._formulas, *self._inputs, *self._inputs.values())

    def __repr__(self) -> str:
        told = f"; {self.caution}" if self.caution else ""
        return f"<step of {self._inference.deployment!r}{told}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (packed(self._inference, "compile_step"),)

    def __call__(
        self,
        prefill_tokens: Num | None = None,
        decode_batch: Num | None = None,
        context: Num | None = None,
        adapters: Num | None = None,
        *,
        prompt_tokens: Num | None = None,
        prompt_pairs: Num | None = None,
        prompts: Num | None = None,
        prompts_ending: Num | None = None,
        prompt_rows: Num | None = None,
        generating: Num | None = None,
        cache_rows: Num | None = None,
        adapted_tokens: Num | None = None,
        distinct_adapters: Num | None = None,
        rank_rows: Num | None = None,
        prefill_sequences: Num | None = None,
        past_tokens: Num | None = None,
    ) -> Num:
        """Seconds of a step; arguments are numbers, or numpy arrays over steps that broadcast against each other.

        prompt_tokens: new tokens of all prompts
        prompts: sequences that bring them (1, where there are any)
        prompt_pairs: causal query-key pairs of these, summed: q past + q (q + 1) / 2 of each, without any window
            (by default of equal prompts without a past)
        prompt_rows: cache rows that these see, past and new, summed (of equal prompts with as many pairs)
        prompts_ending: prompts whose last token is in this step, for which the output head runs (all)
        generating: sequences that get one new token each
        cache_rows: cache rows that these read, summed: context + 1 of each (1 of each)
        adapted_tokens: tokens that have an adapter (the LoraConfig's adapter_share of all)
        distinct_adapters: different adapters among them (the LoraConfig's active_adapters)
        rank_rows: the rank of its adapter, summed over these tokens (the LoraConfig's rank for each); ranks of a
            rank_pattern stay as they are, and engines that pad go on padding to the largest rank of the LoraConfig
        Instead of sums, for identical sequences:
        prefill_tokens, prefill_sequences, past_tokens: new tokens of each prompt, prompts, cached tokens of each
        decode_batch, context: generating sequences, and tokens that each has in the cache
        adapters: distinct ones
        Exact in pairs and rows. Approximate for layers with a window where sequences differ: these count as equal ones
        with the same sums; and for kernels whose time is not linear in the sums, which are priced at the mean.
        Through a pipeline, it is the time of one micro-batch's way through all stages.
        Raises ConfigError for negative numbers, lists, arrays that do not broadcast, two spellings of one thing,
        details without what they are of (context without decode_batch), sums that no sequences can have, or adapters
        where there is no LoraConfig.
        """
        asked = locals()
        del asked["self"]
        given = {name: number(name, value) for name, value in asked.items() if value is not None}
        one_spelling(given)
        try:
            inputs = {**self._inputs, **sums.prompts(given), **sums.generation(given)}
            if not ADAPTERS.isdisjoint(given):
                inputs |= self._adapted(given, inputs)
            return self._priced(inputs)
        except ValueError:
            refuse_unaligned(given)
            raise

    def _adapted(self, given: dict[str, Num], inputs: dict[str, Num]) -> dict[str, Num]:
        if not self._adapters:
            raise ConfigError("adapters are given, but the step was compiled without a dynamic LoraConfig")
        tokens = inputs["prompt_tokens"] + inputs["generating"]
        return sums.adapted(given, tokens, self._inputs)

    def _priced(self, inputs: dict[str, Num]) -> Num:
        """Seconds by the formula of each kind of step; a call with several kinds is split by kind."""
        new, generated = inputs["prompt_tokens"], inputs["generating"]
        if not isinstance(new, np.ndarray) and not isinstance(generated, np.ndarray):
            return self._of_kind(inputs, new > 0.0, generated > 0.0)
        here = [np.greater(new, 0.0), np.greater(generated, 0.0)]
        if all(there.all() or not there.any() for there in here):
            return self._of_kind(inputs, bool(here[0].all()), bool(here[1].all()))
        names, arrays = inputs.keys(), np.broadcast_arrays(*inputs.values())
        prompts, generates = np.broadcast_arrays(*here, arrays[0])[:2]
        seconds = np.zeros(prompts.shape)
        for kind in ((True, True), (True, False), (False, True)):
            chosen = (prompts == kind[0]) & (generates == kind[1])
            if chosen.any():
                some = dict(zip(names, [array[chosen] for array in arrays], strict=True))
                seconds[chosen] = self._of_kind(some, *kind)
        return seconds

    def _of_kind(self, inputs: dict[str, Num], prompts: bool, generates: bool) -> Num:
        seconds: Num = self._formulas.program(prompts, generates)(inputs)[0]
        return seconds
