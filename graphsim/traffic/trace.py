"""Requests from a file, with other adapters, classes or arrival times applied to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphsim.errors import ConfigError
from graphsim.traffic.classes import draw_classes, priority_of
from graphsim.traffic.draws import Draws
from graphsim.traffic.parts import Parts, Recorded
from graphsim.traffic.popularity import Adapters
from graphsim.traffic.table import Floats, Ints, Prefixes, RequestTable
from graphsim.units import amount_text


def recorded_table(traffic: Parts, recorded: Recorded) -> RequestTable:
    """The table of a traffic from a file, with the traffic's adapters and classes."""
    rows = recorded.rows
    arrival = rows.arrival_s
    if recorded.concurrency is not None:
        arrival = _closed(rows, recorded.concurrency)
    elif recorded.rate is not None:
        last = np.nanmax(arrival)
        if not last > 0:
            paced = f"they cannot be brought to {amount_text(recorded.rate)} requests/s"
            raise ConfigError(f"{recorded.path}: all requests come at once, so {paced}")
        arrival = arrival * (recorded.count / recorded.rate / last)
    found = replace(rows, arrival_s=arrival)
    if traffic.pool.names and not recorded.adapted:
        found = replace(found, adapter=_laid_over(found, traffic.pool, traffic.seed))
    if traffic.classes:
        first = first_of_each(found.after)
        group = draw_classes(traffic.classes, len(found), Draws(traffic.seed, "classes"))[first]
        found = replace(found, group=group, priority=priority_of(traffic.classes, group))
    return found


def first_of_each(after: Ints) -> Ints:
    """The first row of each row's conversation."""
    found = np.where(after < 0, np.arange(len(after)), after)
    while not np.array_equal(found, found[found]):
        found = found[found]
    return found


def first_rows(rows: RequestTable, count: int) -> RequestTable:
    """The first rows of a table."""
    if count == len(rows):
        return rows
    columns = {
        name: getattr(rows, name)[:count]
        for name in ("arrival_s", "input_tokens", "output_tokens", "adapter", "priority", "group", "after", "think_s")
    }
    prefixes = rows.prefixes
    if prefixes is not None:
        last = int(prefixes.start[count])
        prefixes = Prefixes(start=prefixes.start[: count + 1], segment=prefixes.segment[:last], end=prefixes.end[:last])
    return RequestTable(**columns, prefixes=prefixes)


def _closed(rows: RequestTable, concurrency: int) -> Floats:
    """Arrival times of a closed loop: 0 for the first requests, nan for those that wait for an answer."""
    alone = np.flatnonzero(rows.after < 0)
    arrival = np.full(len(rows), np.nan)
    arrival[alone[:concurrency]] = 0.0
    return arrival


def _laid_over(rows: RequestTable, pool: Adapters, seed: int) -> Ints:
    """A random adapter for each request; all turns of a conversation use the same one."""
    first = first_of_each(rows.after)
    drawn = pool.drawn(rows.arrival_s[first], Draws(seed, "adapters"), Draws(seed, "drift"))
    return drawn[first]
