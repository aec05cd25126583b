"""A run of a dozen requests worked out by hand: what its steps were, and what each request saw.

A prompt's step takes 0.5 s (1 s with four prompts), a step of generation 0.25 s.

    0.0  0 (red)                 prompt, red is loaded from disk      0.5 to 1.0  two steps
    2.0  1 (blue), 2 (base)      prompts, blue is loaded from disk    2.5 to 3.0  two steps of both, 3.0 to 3.5 of 1
    3.5  3 (green, sent at 3.4)  prompt, green from the host; it has one token only
    6.0  8, 9, 11 (red), 10 (blue) prompts, red from the host         7.0 to 7.5  two steps of all four
    7.5  11 is preempted                                              7.5 to 8.0  two steps of the others
    8.0  11 is computed again, and has its next token                 8.5 to 8.75 one step
    8.9  7 (red)                 prompt                               9.4 to 9.9  two steps; the run is cut off at 10
4 is refused, 5 is given up after two seconds, 6 is too long.
"""

from __future__ import annotations

import numpy as np

from graphsim.serving.goodput import Limits
from graphsim.serving.rules import AdapterRules, Rules
from graphsim.serving.run_log import FINISHED, REFUSED, STATUSES, TIMED_OUT, TOO_LONG, UNFINISHED, RunLog
from graphsim.serving.service import Service
from graphsim.traffic.table import request_table

N = float("nan")
SENT = [0.0, 2.0, 2.0, 3.4, N, 3.7, 4.0, 8.9, 6.0, 6.0, 6.0, 6.0]
ADMITTED = [0.0, 2.0, 2.0, 3.5, N, N, N, 8.9, 6.0, 6.0, 6.0, 6.0]
FIRST = [0.5, 2.5, 2.5, 4.0, N, N, N, 9.4, 7.0, 7.0, 7.0, 7.0]
FINISHED_S = [1.0, 3.5, 3.0, 4.0, N, N, N, N, 8.0, 8.0, 8.0, 8.75]
OUTPUT = [3, 5, 3, 1, 7, 7, 7, 400, 5, 5, 5, 5]
ADAPTER = [0, 1, -1, 2, 0, 1, -1, 0, 0, 0, 1, 0]
GROUP = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
STATUS = [FINISHED] * 4 + [REFUSED, TIMED_OUT, TOO_LONG, UNFINISHED] + [FINISHED] * 4
RUNS = [  # start, seconds, steps, batch, prompts, prompt tokens, adapters, KV blocks, waiting, stall
    (0.0, 0.5, 1, 0, 1, 8, 1, 1, 1, 0.1),
    (0.5, 0.5, 2, 1, 0, 0, 1, 1, 0, 0.0),
    (2.0, 0.5, 1, 0, 2, 16, 1, 2, 2, 0.2),
    (2.5, 0.5, 2, 2, 0, 0, 1, 2, 0, 0.0),
    (3.0, 0.5, 2, 1, 0, 0, 1, 1, 0, 0.0),
    (3.5, 0.5, 1, 0, 1, 8, 1, 1, 1, 0.3),
    (6.0, 1.0, 1, 0, 4, 32, 2, 8, 4, 0.1),
    (7.0, 0.5, 2, 4, 0, 0, 2, 10, 0, 0.0),
    (7.5, 0.5, 2, 3, 0, 0, 2, 8, 1, 0.0),
    (8.0, 0.5, 1, 0, 1, 11, 1, 2, 1, 0.0),
    (8.5, 0.25, 1, 1, 0, 0, 1, 2, 0, 0.0),
    (8.9, 0.5, 1, 0, 1, 8, 1, 1, 1, 0.0),
    (9.4, 0.5, 2, 1, 0, 0, 1, 1, 0, 0.0),
]
LOADS = [(0.0, 0.1, 0, 1), (2.0, 0.2, 1, 1), (3.5, 0.3, 2, 0), (6.0, 0.1, 0, 0)]
STALLS = [0.1, 0.2, 0.2, 0.3, 0, 0, 0, 0, 0.1, 0.1, 0.1, 0.1]
INTERACTIVE, BATCH = Limits(name="interactive", ttft_s=0.55), Limits(name="batch", e2e_s=2.5)


def hand_made(**fields) -> Service:
    """The run; fields of Service override what is told of it."""
    arrival_s = np.where(np.isnan(SENT), 3.6, SENT)
    table = request_table(arrival_s, [8] * 12, OUTPUT, adapter=ADAPTER, group=GROUP)
    preemptions = np.zeros(12, dtype=np.int64)
    preemptions[11] = 1
    log = RunLog(
        sent_s=np.array(SENT), received_s=np.array(SENT), admitted_s=np.array(ADMITTED), first_token_s=np.array(FIRST),
        finished_s=np.array(FINISHED_S), status=np.array([STATUSES.index(s) for s in STATUS]), preemptions=preemptions,
        cached_tokens=np.zeros(12, dtype=np.int64), load_stall_s=np.array(STALLS),
        loaded_tokens=np.zeros(12, dtype=np.int64), runs=list(RUNS),
        gaps=[(0.25, 25), (1.0, 1)], loads=list(LOADS), evicted=[(7.5, 11)], end_s=10.0,
    )  # fmt: skip
    rules = Rules(
        kv_blocks=10, max_num_seqs=4, max_num_batched_tokens=32, adapters=AdapterRules(max_loras=2, max_cpu_loras=3)
    )
    known = {
        "model": "llama-3.1-8b", "hardware": "l4", "engine": "vllm", "adapter_names": ("red", "blue", "green"),
        "classes": (INTERACTIVE, BATCH), "request_rate": 1.2, "timeout_s": 2.0,
        "table": table, "log": log, "rules": rules,
    }  # fmt: skip
    return Service(**(known | fields))
