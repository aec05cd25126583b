"""`graphsim explain`: the causes of an estimate, of its difference from another one, or from a measured time."""

from __future__ import annotations

import argparse
from functools import reduce
from typing import Any

from graphsim.analysis.changes import changes_text
from graphsim.analysis.explanation import Explanation, TimePart
from graphsim.cli import options as shared
from graphsim.cli.adapters import NONE
from graphsim.cli.printing import print_json, print_line, print_table
from graphsim.cli.values import Whole
from graphsim.compile.causes import CAUSES
from graphsim.display.columns import NOTHING, numbers_column, times_column
from graphsim.errors import ConfigError, choices_text
from graphsim.result import Estimate
from graphsim.units import parse_quantity, seconds_text

EXAMPLES = """examples:
  graphsim explain llama-2-7b --hardware a100-sxm-80gb --input 2048
  graphsim explain llama-2-7b --hardware a100-sxm-80gb --input 2048 --measured ttft=135ms,tpot=16.6ms
  graphsim explain llama-2-7b --hardware a100-sxm-80gb --input 2048 --against cost=roofline
  graphsim explain llama-3.1-8b --hardware h100-sxm --lora rank=16 --against lora=none
"""

NAMES = ("hardware", "cost", "precision", "engine", "expert_placement")
AGAINST = (*NAMES, "batch", "input", "output", "tp", "pp", "ep", "cp", "sp", "dp", "redundant_experts", "lora")
"""The arguments in which the other estimate may differ."""


def add_commands(commands: Any) -> None:
    """Add `explain`."""
    parser = shared.add_command(commands, "explain", EXAMPLES)
    shared.add_model(parser)
    shared.add_requests(parser)
    shared.add_deployment(parser)
    parser.add_argument("--measured", metavar="TIMES", help="ttft=135ms,tpot=16.6ms: what was measured")
    parser.add_argument(
        "--against",
        metavar="CHANGES",
        help="changes that give the estimate to compare with: cost=roofline, hardware=l4, tp=2, lora=none",
    )
    parser.add_argument("--top", type=shared.whole(1), default=10, metavar="N", help="parts to list for each time (10)")
    shared.add_json(parser)
    parser.set_defaults(command_function=explain)


def explain(options: argparse.Namespace) -> None:
    """Estimate, explain and print."""
    from graphsim.analysis.explain import explain as why

    if options.measured is not None and options.against is not None:
        raise ConfigError("--measured and --against exclude each other; explain one difference at a time")
    estimate = _estimate(options)
    if options.against is not None:
        found = why(_estimate(_changed(options)), estimate)
    elif options.measured is not None:
        found = why(estimate, measured=_measured(options.measured))
    else:
        found = why(estimate)
    if options.json:
        print_json(found.to_dict() | {"basis": estimate.basis.to_dict()})
        return
    print_explanation(found, options.top)


def _estimate(options: argparse.Namespace) -> Estimate:
    from graphsim.simulation import simulate

    return simulate(shared.deployment(options), **shared.requests(options))


def _changed(options: argparse.Namespace) -> argparse.Namespace:
    """The options with the changes of `--against`."""
    changed = argparse.Namespace(**vars(options))
    for name, value in _with_formats(_pairs("--against", options.against)):
        if name not in AGAINST:
            raise ConfigError(f"--against: '{name}' is not a known key; {choices_text(name, AGAINST)}")
        if name == "lora":
            if value.lower() not in (NONE, "off"):
                raise ConfigError(f"--against: lora = '{value}' is not allowed; expected {NONE}")
            changed.lora = None
        elif name in NAMES:
            setattr(changed, name, value)
        else:
            setattr(changed, name, _whole(name, value))
    return changed


def _with_formats(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs with `precision=bf16,experts=mxfp4` merged: a key after a precision that is not an option belongs to it."""
    found: list[tuple[str, str]] = []
    for name, value in pairs:
        if found and found[-1][0] == "precision" and name not in AGAINST:
            found[-1] = ("precision", f"{found[-1][1]},{name}={value}")
        else:
            found.append((name, value))
    return found


def _pairs(option: str, text: str) -> list[tuple[str, str]]:
    pairs = []
    for entry in text.split(","):
        name, _, value = entry.partition("=")
        if not value:
            raise ConfigError(f"{option}: '{entry}' has no value; write key=value,…")
        pairs.append((name.strip(), value.strip()))
    return pairs


def _whole(name: str, text: str) -> int:
    try:
        return Whole(0)(text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--against: {name} = {error}") from None


def _measured(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in _pairs("--measured", text):
        found[name if name.endswith("_s") else f"{name}_s"] = _seconds(name, value)
    return found


def _seconds(name: str, text: str) -> float:
    try:
        return parse_quantity(text, "s")
    except ConfigError:
        raise ConfigError(f"--measured: {name} = '{text}' is not a time; write 0.135, 135ms or 90us") from None


def print_explanation(found: Explanation, top: int) -> None:
    """Print the differences, the parts of each time as a table, and the findings."""
    print_line(found.title)
    if found.changes:
        print_line(f"what differs: {changes_text(found.changes)}")
    for quantity, total_s in found.totals.items():
        print_line(f"\n{quantity.removesuffix('_s')}: {seconds_text(total_s)}")
        parts = [part for part in found.parts if part.quantity == quantity]
        if parts:
            _print_parts(parts, top)
    print_line()
    for finding in found.findings:
        print_line(finding)
    for note in found.notes:
        print_line(f"note: {note}")


def _print_parts(parts: list[TimePart], top: int) -> None:
    """Print one row per part, with negligible parts combined in one row; empty columns are left out."""
    long = max(abs(part.total_s) for part in parts)
    listed = [part for part in parts[:top] if abs(part.total_s) >= _LEAST * long]
    names = [[part.part, part.op_type] for part in listed]
    if rest := [part for part in parts if part not in listed]:
        listed.append(reduce(TimePart.plus, rest))
        names.append([f"{len(rest)} other{'s' if len(rest) > 1 else ''}", ""])
    listed.append(reduce(TimePart.plus, parts))
    names.append(["together", ""])
    columns = {
        "runs": numbers_column([part.operations for part in listed]),
        "Tflop": numbers_column([part.flops / 1e12 for part in listed]),
        "GB": numbers_column([part.moved_bytes / 1e9 for part in listed]),
    }
    for name in (*CAUSES, "total_s"):
        columns[_HEADS[name]] = times_column([getattr(part, name) for part in listed], _DIGITS)
    kept = {head: cells for head, cells in columns.items() if set(cells) != {NOTHING}}
    rows = [[*name, *cells] for name, *cells in zip(names, *kept.values(), strict=True) if set(cells) != {NOTHING}]
    print_table(["part", "operation", *kept], rows, right=range(2, 2 + len(kept)))


_DIGITS = 5
_LEAST = 1e-4
"""Fraction of the longest part below which parts are combined in one row."""
_HEADS = {
    "compute_s": "flops", "memory_s": "bytes", "network_s": "network", "shortfall_s": "shortfall",
    "launch_s": "launches", "engine_s": "engine", "other_s": "other", "total_s": "time",
}  # fmt: skip
