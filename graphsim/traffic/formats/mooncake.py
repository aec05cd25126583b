"""Mooncake traces and traces with the same layout: JSON lines with lengths and hashes of a prompt's blocks.

kvcache-ai/Mooncake: `timestamp` in ms, one hash per 512 tokens. In AIPerf's variant, later turns of a `session_id`
follow the preceding turn after `delay` ms instead (ai-dynamo/aiperf, tests of multi-turn mooncake_trace). Qwen-Bailian
traces have `chat_id`, times in seconds and one hash per 16 tokens (its README).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from graphsim.traffic.formats.adapters import NamedRequests
from graphsim.traffic.formats.cells import Record
from graphsim.traffic.formats.chains import of_blocks
from graphsim.traffic.formats.found import Chain, Columns, Found
from graphsim.traffic.formats.trace import Wanted
from graphsim.traffic.table import NOBODY

LAYOUT = "timestamp, input_length, output_length, hash_ids (Mooncake, Bailian)"

BLOCK_TOKENS = 512
BAILIAN_BLOCK_TOKENS = 16


@dataclass(slots=True)
class _Rows(Columns):
    chains: list[Chain] = field(default_factory=list)


def matches(keys: Set[str]) -> bool:
    """Whether JSON lines with these keys have this layout."""
    return bool(keys & {"input_length", "hash_ids"})


def read(records: Iterator[Record], path: Path, wanted: Wanted) -> Found:
    """The requests in a file. Raises ConfigError for missing or invalid data."""
    rows, numbers, last = _Rows(), dict[Hashable, int](), dict[Hashable, int]()
    adapters = NamedRequests(wanted.adapter, wanted.base)
    per_second, block_tokens, odd = 1000.0, wanted.block_tokens or BLOCK_TOKENS, 0
    for record in records:
        if not rows.times and "chat_id" in record:
            per_second, block_tokens = 1.0, wanted.block_tokens or BAILIAN_BLOCK_TOKENS
        _add(rows, record, last)
        hashes = [part if isinstance(part, int | str) else repr(part) for part in record.parts("hash_ids")]
        odd += bool(hashes) and len(hashes) != -(-rows.inputs[-1] // block_tokens)
        rows.chains.append(of_blocks(numbers, hashes, block_tokens, rows.inputs[-1]))
        adapters.add(record.data)
    note = f"prompts whose hash_ids are not one for each {block_tokens} tokens: {odd}; is block_tokens right?"
    names, notes = adapters.column()
    found = rows.found(per_second, names, notes + ([note] if odd else []))
    found.chains = rows.chains
    return found


def _add(rows: _Rows, record: Record, last: dict[Hashable, int]) -> None:
    """Add times, lengths and predecessor of one request.

    rows: the rows so far
    record: the request
    last: latest row of each session
    """
    session = record.data.get("session_id")
    leader = last.get(session, NOBODY) if isinstance(session, Hashable) and session is not None else NOBODY
    follows = leader != NOBODY and "timestamp" not in record
    rows.times.append(float("nan") if follows else record.number("timestamp"))
    rows.after.append(leader if follows else NOBODY)
    rows.think_s.append(record.number("delay") / 1000.0 if follows and "delay" in record else 0.0)
    rows.inputs.append(record.tokens("input_length"))
    rows.outputs.append(record.tokens("output_length"))
    if isinstance(session, Hashable) and session is not None:
        last[session] = len(rows.times) - 1
