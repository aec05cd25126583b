"""Reading a trace of any known layout."""

from __future__ import annotations

from math import inf
from pathlib import Path

from graphsim.errors import ConfigError
from graphsim.files.present import expanded, is_folder
from graphsim.traffic.formats import (
    aiperf,
    azure,
    bench_results,
    burstgpt,
    llmservingsim,
    mooncake,
    plain,
    servegen,
    vidur,
)
from graphsim.traffic.formats.found import Found, trace_of
from graphsim.traffic.formats.sources import check_file, first_characters, header, records
from graphsim.traffic.formats.trace import Trace, Wanted
from graphsim.units import checked_number, short

TABLES = (plain, azure, burstgpt, vidur)
JSON = (bench_results, aiperf, llmservingsim, mooncake)


def read_trace(
    path: str | Path, *, requests: int | None = None, start_s: float = 0.0, seconds: float | None = None,
    adapter: str | None = None, base: str | None = None, prefixes: bool = True, block_tokens: int | None = None,
    run: int | None = None, seed: int = 0,
) -> Trace:  # fmt: skip
    """The requests in a trace file, or in a folder of ServeGen data; the layout is identified by columns or keys.

    path: the file or folder
    requests: maximum number of requests, taken from the start
    start_s, seconds: use only the requests sent in this part of the trace, in seconds after its first request
    adapter: column or key with each request's adapter; by default `lora`, `adapter` or `lora_id`, in JSON lines also
        `model`; for ServeGen, "client" makes each client an adapter
    base: value in it that means the base model, in addition to blank, none and -1
    prefixes: whether common beginnings of prompts are used (from hashes, token ids or turns of a conversation)
    block_tokens: tokens per entry of `hash_ids` (512 in Mooncake's traces, 16 in Bailian's)
    run: number of the run, from 1, in a result file with several; the last by default
    seed: seed for values that the file does not contain and that are drawn at random
    Raises ConfigError naming file, line or field, value and what is allowed.
    """
    wanted = _wanted(requests, start_s, seconds, adapter, base, prefixes, block_tokens, run, seed)
    place = expanded(path)
    if is_folder(place):
        drawn = servegen.read(place, wanted)
        return trace_of(drawn, place, Wanted(requests=requests, base=base))
    check_file(place)
    return trace_of(_found(place, wanted), place, wanted)


def _found(path: Path, wanted: Wanted) -> Found:
    start = "" if path.suffix == ".parquet" else first_characters(path)
    if start.startswith("["):
        raise ConfigError(f"{path}: line 1: holds a JSON list; expected one JSON object on each line")
    if start.startswith("{"):
        first = next(records(path, 1))
        keys = frozenset(str(key) for key in first.data)
        reader = next((layout for layout in JSON if layout.matches(keys)), None)
        if reader is not None:
            rows = inf if reader in (bench_results, aiperf) else wanted.rows
            found: Found = reader.read(records(path, rows), path, wanted)
            return found
        raise _unknown(path, "keys", sorted(keys), JSON)
    columns = header(path)
    names = frozenset(name.strip().lower() for name in columns)
    table = next((layout for layout in TABLES if layout.matches(names)), None)
    if table is None:
        raise _unknown(path, "columns", columns, TABLES)
    rows_found: Found = table.read(path, wanted)
    return rows_found


def _unknown(path: Path, what: str, found: list[str], layouts: tuple[object, ...]) -> ConfigError:
    known = "; ".join(getattr(layout, "LAYOUT", "") for layout in layouts)
    return ConfigError(f"{path}: {what} {short(', '.join(found))} are of no known trace; expected {known}")


def _wanted(
    requests: int | None, start_s: float, seconds: float | None, adapter: str | None, base: str | None, prefixes: bool,
    block_tokens: int | None, run: int | None, seed: int,
) -> Wanted:  # fmt: skip
    """The arguments, checked. Raises ConfigError naming the one that is wrong."""
    for name, text in (("adapter", adapter), ("base", base)):
        if text is not None and not isinstance(text, str):
            raise ConfigError(f"{name} = {short(text)} is not allowed; expected a name")
    if not isinstance(prefixes, bool):
        raise ConfigError(f"prefixes = {short(prefixes)} is not allowed; expected True or False")
    return Wanted(
        requests=None if requests is None else checked_number("requests", requests, 1, one=True),
        start_s=checked_number("start_s", start_s, 0, whole=False, one=True),
        seconds=inf if seconds is None else checked_number("seconds", seconds, 0, whole=False, one=True),
        adapter=adapter, base=base, prefixes=prefixes,
        block_tokens=None if block_tokens is None else checked_number("block_tokens", block_tokens, 1, 10**6, one=True),
        run=None if run is None else checked_number("run", run, 1, one=True),
        seed=checked_number("seed", seed, 0, 2**63, one=True),
    )  # fmt: skip
