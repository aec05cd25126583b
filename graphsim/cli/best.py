"""`graphsim best`: the deployments of a sweep that meet the limits, best first."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.basis import bases_of, print_basis
from graphsim.cli.outputs import OutFile, report_written
from graphsim.cli.printing import Progress, print_cautions, print_json, print_line, print_table
from graphsim.cli.several import add_price, named_as_options
from graphsim.cli.sweep import add_choices, choice_text, choices_of
from graphsim.cli.values import Quantity
from graphsim.display.axes import PICTURES
from graphsim.display.columns import figures_column

EXAMPLES = """examples:
  graphsim best llama-3.1-8b --hardware l4 h100-sxm --goal tokens_per_s_per_gpu --tpot 30ms --batch 1,8,32 --tp 1,2
  graphsim best llama-3.1-70b --hardware h100-sxm --tp 4,8 --batch 1,8,64 --rank 16 --strategy dynamic,merge --ttft 2
  graphsim best llama-3.1-8b --hardware h100-sxm l4 --goal cost_per_token --price h100-sxm=2.5,l4=0.7 --batch 1,8,64
"""
LIMITS = {
    "ttft": ("ttft_s", "s", "upper limit of the time to first token: 0.5 or 500ms"),
    "tpot": ("tpot_s", "s", "upper limit of the time per further token: 0.03 or 30ms"),
    "latency": ("latency_s", "s", "upper limit of the time of the whole batch"),
    "tokens-per-s": ("tokens_per_s", "count", "lower limit of generated tokens per second"),
    "devices": ("devices", "count", "upper limit of the number of devices"),
    "cost-per-token": ("cost_per_token", "", "upper limit of the cost per generated token"),
}
"""Argument, kind of quantity and help text of each option for a limit."""

_SHOWN = (
    "model",
    "hardware",
    "precision",
    "engine",
    "strategy",
    "batch",
    "tp",
    "pp",
    "ep",
    "cp",
    "sp",
    "dp",
    "expert_placement",
    "redundant_experts",
    "lora",
    "rank",
    "active_adapters",
)


def add_commands(commands: Any) -> None:
    """Add `best`."""
    parser = shared.add_command(commands, "best", EXAMPLES)
    add_choices(parser)
    parser.add_argument(
        "--goal", default="latency", metavar="GOAL",
        help="latency, ttft, tpot, tokens_per_s, tokens_per_s_per_gpu, cost_per_token or energy_per_token (latency)",
    )  # fmt: skip
    for name, (_, kind, text) in LIMITS.items():
        parser.add_argument(f"--{name}", type=Quantity(kind), metavar="TIME" if kind == "s" else "N", help=text)
    add_price(parser)
    parser.add_argument("--top", type=shared.whole(1), default=10, metavar="N", help="rows to print (10)")
    parser.add_argument(
        "--pareto", action="store_true", help="only the Pareto front of latency and tokens/s per device"
    )
    parser.add_argument(
        "--plot", type=OutFile(PICTURES), metavar="FILE",
        help="plot all scenarios and the front: .png, .svg or .pdf (extra plot)",
    )  # fmt: skip
    shared.add_json(parser)
    parser.set_defaults(command_function=best)


def best(options: argparse.Namespace) -> None:
    """Search, then print."""
    from graphsim.display.axes import save
    from graphsim.export.plots import plot_pareto
    from graphsim.sweeps.best import best as search
    from graphsim.sweeps.best import pareto

    limits = {field: getattr(options, name.replace("-", "_")) for name, (field, _, _) in LIMITS.items()}
    given = {"price_per_hour": options.price, "progress": Progress(), **limits, **choices_of(options)}
    with named_as_options():
        found = search(options.models, options.hardware, options.goal, **given)
    front = pareto(found, "latency_s", "tokens_per_s_per_gpu")
    if options.plot:
        axes = plot_pareto(found, x="latency_s", y="tokens_per_s_per_gpu", by="strategy")
        save(axes.get_figure(root=True), Path(options.plot), "--plot")  # type: ignore[arg-type]
        report_written(options, [options.plot])
    rows = (front if options.pareto else found).head(options.top)
    if options.json:
        basis = [basis.to_dict() for basis in bases_of(rows)]
        records = rows.to_dict("records")
        print_json({"basis": basis, "goal": options.goal, "meet_the_limits": len(found), "best": records})
    else:
        _print(rows, len(found), options)


def _print(rows: Any, count: int, options: argparse.Namespace) -> None:
    what = "on the front, in the order of latency" if options.pareto else f"by {options.goal}"
    print_basis(bases_of(rows))
    print_line(f"{count:,} scenarios meet the limits; {what}:")
    prices, joules = "cost_per_token" in rows, options.goal.lower() == "energy_per_token"
    shown = [
        name
        for name in _SHOWN
        if name in (*_SHOWN[:2], "engine") or (name in rows and rows[name].nunique(dropna=False) > 1)
    ]
    header = [*(name.replace("active_adapters", "adapters") for name in shown), "devices", "TTFT ms", "TPOT ms"]
    header += ["latency s", "tokens/s", "per device", *(["cost per M tokens"] if prices else [])]
    header += [*(["J per token", "W"] if joules else []), "GiB"]
    numbers = [rows["devices"], rows["ttft_s"] * 1e3, rows["tpot_s"] * 1e3, rows["latency_s"], rows["tokens_per_s"]]
    numbers += [rows["tokens_per_s_per_gpu"], *([rows["cost_per_token"] * 1e6] if prices else [])]
    numbers += [rows["energy_per_token_j"], rows["watts"]] if joules else []
    numbers += [rows["memory_bytes"] / 2**30]
    columns = [figures_column(values.tolist()) for values in numbers]
    chosen = [[choice_text(name, row) for name in shown] for row in rows.to_dict("records")]
    cells = [[*row, *figures] for row, *figures in zip(chosen, *columns, strict=True)]
    several = sum(tied is True for tied in rows["tied"]) > 1
    if several:
        header.append("tied")
        cells = [[*row, "=" if tied else ""] for row, tied in zip(cells, rows["tied"], strict=True)]
    print_table(header, cells, right=range(len(shown), len(header)))
    if several:
        print_line("=: estimates are not exact enough to tell these apart")
    print_cautions(rows)
