"""Tables of requests with measured times, such as LLMServingSim's validation runs and graphsim's own results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphsim.traffic.formats.answered import Answered, tpot
from graphsim.traffic.formats.cells import MOST_TIME, MOST_TOKENS, column
from graphsim.traffic.formats.sources import chunks, header
from graphsim.traffic.formats.tables import named
from graphsim.traffic.table import Floats

_TTFT = ("measured_ttft_s", "ttft_s")
_E2E = ("measured_e2e_s", "e2e_s")


def has_times(columns: Sequence[str]) -> bool:
    """Whether a table has the times at which requests were sent and answered."""
    names = {name.strip().lower() for name in columns}
    return "arrival_s" in names and any(name in names for name in _TTFT) and any(name in names for name in _E2E)


def timed_rows(path: Path) -> Answered:
    """The requests in a file; those without the time of an answer failed.

    Raises ConfigError for missing or invalid data.
    """
    columns = header(path)
    spellings = (("arrival_s",), ("input_tokens", "input_len"), ("output_tokens", "output_len"), _TTFT, _E2E)
    names = [named(path, columns, *each) for each in spellings]
    parts: list[list[Floats]] = [[] for _ in names]
    failed = 0
    for frame, lines in chunks(path, list(dict.fromkeys(names)), float("inf")):
        held = (frame[names[3]].notna() & frame[names[4]].notna()).to_numpy()
        failed += int((~held).sum())
        for place, name in enumerate(names):
            counts = place in (1, 2)
            most = MOST_TOKENS if counts else MOST_TIME
            parts[place].append(column(path, name, frame[name][held], lines[held], most=most, whole=counts))
    start_s, inputs, outputs, ttft_s, e2e_s = (np.concatenate(each) if each else np.empty(0) for each in parts)
    return Answered(
        start_s=start_s - (start_s.min() if len(start_s) else 0.0), input_tokens=inputs, output_tokens=outputs,
        ttft_s=ttft_s, e2e_s=e2e_s, tpot_s=tpot(ttft_s, e2e_s, outputs), gaps_s=np.empty(0), failed=failed,
    )  # fmt: skip
