"""The main verbs: a model, a device, requests, adapters -> latency, throughput, memory, and the graphs behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.compile.formulas import formulas_of
from graphsim.compile.symbols import numbers_of
from graphsim.cost.base import CostModel
from graphsim.cost.base import annotate as annotate_with
from graphsim.cost.choose import caution, choose_cost
from graphsim.cost.foreign import priced_or_refused
from graphsim.deployment.arguments import check_media, deployed, request_verb
from graphsim.deployment.deployment import Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.energy import Activities, activities_of, energy_of
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.notes import notes_of
from graphsim.deployment.order import check_own
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.refusals import refusals_noted, require_runs
from graphsim.deployment.scenarios import count, scenarios_in
from graphsim.deployment.unknown import unknown_noted
from graphsim.errors import ConfigError, HardwareError
from graphsim.graph import Pass, unroll
from graphsim.graph.sound import require_sound
from graphsim.hardware import load_hardware
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.media import NO_MEDIA, Media
from graphsim.models.phase import prefill
from graphsim.ops.precision import Precision, load_precision
from graphsim.result import Estimate, PhaseEstimate
from graphsim.symbolic.substitute import names_of
from graphsim.units import Num, amount_text, short

if TYPE_CHECKING:
    from graphsim.lora.config import LoraConfig
    from graphsim.speculation.speculation import Speculation


def build_graph(
    model: ModelRef | Deployment,
    phase: str = "prefill",
    batch: Num = 1,
    input_tokens: Num = 512,
    context_tokens: Num | None = None,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    expand: bool = False,
    engine: EngineRef | None = None,
    passes: Sequence[Pass] = (),
    media: Media | None = None,
) -> nx.DiGraph:
    """The sharded and lowered graph of one step, not yet annotated.

    model: a model as in `simulate`; or a `Deployment`, which then sets parallelism, lora, precision, engine and passes
    phase: `prefill` of `input_tokens`, or `decode` of one token after `context_tokens`
    batch, input_tokens: as in `simulate`
    context_tokens: tokens in the KV cache before a decode step, by default input_tokens; for an encoder-decoder,
        `input_tokens` of them were read by the encoder
    parallelism, lora, precision: as in `simulate`
    expand: expand every layer instead of repeating a body
    engine: the engine whose kernels the graph contains; `reference`, the default, keeps the logical nodes
    passes, media: as in `simulate`
    batch, input_tokens, context_tokens, degrees and ranks may be arrays of one length: one entry per scenario.
    Raises ConfigError for an argument that is not allowed, InfeasibleError for what the engine or the model cannot run,
    GraphError after a custom pass whose graph is not valid.
    """
    deployment = deployed(model, parallelism=parallelism, lora=lora, precision=precision, engine=engine, passes=passes)
    batch, input_tokens = count("batch", batch), count("input_tokens", input_tokens)
    scenarios_in(deployment, (batch, input_tokens))
    after = check_own(deployment.passes)
    if phase == "prefill":
        requests = Requests(batch=batch, input_tokens=input_tokens, output_tokens=1, media=media)
        check_media(deployment.model, requests.media)
        require_runs(deployment, requests)
        graph = deployment.prefill(batch, input_tokens, after, requests.media)
    elif phase == "decode":
        context = input_tokens if context_tokens is None else count("context_tokens", context_tokens, least=0)
        scenarios_in(deployment, (batch, context))
        requests = Requests(batch=batch, input_tokens=np.maximum(context, 1), output_tokens=1, media=media)
        require_runs(deployment, requests)
        read = _read_of(deployment, input_tokens, context)
        graph = deployment.decode(batch, context, after, read, requests.media)
    else:
        raise ConfigError(f"phase = {short(phase)} is not known; allowed: prefill, decode")
    return unroll(graph) if expand else graph


def _read_of(deployment: Deployment, input_tokens: Num, context: Num) -> Num | None:
    """How much of the context an encoder has read. Raises ConfigError where that is more than there is."""
    if deployment.model.source_encoder is None:
        return None
    if np.any(np.less(context, input_tokens)):
        raise ConfigError(
            f"context_tokens = {amount_text(np.min(context))} is not allowed with input_tokens = "
            f"{amount_text(np.max(input_tokens))}: for the "
            f"encoder-decoder '{deployment.model.name}' it includes the input"
        )
    return input_tokens


def simulate(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    batch: Num = 1,
    input_tokens: Num = 512,
    output_tokens: Num = 128,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef | None = None,
    passes: Sequence[Pass] = (),
    media: Media | None = None,
    speculation: Speculation | None = None,
) -> Estimate:
    """Latency, throughput and memory of a batch of requests on one deployment.

    model: a catalog name, a YAML or config.json path, a model folder or a mapping; or a `Deployment`, which then sets
        hardware, parallelism, lora, precision, cost, engine and passes
    hardware: a catalog name, a YAML path or a mapping
    batch: number of requests served together
    input_tokens: prompt tokens of each request, including tokens that represent images and sound
    output_tokens: tokens generated for each request
    parallelism: degrees of parallelism, by default one device
    lora: the adapter, by default the model's own `lora_config`; None without either
    precision: number formats such as `fp8` or `bf16,kv=fp8`; by default the checkpoint's own, or bf16
    cost: `calibrated`, `roofline` or a function of an operation and a device; by default the device's best
    engine: a name of `list_engines()`, a YAML path or a mapping; vllm by default
    passes: custom graph passes, see `Deployment`
    media: images and sound of each request, such as `gs.Media(images=1, image_size=(1080, 1920))`, which the model's
        towers encode in the prompt step
    speculation: a draft whose tokens the model verifies, `gs.Speculation(draft=…, tokens=…, acceptance=…)`; `decode`
        is then the verification step
    batch, input_tokens, output_tokens, degrees of parallelism, ranks, and tokens and acceptance of a speculation may be
    arrays of one length: one entry per scenario.
    Raises ConfigError, HardwareError or InfeasibleError for anything that cannot be run as asked.
    """
    plain = partial(
        _simulate, model, hardware, batch, input_tokens, output_tokens, parallelism=parallelism, lora=lora,
        precision=precision, cost=cost, engine=engine, passes=passes, media=media,
    )  # fmt: skip
    if speculation is None:
        return plain()
    from graphsim.speculation.estimate import speculated
    from graphsim.speculation.speculation import checked_speculation

    checked_speculation(speculation)
    return speculated(plain(), speculation)


@request_verb
def _simulate(inference: Inference) -> Estimate:
    """As `simulate`, without speculation."""
    return priced(inference)


def estimate_of(inference: Inference) -> Estimate:
    """The estimate of a batch of requests on a deployment. Raises InfeasibleError for what cannot be run."""
    require_runs(inference.deployment, inference.requests)
    return priced(inference)


def priced(inference: Inference) -> Estimate:
    """The estimate of a batch of requests on a deployment, whether or not an engine would run it."""
    deployment, requests, caution = inference.deployment, inference.requests, inference.deployment.caution
    _ = inference.scenarios  # arrays that differ in length are told before anything is made of them
    formulas = formulas_of(inference)
    if formulas is None:
        ttft_s, generation_s, one_time_s = inference.ttft_s(), inference.generation_s(), inference.one_time_s()
        memory, activities = inference.memory, partial(_activities, inference)
    else:
        numbers = numbers_of(inference)
        formulas.noted.require(numbers)
        ttft_s, generation_s, one_time_s = formulas.times_s(numbers)
        memory, activities = partial(formulas.memory, numbers), partial(formulas.activities, numbers)
    times = inference.latencies(ttft_s, generation_s)
    return Estimate(
        model=deployment.model.name,
        hardware=deployment.device.name,
        settings=_settings(deployment, requests),
        cost_model=deployment.cost_model,
        ttft_s=ttft_s,
        tpot_s=times.tpot_s,
        latency_s=times.latency_s,
        tokens_per_s=times.tokens_per_s,
        one_time_s=one_time_s,
        prefill=PhaseEstimate(name="prefill", build=inference.prefill_graph),
        decode=PhaseEstimate(name="decode", build=inference.decode_graph),
        measure_memory=memory,
        measure_engine=inference.engine_time,
        measure_energy=lambda: energy_of(times, activities(), deployment.device, deployment.parallelism.devices),
        notes=(
            *refusals_noted(deployment, requests),
            *notes_of(deployment, requests),
            *([caution] if caution else ()),
            *unknown_noted(inference),
        ),
        caution=caution,
        inference=inference,
    )


def _activities(inference: Inference) -> Activities | None:
    """What the steps ask of a device; None where it states no peak for what it computes."""
    try:
        return activities_of(inference)
    except HardwareError:
        return None


def _settings(deployment: Deployment, requests: Requests) -> dict[str, Any]:
    """What was asked for, by name."""
    asked = _fields_of(requests, () if requests.media else ("media",))
    lora = deployment.adapter
    return {
        **asked, "precision": deployment.precision.name, "parallelism": _fields_of(deployment.parallelism),
        "engine": deployment.engine_name, "lora": None if lora is None else _fields_of(lora, ("matching", "tensors")),
    }  # fmt: skip


def _fields_of(thing: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    kind: Any = type(thing)
    return {name: getattr(thing, name) for name in names_of(kind) if name not in without}


def annotate(graph: nx.DiGraph, hardware: HardwareRef, cost: str | CostModel | None = None) -> nx.DiGraph:
    """A copy of a graph with `cost`, `latency_s` and `bound` on every node, for a device.

    graph: any graph of operations. Costs from an earlier annotation are replaced; its other attributes, and those of
        its nodes, stay
    hardware: the device, as in `simulate`
    cost: `calibrated`, `roofline` or a function; the device's best by default
    Raises GraphError unless it is a graph of operations in launch order with finite dimensions, HardwareError where the
    device has no rate for an operation.
    """
    sound, device = require_sound(graph), load_hardware(hardware)
    price = priced_or_refused(choose_cost(cost, device)[0])
    return annotate_with(sound, device, price, caution(cost, device))


def lora_parameters(model: ModelRef | Deployment, lora: LoraConfig | None = None) -> int:
    """Trainable parameters of one adapter, layer by layer; for plain LoRA r (k + n) for every module that it targets.

    lora: by default the deployment's, or the model's own
    Equal to what PEFT's `get_peft_model` trains. Raises ConfigError for targets that match nothing and for ranks that
    are arrays.
    """
    from graphsim.lora.injection import lora_parameters_of

    return round(float(lora_parameters_of(adapter_graph(*model_and_adapter(model, lora)))))


def model_and_adapter(model: ModelRef | Deployment, lora: LoraConfig | None) -> tuple[ModelConfig, LoraConfig]:
    """What a verb that asks of one adapter was given. Raises ConfigError where nothing says which adapter."""
    deployment = deployed(model, lora=lora)
    if deployment.lora is None:
        raise ConfigError("lora = None is not a LoraConfig, and the model or deployment has no adapter of its own")
    return deployment.model, deployment.lora


def adapter_graph(model: ModelConfig, lora: LoraConfig) -> nx.DiGraph:
    """The model's graph with the nodes of one dynamic adapter.

    A merge has no nodes for what a variant trains in addition to A and B.
    Raises ConfigError for targets that match nothing and for ranks that are arrays.
    """
    from graphsim.lora.injection import inject, lora_parameters_of, require_layers

    require_layers(lora, model.most_layers)
    graph = inject(
        build(model, prefill(1.0, 1.0, media=NO_MEDIA), load_precision("bf16")), replace(lora, strategy="dynamic")
    )
    if np.ndim(lora_parameters_of(graph)):
        raise ConfigError("lora.rank holds several ranks; lora_parameters counts the parameters of one adapter")
    return graph
