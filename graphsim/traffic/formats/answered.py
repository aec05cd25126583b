"""Measurements of a benchmark client per request: the columns common to the results of all clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.traffic.formats.cells import Record
from graphsim.traffic.table import Floats, Ints


@dataclass(slots=True, kw_only=True)
class Answered:
    """Requests as measured by a client; nan for values that its file does not contain.

    start_s: time of sending of each request, in seconds after the first
    ttft_s, e2e_s: seconds from sending to the first and to the last token
    tpot_s: (e2e - ttft) / (output tokens - 1); nan for one token
    gaps_s: seconds between two chunks of a streamed answer, of all requests in one column
    after, think_s: conversations, as in `RequestTable`
    failed: number of requests without an answer, which have no row
    settings: settings of the client, such as request_rate and max_concurrency
    """

    start_s: Floats
    input_tokens: Floats
    output_tokens: Floats
    ttft_s: Floats
    e2e_s: Floats
    tpot_s: Floats
    gaps_s: Floats
    after: Ints | None = None
    think_s: Floats | None = None
    adapter: list[Any] | None = None
    failed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def tpot(ttft_s: Floats, e2e_s: Floats, output_tokens: Floats) -> Floats:
    """Time per output token after the first, as `vllm bench serve` defines it; nan for one token or none."""
    several = output_tokens > 1
    return np.where(several, (e2e_s - ttft_s) / np.where(several, output_tokens - 1, 1.0), np.nan)


def run_of(records: Iterator[Record], path: Path, run: int | None) -> tuple[Record, list[str]]:
    """One run in a file to which each run appends a line, and notes.

    records: the file's lines
    path: the file
    run: number of the run, from 1; the last one by default
    Raises ConfigError if there are fewer runs.
    """
    count, chosen = 0, None
    for record in records:
        count += 1
        chosen = record
        if count == run:
            return record, []
    if chosen is None or (run is not None and run > count):
        raise ConfigError(f"{path}: run = {run} is not allowed; the file holds {count}")
    return chosen, [f"the file holds {count} runs, the last one is taken; run=… chooses another"] if count > 1 else []
