"""Rows of serving benchmarks as configurations: one reader for the layouts of InferenceX's tables.

Labels and measurements sometimes disagree. A `doubt` column with the evidence determines how a row is judged. Degrees
that a label multiplies together are separated again: one server of these benchmarks has at most eight devices, and the
id names the true degrees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError
from graphsim.files.measured import Row, above_zero, number, read_facts
from graphsim.speculation.speculation import Speculation
from graphsim.validation.drafters import drafter_of
from graphsim.validation.figures import is_figure

if TYPE_CHECKING:
    import pandas as pd

CLEAN = "clean"
APART = {
    "speculative decoding": "speculative",
    "copy of another row": "copy",
    "below the memory floor": "below the floor",
    "waits for a place": "waits for a place",
    "no warm-up": "cold",
    "twin of the same configuration": "twin differs",
    "protocol unknown": "other protocol",
}
"""How a row with a doubt is judged, by the doubt's first words; doubts that the reader corrects are not listed."""

NODE_DEVICES = 8
"""Largest number of devices of a server of these benchmarks, which ran on nodes of eight."""

_NAMED = re.compile(r"_tp(\d+)(?:_0)?_ep(\d+)(?:_|$)")
_VERSION = re.compile(r"(\d+\.\d+(?:\.\d+)?(?:[a-z.]*\d*)*)")
ENGINES = {"vllm": "vllm", "sglang": "sglang", "trt": "trtllm", "tensorrt": "trtllm", "atom": "atom"}
"""Engine families, by the beginning of an engine's name in a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Identical servers.

    tp: tensor-parallel degree of a server
    ep: expert-parallel degree of a server
    replicas: attention replicas in a server
    workers: number of servers, 0 if not stated
    """

    tp: int
    ep: int
    replicas: int = 1
    pp: int = 1
    workers: int = 1

    @property
    def devices(self) -> int:
        """Devices of all servers."""
        return max(self.tp, self.ep, self.replicas) * self.pp * max(self.workers, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRow:
    """One measured configuration.

    gpu, model, precision: as stated in the file
    engine: family of its profiles
    version: of the engine, "" if not stated
    pool: the servers, or the decode workers if prefill is disaggregated
    prompts: the pool of prefill workers, None without
    range_ratio: shortest length as a share of the stated one
    per_client: requests that each client sends
    judged: `clean`, or the reason why the row is judged separately
    cold: whether the server had no warm-up before the first requests
    as_written: whether the precision is a complete one in graphsim's notation, not a checkpoint's label
    samples: whether tokens are sampled from a truncated distribution; otherwise decoding is greedy
    speculation: the drafter, None for none; its number of tokens is unknown if only a doubt mentions it
    problem: the reason why the row cannot be simulated, "" if it can
    measured: figures by the file's own names
    """

    id: str
    model: str
    gpu: str
    engine: str
    version: str
    precision: str
    pool: Pool
    clients: int
    input_tokens: float
    output_tokens: float
    prompts: Pool | None = None
    range_ratio: float = 0.8
    per_client: int = 10
    judged: str = CLEAN
    doubt: str = ""
    problem: str = ""
    as_written: bool = False
    samples: bool = False
    speculation: Speculation | None = None
    measured: Mapping[str, float] = field(default_factory=dict)


def served_rows(path: str | Path) -> list[ServedRow]:
    """The rows of a file; `problem` has the reason for a row that cannot be parsed.

    Raises ConfigError for a file that cannot be read or has none of the known layouts.
    """
    return rows_of(read_facts(path, "served configurations"), str(path))


def rows_of(frame: pd.DataFrame, name: str) -> list[ServedRow]:
    """The rows of a table; `name` is for messages."""
    reader = _reader(set(frame.columns), name)
    found = []
    for place, row in enumerate(frame.to_dict("records"), 1):
        row.setdefault("id", str(place))
        try:
            found.append(reader(row))
        except ConfigError as error:
            found.append(_unread(row, str(error)))
    return found


def _unread(row: Row, problem: str) -> ServedRow:
    """A row that cannot be parsed, with its measured figures."""
    return ServedRow(
        id=str(row["id"]), model=_text(row, "model"), gpu=_text(row, "gpu") or _text(row, "hardware"),
        engine=_text(row, "engine") or _text(row, "framework"), version="", precision=_text(row, "precision"),
        pool=Pool(tp=1, ep=1), clients=1, input_tokens=1.0, output_tokens=1.0, measured=_measured(row),
        judged="not read", doubt=_text(row, "doubt"), problem=problem,
    )  # fmt: skip


def is_served(columns: set[str]) -> bool:
    """Whether a table with these columns has configurations of serving benchmarks."""
    return any(needed <= columns for needed, _ in _LAYOUTS)


def _reader(columns: set[str], name: str) -> Any:
    for needed, reader in _LAYOUTS:
        if needed <= columns:
            return reader
    lacking = min((needed - columns for needed, _ in _LAYOUTS), key=len)
    raise ConfigError(f"{name}: column {', '.join(sorted(lacking))} is missing for a table of served configurations")


def _aggregated(row: Row) -> ServedRow:
    engine, version = _engine(row)
    doubt = _text(row, "doubt")
    return ServedRow(
        id=str(row["id"]), model=str(row["model"]), gpu=_text(row, "gpu") or _text(row, "hardware"), engine=engine,
        version=version, precision=str(row["precision"]), pool=_one_server(row), clients=_clients(row),
        input_tokens=above_zero(row, "input_tokens"), output_tokens=above_zero(row, "output_tokens"),
        range_ratio=_range_ratio(row, doubt), per_client=int(_or(row, "requests_per_client", 10.0)),
        judged=_judged(doubt), doubt=doubt, measured=_measured(row),
    )  # fmt: skip


def _disaggregated(row: Row) -> ServedRow:
    engine, version = _engine(row)
    return ServedRow(
        id=str(row["id"]), model=str(row["model"]), gpu=str(row["gpu"]), engine=engine, version=version,
        precision=str(row["precision"]), pool=_part(row, "decode"), prompts=_part(row, "prefill"),
        clients=_clients(row), input_tokens=above_zero(row, "input_tokens"),
        output_tokens=above_zero(row, "output_tokens"), doubt=_text(row, "doubt"),
        judged=_judged(_text(row, "doubt")), measured=_measured(row),
    )  # fmt: skip


def _inferencemax(row: Row) -> ServedRow:
    engine, version = _engine(row)
    apart = str(row.get("disagg", False)).lower() == "true"
    speculation = drafter_of(_text(row, "spec_decoding"))
    if apart:
        pool, prompts = (_named_part(row, name) for name in ("decode", "prefill"))
    else:
        tp, ep = int(number(row, "tp")), int(_or(row, "ep", 1.0))
        replicas = tp if str(row.get("dp_attention", False)).lower() == "true" else 1
        pool, prompts = Pool(tp=1 if replicas > 1 else tp, ep=max(ep, replicas), replicas=replicas), None
    return ServedRow(
        id=str(row["id"]), model=str(row["model"]), gpu=str(row["hardware"]), engine=engine, version=version,
        precision=str(row["precision"]), pool=pool, prompts=prompts, clients=_clients(row),
        input_tokens=above_zero(row, "input_tokens"), output_tokens=above_zero(row, "output_tokens"),
        range_ratio=_or(row, "length_range_ratio", 0.8), measured=_measured(row),
        judged=_judged(_text(row, "doubt")) if speculation is None else "speculative", doubt=_text(row, "doubt"),
        speculation=speculation,
    )  # fmt: skip


_LAYOUTS = (
    ({"decode_tp_size", "prefill_tp_size", "gpu", "model", "precision", "input_tokens"}, _disaggregated),
    ({"spec_decoding", "hardware", "tp", "model", "precision", "concurrency", "input_tokens"}, _inferencemax),
    ({"engine", "gpu", "tp", "model", "precision", "input_tokens", "output_tokens"}, _aggregated),
    ({"hardware", "model", "precision", "concurrency", "input_tokens", "output_tokens", "ttft_ms"}, _aggregated),
)
"""Columns that identify a layout, and the reader of its rows."""


def _engine(row: Row) -> tuple[str, str]:
    """Family and version of the engine."""
    text = (_text(row, "engine") or _text(row, "framework") or "vllm").lower()
    family = next((name for start, name in ENGINES.items() if text.startswith(start)), None)
    if family is None:
        raise ConfigError(f"engine = {text!r} is not known; allowed: {', '.join(ENGINES)}")
    told = _text(row, "engine_version") or _text(row, "image").rsplit(":", 1)[-1] or text
    found = _VERSION.search(told)
    return family, found[1] if found else ""


def _one_server(row: Row) -> Pool:
    """The degrees of one server, separated if a label multiplies them together."""
    tp, ep = int(_or(row, "tp", 1.0)), int(_or(row, "moe_ep", 1.0))
    replicas, pp = int(_or(row, "attention_dp", 1.0)), int(_or(row, "pp", 1.0))
    if tp > 1 and replicas > 1:  # a label of tp 4, dp 4, ep 16 measures as tp 4, ep 4
        ep, replicas = tp, 1
    if named := _NAMED.search(str(row["id"])):
        width, ep = int(named[1]), int(named[2])
        tp, replicas = (1, width) if replicas > 1 else (width if tp > 1 else tp, 1)
    elif max(tp, replicas) > NODE_DEVICES and ep > 1:
        tp, replicas = (1, ep) if replicas > 1 else (tp // ep, 1)
    ep = max(replicas, 1) if replicas > 1 else min(ep, tp)
    return Pool(tp=tp, ep=ep, replicas=replicas, pp=pp)


def _part(row: Row, name: str) -> Pool:
    """One of the two pools in a table of disaggregated configurations."""
    tp, ep = int(_or(row, f"{name}_tp_size", 1.0)), int(_or(row, f"{name}_moe_ep_size", 1.0))
    replicas = int(_or(row, f"{name}_attention_dp_size", 1.0))
    workers = int(_or(row, f"{name}_num_workers", 0.0))
    return Pool(tp=tp, ep=max(ep, replicas), replicas=replicas, workers=workers)


def _named_part(row: Row, name: str) -> Pool:
    workers = int(_or(row, f"{name}_num_workers", 0.0))
    devices = int(_or(row, f"num_{name}_gpu", 1.0)) // max(workers, 1)
    if str(row.get(f"{name}_dp_attention", False)).lower() == "true":
        return Pool(tp=1, ep=devices, replicas=devices, workers=workers)
    return Pool(tp=devices, ep=min(int(_or(row, f"{name}_ep", 1.0)), devices), workers=workers)


def _clients(row: Row) -> int:
    clients = _or(row, "concurrency", 0.0) or _or(row, "batch_size", 0.0)
    if clients < 1:
        raise ConfigError("concurrency is not stated, and no batch size either")
    return int(clients)


def _range_ratio(row: Row, doubt: str) -> float:
    """The range ratio; with an unstated protocol, lengths are assumed fixed, as clients run in lockstep."""
    return _or(row, "range_ratio", 1.0 if "protocol unknown" in doubt else 0.8)


def _judged(doubt: str) -> str:
    return next((apart for start, apart in APART.items() if start in doubt), CLEAN)


def _measured(row: Row) -> dict[str, float]:
    """The figures that are numbers; anything else is not a measurement."""
    found = {}
    for name in filter(is_figure, map(str, row)):
        try:
            found[name] = number(row, name)
        except ConfigError:
            continue
    return found


def _text(row: Row, name: str) -> str:
    value = row.get(name, "")
    return "" if value is None or value != value else str(value)


def _or(row: Row, name: str, absent: float) -> float:
    value = row.get(name)
    return absent if value is None or value != value else number(row, name)
