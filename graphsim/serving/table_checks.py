"""What a table of requests must hold before a server can be sent it."""

from __future__ import annotations

import numpy as np

from graphsim.errors import ConfigError
from graphsim.serving.rules import Rules
from graphsim.traffic.table import BASE, NOBODY, RequestTable


def check_table(table: RequestTable, rules: Rules, concurrency: int | None) -> None:
    """Raise ConfigError, in one sentence, for requests that no server can be sent."""
    for name, column in (("input_tokens", table.input_tokens), ("output_tokens", table.output_tokens)):
        if len(column) and int(column.min()) < 1:
            row = int(np.argmin(column))
            raise ConfigError(f"request {row}: {name} is {int(column[row])}; it must be 1 or more")
    early = np.flatnonzero(table.arrival_s < 0.0)
    if len(early):
        row = int(early[0])
        raise ConfigError(f"request {row}: arrival_s is {float(table.arrival_s[row])}; it must be 0 or more")
    follows = np.flatnonzero(table.after != NOBODY)
    wrong = follows[(table.after[follows] >= follows) | (table.after[follows] < 0)]
    if len(wrong):
        row = int(wrong[0])
        raise ConfigError(f"request {row}: after is {int(table.after[row])}; it must be an earlier row")
    timeless = np.isnan(table.arrival_s) & (table.after == NOBODY)
    if concurrency is None and timeless.any():
        row = int(np.flatnonzero(timeless)[0])
        raise ConfigError(f"request {row}: arrival_s is missing; only a closed loop (concurrency) sends it by itself")
    if concurrency is not None and concurrency < 1:
        raise ConfigError(f"concurrency is {concurrency}; it must be 1 or more")
    if rules.adapters.max_loras < 1 and (table.adapter != BASE).any():
        raise ConfigError("requests name adapters, but max_loras is 0: the server has no slot for them")
