"""`graphsim fleet`: the cheapest devices, degrees, slots, router and number of replicas that meet the limits."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli.basis import bases_of_choices, print_basis
from graphsim.cli.engine_flags import as_flags
from graphsim.cli.outputs import OutFile, report_written
from graphsim.cli.printing import RunProgress, print_json, print_line, print_table
from graphsim.cli.several import Names, Several, add_price, named_as_options, varied
from graphsim.cli.sweep import add_devices
from graphsim.cli.traffic import add_slo, add_traffic, limits_of, traffic_of
from graphsim.cli.values import Portion
from graphsim.display.columns import figures_column, latencies_column
from graphsim.errors import ConfigError
from graphsim.units import amount_text

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = """examples:
  graphsim fleet llama-3.1-8b --hardware l40s h100-sxm --tp 1,2 --rate 12 --slo ttft=1,tpot=0.06 --price l40s=1,h100=3
  graphsim fleet llama-3.1-8b --hardware l40s --slots 8,16 --router placed,llm-d --rate 12 --adapters 50 --slo ttft=1
  graphsim fleet llama-3.1-70b --hardware h100-sxm --tp 4 --prefill-replicas 0-4 --input 8192 --rate 4 --slo ttft=4
  graphsim fleet llama-3.1-70b --hardware h100-sxm --tp 4,8 --trace requests.csv --slo ttft=2 --workers 2 --resume FILE
"""
_NUMBERS = ("tp", "pp", "ep", "cp", "slots", "prefill_tp")
_NAMED = ("router", "engine", "precision", "prefill_hardware")
_SHOWN = {
    "max_loras": "slots", "prefill_replicas": "prefill", "prefill_hardware": "prefill on", "prefill_tp": "prefill tp",
}  # fmt: skip


def add_commands(commands: Any) -> None:
    """Add `fleet`."""
    parser = shared.add_command(commands, "fleet", EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="a name (see `graphsim models`), a YAML file or a model folder")
    shared.add_ignore(parser)
    parser.add_argument("--no-check", action="store_true", help="use a model's config without checking its checkpoint")
    add_devices(parser)
    for name, text in (
        ("tp", "tensor parallel degrees"), ("pp", "pipeline stages"), ("ep", "expert parallel degrees"),
        ("cp", "context parallel degrees"),
        ("slots", "adapter slots of each replica"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=Several(1), metavar="N,…", help=f"{text} to choose from")
    parser.add_argument("--replicas", type=Several(1), metavar="N,…", help="allowed numbers of replicas (1-64)")
    parser.add_argument(
        "--prefill-replicas", type=Several(0), metavar="N,…",
        help="numbers of workers that only compute prompts, 0 for none; --replicas then only generate",
    )  # fmt: skip
    parser.add_argument(
        "--prefill-hardware", type=Names(), metavar="HW,…", help="devices of the prefill workers (as replicas)"
    )
    parser.add_argument(
        "--prefill-tp", type=Several(1), metavar="N,…", help="tensor parallel degrees of prefill workers (as replicas)"
    )
    parser.add_argument(
        "--speculation", nargs="+", metavar="SPEC",
        help="drafts to choose from: none, or draft=MODEL,tokens=N,acceptance=P …",
    )  # fmt: skip
    for name, text in (("router", "routers"), ("engine", "engines"), ("precision", "precisions")):
        parser.add_argument(f"--{name}", type=Names(), metavar="A,…", help=f"{text} to choose from")
    parser.add_argument(
        "--choose", action="append", default=[], metavar="FLAG=A,B,…",
        help="an engine's flag with the values to choose from, such as max_num_seqs=64,256; may be repeated",
    )  # fmt: skip
    add_traffic(parser)
    parser.add_argument("--lora", metavar="SPEC", help=shared.ADAPTERS)
    add_slo(parser, required=True)
    parser.add_argument(
        "--attainment",
        type=Portion(),
        default=0.99,
        metavar="P",
        help="share of requests that must meet the limits (0.99)",
    )
    add_price(parser)
    parser.add_argument(
        "--runners-up", type=shared.whole(1), default=5, metavar="N", help="fleets after the cheapest to evaluate (5)"
    )
    parser.add_argument("--workers", type=shared.whole(1), default=1, metavar="N", help="processes (1)")
    parser.add_argument("--resume", type=OutFile(), metavar="FILE", help="save results to a file, and resume from it")
    parser.add_argument("--top", type=shared.whole(1), default=12, metavar="N", help="rows to print (12)")
    shared.add_json(parser)
    parser.set_defaults(command_function=fleet)


def fleet(options: argparse.Namespace) -> None:
    """Search, then print."""
    from graphsim.serving.fleet.sizing import size_fleet
    from graphsim.sweeps.workers import Processes

    traffic, limits = traffic_of(options), limits_of(options.slo)
    served = {"lora": shared.lora_config(options.lora)} if options.lora is not None else {}
    pool = Processes(options.workers) if options.workers > 1 else None
    try:
        with named_as_options(), RunProgress(0) as progress:
            found = size_fleet(
                shared.model(options), traffic, limits, _choices(options), price_per_hour=options.price,
                attainment=options.attainment, runners_up=options.runners_up, executor=pool, resume=options.resume,
                progress=progress.choosing, **served,
            )  # fmt: skip
    except ConfigError as error:
        raise type(error)(as_flags(error)) from None
    report_written(options, [options.resume])
    chosen = _choices(options)
    engines, precisions = (chosen.get(name, [None]) for name in ("engine", "precision"))
    bases = bases_of_choices(shared.model(options), options.hardware, engines, precisions)
    if options.json:
        rows = found.to_dict("records")
        print_json(
            {
                "basis": [basis.to_dict() for basis in bases],
                "choices": len(found),
                "kept": int(found["kept"].sum()),
                "fleets": rows,
                **found.attrs,
            }
        )
        return
    print_basis(bases)
    _print(found, options)


def _choices(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"hardware": options.hardware}
    for name in (*_NUMBERS, *_NAMED, "replicas", "prefill_replicas"):
        if (values := getattr(options, name)) is not None:
            found[name] = values
    if options.speculation is not None:
        from graphsim.speculation.parsing import speculation_of

        found["speculation"] = [None if text == "none" else speculation_of(text) for text in options.speculation]
    return found | dict(varied("--choose", entry, "FLAG", "max_num_seqs=64,256") for entry in options.choose)


def _print(found: pd.DataFrame, options: argparse.Namespace) -> None:
    kept = int(found["kept"].sum())
    print_line(f"{kept:,} of {len(found):,} choices keep the limits; the cheapest first:\n")
    priced = "cost_per_hour" in found
    names = [
        name for name in found.columns[: list(found.columns).index("replicas")] if found[name].nunique(dropna=False) > 1
    ]
    names = ["hardware", *(name for name in names if name != "hardware")]
    header = [*(_SHOWN.get(name, name) for name in names), "replicas", "devices"]
    header += ["per hour", "per M tokens"] if priced else []
    header += ["kept by", "p99 TTFT", "p99 TPOT", "why not"]
    top = found.head(options.top)
    columns = [[_choice(value) for value in top[name].tolist()] for name in names]
    rows = [list(row) for row in zip(*columns, *_columns(top, priced), strict=True)]
    print_table(header, rows, right=range(len(names), len(header) - 1))
    if len(found) > options.top:
        print_line(f"… and {len(found) - options.top:,} more (--top, --json)")
    for note in found.attrs["notes"]:
        print_line(f"note: {note}")


def _choice(value: Any) -> str:
    """The text of a choice; a dash for no value, such as the prefill device of a fleet without prefill workers."""
    if value is None or value != value:
        return "-"
    return amount_text(value) if isinstance(value, float) else str(value)


def _columns(found: pd.DataFrame, priced: bool) -> list[list[str]]:
    columns = [[f"{count:,}" if count else "-" for count in found[name]] for name in ("replicas", "devices")]
    if priced:
        prices = found["cost_per_hour"], found["cost_per_token"] * 1e6
        columns += [figures_column(price.tolist(), 3) for price in prices]
    columns.append(["-" if share != share else f"{share:.1%}" for share in found["attainment"]])
    columns += [latencies_column(found[name].tolist()) for name in ("p99_ttft_s", "p99_tpot_s")]
    return [*columns, list(map(str, found["reason"]))]
