"""`graphsim train --vary`: comparison of several training setups, optionally ranked by an objective."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from graphsim.cli.basis import print_basis, trained_bases
from graphsim.cli.outputs import report_written
from graphsim.cli.printing import Progress, print_cautions, print_json, print_line, print_table
from graphsim.cli.several import named_as_options, varied
from graphsim.display.axes import save
from graphsim.display.columns import bytes_column, figures_column, latencies_column
from graphsim.errors import ConfigError, choices_text
from graphsim.units import amount_text

_ONE = ("html", "dot", "trace", "largest_batch", "longest_sequence")


def print_varied(asked: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the table of all combinations, ranked if there is an objective."""
    for name in _ONE:
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} applies to a single step; leave out one of the two")
    choices = _varied(options.vary)
    frame = _frame(asked, choices, options)
    if options.plot:
        from graphsim.training.plots import plot_ways

        save(plot_ways(frame, list(choices)), Path(options.plot), "--plot")
        report_written(options, [options.plot])
    if options.json:
        print_json(frame.to_dict("records"))
        return
    print_basis(trained_bases(asked, choices))
    _print(frame, list(choices), options)


def _varied(texts: list[str]) -> dict[str, list[Any]]:
    from graphsim.sweeps.training_grid import NUMBERS, STRUCTURE

    known = [name for name in (*STRUCTURE, *NUMBERS) if name not in ("offload", "lora", "targets")]
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, values = varied("--vary", text, "NAME", "method=lora,qlora")
        if name not in known:
            raise ConfigError(f"--vary {text}: '{name}' is not known; {choices_text(name, known)}")
        found[name] = values
    return found


def _frame(asked: dict[str, Any], varied: dict[str, list[Any]], options: argparse.Namespace) -> Any:
    from graphsim.sweeps.training import sweep_training
    from graphsim.sweeps.training_best import best_training

    choices = _choices(asked) | {name: values for name, values in varied.items() if name not in ("model", "hardware")}
    models, hardware = varied.get("model", asked["model"]), varied.get("hardware", asked["hardware"])
    if "global_batch" in varied:
        choices.pop("accumulate", None)
    if not options.goal:
        return sweep_training(models, hardware, progress=Progress(), **choices)
    with named_as_options():
        return best_training(
            models, hardware, options.goal, tokens=options.tokens, price_per_hour=options.price, progress=Progress(),
            **choices,
        )  # fmt: skip


def _choices(asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments with a single value, in the form that a sweep takes."""
    from graphsim.sweeps.training_grid import NUMBERS, STRUCTURE

    known = {*STRUCTURE, *NUMBERS} - {"model", "hardware"}
    choices = {name: value for name, value in asked.items() if name in known and value is not None}
    degrees = asked["parallelism"]
    choices |= {f.name: getattr(degrees, f.name) for f in fields(degrees) if f.name in known}
    left = sorted(asked.keys() - known - {"model", "hardware", "parallelism", "passes"})
    if left or asked["passes"]:
        raise ConfigError(f"--vary does not go with --{(left or ['pass'])[0].replace('_', '-')}; leave one out")
    return choices


def _each(form: str) -> Callable[[Sequence[float]], list[str]]:
    """A formatter for a column in which all numbers have one format; `-` for missing values."""
    return lambda values: ["-" if value != value else format(value, form) for value in values]


_COLUMNS: dict[str, tuple[str, Callable[[Sequence[float]], list[str]]]] = {
    "step_s": ("step", latencies_column), "tokens_per_s_per_gpu": ("tokens/s per device", _each(",.0f")),
    "mfu": ("MFU", _each(".1%")), "devices": ("devices", _each(".0f")), "reserved_bytes": ("reserved", bytes_column),
    "hours": ("hours", figures_column), "cost": ("cost", figures_column),
}  # fmt: skip


def _print(frame: Any, varied: list[str], options: argparse.Namespace) -> None:
    print_line(f"the best by {options.goal} first" if options.goal else "")
    shown = {name: column for name, column in _COLUMNS.items() if name in frame}
    if frame["devices"].nunique() < 2:
        shown.pop("devices")
    header = [*varied, *(label for label, _ in shown.values()), *([] if options.goal else ["fits"])]
    listed = frame.head(options.top) if options.goal else frame
    ran = listed["step_s"].notna()
    columns = [
        [amount_text(value) if isinstance(value, float) else str(value) for value in listed[name].tolist()]
        for name in varied
    ]
    columns += [column(listed[name].where(ran).astype(float).tolist()) for name, (_, column) in shown.items()]
    if not options.goal:
        records = zip(ran, listed["fits"], listed["reason"], strict=True)
        columns.append([("yes" if fits else "no") if runs else str(reason) for runs, fits, reason in records])
    rows = [list(row) for row in zip(*columns, strict=True)]
    print_table(header, rows, right=range(len(varied), len(varied) + len(shown)))
    print_cautions(frame)
