"""How fast training is simulated against inference, in one run; ratios are kept, and no absolute time is asserted.

`pytest tests/benchmarks/test_training_speed.py --benchmark-enable -m "slow or not slow"` prints times, and with them
`rate_ratio`, rows per second of a training sweep over those of an inference sweep of the same size, and `time_ratio`,
a warm training estimate over a warm `simulate`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

import graphsim as gs
from tests.benchmarks import measure

pytest.importorskip("pytest_benchmark")

Benchmark = Callable[..., Any]
MODEL, DEVICE = "llama-3.2-1b", "h100-sxm"
BATCHES, LENGTHS = list(range(1, 65)), list(range(128, 128 * 65, 128))
LORA = gs.LoraConfig(rank=16, target_modules=("attn", "ffn"))


def cpu_s(call: Callable[[], object], turns: int = 3) -> float:
    """Of the fastest of some turns."""
    found = []
    for _ in range(turns):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def trained() -> Any:
    return gs.sweep_training(MODEL, DEVICE, batch=BATCHES, seq_len=LENGTHS, rank=16)


def served() -> Any:
    return gs.sweep(MODEL, DEVICE, batch=BATCHES, input_tokens=LENGTHS, rank=16, engine="reference")


@pytest.mark.slow
def test_a_sweep_over_training(benchmark: Benchmark) -> None:
    cold_s = [cpu_s(call, 1) for call in (trained, served)]
    table = benchmark(trained)
    assert len(table) == len(BATCHES) * len(LENGTHS) and table["step_s"].notna().all()
    warm_s = [cpu_s(call) for call in (trained, served)]
    benchmark.extra_info |= {  # type: ignore[attr-defined]
        "rate_ratio": warm_s[1] / warm_s[0], "cold_rate_ratio": cold_s[1] / cold_s[0],
        "rows_per_cpu_s": len(table) / warm_s[0],
    }  # fmt: skip


@pytest.mark.slow
def test_a_warm_training_step(benchmark: Benchmark) -> None:
    lengths = count(600)
    step = benchmark(lambda: gs.train(MODEL, DEVICE, seq_len=next(lengths), lora=LORA))
    assert step.step_s > 0
    benchmark.extra_info["time_ratio"] = time_ratio(MODEL, {})  # type: ignore[attr-defined]


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "adapter": (MODEL, {}),
    "shared": (MODEL, {"recipe": "torchtitan", "method": "full", "parallelism": gs.Parallelism(dp=8)}),
    "experts": ("mixtral-8x7b", {}),
    "latent attention": ("deepseek-v2-lite", {}),
    "pipeline": ("llama-3.1-8b", {
        "recipe": "megatron-bridge", "method": "full", "accumulate": 16, "parallelism": gs.Parallelism(tp=2, pp=4, dp=2)
    }),
}  # fmt: skip


def time_ratio(model: str, asked: dict[str, Any]) -> float:
    """Processor time of a warm training estimate over that of a warm `simulate`, of lengths that nobody asked for."""
    lengths = count(600)
    lora = {} if asked.get("method") == "full" else {"lora": LORA}
    calls: list[Callable[[], object]] = [
        lambda: gs.train(model, DEVICE, seq_len=next(lengths), **asked, **lora),
        lambda: gs.simulate(model, DEVICE, 4, next(lengths), **lora, engine="reference"),
    ]
    for call in calls:
        for _ in range(20):
            call()
    train_s, simulate_s = measure.cpu_seconds(*calls, turns=15)
    return train_s / simulate_s


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_warm_training_step_takes_a_few_times_as_long_as_a_warm_inference(setting: str) -> None:
    assert time_ratio(*SETTINGS[setting]) <= 12.0


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODEL, "mixtral-8x7b"])
def test_training_is_swept_at_a_third_of_the_rate_of_inference(model: str) -> None:
    sizes: dict[str, Any] = {"batch": BATCHES, "rank": 16}
    calls: list[Callable[[], object]] = [
        lambda: gs.sweep_training(model, DEVICE, seq_len=LENGTHS, **sizes),
        lambda: gs.sweep(model, DEVICE, input_tokens=LENGTHS, **sizes, engine="reference"),
    ]
    for call in calls:
        call()
    trained_s, served_s = measure.cpu_seconds(*calls)
    assert served_s / trained_s >= 0.3


def test_rows_cost_little_once_a_structure_is_known() -> None:
    """Four times the rows of a known structure take far less than four times the time of recording it."""
    few, many = LENGTHS[:4], LENGTHS[:16]
    first_s = cpu_s(lambda: gs.sweep_training(MODEL, DEVICE, batch=BATCHES[:8], seq_len=few, rank=24), 1)
    later_s = cpu_s(lambda: gs.sweep_training(MODEL, DEVICE, batch=BATCHES[:8], seq_len=many, rank=24), 1)
    assert later_s < 4.0 * first_s
