"""A run as files: `vllm bench serve`'s result JSON, AIPerf's records, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import ConfigError, needs
from graphsim.files.present import path_of, shown
from graphsim.files.written import whole, write_bytes, write_lines, write_text
from graphsim.result import plain
from graphsim.serving.run_log import STATUSES, TIMED_OUT, UNFINISHED
from graphsim.traffic.table import NOBODY, Ints

if TYPE_CHECKING:
    from graphsim.serving.served_run import ServedRun

ROWS = 2**17
"""Requests that are turned into a frame at once."""


def write_json(service: ServedRun, path: str | Path, *, percentiles: Iterable[float], details: bool) -> Path:
    """The result file of `vllm bench serve`; the lists of `--save-detailed` have an entry a request, in sending order.

    What was cut off with the run is in neither count and in no list.
    """
    document = {"date": datetime.now().strftime("%Y%m%d-%H%M%S"), **plain(service.summary(percentiles))}
    if details:
        document |= _details(service)
    return write_text(path, json.dumps(document, allow_nan=False))


def _details(service: ServedRun) -> dict[str, list[Any]]:
    log, table = service.log, service.table
    done = service.latencies.done
    ended = np.flatnonzero(log.status != STATUSES.index(UNFINISHED))
    lists: dict[str, list[Any]] = {
        "input_lens": table.input_tokens[ended].tolist(),
        "output_lens": np.where(done, table.output_tokens, 0)[ended].tolist(),
        "ttfts": _seconds(np.where(done, service.latencies.ttft_s, 0.0)[ended]),
        "itls": [],
        "start_times": _seconds(np.nan_to_num(np.where(np.isnan(log.sent_s), table.arrival_s, log.sent_s))[ended]),
        "errors": ["" if done[i] else STATUSES[log.status[i]] for i in ended],
    }
    for i in ended:
        gaps = service.token_gaps(int(i)) if done[i] else ()
        lists["itls"].append(_seconds(np.asarray(gaps, dtype=float)))
    return lists


def _seconds(values: Any) -> list[float]:
    """Seconds rounded to the nanosecond, which keeps files small."""
    found: list[float] = np.round(values, 9).tolist()
    return found


def write_jsonl(service: ServedRun, path: str | Path) -> Path:
    """A record a request that was sent and ended, as AIPerf writes them into `profile_export.jsonl`.

    Times count from the run's start; what was cut off with it has no record.

    Format: github.com/ai-dynamo/aiperf, docs/tutorials/working-with-profile-exports.md. Their `inter_token_latency` is
    TPOT, their `inter_chunk_latency` the gaps between tokens. `adapter` is an addition.
    """
    return write_lines(path, (json.dumps(record, allow_nan=False) for record in _records(service)))


def _records(service: ServedRun) -> Iterator[dict[str, Any]]:
    log, table, seen = service.log, service.table, service.latencies
    first, turn = conversations(table.after)
    for i in np.flatnonzero(np.isfinite(log.sent_s) & (log.status != STATUSES.index(UNFINISHED))):
        status, done = STATUSES[log.status[i]], bool(seen.done[i])
        adapter = int(table.adapter[i])
        end_s = service.ends_s[i]
        metadata = {
            "session_num": int(first[i]), "x_request_id": f"request-{i}", "x_correlation_id": f"session-{first[i]}",
            "conversation_id": f"session-{first[i]}", "turn_index": int(turn[i]),
            "request_start_ns": _ns(log.sent_s[i]), "request_ack_ns": _ns(log.received_s[i]),
            "request_end_ns": _ns(end_s), "worker_id": "graphsim", "benchmark_phase": "profiling",
            "was_cancelled": status == TIMED_OUT,
            "cancellation_time_ns": _ns(end_s) if status == TIMED_OUT else None,
            "adapter": service.adapter_names[adapter] if adapter >= 0 else None,
        }  # fmt: skip
        if not done:
            metrics: dict[str, Any] = {"error_isl": _value(int(table.input_tokens[i]), "tokens")}
            yield {"metadata": metadata, "metrics": metrics, "error": _error(status)}
            continue
        outputs = int(table.output_tokens[i])
        gaps = service.token_gaps(int(i))
        metrics = {
            "input_sequence_length": _value(int(table.input_tokens[i]), "tokens"),
            "output_token_count": _value(outputs, "tokens"), "output_sequence_length": _value(outputs, "tokens"),
            "time_to_first_token": _value(1e3 * seen.ttft_s[i], "ms"),
            "request_latency": _value(1e3 * seen.e2e_s[i], "ms"),
        }  # fmt: skip
        if outputs > 1:
            metrics["time_to_second_token"] = _value(1e3 * gaps[0], "ms")
            metrics["inter_token_latency"] = _value(1e3 * seen.tpot_s[i], "ms")
            metrics["inter_chunk_latency"] = _value(np.round(1e3 * gaps, 6).tolist(), "ms")
            if seen.tpot_s[i] > 0:
                per_user = _value(1.0 / seen.tpot_s[i], "tokens/sec/user")
                metrics["output_token_throughput_per_user"] = per_user
        yield {"metadata": metadata, "metrics": metrics, "error": None}


def _value(value: Any, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit}


def _ns(seconds: float) -> int | None:
    return None if np.isnan(seconds) else round(float(seconds) * 1e9)


def _error(status: str) -> dict[str, Any]:
    code = 499 if status == TIMED_OUT else None
    return {"code": code, "type": status, "message": f"the simulated request ended as: {status}"}


def conversations(after: Ints) -> tuple[Ints, Ints]:
    """The first request of each one's conversation, and how many of it came before."""
    first, turn = np.arange(len(after)), np.zeros(len(after), dtype=np.int64)
    last = after.copy()
    while (follows := last != NOBODY).any():
        first[follows] = last[follows]
        turn[follows] += 1
        last = np.where(follows, after[last], NOBODY)
    return first, turn


def write_parquet(service: ServedRun, folder: str | Path) -> Path:
    """Three Parquet files; requests are turned into rows a part at a time, so memory does not grow with them."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise needs("pyarrow", "parquet") from None
    target = path_of(folder, "folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"folder = '{shown(target)}' cannot be made ({error.strerror})") from None
    for name, frame in (("adapters", service.adapters), ("steps", service.steps)):
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.Table.from_pandas(frame, preserve_index=False), sink)
        write_bytes(target / f"{name}.parquet", sink.getvalue().to_pybytes())
    with whole(target / "requests.parquet") as part:
        _write_requests(service, part)
    return target


def _write_requests(service: ServedRun, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    def rows(start: int) -> Any:
        return pyarrow.Table.from_pandas(service.request_rows(slice(start, start + ROWS)), preserve_index=False)

    first = rows(0)
    with parquet.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for start in range(ROWS, len(service.table), ROWS):
            writer.write_table(rows(start))
