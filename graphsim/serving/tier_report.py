"""What came from tiers of the KV cache, for reports."""

from __future__ import annotations

from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.units import seconds_text


def tier_rows(log: RunLog, rules: Rules) -> list[tuple[str, str]]:
    """A label and its figures for each tier with room: tokens that came back from it, and seconds of their way."""
    rows = []
    for index, tier in enumerate(rules.tiers):
        loads = [row for row in log.tier_loads if row[2] == index]
        if tier.blocks:
            tokens, seconds = sum(row[3] for row in loads), sum(row[1] for row in loads)
            text = f"{tokens:,} tokens at {len(loads):,} times, {seconds_text(float(seconds))} in all"
            rows.append((f"KV cache from {tier.name}", text))
    return rows
