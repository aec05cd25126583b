"""Measured runs as their tables tell them: what ran, and which requests it was sent."""

from __future__ import annotations

from collections import Counter
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graphsim.errors import ConfigError
from graphsim.traffic.table import BASE
from graphsim.validation.measured_run import HALVES, MeasuredRun, sampled
from graphsim.validation.serving_blis import FAILED, FIRST, blis_runs, staged_traffic
from graphsim.validation.serving_bsc import FORK, bsc_run
from graphsim.validation.serving_llmservingsim import trace_run
from graphsim.validation.serving_open_loop import NOT_TOLD, dstack_run, sglang_lengths, sglang_run, starved_run
from graphsim.validation.serving_slora import bursts, slora_run
from graphsim.validation.stand_in_lengths import chat_lengths

NONE = float("nan")
BSC = {
    "id": "bsc-7", "hardware": "H100 64 GB (inferred from KV budget)", "framework": "vllm 0.8.5 (V1)",
    "model": "llama-3.1-8b-instruct", "adapter_rates_per_s": "0.1 0.05 0.025", "duration_s": 3600,
    "lengths": "ShareGPT", "mean_input_tokens": 222.5, "mean_output_tokens": 194.0, "adapters": 7, "max_loras": 4,
    "max_lora_rank": 16,
    "ranks": "8/16", "max_num_seqs": 2048, "rank_assignment": "round robin over adapters",
}  # fmt: skip
BLIS = {
    "hardware": "H100 SXM 80GB", "model": "meta-llama/Llama-3.1-8B-Instruct", "tp": 1, "max_num_seqs": 128,
    "arrival": "constant rate (inference-perf): 2/s for 60 s then 4/s for 30 s", "max_num_batched_tokens": 2048,
    "lengths": "shared_prefix 11x4, system 100 + question 466 in, 247 out, multi-turn chat True", "kv_blocks": NONE,
    "max_model_len": "4096?", "gpu_mem_util": 0.9, "note": "stage all",
}  # fmt: skip
SLORA = {
    "id": "s-1", "source": "x/slora.jsonl", "hardware": "A10G 24GB", "framework": "S-LoRA artifact: slora",
    "model": "llama-7b", "arrival": "Gamma per adapter, cv=2 (cv 1 = Poisson)", "rate_req_s": 2, "duration_s": 300,
    "input_tokens": "U[8, 512]", "output_tokens": "U[8, 512]", "adapters": 200, "popularity": "power law alpha=0.3",
    "ranks": "64/32/16/8",
}  # fmt: skip
SGLANG = {
    "id": "g-1", "hardware": "H200 SXM 141GB", "framework": "sglang, 2024-12, radix cache off", "precision": "bf16",
    "model": "Llama-3.3-70B-Instruct", "tp": 4, "dataset_name": "random", "request_rate": 4.0, "random_input_len": 1024,
    "random_output_len": 1024, "random_range_ratio": 0.0, "total_input_tokens": 152612, "total_output_tokens": 160347,
    "completed": 300, "duration": 298.4, "median_ttft_ms": 85.7,
}  # fmt: skip


def table_of(run: MeasuredRun) -> Any:
    assert run.served is not None
    return run.served.table()


def test_rates_and_ranks_go_round_robin_over_the_adapters() -> None:
    run = bsc_run(BSC, (("request_throughput", 0.2),))
    assert run.served is not None
    lora = run.served.deployment["lora"]
    assert lora.mixed_ranks == (8, 16, 8, 16, 8, 16, 8) and lora.max_loras == 4
    table = table_of(run)
    seen = Counter(table.adapter.tolist())
    expected = np.array([0.1, 0.05, 0.025, 0.1, 0.05, 0.025, 0.1]) * 3600
    assert np.abs(np.array([seen[i] for i in range(7)]) - expected).max() < 5 * np.sqrt(expected.max())
    assert (np.diff(table.arrival_s) >= 0).all() and table.arrival_s[-1] <= 3600
    assert table.input_tokens.mean() == pytest.approx(222.5, rel=0.1)
    assert run.about["served_share"] == pytest.approx(0.2 / 0.45)
    assert run.served.client.refuses and run.served.client.cutoff_s == 3600


def test_the_earlier_fork_is_judged_apart_and_lasts_as_long_as_was_measured() -> None:
    fork = BSC | {"framework": "vllm, earlier BSC fork", "duration_s": NONE, "lengths": "dummy_dataset_mean.json"}
    run = bsc_run(fork, (("duration", 300.0),))
    assert run.judged == FORK and run.served is not None and run.served.client.cutoff_s == 300
    assert set(table_of(run).input_tokens) == {222}
    with pytest.raises(ConfigError, match="no duration"):
        bsc_run(fork, ())


@pytest.mark.parametrize(("column", "value"), [("ranks", "all"), ("adapter_rates_per_s", "0"), ("max_loras", -1)])
def test_rows_that_make_no_sense_say_so(column: str, value: object) -> None:
    with pytest.raises(ConfigError, match=column):
        bsc_run(BSC | {column: value}, (("duration", 1.0),))


def test_stages_are_parts_of_one_run() -> None:
    rows = [BLIS | {"id": f"blis-1-s{stage}"} for stage in ("0", "1", "all")]
    rows[0]["arrival"] = "constant rate (inference-perf): 2/s for 60 s"  # of itself; the run is told by another row
    failed = (("failed", 3.0),)
    first, second, whole = blis_runs(rows, {"blis-1-sall": failed})
    assert (first.of, second.of, whole.of) == ((0, 120), (120, 240), None)
    assert first.key == second.key == whole.key and whole.judged == FAILED
    (first300,) = blis_runs([BLIS | {"id": "blis-1-sall-first30", "note": "only the first 30"}], {})
    assert first300.of == (0, 30) and first300.judged == FIRST
    (unread,) = blis_runs([BLIS | {"id": "x-s0", "lengths": "some"}], {})
    assert "some" in unread.problem


def test_prompts_go_round_and_share_their_groups_beginning() -> None:
    table = staged_traffic([(10.0, 30.0), (20.0, 10.0)], 100, 466, 247)
    assert len(table) == 500 and table.arrival_s[299] == pytest.approx(30.0)
    assert table.prefixes is not None
    segments, ends = table.prefixes.of(0)
    again, _ = table.prefixes.of(100)
    assert segments == again and ends == [105, 592]
    questions = {table.prefixes.of(i)[0][1] for i in range(100)}
    assert len(questions) == 100 and len({table.prefixes.of(i)[0][0] for i in range(100)}) == 10


def test_a_power_distribution_is_uniform_at_one_and_bursts_keep_the_rate() -> None:
    even = bursts(50, 1.0, 2.0, 1.0, 3000.0, (8, 512), (8, 512))
    counts = np.bincount(even.adapter, minlength=50)
    assert counts.max() < 2 * counts.min() and even.arrival_s[-1] == pytest.approx(3000, rel=0.05)
    assert even.input_tokens.min() >= 8 and even.input_tokens.max() <= 511
    few = bursts(50, 0.1, 2.0, 1.0, 3000.0, (8, 512), (8, 512))
    assert np.bincount(few.adapter, minlength=50).max() > 10 * len(few) / 50
    gaps = np.diff(bursts(50, 1.0, 2.0, 4.0, 3000.0, (8, 512), (8, 512)).arrival_s)
    assert gaps.std() / gaps.mean() == pytest.approx(4.0, rel=0.2)
    assert set(bursts(0, 1.0, 2.0, 1.0, 30.0, (8, 512), (8, 512)).adapter) == {BASE}


def test_variants_of_the_server_say_why_they_are_not_simulated() -> None:
    assert slora_run(SLORA, ()).problem == "" and slora_run(SLORA, ()).judged == ""
    assert slora_run(SLORA | {"framework": "S-LoRA artifact: pets"}, ()).judged == "order of pets"
    for changed, said in (
        ({"framework": "S-LoRA artifact: bmm"}, "pad"), ({"arrival": "LMSYS Arena trace"}, "not public"),
        ({"framework": "S-LoRA artifact: ablation_mem"}, "outside the pool"),
    ):  # fmt: skip
        assert said in slora_run(SLORA | changed, ()).problem
    with pytest.raises(ConfigError, match="popularity"):
        slora_run(SLORA | {"popularity": "any"}, ())


@pytest.mark.parametrize(("count", "prompts", "answers"), [(300, 152612, 160347), (3200, 1629242, 1642637)])
def test_sglangs_client_draws_the_lengths_that_were_sent(count: int, prompts: int, answers: int) -> None:
    """Sums as two runs of one table report them."""
    found = sglang_lengths(count, 1024, 1024, 0.0)
    assert (int(found[0].sum()), int(found[1].sum())) == (prompts, pytest.approx(answers, abs=5))


def test_open_loops_start_at_once_and_an_infinite_rate_sends_all() -> None:
    run = sglang_run(SGLANG)
    table = table_of(run)
    assert table.arrival_s[0] == 0 and np.diff(table.arrival_s).mean() == pytest.approx(0.25, rel=0.2)
    assert dict(run.measured) == {"completed": 300, "duration": 298.4, "median_ttft_ms": 85.7,
                                  "total_input_tokens": 152612, "total_output_tokens": 160347}  # fmt: skip
    assert not table_of(sglang_run(SGLANG | {"request_rate": inf})).arrival_s.any()
    chats = table_of(sglang_run(SGLANG | {"dataset_name": "sharegpt", "total_input_tokens": 60000}))
    assert chats.input_tokens.mean() == pytest.approx(200, rel=0.15)


def test_devices_of_one_server_are_told_from_two() -> None:
    row = {
        "gpu": "8xH100 1FP8-meta", "num_prompts": 100, "request_rate": 16, "total_input_tokens": 20000,
        "total_output_tokens": 12000, "max-num-seqs": 512, "max-num-batched-tokens": "512", "num-scheduler-step": 1,
        "enable-chunked-prefill": "TRUE", "mean_ttft_ms": 400.0,
    }  # fmt: skip
    run = dstack_run(row, 3)
    assert run.id == "3" and run.served is not None and run.served.limits["max_num_batched_tokens"] == 512
    assert "two servers" in dstack_run(row | {"gpu": "8xMi300x  2FP8-amd"}, 1).problem
    with pytest.raises(ConfigError, match="gpu"):
        dstack_run(row | {"gpu": "some"}, 1)


def test_a_thread_is_simulated_where_it_tells_enough() -> None:
    row = {
        "id": "t", "hardware": "A100-SXM4-80GB", "model": "Llama-3.1-8B", "precision": "bf16", "metric": "p90_e2e_ms",
        "workload": "random lengths up to 512 in / 512 out, 200 prompts, rate 4/s Poisson",
        "lora": "6 adapters uniform, max_loras_per_batch 3, max_loaded_loras 6",
    }  # fmt: skip
    run = starved_run(row, ())
    assert run.served is not None and len(table_of(run)) == 200 and set(table_of(run).adapter) == set(range(6))
    assert starved_run(row | {"lora": "none"}, ()).problem == NOT_TOLD


def test_traces_are_found_beside_the_table_and_shared_by_engines(tmp_path: Path) -> None:
    row = {
        "id": "trace", "hardware": "RTX4090", "model": "meta-llama/Llama-3.1-8B", "tp": 1, "max_num_seqs": 128,
        "max_num_batched_tokens": 2048, "max_model_len": NONE, "num_gpu_blocks": 2588,
        "extra": '{"data_parallel_size": 2, "enable_expert_parallel": true}',
    }  # fmt: skip
    with pytest.raises(ConfigError, match="lies neither"):
        trace_run(row, (), tmp_path)
    pd.DataFrame({"arrival_s": [0.0, 1.0, 2.0], "input_len": [5, 6, 7], "output_len": 9}).to_csv(tmp_path / "trace.csv")
    run = trace_run(row, (), tmp_path)
    assert table_of(run).arrival_s.tolist() == [0.0, 2.0] and run.about["engines"] == 2
    assert run.served is not None and run.served.limits["kv_tokens"] == 16 * 2588


def test_stand_in_lengths_have_the_means_asked_for() -> None:
    prompts, answers = chat_lengths(50_000, 215.0, 121.0, np.random.default_rng(1))
    assert prompts.mean() == pytest.approx(215, rel=0.02) and answers.mean() == pytest.approx(121, rel=0.02)
    assert answers.min() >= 1


def test_a_sample_keeps_the_parts_of_a_run_together() -> None:
    runs = [MeasuredRun(id=f"{i}-{part}", key=i, measured=()) for i in range(10) for part in "ab"]
    few = sampled(runs, 3)
    assert len(few) == 6 and len({run.key for run in few}) == 3 and sampled(runs, None) == runs
    assert all(run.half in HALVES for run in runs)
    assert all(a.half == b.half for a, b in zip(runs[::2], runs[1::2], strict=True))
