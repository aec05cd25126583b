"""The main verb: a model, a device, requests, adapters -> latency, throughput, memory, and the graphs behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from graphsim.compile.formulas import formulas_of
from graphsim.compile.symbols import numbers_of
from graphsim.cost.base import CostModel
from graphsim.cost.base import annotate as annotate_with
from graphsim.cost.choose import choose_cost
from graphsim.deployment.deployment import Deployment, check_cut
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.scenarios import count, scenarios_in
from graphsim.errors import ConfigError, GraphError
from graphsim.graph.rewriting import unroll
from graphsim.hardware import Hardware, load_hardware
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject, lora_parameters_of, require_layers, require_shares
from graphsim.lora.profile import EngineProfile, load_profile
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.loading import load_model
from graphsim.models.phase import prefill
from graphsim.ops.precision import Precision, load_precision
from graphsim.result import Estimate, PhaseEstimate
from graphsim.units import Num, short

ModelRef = str | Path | Mapping[str, Any] | ModelConfig
HardwareRef = str | Path | Mapping[str, Any] | Hardware


EngineRef = str | Path | Mapping[str, Any] | EngineProfile

REFERENCE = "reference"
"""The engine that runs an adapter as the LoRA document's three separate nodes."""


def deployment_of(
    model: ModelRef,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    engine: EngineRef = REFERENCE,
) -> Deployment:
    """A checked deployment. Raises ConfigError where the model cannot be cut or the adapter matches nothing."""
    config = load_model(model)
    lora = config.lora_config if lora is None else lora
    if lora is not None and not isinstance(lora, LoraConfig):
        raise ConfigError(f"lora = {short(lora)} is not a LoraConfig")
    if parallelism is not None and not isinstance(parallelism, Parallelism):
        raise ConfigError(f"parallelism = {short(parallelism)} is not a Parallelism")
    deployment = Deployment(
        model=config,
        parallelism=parallelism or Parallelism(),
        precision=load_precision(precision) if precision is not None else config.precision or load_precision("bf16"),
        lora=lora if lora is not None and lora.enabled else None,
        engine=load_profile(engine),
    )
    if deployment.lora is not None:
        require_layers(deployment.lora, config.num_layers)
        scheme = deployment.engine.tensor_parallel if deployment.engine else "vllm"
        require_shares(deployment.lora, scheme, deployment.parallelism.tp)
    check_cut(config, deployment.parallelism)
    return deployment


def build_graph(
    model: ModelRef,
    phase: str = "prefill",
    batch: Num = 1,
    input_tokens: Num = 512,
    context_tokens: Num | None = None,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    expand: bool = False,
    engine: EngineRef = REFERENCE,
) -> nx.DiGraph:
    """The sharded and lowered graph of one step, not yet annotated.

    phase: `prefill` of `input_tokens`, or `decode` of one token behind `context_tokens` (default: input_tokens)
    expand: spell every layer out instead of repeating a body
    engine: whose kernels the adapter's nodes become, a profile's name or YAML; `reference` keeps the document's own
    batch, input_tokens, context_tokens, degrees and ranks may be arrays of one length: one scenario each.
    Raises ConfigError for an argument that is not allowed, InfeasibleError where the model cannot be cut as asked.
    """
    deployment = deployment_of(model, parallelism, lora, precision, engine)
    batch, input_tokens = count("batch", batch), count("input_tokens", input_tokens)
    scenarios_in(deployment, (batch, input_tokens))
    if phase == "prefill":
        graph = deployment.prefill(batch, input_tokens)
    elif phase == "decode":
        context = input_tokens if context_tokens is None else count("context_tokens", context_tokens, least=0)
        scenarios_in(deployment, (batch, context))
        graph = deployment.decode(batch, context)
    else:
        raise ConfigError(f"phase = {short(phase)} is not known; allowed: prefill, decode")
    return unroll(graph) if expand else graph


def simulate(
    model: ModelRef,
    hardware: HardwareRef,
    batch: Num = 1,
    input_tokens: Num = 512,
    output_tokens: Num = 128,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef = REFERENCE,
) -> Estimate:
    """Latency, throughput and memory of a batch of requests on one deployment.

    model: a catalog name, YAML, config.json, model folder or mapping; hardware: a catalog name, YAML or mapping
    batch: requests served together; input_tokens: prompt of each; output_tokens: tokens generated for each
    batch, input_tokens, output_tokens, tp, dp, rank and the like may be arrays of one length: one scenario each.
    lora: the adapter, by default the model's own `lora_config`; None without either
    engine: whose kernels the adapter's nodes become (`list_engines()`), or a profile of your own as YAML or mapping
    precision: `bf16` by default, or the checkpoint's own; cost: `calibrated`, `roofline` or a function
    Raises ConfigError, HardwareError or InfeasibleError for anything that cannot be run as asked.
    """
    deployment = deployment_of(model, parallelism, lora, precision, engine)
    device = load_hardware(hardware)
    requests = Requests(batch=batch, input_tokens=input_tokens, output_tokens=output_tokens)
    price, cost_name = choose_cost(cost, device)
    return estimate_of(Inference(deployment=deployment, hardware=device, requests=requests, price=price), cost_name)


def estimate_of(inference: Inference, cost_model: str) -> Estimate:
    """The estimate of an inference whose prices come from the named cost model."""
    deployment, requests = inference.deployment, inference.requests
    scenarios_in(requests, deployment, inference.hardware)
    formulas = formulas_of(inference)
    if formulas is None:
        ttft_s, generation_s, one_time_s = inference.ttft_s(), inference.generation_s(), inference.one_time_s()
        memory = inference.memory
    else:
        inputs = numbers_of(inference)
        ttft_s, generation_s, one_time_s = formulas.times_s(inputs, inference.tolerance)
        memory = partial(formulas.memory, inputs)
    further = np.maximum(requests.output_tokens - 1.0, 1.0)
    latency_s = ttft_s + np.where(requests.output_tokens > 1, generation_s, 0.0)[()]
    return Estimate(
        model=deployment.model.name,
        hardware=inference.hardware.name,
        settings=_settings(deployment, requests),
        cost_model=cost_model,
        ttft_s=ttft_s,
        tpot_s=generation_s / further,
        latency_s=latency_s,
        tokens_per_s=requests.batch * requests.output_tokens / latency_s,
        one_time_s=one_time_s,
        prefill=PhaseEstimate(name="prefill", build=inference.prefill_graph),
        decode=PhaseEstimate(name="decode", build=inference.decode_graph),
        measure_memory=memory,
        notes=deployment.model.notes + (deployment.lora.notes if deployment.lora else ()),
        inference=inference,
    )


def _settings(deployment: Deployment, requests: Requests) -> dict[str, Any]:
    """What was asked for, by name."""
    degrees = {field.name: getattr(deployment.parallelism, field.name) for field in fields(Parallelism)}
    asked = {field.name: getattr(requests, field.name) for field in fields(Requests)}
    lora = deployment.lora
    adapter = (
        None if lora is None else {f.name: getattr(lora, f.name) for f in fields(LoraConfig) if f.name != "matching"}
    )
    engine = deployment.engine.name if deployment.engine else REFERENCE
    return {
        **asked, "precision": deployment.precision.name, "parallelism": degrees, "engine": engine, "lora": adapter,
    }  # fmt: skip


def annotate(graph: nx.DiGraph, hardware: HardwareRef, cost: str | CostModel | None = None) -> nx.DiGraph:
    """A copy of a graph with `cost`, `latency_s` and `bound` on every node, priced for a device.

    cost: `calibrated`, `roofline` or a function; the device's best by default
    Raises GraphError for what is no graph of ops, HardwareError where the device has no rate for an operation.
    """
    if not isinstance(graph, nx.DiGraph):
        raise GraphError(f"graph = {short(graph)} is not a networkx.DiGraph; build_graph makes one")
    device = load_hardware(hardware)
    return annotate_with(graph, device, choose_cost(cost, device)[0])


def lora_parameters(model: ModelRef, lora: LoraConfig) -> int:
    """Trainable parameters of one adapter: r (k + n) for every module that it reaches, layer by layer.

    Equal to what PEFT's `get_peft_model` trains. Raises ConfigError for targets that match nothing and for ranks
    that are arrays.
    """
    config = load_model(model)
    if not isinstance(lora, LoraConfig):
        raise ConfigError(f"lora = {short(lora)} is not a LoraConfig")
    require_layers(lora, config.num_layers)
    dynamic = replace(lora, strategy="dynamic")  # a merge has no nodes for what a variant trains beside A and B
    graph = inject(build(config, prefill(1.0, 1.0), load_precision("bf16")), dynamic)
    parameters = lora_parameters_of(graph)
    if np.ndim(parameters):
        raise ConfigError("lora.rank holds several ranks; lora_parameters counts the parameters of one adapter")
    return round(float(parameters))
