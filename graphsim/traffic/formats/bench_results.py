"""Results of `vllm bench serve` and SGLang's bench_serving: one JSON object per run, with a list for each quantity.

vLLM (vllm/benchmarks/serve.py) writes the lists with --save-detailed, SGLang (python/sglang/bench_serving.py) with
--output-details; SGLang's results lack the times of sending. Failed requests have 0 output tokens in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.traffic.formats.answered import Answered, run_of, tpot
from graphsim.traffic.formats.cells import MOST_TIME, MOST_TOKENS, Record, per_request, since_first
from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.trace import Wanted
from graphsim.traffic.table import Floats
from graphsim.units import amount_text, bounds_text

LAYOUT = "a result of vllm bench serve --save-detailed or SGLang's bench_serving --output-details"


def matches(keys: Set[str]) -> bool:
    """Whether a JSON object with these keys has this layout."""
    return bool(keys & {"input_lens", "output_lens", "request_throughput"})


def read(records: Iterator[Record], path: Path, wanted: Wanted) -> Found:
    """The requests of a run. Raises ConfigError for missing or invalid data."""
    record, notes = run_of(records, path, wanted.run)
    answered = answers(record)
    start_s, drawn = _sent(answered, wanted.seed)
    limit = concurrency_of(answered.settings)
    if limit is not None and not drawn:
        notes.append(
            f"recorded with max_concurrency {limit}: requests were sent as the measured server answered; "
            "a closed loop at that concurrency lets the simulated one decide"
        )
    return Found(
        seconds=start_s, input_tokens=answered.input_tokens, output_tokens=answered.output_tokens,
        notes=notes + drawn, concurrency=limit, adapter=answered.adapter,
    )  # fmt: skip


def answers(record: Record) -> Answered:
    """The measured times of each request in a run. Raises ConfigError for missing lists or lists of unequal length."""
    path, line, data = record.path, record.line, record.data
    if data.get("input_lens") is None or data.get("output_lens") is None:
        raise ConfigError(
            f"{path}: line {line}: has no input_lens and output_lens; save it with --save-detailed (vllm bench serve) "
            "or --output-details (SGLang), which keep what single requests were"
        )
    inputs = _tokens(record, "input_lens", None)
    count = len(inputs)
    outputs = _tokens(record, "output_lens", count)
    unknown = np.full(count, np.nan)
    starts = per_request(path, line, "start_times", data["start_times"], count) if "start_times" in record else unknown
    ttft_s = per_request(path, line, "ttfts", data["ttfts"], count) if "ttfts" in record else unknown
    gaps = _gaps(record, count) if "itls" in record else None
    e2e_s = per_request(path, line, "latencies", data["latencies"], count) if "latencies" in record else unknown
    if "latencies" not in record and gaps is not None:
        e2e_s = ttft_s + np.array([sum(own) for own in gaps], dtype=float)
    runs = outputs > 0
    return Answered(
        start_s=since_first(starts.tolist(), 1.0), input_tokens=inputs, output_tokens=outputs,
        ttft_s=np.where(runs, ttft_s, np.nan), e2e_s=np.where(runs, e2e_s, np.nan),
        tpot_s=tpot(ttft_s, e2e_s, outputs), gaps_s=np.array([gap for own in gaps or [] for gap in own], dtype=float),
        failed=int((~runs).sum()), settings=data, adapter=_adapters(record, count),
    )  # fmt: skip


def concurrency_of(settings: Mapping[str, Any]) -> int | None:
    """Maximum number of requests that the client kept in flight; None without a limit."""
    limit = settings.get("max_concurrency")
    return limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None


def rate_of(settings: Mapping[str, Any]) -> float:
    """Requests per second that the client was set to send; inf if it sent all at once or states no rate."""
    try:
        rate = float(settings.get("request_rate", math.inf))
    except (TypeError, ValueError):
        return math.inf
    return rate if rate > 0 else math.inf


def _tokens(record: Record, key: str, count: int | None) -> Floats:
    found = per_request(record.path, record.line, key, record.data[key], count)
    wrong = ~((found <= MOST_TOKENS) & (found == np.floor(found)))
    if wrong.any():
        row = int(wrong.argmax())
        raise record.wrong(f"{key}[{row}]", record.data[key][row], f"a whole number {bounds_text(0, MOST_TOKENS)}")
    return found


def _gaps(record: Record, count: int) -> list[list[float]]:
    values = record.data["itls"]
    if not isinstance(values, list) or len(values) != count:
        raise record.wrong("itls", values, f"a list for each of {count} requests")
    for row, own in enumerate(values):
        if not isinstance(own, list) or not all(_is_time(gap) for gap in own):
            raise record.wrong(f"itls[{row}]", own, "a list of seconds from 0")
    return values


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_TIME


def _adapters(record: Record, count: int) -> list[Any] | None:
    """A list of adapters, which users may add although neither client writes it; None without one."""
    found = next(
        (record.data[key] for key in ("lora", "adapter", "lora_id") if isinstance(record.data.get(key), list)), None
    )
    if found is not None and len(found) != count:
        raise record.wrong("lora", found, f"a list with a name for each of {count} requests")
    return found


def _sent(answered: Answered, seed: int) -> tuple[Floats, list[str]]:
    """Times of sending in seconds, drawn at random if the file has none; and notes."""
    if not np.isnan(answered.start_s).any():
        return answered.start_s, []
    count, rate = len(answered.start_s), rate_of(answered.settings)
    if math.isinf(rate):
        return np.zeros(count), ["the file does not say when requests were sent: all of them at once, as its rate says"]
    gaps = np.random.default_rng(seed).exponential(1.0 / rate, count)
    process = f"a Poisson process of {amount_text(rate)}/s (seed {seed})"
    note = f"the file does not say when requests were sent: drawn as {process}"
    return np.cumsum(gaps) - (gaps[0] if count else 0.0), [note]
