"""Whatever a user holds shows itself in a few lines that say what it is and give its headline numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

import graphsim as gs
from graphsim.models.layers.base import Layer
from graphsim.ops import Op
from graphsim.ops.linear import Gemm
from graphsim.symbolic.expr import Tape

MODEL, DEVICE = "gpt-2", "h100-sxm"
MANY = list(range(1, 400))
LORA = gs.LoraConfig(rank=8)


@cache
def deployment() -> gs.Deployment:
    return gs.Deployment(MODEL, DEVICE, lora=LORA, engine="vllm")


@cache
def estimate() -> gs.Estimate:
    return gs.simulate(deployment(), batch=8)


@cache
def step() -> gs.TrainEstimate:
    return gs.train(MODEL, DEVICE, seq_len=512)


@cache
def traffic() -> gs.Traffic:
    lengths = {"input_tokens": (10, 20), "output_tokens": 5}
    return gs.Traffic.poisson(rate=5.0, requests=20, adapters=3, **lengths)  # type: ignore[arg-type]


@cache
def service() -> gs.Service:
    return gs.serve(deployment(), traffic())


def report() -> gs.CheckpointReport:
    from graphsim.models.checkpoint.report import Difference

    differences = tuple(Difference(module=f"layers.{i}.attn", text="is not there") for i in MANY)
    return gs.CheckpointReport(
        model=MODEL, source="folder", precision="bf16", parameters=124_439_808, bytes=1.0, checkpoint_parameters=1,
        checkpoint_bytes=1, explained_bytes=1, differences=differences,
    )  # fmt: skip


HELD: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "Bursts": (lambda: gs.Bursts(rate=1.0, burst_rate=4.0, every_s=9.0, burst_s=3.0), ("burst_rate=4.0",)),
    "Capacity": (lambda: gs.capacity(deployment(), traffic(), ttft_s=1.0), ("requests/s", "gpt-2 on h100-sxm")),
    "CheckpointReport": (report, ("gpt-2", "124.4 M parameters", "399 modules")),
    "Client": (lambda: gs.Client(connections=3), ("connections=3",)),
    "CompiledStep": (lambda: gs.compile_step(deployment()), ("gpt-2", "h100-sxm", "vllm")),
    "Deployment": (deployment, ("gpt-2", "h100-sxm", "lora rank=8")),
    "Drift": (lambda: gs.Drift(popularity=MANY, to="uniform", over_s=60.0), ("over_s=60",)),
    "EngineLimits": (lambda: gs.EngineLimits(max_num_seqs=8), ("max_num_seqs=8",)),
    "EngineProfile": (lambda: gs.load_profile("vllm"), ("vllm", "vLLM")),
    "Estimate": (estimate, ("gpt-2 on h100-sxm", "engine vllm", "calibrated", "time to first token", "fits")),
    "Explanation": (lambda: gs.explain(estimate()), ("gpt-2 on h100-sxm", "ttft", "parts")),
    "Fit": (lambda: gs.fit(deployment()), ("gpt-2", "h100-sxm")),
    "Hardware": (lambda: gs.load_hardware(DEVICE), ("h100-sxm", "80 GiB", "3.35 TB/s", "bf16 989.4 TFLOP/s")),
    "LoraConfig": (lambda: gs.LoraConfig(rank=MANY), ("1 … 399, 399 values", "dynamic")),
    "Media": (lambda: gs.Media(images=1), ("images=1",)),
    "ModelConfig": (lambda: gs.load_model("deepseek-v3"), ("deepseek-v3", "671 B parameters", "61 layers")),
    "Parallelism": (lambda: gs.Parallelism(tp=4), ("Parallelism(tp=4)",)),
    "PhaseEstimate": (lambda: estimate().prefill, ("prefill", "latency", "nodes")),
    "Plan": (lambda: gs.fine_tune_plan(MODEL, DEVICE, tokens=1e6, seq_len=512), ("steps", "device hours")),
    "Precision": (lambda: gs.load_precision("fp8,kv=fp8"), ("fp8", "KV cache fp8")),
    "Ramp": (lambda: gs.Ramp(1.0, 5.0), ("start=1.0", "end=5.0")),
    "RangeRatio": (lambda: gs.RangeRatio(tokens=100, ratio=0.5), ("tokens=100", "ratio=0.5")),
    "RequestClass": (lambda: gs.RequestClass("a", input_tokens=MANY), ("name='a'",)),
    "Service": (service, ("gpt-2 on h100-sxm", "20 of 20 requests", "TTFT", "TPOT")),
    "Sessions": (lambda: gs.Sessions(turns=3, think_s=1.0), ("turns=3",)),
    "Speculation": (lambda: gs.Speculation(draft="ngram", tokens=3, acceptance=0.8), ("ngram", "tokens=3")),
    "Traffic": (traffic, ("20 requests", "5/s", "3 adapters")),
    "Transfer": (lambda: gs.Transfer(overlap="layers"), ("overlap='layers'",)),
    "TrainEstimate": (step, ("gpt-2 on h100-sxm", "recipe peft", "optimizer step", "MFU", "fits")),
    "TrainMemory": (lambda: step().memory, ("total", "GiB", "fullest at")),
    "Work": (lambda: gs.total_work(gs.build_graph(MODEL)), ("flops", "weight")),
    "memory of an estimate": (lambda: estimate().memory, ("total", "GiB", "fits")),
    "energy of an estimate": (lambda: estimate().energy, ("per token", "mJ")),
    "engine's time of an estimate": (lambda: estimate().engine_time, ("request", "ms")),
    "critical path": (lambda: estimate().decode.critical_path, ("latency", "operations")),
    "an operation": (lambda: next(op for _, op in gs.build_graph(MODEL).nodes(data="op")), ("role=",)),
    "a layer": (lambda: gs.load_model(MODEL).layers[0], ("Block(",)),
    "estimates of many scenarios": (lambda: gs.simulate(MODEL, DEVICE, batch=MANY), ("399 scenarios", " to ")),
    "memory of many scenarios": (lambda: gs.simulate(MODEL, DEVICE, batch=MANY).memory, (" to ",)),
    "training steps of many scenarios": (lambda: gs.train(MODEL, DEVICE, batch=MANY, seq_len=64), ("399 scenarios",)),
    "setup of a step": (lambda: step().setup, ("gpt-2", "recipe peft")),
    "a difference": (lambda: gs.explain(estimate(), gs.simulate(MODEL, DEVICE)), ("where batch 8 becomes 1",)),
    "advice": (lambda: gs.lora_advice(deployment()), ("merge", "pays after")),
    "a footprint": (lambda: gs.footprint(deployment()), ("vllm", "weights", "kv")),
    "a break-even point": (lambda: gs.break_even(deployment()), ("tokens", "requests")),
    "a sweep": (lambda: gs.sweep(MODEL, DEVICE, batch=MANY), ("399 rows",)),
    "sensitivities": (lambda: gs.sensitivity(deployment()), ("memory_bandwidth", "rows")),
    "the best": (lambda: gs.best(MODEL, DEVICE, batch=MANY), ("gpt-2", "rows")),
    "a comparison": (lambda: gs.compare_lora(deployment()), ("dynamic", "merge")),
    "goodput": (lambda: service().goodput(ttft_s=1.0), ("requests_per_s",)),
    "utilisation": (lambda: service().utilisation, ("load",)),
    "work of symbols": (lambda: Gemm(m=Tape().variable("m"), n=8.0, k=8.0).work(), ("flops <formula of m>",)),
    "an operation of symbols": (
        lambda: Gemm(role="q_proj", m=Tape().variable("tokens"), n=8.0, k=8.0), ("role='q_proj'", "m=tokens", "n=8"),
    ),
}  # fmt: skip
"""What each public class is made by, and other things that calls return; texts that are found in their lines."""

NOT_HELD = {"OpType", "Pass"}
"""A list of names, and what users write classes of."""


@pytest.mark.parametrize("name", HELD)
def test_it_shows_itself_in_a_few_lines_with_its_headline_numbers(name: str) -> None:
    make, expected = HELD[name]
    text = repr(make())
    assert len(text.splitlines()) <= 10 and len(text) <= 600, text
    assert max(map(len, text.splitlines())) <= 520
    for part in expected:
        assert part in text, text
    assert "np.float64" not in text and "object at 0x" not in text


def test_every_public_class_is_among_them() -> None:
    public = {name: getattr(gs, name) for name in gs.__all__ if isinstance(getattr(gs, name), type)}
    left = {name for name, kind in public.items() if not issubclass(kind, Exception)} - HELD.keys() - NOT_HELD
    assert not left, f"say here how {sorted(left)} are made"
    for name in public.keys() & HELD.keys():
        assert isinstance(HELD[name][0](), public[name]), name


def test_an_estimate_prints_six_lines() -> None:
    lines = str(estimate()).splitlines()
    assert len(lines) == 6 and str(estimate()) == repr(estimate())
    assert lines[0].startswith("gpt-2 on h100-sxm, engine vllm, bf16; calibrated on h100-sxm")
    assert lines[1] == "batch 8, 512 tokens in, 128 out, lora rank 8 dynamic"


def test_operations_and_layers_of_all_kinds_do() -> None:
    """Also those that are written later: each is a subclass."""
    for base in (Op, Layer):
        kinds = base.__subclasses__()
        assert len(kinds) > 20 and all(kind.__repr__ is base.__repr__ for kind in kinds)  # type: ignore[comparison-overlap]
