"""ServeGen's clients (alibaba/ServeGen): a folder with chunk-N-trace.csv and chunk-N-dataset.json for each client.

A line of a trace contains the start of a window, its requests per second, the coefficient of variation of its gaps, the
distribution fitted to them and its two parameters (shape and scale). A data set contains the probability of each length
for windows of a few hours. Requests are drawn from both: the number in a window follows from its rate, and the gaps
have the fitted shape and are scaled to fill the window.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.traffic.formats.cells import MOST_TOKENS, Record
from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.sources import MOST_REQUESTS, parsed
from graphsim.traffic.formats.trace import Wanted
from graphsim.traffic.table import Floats
from graphsim.units import amount_text, short

LAYOUT = "a folder with chunk-N-trace.csv and chunk-N-dataset.json of each client (ServeGen)"

SECONDS = 3600.0
"""Default duration of the drawn requests."""

MOST_CLIENTS = 100_000
_TRACE = re.compile(r"chunk-(\d{1,9})-trace\.csv")


@dataclass(frozen=True, slots=True)
class _Window:
    """A client's traffic in a window from start_s on, with gamma or Weibull distributed gaps."""

    line: int
    start_s: float
    seconds: float
    rate: float
    weibull: bool
    shape: float


def read(folder: Path, wanted: Wanted) -> Found:
    """The requests of all clients in a folder. Raises ConfigError naming the file and line of an error."""
    if wanted.adapter not in (None, "client"):
        raise ConfigError(f"{folder}: adapter = {short(wanted.adapter)} is not allowed; expected client, or nothing")
    clients = _clients(folder)
    seconds, notes = wanted.seconds, []
    if math.isinf(seconds):
        seconds = SECONDS
        notes = [f"the first {amount_text(SECONDS)} s of the clients' traffic are drawn; seconds=… takes more"]
    drawn = [_client(folder, client, wanted.start_s, seconds, wanted.seed) for client in clients]
    total = sum(len(times) for times, _, _ in drawn)
    if not total:
        raise ConfigError(
            f"{folder}: its clients send nothing in the {amount_text(seconds)} s from {amount_text(wanted.start_s)} "
            "s on"
        )
    times, inputs, outputs = (np.concatenate([part[place] for part in drawn]) for place in range(3))
    order = np.argsort(times, kind="stable")
    owner = np.repeat(clients, [len(part[0]) for part in drawn])[order]
    notes.append(
        f"{total} requests of {len(clients)} clients are drawn from what ServeGen says of them (seed {wanted.seed})"
    )
    return Found(
        seconds=times[order], input_tokens=inputs[order], output_tokens=outputs[order], notes=notes,
        adapter=owner.tolist() if wanted.adapter == "client" else None,
    )  # fmt: skip


def _clients(folder: Path) -> list[int]:
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read ({error.strerror})") from None
    found = sorted(int(match[1]) for name in names if (match := _TRACE.fullmatch(name)))
    if not found:
        raise ConfigError(f"{folder}: holds no chunk-N-trace.csv; expected {LAYOUT}, or the path of a trace file")
    if len(found) > MOST_CLIENTS:
        raise ConfigError(f"{folder}: holds {len(found):,} clients, allowed: at most {amount_text(MOST_CLIENTS)}")
    return found


def _client(folder: Path, client: int, start_s: float, seconds: float, seed: int) -> tuple[Floats, Floats, Floats]:
    """Times, prompt and answer lengths of a client's requests in a part of its trace; they do not depend on the part.

    folder: the folder
    client: number of the client
    start_s, seconds: the part of the trace
    seed: seed of the random draws
    """
    path, lengths = folder / f"chunk-{client}-trace.csv", folder / f"chunk-{client}-dataset.json"
    windows = [
        window for window in _windows(path)
        if window.rate > 0 and window.start_s < start_s + seconds and window.start_s + window.seconds > start_s
    ]  # fmt: skip
    if not windows:
        return np.empty(0), np.empty(0), np.empty(0)
    data = Record(lengths, 1, parsed(lengths, _bytes(lengths), 1))
    parts = []
    for window in windows:
        random = np.random.default_rng([seed, client, int(window.start_s)])
        count = math.floor(window.rate * window.seconds + random.random())
        if count > MOST_REQUESTS:
            raise ConfigError(
                f"{path}: line {window.line}: {amount_text(count)} requests in one window, allowed: "
                f"{amount_text(MOST_REQUESTS)}"
            )
        times = window.start_s + _times(random, window, count)
        inputs, outputs = (
            _lengths(random, data, key, window.start_s, count) for key in ("input_tokens", "output_tokens")
        )
        inside = (times >= start_s) & (times < start_s + seconds)
        parts.append((times[inside], inputs[inside], outputs[inside]))
    times, inputs, outputs = (np.concatenate([part[place] for part in parts]) for place in range(3))
    return times, inputs, outputs


def _times(random: np.random.Generator, window: _Window, count: int) -> Floats:
    """Arrival times of this number of requests in a window, with gaps that are scaled to fill it."""
    draw = random.weibull if window.weibull else random.standard_gamma
    gaps = np.asarray(draw(window.shape, count + 1), dtype=float)
    total = gaps.sum()
    if not total > 0:
        gaps, total = np.ones(count + 1), float(count + 1)
    return np.asarray(np.cumsum(gaps)[:count] * (window.seconds / total), dtype=float)


def _windows(path: Path) -> list[_Window]:
    try:
        rows = _bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a text file") from None
    read = [(line, _row(path, line, row)) for line, row in enumerate(rows, 1) if row.strip()]
    starts = [row[0] for _, row in read]
    for (line, row), before in zip(read[1:], starts, strict=False):
        if row[0] <= before:
            raise ConfigError(
                f"{path}: line {line}: window {amount_text(row[0])} is not allowed; expected one after "
                f"{amount_text(before)}"
            )
    ends = starts[1:] + [2 * starts[-1] - starts[-2] if len(starts) > 1 else starts[-1] + 600.0] if starts else []
    return [
        _Window(line, row[0], end - row[0], row[1], row[3] == "Weibull", row[2])
        for (line, row), end in zip(read, ends, strict=True)
    ]


def _row(path: Path, line: int, row: str) -> tuple[float, float, float, str]:
    """Start, rate, and shape and distribution of gaps in a line: by default a gamma distribution of shape 1 / cv^2."""
    cells = [cell.strip() for cell in row.split(",")]
    where = f"{path}: line {line}"
    if len(cells) != 6:
        raise ConfigError(f"{where}: has {len(cells)} cells, expected 6: start, rate, cv, distribution, shape, scale")
    try:
        start, rate, cv, shape = (float(cells[place] or 0.0) for place in (0, 1, 2, 4))
    except ValueError:
        raise ConfigError(
            f"{where}: {short(row)} is not allowed; expected numbers for start, rate, cv and shape"
        ) from None
    if not (0 <= start <= 1e12 and 0 <= rate <= 1e9 and 0 <= cv <= 1e6 and 0 <= shape <= 1e6):
        raise ConfigError(f"{where}: {short(row)} is not allowed; expected finite numbers from 0")
    if cells[3] not in ("Gamma", "Weibull") or not shape > 0:
        return start, rate, 1.0 / cv**2 if cv > 1e-3 else 1e6, "Gamma"
    return start, rate, shape, cells[3]


def _lengths(random: np.random.Generator, data: Record, key: str, at_s: float, count: int) -> Floats:
    """Lengths drawn from the latest non-empty window of a data set that starts before `at_s`, else from the first."""
    starts = sorted((float(start), start) for start in data.data if _is_time(start))
    begun = [start for time, start in starts if time <= at_s][::-1] + [start for time, start in starts if time > at_s]
    for start in begun:
        tokens, weights = _shares(data.inside(start), f"{start}: {key}", data.inside(start).data.get(key))
        if len(tokens):
            return np.asarray(random.choice(tokens, count, p=weights / weights.sum()), dtype=float)
    raise ConfigError(
        f'{data.path}: has no lengths of {key}; expected windows such as {{"0": {{"input_tokens": "{{12: 1.0}}"}}}}'
    )


def _is_time(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 15


def _shares(window: Record, name: str, found: Any) -> tuple[Floats, Floats]:
    """Lengths and their frequencies, from a mapping or its text."""
    if isinstance(found, str):
        pairs: list[Any] = [pair.split(":") for pair in found.strip().strip("{}").split(",") if pair.strip()]
    else:
        pairs = list(found.items()) if isinstance(found, dict) else [None]
    try:
        table = np.array(pairs, dtype=float).reshape(-1, 2)
    except (TypeError, ValueError):
        raise window.wrong(name, found, "lengths and their shares such as {12: 0.25, 40: 0.75}") from None
    tokens, weights = table[:, 0], table[:, 1]
    good = (tokens >= 0) & (tokens <= MOST_TOKENS) & (tokens == np.floor(tokens)) & (weights >= 0) & (weights <= 1e12)
    if not good.all() or (len(weights) and not weights.sum() > 0):
        raise window.wrong(name, found, "whole lengths from 0 and their shares from 0")
    return tokens, weights


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > 2**28:
            raise ConfigError(f"{path}: has more than {2**28} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
