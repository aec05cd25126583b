"""Tables of a disaggregated run: its workers, its transfers, the steps of both pools, and each request's way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.serving.disaggregated.links import Sent
from graphsim.serving.disaggregated.run_logs import PoolLogs
from graphsim.serving.figures import Floats
from graphsim.serving.over_time import columns_of
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.serving.service_tables import step_frame
from graphsim.traffic.table import RequestTable

if TYPE_CHECKING:
    import pandas as pd

STAGES = {
    "prefill_queue_s": "queue", "prefill_s": "prefill", "blocks_s": "wait for blocks", "transfer_s": "transfer",
    "decode_s": "decode worker",
}  # fmt: skip
"""Stages of a request from its client to its first token, and their names in reports."""


def stage_seconds(logs: PoolLogs) -> dict[str, Floats]:
    """Seconds of each request in each of STAGES; they sum to its TTFT.

    If the decode worker allocates blocks before the prompt, waiting for them comes first and does not count as
    queueing.
    """
    whole, prompts = logs.whole, logs.prefill[0]
    reserved, computed = logs.reserved_s, logs.prefilled_s
    if logs.links.way.hand_off.decoder_first:
        blocks = reserved - whole.received_s
        queue = prompts.admitted_s - whole.sent_s - blocks
        transfer = logs.arrived_s - computed
    else:
        blocks = reserved - computed
        queue = prompts.admitted_s - whole.sent_s
        transfer = logs.arrived_s - reserved
    return {
        "prefill_queue_s": queue, "prefill_s": computed - prompts.admitted_s, "blocks_s": blocks,
        "transfer_s": transfer, "decode_s": whole.first_token_s - logs.arrived_s,
    }  # fmt: skip


def pool_frame(logs: PoolLogs, prefill: Rules, decode: Rules, duration_s: float, table: RequestTable) -> pd.DataFrame:
    """One row per worker."""
    import pandas as pd

    reserved = np.where(np.isnan(logs.reserved_s), np.inf, logs.reserved_s)
    kept = np.nan_to_num(logs.arrived_s - logs.prefilled_s), np.nan_to_num(logs.arrived_s - reserved, neginf=0.0)
    done = np.isfinite(logs.prefilled_s), np.isfinite(logs.whole.finished_s)
    tokens = table.input_tokens, table.output_tokens
    rows = []
    for pool, (name, rules, workers, which) in enumerate(
        (("prefill", prefill, logs.prefill, logs.prefill_worker), ("decode", decode, logs.decode, logs.decode_worker))
    ):
        for worker, log in enumerate(workers):
            own = which == worker
            produced = float(tokens[pool][own & done[pool]].sum())
            row: dict[str, Any] = {"pool": name, "worker": worker, "requests": int(own.sum())}
            row |= _use(log, rules, duration_s) | {"kept_s": float(kept[pool][own].sum())}
            rows.append(row | {"tokens_per_s": produced / duration_s if duration_s > 0 else np.nan})
    return pd.DataFrame(rows)


def _use(log: RunLog, rules: Rules, duration_s: float) -> dict[str, float]:
    """Utilisation of a worker's time, cache and batch."""
    columns = columns_of(log.runs)
    seconds, blocks = columns["seconds"], columns["kv_blocks"] / max(rules.kv_blocks, 1)
    busy = float(seconds.sum())
    if not busy or not duration_s > 0:
        return {"busy": 0.0, "kv": 0.0, "kv_peak": 0.0, "batch": 0.0}
    return {
        "busy": busy / duration_s, "kv": float((blocks * seconds).sum()) / duration_s,
        "kv_peak": float(blocks.max()), "batch": float((columns["batch"] * seconds).sum()) / busy,
    }  # fmt: skip


def transfer_frame(sent: Sequence[Sent]) -> pd.DataFrame:
    """One row per transfer."""
    import pandas as pd

    columns = [field.name for field in fields(Sent)]
    return pd.DataFrame([asdict(each) for each in sent], columns=columns).rename(
        columns={"row": "request", "sender": "prefill_replica", "receiver": "replica"}
    )


def step_frames(logs: PoolLogs, prefill_blocks: int, decode_blocks: int) -> pd.DataFrame:
    """Runs of steps of all workers, in time."""
    import pandas as pd

    found = []
    for name, workers, blocks in (("prefill", logs.prefill, prefill_blocks), ("decode", logs.decode, decode_blocks)):
        for worker, log in enumerate(workers):
            frame = step_frame(columns_of(log.runs), blocks)
            found.append(frame.assign(pool=name, worker=worker))
    return pd.concat(found, ignore_index=True).sort_values("start_s", kind="stable", ignore_index=True)
