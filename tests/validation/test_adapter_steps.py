"""Steps with adapters against runs of vLLM 0.8.5 with 8 to 192 slots, Poisson arrivals per adapter, no queue.

The tile constants of the profile and the host's of its steps were fitted on the runs with 16, 64 and 160 slots (between
tokens), what starting kernels takes beyond captured sizes, and looking slots up, on their mean time per token and on
the steps of saturated ones; judged are the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.lora.profile import load_profile
from tests.paths import REFERENCE

pytestmark = pytest.mark.slow

FITTED_SLOTS = (16, 64, 160)
HOST = load_profile("vllm-0.8").host
CAPTURED = np.array([1, 2, 4, *range(8, 513, 8)])
"""Sizes of vLLM's captured graphs, to which a step is padded."""

ANOTHER_TILING = 128
"""Tokens from which on vLLM's kernels are others, and cheaper: 134 tokens of 64 adapters took 45 ms, 115 had taken 51.

The law that more tokens never make a step cheaper (`tests/lora/test_step_laws.py`) keeps the price as it was.
"""

PROMPTS = np.array([0.0, 16, 48, 96, 160, 224, 320, 448, 512, 640, 800, 1024, 1400, 2048])
"""Prompt tokens of a step between which its time is interpolated; 2048 is the engine's budget."""


def padded(tokens: Any) -> Any:
    places = np.searchsorted(CAPTURED, np.minimum(tokens, 512))
    return np.where(np.asarray(tokens) > 512, tokens, CAPTURED[places]).astype(float)


class Run:
    """One run: its requests in flight, and a compiled step of its deployment."""

    def __init__(self, row: Any, lengths: Any) -> None:
        self.row, self.lengths = row, lengths
        pairs = [part.split(":") for part in row.adapter_counts_per_rate.split()]
        rates = np.concatenate([np.full(int(count), float(rate)) for rate, count in pairs])
        self.shares = rates / rates.sum()
        lora = gs.LoraConfig(
            target_modules="all-linear", max_loras=int(row.max_loras), max_lora_rank=int(row.max_lora_rank), rank=8
        )
        self.step = gs.compile_step("llama-3.1-8b", "h100-64gb", lora=lora, engine="vllm-0.8")
        self.host_s = HOST.step_s + HOST.sequence_s * row.mean_running
        self.cache = row.mean_running * (row.mean_input_tokens + row.mean_output_tokens / 2.0 + 1.0)

    def distinct(self, requests: Any) -> Any:
        """Adapters among so many requests; each adapter's number of them is Poisson distributed."""
        among = 1.0 - np.exp(-np.multiply.outer(np.asarray(requests, dtype=float), self.shares))
        return np.clip(among.sum(axis=-1), 1.0, self.row.max_loras)

    def generating_s(self) -> float:
        """A step without prompts."""
        tokens = float(padded(np.round(self.row.mean_running)))
        adapters = min(float(self.distinct(self.row.mean_running)), tokens)
        cache = max(self.cache, tokens)
        return self.host_s + float(self.step(generating=tokens, cache_rows=cache, distinct_adapters=adapters))

    def mean_s(self) -> float:
        """The mean over steps: prompts that arrive during one are in the next."""
        row, tokens = self.row, PROMPTS[1:]
        requests = row.mean_running + tokens / row.mean_input_tokens
        seconds = self.host_s + self.step(
            generating=row.mean_running, cache_rows=self.cache, prompt_tokens=tokens,
            prompts=np.maximum(tokens / row.mean_input_tokens, 1.0),
            distinct_adapters=np.minimum(self.distinct(requests), row.mean_running + tokens),
        )  # fmt: skip
        table = np.concatenate([[self.generating_s()], seconds])
        draw = np.random.default_rng(0)
        arrivals, sizes = draw.random(1500), np.cumsum(draw.choice(self.lengths, (1500, 15)), axis=1)
        mean = row.mean_tpot_ms / 1e3
        for _ in range(12):
            chances = np.cumsum(_poisson(row.request_throughput * mean, 15))
            count = np.minimum(np.searchsorted(chances, arrivals), 15)
            held = np.where(count > 0, sizes[np.arange(1500), np.maximum(count, 1) - 1], 0.0)
            mean = (mean + np.interp(np.minimum(held, 2048.0), PROMPTS, table).mean()) / 2.0
        return float(mean)


def _poisson(mean: float, most: int) -> Any:
    counts = np.arange(most + 1.0)
    factorials = np.cumprod(np.maximum(counts, 1.0))
    return np.exp(-mean) * mean**counts / factorials


def left_out() -> Iterator[Run]:
    """Runs without a queue or a preemption, of slots that nothing was fitted on."""
    pandas = pytest.importorskip("pandas")
    folder, lengths = REFERENCE / "serving", REFERENCE / "traces" / "lengths" / "mlperf_llama2_70b_openorca.csv"
    if not (folder / "bsc_lora_serving_runs.csv").exists() or not lengths.exists():
        pytest.skip("the reference data is not at hand")
    metrics = pandas.read_csv(folder / "bsc_lora_serving_metrics.csv")
    table = pandas.read_csv(folder / "bsc_lora_serving_runs.csv").join(
        metrics.pivot_table(index="id", columns="metric", values="value"), on="id"
    )
    table = table[table.framework.str.contains("0.8.5") & ~table.max_loras.isin(FITTED_SLOTS)]
    table = table[(table.mean_waiting < 0.5) & (table.preemptions.fillna(0.0) == 0.0)]
    drawn = pandas.read_csv(lengths).input_tokens.to_numpy(float)
    for row in table.itertuples():
        yield Run(row, np.clip(drawn * row.mean_input_tokens / drawn.mean(), 1.0, 2000.0))


def test_steps_without_prompts_are_as_the_median_time_between_tokens_was() -> None:
    """Where fewer than 40 % of the steps have a prompt, so that the median one has none."""
    runs = [run for run in left_out() if run.row.request_throughput * run.row.median_itl_ms / 1e3 < 0.51]
    errors = np.array([run.generating_s() * 1e3 / run.row.median_itl_ms - 1.0 for run in runs])
    assert len(errors) >= 40
    assert np.median(np.abs(errors)) < 0.02 and np.quantile(np.abs(errors), 0.9) < 0.05
    busy = errors[[30 < run.distinct(run.row.mean_running) < 50 for run in runs]]
    assert len(busy) >= 5 and np.median(np.abs(busy)) < 0.05


def test_steps_with_prompts_are_as_the_mean_time_per_token_was() -> None:
    """Where all adapters have a slot, so that no step waits for a load."""
    runs = [run for run in left_out() if run.row.adapters <= run.row.max_loras and run.row.mean_running < 200]
    errors = np.array([run.mean_s() * 1e3 / run.row.mean_tpot_ms - 1.0 for run in runs])
    assert len(errors) >= 20
    assert np.median(np.abs(errors)) < 0.03 and abs(np.mean(errors)) < 0.03
    small = np.array([run.row.mean_running < ANOTHER_TILING for run in runs])
    assert np.quantile(np.abs(errors[small]), 0.9) < 0.08
    assert np.all((errors[~small] > 0.0) & (errors[~small] < 0.28)), "the smaller tiling's price is kept"
