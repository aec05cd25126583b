"""A compiled step equals what simulate gives, for floats and arrays, and refuses what makes no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs

LORA = gs.LoraConfig(rank=16)


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize("parallelism", [gs.Parallelism(), gs.Parallelism(tp=4)])
@pytest.mark.parametrize("lora", [None, LORA])
def test_a_step_equals_simulate(cost: str, parallelism: gs.Parallelism, lora: gs.LoraConfig | None) -> None:
    step = gs.compile_step("llama-2-7b", "a100-sxm-80gb", parallelism, lora, cost=cost, engine="reference")
    whole = gs.simulate("llama-2-7b", "a100-sxm-80gb", 3, 500, 2, parallelism, lora, cost=cost, engine="reference")
    assert step(500, prefill_sequences=3) == pytest.approx(whole.ttft_s, rel=1e-9)
    assert step(decode_batch=3, context=500) == pytest.approx(whole.tpot_s, rel=1e-9)


def test_arrays_give_what_single_calls_give() -> None:
    step = gs.compile_step("llama-2-7b", "a100-sxm-80gb", lora=LORA, engine="reference")
    batches, contexts = np.array([1.0, 8.0, 64.0]), np.array([100.0, 3000.0])
    found = step(256.0, batches[:, None], contexts[None, :], adapters=batches[:, None])
    assert np.shape(found) == (3, 2)
    for i, batch in enumerate(batches):
        for j, context in enumerate(contexts):
            one = step(256.0, float(batch), float(context), float(batch))
            assert np.asarray(found)[i, j] == pytest.approx(one, rel=1e-9)


def test_more_work_takes_longer_and_a_mixed_step_less_than_two_steps() -> None:
    step = gs.compile_step("llama-3.1-8b", "h100-sxm", engine="reference")
    prompt, generation, both = step(512), step(0, 16, 1000), step(512, 16, 1000)
    assert max(prompt, generation) < both < prompt + generation
    assert step(512, past_tokens=4000) > prompt
    assert step(0, 16, 4000) > generation


def test_distinct_adapters_cost_their_weights_traffic() -> None:
    step = gs.compile_step("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(rank=64), cost="roofline", engine="reference")
    traffic = (
        gs.lora_parameters("llama-3.1-8b", gs.LoraConfig(rank=64)) * 2 / gs.load_hardware("h100-sxm").memory_bytes_per_s
    )
    assert step(0, 64, 1000, 33) - step(0, 64, 1000, 32) == pytest.approx(traffic, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prefill_tokens": -1}, "prefill_tokens = -1"),
        ({"decode_batch": float("nan")}, "decode_batch = nan"),
        ({"context": "long"}, "context = 'long'"),
        ({"decode_batch": 1, "adapters": 2}, "without a dynamic LoraConfig"),
    ],
)
def test_a_senseless_step_is_one_sentence(arguments: dict[str, Any], said: str) -> None:
    step = gs.compile_step("gpt-2", "l4", engine="reference")
    with pytest.raises(gs.ConfigError, match=said):
        step(**arguments)


def test_arrays_of_deployments_are_refused() -> None:
    with pytest.raises(gs.ConfigError, match="arrays of scenarios"):
        gs.compile_step("gpt-2", "l4", lora=gs.LoraConfig(rank=[1, 2, 3]), engine="reference")


@pytest.mark.parametrize("device", ["a100-sxm-80gb", "l4"])
def test_prices_from_tables_are_recorded_for_single_steps_and_equal_the_passes(device: str) -> None:
    """Attention's fitted times are formulas around table look-ups; a step of a new size is still that of `simulate`."""
    step = gs.compile_step("llama-3.1-8b", device, engine="reference")
    for batch, context in ((1, 17), (3, 4095), (64, 100_000)):
        graph = gs.annotate(gs.build_graph("llama-3.1-8b", "decode", batch, context), device)
        assert step(decode_batch=float(batch), context=float(context)) == pytest.approx(
            float(gs.critical_path(graph).latency_s), rel=1e-9
        )
