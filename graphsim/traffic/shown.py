"""Descriptions of a traffic."""

from __future__ import annotations

from math import inf

import numpy as np

from graphsim.traffic.lengths import length_text
from graphsim.traffic.parts import Closed, Open, Parts, Recorded
from graphsim.traffic.popularity import Drift
from graphsim.traffic.rates import Bursts, Ramp
from graphsim.traffic.sessions import turns_text
from graphsim.traffic.table import RequestTable
from graphsim.units import amount_text, seconds_text


def in_short(traffic: Parts) -> str:
    """A one-line description, without drawing the requests."""
    parts = [_source(traffic), *_lengths(traffic)]
    if traffic.pool.names:
        parts.append(_adapters(traffic))
    if traffic.sessions is not None:
        parts.append(turns_text(traffic.sessions))
    if traffic.classes:
        parts.append("classes " + ", ".join(each.name for each in traffic.classes))
    return f"Traffic({'; '.join(filter(None, parts))}; seed {traffic.seed})"


def described(traffic: Parts, table: RequestTable, seconds: float | None) -> str:
    """A description with one line each on arrivals, lengths, conversations, adapters and classes.

    table: the requests
    seconds: duration in which they are sent; None for a closed loop
    """
    lines = [f"arrivals: {_source(traffic)}"]
    if seconds:
        asked, answered = table.input_tokens.sum() / seconds, table.output_tokens.sum() / seconds
        within, rate = seconds_text(seconds), f"{len(table) / seconds:.4g} requests/s"
        tokens = f"{asked:,.0f} prompt and {answered:,.0f} output tokens/s"
        lines.append(f"offered: {len(table):,} requests within {within}, {rate}, {tokens}")
    for name, values in (("prompts", table.input_tokens), ("answers", table.output_tokens)):
        low, middle, high, most = np.quantile(values, [0.0, 0.5, 0.99, 1.0])
        lines.append(
            f"{name}: {values.mean():,.0f} tokens on average, {low:,.0f} to {most:,.0f}, median {middle:,.0f}, "
            f"p99 {high:,.0f}"
        )
    if traffic.sessions is not None:
        lines.append(f"sessions: {turns_text(traffic.sessions) or 'of one turn'}")
    if traffic.pool.names:
        wanted = len(np.unique(table.adapter[table.adapter >= 0]))
        lines.append(f"adapters: {_adapters(traffic)}, {wanted:,} of them wanted")
    for number, each in enumerate(traffic.classes):
        limits = ", ".join(f"{name} {amount_text(value)}" for name, value in each.limits.items()) or "no limits"
        share = float(np.mean(table.group == number))
        lines.append(f"class {each.name}: {share:.1%} of requests, priority {each.priority}, {limits}")
    if isinstance(traffic.source, Recorded):
        lines.extend(f"note: {note}" for note in traffic.source.notes)
    return "\n".join(lines)


def _source(traffic: Parts) -> str:
    source = traffic.source
    if isinstance(source, Closed):
        return f"closed loop of {source.concurrency:,}, {source.requests:,} requests"
    faster = "" if traffic.speed == 1.0 else f", {amount_text(traffic.speed)} times as fast"
    if not isinstance(source, Open):
        if source.concurrency is not None:
            return f"closed loop of {source.concurrency:,}, {source.count:,} requests of {source.path}"
        stretched = "" if source.rate is None else f" at {amount_text(source.rate)} requests/s"
        return f"{source.count:,} requests of {source.path}{stretched}{faster}"
    how = "all at once" if source.rate == inf else f"{_rate(source)}, {_gaps(source.burstiness)}"
    return f"{source.count:,} requests, {how}{faster}"


def _rate(source: Open) -> str:
    rate = source.rate
    if isinstance(rate, tuple):
        return "then ".join(
            f"{_pace(stage.rate)} for {amount_text(stage.seconds)} s " for stage in rate[:4]
        ).strip() + (f" and {len(rate) - 4} more stages" if len(rate) > 4 else "")
    if isinstance(rate, Bursts):
        burst = f"{amount_text(rate.burst_rate)}/s for {amount_text(rate.burst_s)} of {amount_text(rate.every_s)} s"
        return f"{amount_text(rate.rate)}/s with bursts of {burst}"
    return _pace(rate)


def _pace(rate: float | Ramp) -> str:
    return (
        f"{amount_text(rate.start)}/s to {amount_text(rate.end)}/s ({rate.strategy})"
        if isinstance(rate, Ramp)
        else f"{amount_text(rate)}/s"
    )


def _gaps(burstiness: float) -> str:
    known = {1.0: "Poisson", inf: "constant gaps"}
    return known.get(burstiness, f"gamma gaps of shape {amount_text(burstiness)}")


def _lengths(traffic: Parts) -> list[str]:
    if not isinstance(traffic.source, Open | Closed):
        return []
    if traffic.output_tokens is None:
        return [f"pairs {length_text(traffic.input_tokens)}"]
    return [f"{length_text(traffic.input_tokens)} in, {length_text(traffic.output_tokens)} out"]


def _adapters(traffic: Parts) -> str:
    pool, listed = traffic.pool, traffic.pool.popularity
    kind = "a rate each" if isinstance(listed, tuple) else "drifting" if isinstance(listed, Drift) else listed
    if isinstance(traffic.source, Recorded) and traffic.source.adapted:
        kind = "the trace's own"
    ranks = "" if pool.ranks is None else ", ranks " + "/".join(map(str, sorted(set(pool.ranks))))
    base = f", {pool.base_share:.0%} of requests without" if pool.base_share else ""
    return f"{len(pool):,} adapters ({kind}{ranks}{base})"
