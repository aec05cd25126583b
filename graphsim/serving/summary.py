"""The figures of a run under the names and by the definitions of `vllm bench serve`'s result file.

Definitions: vllm/benchmarks/serve.py, `calculate_metrics` (github.com/vllm-project/vllm): only answered requests count;
TPOT is one value a request, of those with more than one token; ITL pools the gaps of all requests; percentiles are
interpolated; the standard deviation is the population's; duration reaches to the last answer, or the client's cut-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphsim.serving.figures import Floats, Latencies, statistics, weighted_statistics
from graphsim.serving.over_time import tokens_until
from graphsim.serving.rows import Rows
from graphsim.serving.run_log import STATUSES, UNFINISHED, RunLog
from graphsim.traffic.table import RequestTable


def totals(table: RequestTable, log: RunLog, latencies: Latencies, duration_s: float) -> dict[str, Any]:
    """Counts and throughputs."""
    done = latencies.done
    inputs, outputs = (int(tokens[done].sum()) for tokens in (table.input_tokens, table.output_tokens))
    completed, cut_off = int(done.sum()), int((log.status == STATUSES.index(UNFINISHED)).sum())

    def rate(count: float) -> float:
        return count / duration_s if duration_s > 0 else float("nan")

    return {
        "duration": duration_s, "completed": completed, "failed": len(table) - completed - cut_off,
        "total_input_tokens": inputs, "total_output_tokens": outputs, "request_throughput": rate(completed),
        "output_throughput": rate(outputs), "total_token_throughput": rate(inputs + outputs),
    }  # fmt: skip


def latency_figures(
    latencies: Latencies, gaps: Rows | Sequence[tuple[float, int]], shares: Sequence[float]
) -> dict[str, Any]:
    """`mean_ttft_ms` and so on, of TTFT, TPOT, ITL and E2EL."""
    done = latencies.done
    rows = np.asarray(gaps, dtype=float).reshape(-1, 2)
    tpot_s = latencies.tpot_s[done]
    found = {
        "ttft": statistics(latencies.ttft_s[done], shares),
        "tpot": statistics(tpot_s[np.isfinite(tpot_s)], shares),
        "itl": weighted_statistics(rows[:, 0], rows[:, 1], shares),
        "e2el": statistics(latencies.e2e_s[done], shares),
    }
    return {f"{what}_{name}_ms": 1e3 * value for name, values in found.items() for what, value in values.items()}


def peaks(table: RequestTable, log: RunLog, done: Any) -> dict[str, Any]:
    """Most tokens of one second, and most requests that were in flight at any moment of one second.

    Seconds count from the first request sent that was answered; a request's tokens after its first one are taken as
    evenly spread up to its last.
    """
    if not done.any():
        return {"max_output_tokens_per_s": 0.0, "max_concurrent_requests": 0}
    zero = float(log.sent_s[done].min())
    sent, first, finished = (times[done] - zero for times in (log.sent_s, log.first_token_s, log.finished_s))
    outputs = table.output_tokens[done].astype(float)
    # tokens come at a steady pace between events, so only a second that contains or follows an event can be the fullest
    events = np.floor(np.concatenate([first, finished]))
    edges = np.unique(np.concatenate([events, events + 1.0, events + 2.0]))
    tokens = np.diff(tokens_until(edges, first, finished, outputs))[np.diff(edges) == 1.0]
    at, of = np.unique(np.concatenate([np.floor(sent), np.floor(finished) + 1.0]), return_inverse=True)
    change = np.bincount(of, weights=np.repeat([1.0, -1.0], len(sent)), minlength=len(at))
    return {
        "max_output_tokens_per_s": float(tokens.max()),
        "max_concurrent_requests": int(np.cumsum(change).max()),
    }


def duration_of(log: RunLog) -> float:
    """Seconds from the start to the last answer, or to where the run was cut off."""
    ends: Floats = log.finished_s[np.isfinite(log.finished_s)]
    return max(float(log.end_s), float(ends.max()) if len(ends) else 0.0)
