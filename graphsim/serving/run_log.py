"""What happened in a run: one row per request, one row per run of identical steps, one row per load."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphsim.serving.rows import Rows

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

FINISHED, REFUSED, TIMED_OUT, TOO_LONG, UNFINISHED = "finished", "refused", "timed out", "too long", "unfinished"
"""How a request ends: answered, never let in by its client, given up, larger than the engine allows, or cut off."""

STATUSES = (UNFINISHED, FINISHED, REFUSED, TIMED_OUT, TOO_LONG)


class StepRun:
    """Columns of a run of identical steps, in the order in which a loop notes them.

    start_s, seconds: of the whole run; steps: in it; batch: sequences that got a token in each; prompts: requests whose
    prompts it had, prompt_tokens: new tokens of these; adapters: different ones in the batch; kv_blocks: in use at its
    end; waiting: requests in the queue at its start; stall_s: seconds of it that loads took
    """

    COLUMNS = (
        "start_s", "seconds", "steps", "batch", "prompts", "prompt_tokens", "adapters", "kv_blocks", "waiting",
        "stall_s",
    )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class RunLog:
    """The log of a run of one server.

    sent_s: when each request left its client (nan: never)
    received_s: when the scheduler received it
    admitted_s: when it first ran
    first_token_s, finished_s: times at the client; nan if it did not get that far
    status: index into STATUSES
    preemptions, cached_tokens, load_stall_s: of each request; cached tokens at its first admission
    loaded_tokens: tokens loaded from tiers of the KV cache, at all its admissions
    runs: rows of StepRun.COLUMNS
    gaps: (seconds between two tokens of a sequence, number of such gaps)
    loads: (start_s, seconds, adapter, from_disk as 0 or 1)
    switches: (start_s, seconds, adapter) of merged weights
    tier_loads: (start_s, seconds, tier, tokens) of keys and values loaded from a tier, by its index in Rules.tiers
    evicted: (second, request) of each preemption, for timelines; may be left empty
    end_s: end of the run
    interrupted: whether its user stopped it
    """

    sent_s: Floats
    received_s: Floats
    admitted_s: Floats
    first_token_s: Floats
    finished_s: Floats
    status: Ints
    preemptions: Ints
    cached_tokens: Ints
    load_stall_s: Floats
    loaded_tokens: Ints
    runs: Rows | list[tuple[float, ...]] = field(default_factory=Rows)
    gaps: Rows | list[tuple[float, int]] = field(default_factory=Rows)
    loads: list[tuple[float, float, int, int]] = field(default_factory=list)
    switches: list[tuple[float, float, int]] = field(default_factory=list)
    tier_loads: list[tuple[float, float, int, int]] = field(default_factory=list)
    evicted: list[tuple[float, int]] = field(default_factory=list)
    end_s: float = 0.0
    interrupted: bool = False


def empty_log(requests: int) -> RunLog:
    """A log of this many requests, to which nothing has happened yet."""

    def never() -> Floats:
        return np.full(requests, np.nan)

    def none() -> Ints:
        return np.zeros(requests, dtype=np.int64)

    return RunLog(
        sent_s=never(), received_s=never(), admitted_s=never(), first_token_s=never(), finished_s=never(),
        status=none(), preemptions=none(), cached_tokens=none(), load_stall_s=np.zeros(requests),
        loaded_tokens=none(),
    )  # fmt: skip
