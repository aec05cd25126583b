"""`graphsim fleet`: the cheapest devices, degrees, slots, router and number of replicas that keep the limits."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli.best import prices_of
from graphsim.cli.engine_flags import as_flags, flag_value
from graphsim.cli.printing import RunProgress, print_json, print_line, print_table
from graphsim.cli.traffic import add_traffic, limits_of, traffic_of
from graphsim.errors import ConfigError
from graphsim.units import seconds_text

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = """examples:
  graphsim fleet llama-3.1-8b --hardware l40s h100-sxm --tp 1,2 --rate 12 --slo ttft=1,tpot=0.06 --price l40s=1,h100=3
  graphsim fleet llama-3.1-8b --hardware l40s --slots 8,16 --router placed,llm-d --rate 12 --adapters 50 --slo ttft=1
  graphsim fleet llama-3.1-70b --hardware h100-sxm --tp 4,8 --trace requests.csv --slo ttft=2 --workers 2 --resume FILE
"""
_NUMBERS = ("tp", "pp", "ep", "slots")
_NAMED = ("router", "engine", "precision")
_SHOWN = {"hardware": "hardware", "tp": "tp", "pp": "pp", "ep": "ep", "max_loras": "slots"}


def add_commands(commands: Any) -> None:
    """Add `fleet`."""
    parser = shared.add_command(commands, "fleet", "the cheapest fleet that keeps limits under a traffic", EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="a name (see `graphsim models`), a YAML file or a model folder")
    shared.add_ignore(parser)
    parser.add_argument("--no-check", action="store_true", help="go by a model's config alone")
    parser.add_argument("--hardware", nargs="+", required=True, metavar="HW", help="devices to choose from")
    for name, text in (
        ("tp", "tensor parallel degrees"), ("pp", "pipeline stages"), ("ep", "expert parallel degrees"),
        ("slots", "adapter slots of each replica"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", metavar="N,…", help=f"{text} to choose from")
    parser.add_argument("--replicas", metavar="N,…", help="numbers of replicas that are allowed, or LEAST-MOST (1-64)")
    for name, text in (("router", "routers"), ("engine", "engines"), ("precision", "precisions")):
        parser.add_argument(f"--{name}", metavar="A,…", help=f"{text} to choose from")
    parser.add_argument(
        "--choose", action="append", default=[], metavar="FLAG=A,B,…",
        help="an engine's flag with the values to choose from, such as max_num_seqs=64,256; may be repeated",
    )  # fmt: skip
    add_traffic(parser)
    parser.add_argument("--lora", metavar="SPEC", help="the adapters' rank and targets: rank=16,targets=attn+ffn,…")
    parser.add_argument("--slo", required=True, metavar="SPEC", help="limits in seconds: ttft=0.5,tpot=0.05,e2e=10")
    parser.add_argument(
        "--attainment", type=float, default=0.99, metavar="P", help="share of requests that must keep them (0.99)"
    )
    parser.add_argument("--price", metavar="HW=X,…", help="price of a device-hour: one number, or one per device")
    parser.add_argument(
        "--runners-up", type=shared.whole(1), default=5, metavar="N", help="fleets behind the cheapest to work out (5)"
    )
    parser.add_argument("--workers", type=shared.whole(1), default=1, metavar="N", help="processes (1)")
    parser.add_argument("--resume", metavar="FILE", help="keep what was found in a file, and go on with it")
    parser.add_argument("--top", type=shared.whole(1), default=12, metavar="N", help="rows to print (12)")
    shared.add_json(parser)
    parser.set_defaults(command_function=fleet)


def fleet(options: argparse.Namespace) -> None:
    """Search, then print."""
    from graphsim.serving.fleet.sizing import size_fleet

    traffic, limits = traffic_of(options), limits_of(options.slo)
    served = {"lora": shared.lora_config(options.lora)} if options.lora else {}
    pool = partial(_pool, options.workers) if options.workers > 1 else None
    try:
        with RunProgress(0) as progress:
            found = size_fleet(
                shared.model(options), traffic, limits, _choices(options), price_per_hour=prices_of(options.price),
                attainment=options.attainment, runners_up=options.runners_up, executor=pool, resume=options.resume,
                progress=progress.choosing, **served,
            )  # fmt: skip
    except ConfigError as error:
        raise type(error)(as_flags(error)) from None
    if options.json:
        rows = found.to_dict("records")
        print_json({"choices": len(found), "kept": int(found["kept"].sum()), "fleets": rows, **found.attrs})
        return
    _print(found, options)


def _choices(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"hardware": options.hardware}
    for name in _NUMBERS:
        if (text := getattr(options, name)) is not None:
            found[name] = [_whole(name, part) for part in text.split(",")]
    for name in _NAMED:
        if (text := getattr(options, name)) is not None:
            found[name] = text.split(",")
    if options.replicas is not None:
        found["replicas"] = _replicas(options.replicas)
    for entry in options.choose:
        name, equals, values = entry.partition("=")
        if not equals or not values:
            raise ConfigError(f"--choose {entry}: expected FLAG=VALUE,VALUE,…, such as max_num_seqs=64,256")
        found[name.lstrip("-").replace("-", "_")] = [flag_value(value) for value in values.split(",")]
    return found


def _replicas(text: str) -> list[int]:
    low, dash, high = text.partition("-")
    if dash:
        least, most = _whole("replicas", low), _whole("replicas", high)
        if least > most:
            raise ConfigError(f"--replicas {text}: expected LEAST-MOST")
        return list(range(least, most + 1))
    return [_whole("replicas", part) for part in text.split(",")]


def _whole(name: str, text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(f"--{name}: '{text}' is not allowed; expected whole numbers from 1")
    return int(text)


def _pool(workers: int) -> Any:
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(workers)


def _print(found: pd.DataFrame, options: argparse.Namespace) -> None:
    kept = int(found["kept"].sum())
    print_line(f"{kept:,} of {len(found):,} choices keep the limits; the cheapest first:\n")
    priced = "cost_per_hour" in found
    names = [name for name in found.columns[: list(found.columns).index("replicas")] if found[name].nunique() > 1]
    names = ["hardware", *(name for name in names if name != "hardware")]
    header = [*(_SHOWN.get(name, name) for name in names), "replicas", "devices"]
    header += ["per hour", "per M tokens"] if priced else []
    header += ["kept by", "p99 TTFT", "p99 TPOT", "why not"]
    rows = [
        [*(str(row[name]) for name in names), *_cells(row, priced)]
        for row in found.head(options.top).to_dict("records")
    ]
    print_table(header, rows, right=range(len(names), len(header) - 1))
    if len(found) > options.top:
        print_line(f"… and {len(found) - options.top:,} more (--top, --json)")
    for note in found.attrs["notes"]:
        print_line(f"note: {note}")


def _cells(row: Mapping[Any, Any], priced: bool) -> list[str]:
    cells = [f"{row[name]:,}" if row[name] else "-" for name in ("replicas", "devices")]
    if priced:
        cells += [_number(row["cost_per_hour"], ",.4g"), _number(row["cost_per_token"] * 1e6, ",.3g")]
    cells += [_number(row["attainment"], ".1%")]
    cells += ["-" if row[name] != row[name] else seconds_text(row[name]) for name in ("p99_ttft_s", "p99_tpot_s")]
    return [*cells, str(row["reason"])]


def _number(value: float, form: str) -> str:
    return "-" if value != value else format(value, form)
