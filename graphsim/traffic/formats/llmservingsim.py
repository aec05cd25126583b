"""LLMServingSim's workloads (casys-kaist/LLMServingSim, workloads/README.md): JSON lines of requests or sessions.

A request has input_toks, output_toks, arrival_time_ns and optionally input_tok_ids; a session has sub_requests, each of
which waits for the preceding one and then for its tool (tool_duration_ns). The requests.jsonl of its measured runs has
arrival_time in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphsim.traffic.formats.adapters import NamedRequests
from graphsim.traffic.formats.cells import Number, Record
from graphsim.traffic.formats.chains import TokenTree, of_conversations
from graphsim.traffic.formats.found import Chain, Columns, Found
from graphsim.traffic.formats.trace import Wanted
from graphsim.traffic.table import NOBODY, Ints

LAYOUT = "input_toks, output_toks, arrival_time_ns, or sessions with sub_requests (LLMServingSim)"


@dataclass(slots=True)
class _Rows(Columns):
    tokens: list[Ints] = field(default_factory=list)


def matches(keys: Set[str]) -> bool:
    """Whether JSON lines with these keys have this layout."""
    return bool(keys & {"input_toks", "sub_requests"})


def read(records: Iterator[Record], path: Path, wanted: Wanted) -> Found:
    """The requests in a file. Raises ConfigError for missing or invalid data."""
    rows, per_second, adapters = _Rows(), 1e9, NamedRequests(wanted.adapter, wanted.base)
    for record in records:
        if not rows.times and "arrival_time" in record and "arrival_time_ns" not in record:
            per_second = 1.0
        key = "arrival_time_ns" if per_second > 1.0 else "arrival_time"
        if "sub_requests" in record:
            _session(rows, record, record.number(key), adapters)
        else:
            _request(rows, record, record.number(key), NOBODY, 0.0)
            adapters.add(record.data)
    names, notes = adapters.column()
    found = rows.found(per_second, names, notes)
    if wanted.prefixes:
        found.chains, shared = _shared(rows, found)
        found.notes += shared
    return found


def _session(rows: _Rows, record: Record, time: Number, adapters: NamedRequests) -> None:
    leader, pause = NOBODY, 0.0
    for place, part in enumerate(record.parts("sub_requests")):
        if not isinstance(part, dict):
            raise record.wrong(f"sub_requests[{place}]", part, "a JSON object")
        step = Record(record.path, record.line, part)
        _request(rows, step, time if leader == NOBODY else float("nan"), leader, pause)
        adapters.add(record.data | part)
        pause = step.number("tool_duration_ns") / 1e9 if "tool_duration_ns" in step else 0.0
        leader = len(rows.times) - 1


def _request(rows: _Rows, record: Record, time: Number, leader: int, pause: float) -> None:
    rows.times.append(time)
    rows.after.append(leader)
    rows.think_s.append(pause)
    rows.inputs.append(record.tokens("input_toks"))
    rows.outputs.append(record.tokens("output_toks"))
    prompt = _ids(record, "input_tok_ids")[: rows.inputs[-1]]
    whole = len(prompt) == rows.inputs[-1]  # an answer's ids are usable only after all ids of the prompt
    rows.tokens.append(np.array(prompt + (_ids(record, "output_tok_ids") if whole else []), dtype=np.int64))


def _ids(record: Record, key: str) -> list[int]:
    ids = record.parts(key)
    if any(isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**62 for token in ids):
        raise record.wrong(key, ids, "a list of whole numbers from 0")
    return ids


def _shared(rows: _Rows, found: Found) -> tuple[list[Chain], list[str]]:
    """Common beginnings of prompts, from token ids if the file has any, else from sessions; and notes."""
    if any(map(len, rows.tokens)):
        tree = TokenTree()
        ends = [tree.add(tokens) for tokens in rows.tokens]
        return [tree.chain(node, tokens) for node, tokens in zip(ends, rows.inputs, strict=True)], []
    after = np.array(rows.after, dtype=np.int64)
    chains, repeats = of_conversations(after, found.input_tokens, found.output_tokens)
    note = f"prompts that are taken to repeat what was said before: {repeats}; prefixes=False makes them new"
    return chains, [note] if repeats else []
