"""Random deployments with everything that an estimate says of them, for comparing one state of the code with another.

`python -m tests.golden.scenarios FILE` writes what this checkout gives, `python -m tests.golden.scenarios OLD NEW`
lists what differs between two such files. The estimates that the tests compare with are in `estimates.json`. Only
public names are used here, so that a file can be made with older checkouts too.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import graphsim as gs

COUNT, SEED = 500, 20261129

TOLERANCE = 1e-12
"""Relative: two ways to the same number differ by rounding at most."""

DENSE = (
    "llama-2-7b", "llama-3.1-8b", "llama-3.1-70b", "llama-3.2-1b", "qwen2.5-7b", "qwen3-8b", "gemma-2-9b", "gpt-2",
    "phi-3-mini", "mistral-7b", "qwen3-32b",
)  # fmt: skip
EXPERTS = ("mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b", "gpt-oss-120b", "minimax-m2.5")
DEVICES = (
    "h100-sxm", "a100-sxm-80gb", "b200-sxm", "l40s", "l4", "gb200", "rtx-pro-6000", "h200-sxm", "mi300x",
    "a100-pcie-80gb", "arc-pro-b60", "tpu-v5e",
)  # fmt: skip
ENGINES = ("reference", "vllm", "vllm", "vllm-0.5", "sglang", "slora", "peft")
PRECISIONS = (None, None, "bf16", "fp16", "fp32", "fp8", "fp8_block", "fp8,kv=fp8", "int8", "int4", "nf4", "nf4_dq",
              "nvfp4", "mxfp4")  # fmt: skip
TARGETS: tuple[Any, ...] = (
    ["attn", "ffn"], ["attn"], ["q_proj", "v_proj"], "all-linear", ["qkv", "out proj"], ["up+gate", "down"],
)  # fmt: skip
VARIANTS = ("lora", "lora", "lora", "rslora", "dora", "vera", "alora", "qa-lora", "bd-lora")
MEMORY = ("weights_bytes", "kv_cache_bytes", "activations_bytes", "adapters_bytes", "overhead_bytes", "max_batch")


def scenarios(count: int = COUNT, seed: int = SEED) -> list[dict[str, Any]]:
    """Scenarios as plain data: models, devices, engines, formats, degrees, adapters and requests at random."""
    draw = np.random.default_rng(seed)

    def one(choices: Any) -> Any:
        return choices[int(draw.integers(len(choices)))]

    found = []
    for _ in range(count):
        experts = draw.random() < 0.3
        tp, engine, hardware = int(one((1, 1, 1, 2, 4, 8))), one(ENGINES), one(DEVICES)
        adapter = None
        if draw.random() < 0.75:
            variant = one(VARIANTS if engine in ("reference", "peft") else VARIANTS[:4])
            adapter = {
                "rank": int(one((0, 4, 8, 16, 16, 32, 64))), "target_modules": one(TARGETS), "variant": variant,
                "strategy": "merge" if variant in ("lora", "rslora", "dora") and draw.random() < 0.3 else "dynamic",
                "active_adapters": int(one((0, 1, 1, 2, 4, 16))), "adapter_share": float(one((1.0, 1.0, 0.5))),
                "max_loras": int(one((0, 0, 4, 32))), "max_lora_rank": int(one((0, 0, 64, 128))),
                "fully_sharded_loras": bool(draw.random() < 0.2), "blocks": tp if variant == "bd-lora" else 1,
            }  # fmt: skip
        found.append(
            {
                "model": one(EXPERTS if experts else DENSE),
                "hardware": hardware,
                "engine": engine,
                "precision": one([name for name in PRECISIONS if _runs(hardware, name)]),
                "cost": one((None, None, None, "roofline")),
                "lora": adapter,
                "parallelism": {
                    "tp": tp,
                    "pp": int(one((1, 1, 1, 2, 4))),
                    "dp": int(one((1, 1, 2))),
                    "ep": int(one((1, tp, 8))) if experts else 1,
                    "sp": int(one((1, 1, tp))),
                },
                "batch": int(one((1, 1, 3, 8, 32, 128))),
                "input_tokens": int(one((1, 100, 512, 2048, 8192))),
                "output_tokens": int(one((1, 2, 50, 128, 700))),
            }  # fmt: skip
        )
    return found


def _runs(hardware: str, precision: str | None) -> bool:
    """Whether a device has the matrix units of a precision."""
    needs = {"fp8": "fp8", "fp8_block": "fp8", "fp8,kv=fp8": "fp8", "int8": "int8", "nvfp4": "fp4"}
    needed = needs.get(precision or "")
    peaks = gs.load_hardware(hardware).flops_per_s
    return needed in peaks if needed else precision != "fp32" or bool({"tf32", "fp32"} & set(peaks))


def priced(scenario: dict[str, Any]) -> dict[str, Any]:
    """What graphsim says of a scenario: numbers by name, or the error."""
    asked = dict(scenario)
    adapter = asked.pop("lora")
    requests = {name: asked.pop(name) for name in ("batch", "input_tokens", "output_tokens")}
    try:
        asked["parallelism"] = gs.Parallelism(**asked["parallelism"])
        asked["lora"] = None if adapter is None else gs.LoraConfig(**adapter)
        estimate = gs.simulate(**asked, **requests)
        found = {name: float(getattr(estimate, name)) for name in ("ttft_s", "tpot_s", "latency_s", "one_time_s")}
        found |= {name: float(getattr(estimate.memory, name)) for name in MEMORY}
        found["prefill_graph_s"] = float(estimate.prefill.latency_s)
        found["decode_graph_s"] = float(estimate.decode.latency_s)
    except gs.GraphsimError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return found | _step(asked)


def _step(asked: dict[str, Any]) -> dict[str, Any]:
    """A step with prompts and generation, or why there is none."""
    try:
        step = gs.compile_step(**asked)
    except gs.ConfigError as error:
        return {"step_error": str(error)}
    mixed_s = step(prefill_tokens=256.0, prefill_sequences=2.0, past_tokens=128.0, decode_batch=5.0, context=777.0)
    return {"mixed_step_s": float(mixed_s)}


def covering(drawn: list[dict[str, Any]]) -> list[int]:
    """Places of scenarios that hold every pair of two fields' values that all of them hold together.

    One after the other is left out where each of its pairs is in another one that is not.
    """
    pairs = [set(combinations(_values(scenario), 2)) for scenario in drawn]
    times = Counter(pair for one in pairs for pair in one)
    kept = []
    for place, one in enumerate(pairs):
        if min(times[pair] for pair in one) > 1:
            times.subtract(one)
        else:
            kept.append(place)
    return kept


def _values(scenario: dict[str, Any]) -> list[str]:
    """What each field of a scenario, of its degrees and of its adapter is, for telling them apart."""
    parts = {name: scenario[name] or {} for name in ("lora", "parallelism")}
    inner = [f"{part}.{name}={value}" for part, fields in parts.items() for name, value in fields.items()]
    return [*inner, *(f"{name}={value}" for name, value in scenario.items() if name not in parts)]


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two findings of one scenario differ in, by name: beyond rounding (1e-12) for numbers."""
    names = [*before, *(name for name in after if name not in before)]
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if not _alike(*pair)}


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or abs(one - other) <= TOLERANCE * max(abs(one), abs(other))
    return bool(one == other)


def write(path: str) -> None:
    """Write every scenario with what it costs, one line each."""
    lines = [json.dumps({"scenario": scenario, "found": priced(scenario)}) for scenario in scenarios()]
    Path(path).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def compare(old: str, new: str) -> None:
    """Print the scenarios that two files do not agree on."""
    before, after = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (old, new))
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        if found := differences(one["found"], other["found"]):
            print(number, json.dumps(one["scenario"]))
            for name, pair in found.items():
                print(f"    {name}: {pair[0]} -> {pair[1]}")


if __name__ == "__main__":
    write(sys.argv[1]) if len(sys.argv) == 2 else compare(*sys.argv[1:])
