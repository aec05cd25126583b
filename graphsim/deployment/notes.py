"""Notes that accompany an estimate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphsim.cost.families.formats import runs_widened
from graphsim.deployment.cutting import has_experts
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Requests
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.units import Num, amount_text, counted_text


def notes_of(deployment: Deployment, requests: Requests) -> tuple[str, ...]:
    """What the readers of model and adapter left out or assumed, and what runs differently from the request.

    requests: only their batch and media are used
    """
    adapter = deployment.adapter
    return (
        *deployment.model.notes,
        *(adapter.notes if adapter else ()),
        *_spare_adapters(deployment, requests.batch),
        *_short_prompts(deployment, requests),
        *_padded_chunks(deployment, requests.input_tokens),
        *deployment.once(_run_otherwise),
    )


def _run_otherwise(deployment: Deployment) -> tuple[str, ...]:
    """What runs differently from the description, independent of the requests."""
    return (
        *_tower_adapters(deployment), *_widened(deployment), *_narrowed(deployment), *_context_experts(deployment),
    )  # fmt: skip


def _spare_adapters(deployment: Deployment, batch: Num) -> Iterator[str]:
    """A sentence if there are more adapters than sequences, each of which has at most one."""
    adapter = deployment.adapter
    if adapter is None or adapter.strategy != "dynamic":
        return
    sequences = deployment.sequences(batch)
    if np.any(np.greater(adapter.active_adapters, sequences)):
        active, served = float(np.max(adapter.active_adapters)), counted_text(float(np.min(sequences)), "sequence")
        yield f"{amount_text(active)} active adapters for {served} of a replica; each has one adapter at most"


def _short_prompts(deployment: Deployment, requests: Requests) -> Iterator[str]:
    """A sentence if prompts have fewer tokens than their images and sound."""
    if requests.media is None:
        return
    media = requests.media
    tokens = sum(encoder.prompt_tokens(media) for encoder in deployment.model.encoders)
    if np.any(np.less(requests.input_tokens, tokens)):
        yield (
            "input_tokens counts all tokens of a prompt, of which its images and sound alone stand for "
            f"{amount_text(tokens)}; "
            "no request can be as short as this"
        )


def _padded_chunks(deployment: Deployment, input_tokens: Num) -> Iterator[str]:
    """A sentence if prompts have fewer tokens than context-parallel ranks have chunks."""
    ranks = deployment.parallelism.cp
    short_ones = np.greater(ranks, 1) & np.less(input_tokens, 2.0 * np.asarray(ranks))
    if np.any(short_ones):
        yield (
            f"input_tokens = {amount_text(np.min(input_tokens))} leaves some of {amount_text(np.max(ranks))} "
            "context-parallel "
            "ranks without two tokens; engines pad such prompts, which is not counted"
        )


def _tower_adapters(deployment: Deployment) -> Iterator[str]:
    """A sentence if vLLM leaves out an adapter's weights on towers.

    vLLM 0.11, `lora/models.py`, _filter_unsupported_mm_module; later `enable_tower_connector_lora` switches it.
    """
    adapter, engine, model = deployment.adapter, deployment.engine, deployment.model
    if adapter is None or adapter.strategy != "dynamic" or engine is None or not engine.name.startswith("vllm"):
        return
    if not model.encoders:
        return
    from graphsim.lora.targets import Targets, modules_of

    targets, precision = Targets(adapter), deployment.precision
    text = {path for _, path in modules_of(build(model, prefill(1.0, 1.0), precision))}
    every = modules_of(build(model, prefill(1.0, 1.0).with_towers, precision))
    reached = next((path for op, path in every if path not in text and targets.key(op, path) is not None), None)
    if reached is not None:
        yield (
            f"the adapter reaches the towers ({reached}), where {engine.name} runs it with "
            "enable_tower_connector_lora only, as is counted here; by default it runs the language model's part"
        )


def _context_experts(deployment: Deployment) -> Iterator[str]:
    """A sentence if vLLM spreads experts over more ranks than counted (0.33, `vllm/config/parallel.py`)."""
    engine, degrees = deployment.engine, deployment.parallelism
    if engine is None or not engine.name.startswith("vllm") or not np.any(np.greater(degrees.cp, 1)):
        return
    if has_experts(deployment.model):
        yield (
            f"{engine.name} cuts or deals out experts over context-parallel ranks too; here each of them holds what "
            f"tp = {amount_text(np.max(degrees.tp))} leaves it, so that weights are more and exchanges of tokens none"
        )


def _narrowed(deployment: Deployment) -> Iterator[str]:
    """A sentence if activations are in bf16 on a device without bf16."""
    activations, device = deployment.precision.activations.name, deployment.device
    if activations == "bf16" and "bf16" not in device.flops_per_s and "fp16" in device.flops_per_s:
        yield f"{device.name} has no matrix unit for bf16: the model runs in fp16 (as vLLM's dtype auto falls back to)"


def _widened(deployment: Deployment) -> Iterator[str]:
    """A sentence for each format of weights that the device has no matrix unit for."""
    precision, device = deployment.precision, deployment.device
    for name in dict.fromkeys(f.name for f in precision.of_weights if runs_widened(device, f.compute)):
        yield (
            f"{device.name} has no matrix unit for {name}: these weights are widened to 16 bits inside the GEMM by "
            "a weight-only kernel (as vLLM does with Marlin), which saves memory and traffic, not compute"
        )
