"""Small traces in each layout, as their makers write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PLAIN = "arrival_s,input_tokens,output_tokens\n0.0000,374,44\n4.3146,396,109\n4.5000,12,1\n"

AZURE_2023 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    "2023-11-16 18:15:51.2225670,879,55\n"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-12 00:00:00+00:00,374,44\n"
    "2024-05-12 00:00:00.009930+00:00,396,109\n2024-05-12 00:00:02+00:00,879,55\n"
)
BURSTGPT_1 = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"
    "45,ChatGPT,1087,230,1317,Conversation log\n118,GPT-4,417,0,417,API log\n120,GPT-4,417,276,693,Conversation log\n"
)
BURSTGPT_2 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "19440110.0,1722ac82-0a46-4bf0-aa08-89794e7a2b3f,43,GPT-4,906,446,1352,Conversation log\n"
    "19440161.0,,2,ChatGPT,36,29,65,API log\n"
)
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,1000,100\n1.75,2000,20\n"
MEASURED = (
    "arrival_s,input_len,output_len,measured_ttft_s,measured_tpot_s,measured_e2e_s\n0.0,2358,531,0.6913,0.03185,17.5722\n"
    "0.2651,1034,769,0.4262,0.03246,25.3559\n"
)


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


MOONCAKE = lines(
    {"timestamp": 0, "input_length": 655, "output_length": 52, "hash_ids": [46, 47]},
    {"timestamp": 10535, "input_length": 672, "output_length": 26, "hash_ids": [46, 47]},
    {"timestamp": 27482, "input_length": 1030, "output_length": 5, "hash_ids": [46, 48, 49]},
)
MOONCAKE_SESSIONS = lines(
    {"session_id": "one", "timestamp": 0, "input_length": 100, "output_length": 40},
    {"session_id": "one", "delay": 500, "input_length": 150, "output_length": 50},
    {"session_id": "two", "timestamp": 100, "input_length": 200, "output_length": 60},
)
BAILIAN = lines(
    {"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 40, "output_length": 13, "type": "text",
     "turn": 1, "hash_ids": [1089, 1090, 1091]},
    {"chat_id": 160, "parent_chat_id": 159, "timestamp": 63.614, "input_length": 64, "output_length": 9, "type": "text",
     "turn": 2, "hash_ids": [1089, 1090, 1100, 1101]},
)  # fmt: skip
LLMSERVINGSIM = lines(
    {"input_toks": 10, "output_toks": 70, "arrival_time_ns": 46926808, "input_tok_ids": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
     "output_tok_ids": list(range(11, 81))},
    {"input_toks": 22, "output_toks": 104, "arrival_time_ns": 347938952,
     "input_tok_ids": [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 16, 17, 81, 82, 83, 84, 85, 86, 87, 88]},
    {"input_toks": 12, "output_toks": 4, "arrival_time_ns": 579613521,
     "input_tok_ids": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]},
)  # fmt: skip
SESSIONS = lines(
    {"session_id": "task-1", "arrival_time_ns": 9_000_000_000, "sub_requests": [
        {"input_toks": 500, "output_toks": 20, "tool_duration_ns": 0}]},
    {"session_id": "task-0-run0", "arrival_time_ns": 4_059_740, "sub_requests": [
        {"input_toks": 1472, "output_toks": 133, "tool_duration_ns": 127_348_767},
        {"input_toks": 1682, "output_toks": 125, "tool_duration_ns": 5},
        {"input_toks": 700, "output_toks": 5, "tool_duration_ns": 0}]},
)  # fmt: skip
MEASURED_LINES = lines(
    {"request_id": "bench-0", "input_toks": 2358, "output_toks": 531, "arrival_time": 1787267980.0827403},
    {"request_id": "bench-1", "input_toks": 1034, "output_toks": 769, "arrival_time": 1787267980.3478317},
)

VLLM: dict[str, Any] = {
    "date": "20261130-101500", "endpoint_type": "vllm", "backend": "vllm", "label": None, "model_id": "llama",
    "tokenizer_id": "llama", "num_prompts": 4, "request_rate": 4.0, "burstiness": 1.0, "max_concurrency": None,
    "duration": 2.0, "completed": 3, "failed": 1, "total_input_tokens": 360, "total_output_tokens": 8,
    "request_throughput": 1.5, "request_goodput": None, "output_throughput": 4.0, "total_token_throughput": 184.0,
    "input_lens": [120, 80, 60, 160], "output_lens": [3, 1, 0, 4], "ttfts": [0.1, 0.2, 0.0, 0.3],
    "itls": [[0.02, 0.03], [], [], [0.02, 0.02, 0.05]], "start_times": [1000.5, 1000.75, 1001.0, 1001.25],
    "generated_texts": ["a b c", "d", "", "e f g h"], "errors": ["", "", "timeout", ""],
    "mean_ttft_ms": 200.0, "median_ttft_ms": 200.0, "std_ttft_ms": 81.6, "p99_ttft_ms": 298.0, "mean_tpot_ms": 27.5,
    "median_tpot_ms": 27.5, "std_tpot_ms": 2.5, "p99_tpot_ms": 29.95, "mean_itl_ms": 28.0, "median_itl_ms": 20.0,
    "std_itl_ms": 11.66, "p99_itl_ms": 49.2,
}  # fmt: skip
DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors")
SGLANG: dict[str, Any] = {
    "backend": "sglang", "dataset_name": "random", "request_rate": 2.0, "max_concurrency": None,
    "sharegpt_output_len": None, "random_input_len": 128, "random_output_len": 4, "random_range_ratio": 0.0,
    "duration": 2.0, "completed": 3, "total_input_tokens": 360, "total_output_tokens": 8,
    "total_output_tokens_retokenized": 8, "request_throughput": 1.5, "input_throughput": 180.0,
    "output_throughput": 4.0,
    "total_throughput": 184.0, "mean_e2e_latency_ms": 246.0, "median_e2e_latency_ms": 200.0,
    "p99_e2e_latency_ms": 388.0,
    "mean_ttft_ms": 200.0, "median_ttft_ms": 200.0, "p99_ttft_ms": 298.0, "mean_tpot_ms": 27.5, "median_tpot_ms": 27.5,
    "mean_itl_ms": 28.0, "median_itl_ms": 20.0, "p95_itl_ms": 45.0, "p99_itl_ms": 49.2, "concurrency": 0.4,
    "accept_length": None, "input_lens": [120, 80, 160], "output_lens": [3, 1, 4], "ttfts": [0.1, 0.2, 0.3],
    "itls": [[0.02, 0.03], [], [0.02, 0.02, 0.05]], "generated_texts": ["a b c", "d", "e f g h"],
    "errors": ["", "", ""],
}  # fmt: skip


def aiperf_record(
    start_ms: float, ttft: float, gaps: Sequence[float], tokens: int, session: str = "", turn: int = 0, unit: str = "ms"
) -> dict[str, Any]:
    """A record as AIPerf's profile_export.jsonl has it; times in ms, written in whatever unit."""
    scale = {"ms": 1.0, "us": 1e3, "s": 1e-3}[unit]
    begin, latency = 1_759_813_207_532_900_363 + round(start_ms * 1e6), ttft + sum(gaps)
    return {
        "metadata": {
            "session_num": 45, "x_request_id": f"7609a2e7-{start_ms}", "x_correlation_id": session or f"s{start_ms}",
            "conversation_id": "77aa5b0e", "turn_index": turn, "request_start_ns": begin,
            "request_ack_ns": begin + 1000, "request_end_ns": begin + round(latency * 1e6), "worker_id": "worker_35",
            "benchmark_phase": "profiling", "was_cancelled": False, "cancellation_time_ns": None,
        },
        "metrics": {
            "input_sequence_length": {"value": tokens, "unit": "tokens"},
            "time_to_first_token": {"value": ttft * scale, "unit": unit},
            "request_latency": {"value": latency * scale, "unit": unit},
            "inter_chunk_latency": {"value": [gap * scale for gap in gaps], "unit": unit},
            "output_sequence_length": {"value": len(gaps) + 1, "unit": "tokens"},
            "inter_token_latency": {"value": sum(gaps) / max(len(gaps), 1) * scale, "unit": unit},
            "output_token_throughput_per_user": {"value": 192.1, "unit": "tokens/sec/user"},
        },
        "error": None,
    }  # fmt: skip


def failed_record(start_ms: float) -> dict[str, Any]:
    record = aiperf_record(start_ms, 1.0, [1.0], 550)
    record["metadata"]["was_cancelled"] = True
    error = {"code": 499, "type": "RequestCancellationError", "message": "Request was cancelled after 0.000 seconds"}
    return record | {"metrics": {"error_isl": {"value": 550, "unit": "tokens"}}, "error": error}


AIPERF = lines(
    aiperf_record(750.0, 300.0, [20.0, 20.0, 50.0], 160),
    aiperf_record(0.0, 100.0, [20.0, 30.0], 120),
    failed_record(500.0),
    aiperf_record(250.0, 200.0, [], 80, unit="us"),
)
AIPERF_AGGREGATE: dict[str, Any] = {
    "schema_version": "1.3", "aiperf_version": "0.10.0", "benchmark_id": "f43cfc1c6cce",
    "request_throughput": {"unit": "requests/sec", "avg": 0.8233},
    "request_latency": {"unit": "ms", "avg": 2413.5, "p50": 2431.75, "p90": 2438.5, "p99": 2439.45, "std": 30.01},
    "request_count": {"unit": "requests", "avg": 10.0},
    "time_to_first_token": {"unit": "ms", "avg": 195.84, "p50": 175.05, "p90": 251.45, "p99": 253.45, "std": 46.21},
    "inter_token_latency": {"unit": "ms", "avg": 35.2, "p50": 34.73, "p90": 35.95, "p99": 35.96, "std": 0.6},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 52.69},
    "total_output_tokens": {"unit": "tokens", "avg": 640.0}, "total_isl": {"unit": "tokens", "avg": 2560.0},
    "benchmark_duration": {"unit": "sec", "avg": 12.14}, "was_cancelled": False, "error_summary": [],
}  # fmt: skip


def servegen(folder: Path) -> Path:
    """Two clients: one steady, one in bursts that says nothing in its first window."""
    folder.mkdir(exist_ok=True)
    rows = (
        "0,0.5,1.0,Gamma,1.0,2.0\n600,0.25,1.0,Gamma,1.0,4.0\n1200,0,0,,0,0\n",
        "0,0,0,,0,0\n600,0.2,8.0,Weibull,0.375,0.4\n1200,0,0,,0,0\n",
    )
    lengths = (
        {"0": {"input_tokens": "{100: 0.25, 300: 0.75}", "output_tokens": "{7: 1.0}"}},
        {
            "0": {"input_tokens": "{}", "output_tokens": "{}"},
            "600": {"input_tokens": "{50: 1.0}", "output_tokens": "{9: 1.0}"},
        },
    )
    for client in (0, 12):
        (folder / f"chunk-{client}-trace.csv").write_text(rows[client > 0])
        (folder / f"chunk-{client}-dataset.json").write_text(json.dumps(lengths[client > 0]))
    return folder


TEXTS = {
    "plain.csv": PLAIN, "azure2023.csv": AZURE_2023, "azure2024.csv": AZURE_2024, "burst1.csv": BURSTGPT_1,
    "burst2.csv": BURSTGPT_2, "vidur.csv": VIDUR, "measured.csv": MEASURED, "mooncake.jsonl": MOONCAKE,
    "sessions.jsonl": MOONCAKE_SESSIONS, "bailian.jsonl": BAILIAN, "sim.jsonl": LLMSERVINGSIM, "agents.jsonl": SESSIONS,
    "requests.jsonl": MEASURED_LINES, "vllm.json": json.dumps(VLLM), "sglang.jsonl": lines(SGLANG),
    "aiperf.jsonl": AIPERF,
}  # fmt: skip
"""A file of each layout, by a name that it may have."""
