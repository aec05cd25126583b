"""`graphsim sweep`: a table over the Cartesian product of several choices."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.basis import bases_of, print_basis
from graphsim.cli.options import DEGREES
from graphsim.cli.outputs import OutFile, OutFolder, report_written
from graphsim.cli.printing import Progress, print_cautions, print_json, print_line, print_table
from graphsim.cli.several import Listed, Names, Several
from graphsim.display.columns import figures_column
from graphsim.errors import ConfigError, needs
from graphsim.files.present import is_folder
from graphsim.files.written import whole
from graphsim.units import amount_text

EXAMPLES = """examples:
  graphsim sweep llama-3.1-8b --hardware l4 h100-sxm --batch 1,8,32 --rank 8,64 --strategy base,dynamic,merge
  graphsim sweep llama-3.1-70b --hardware h100-sxm --tp 2,4,8 --batch 1,2,4,8 --to sweep.csv
  graphsim sweep llama-3.1-8b --hardware h100-sxm --batch 1-64 --rank 8..128*2 --out sweep.parquet --workers 2
"""
NUMBERS = {
    "batch": "requests served together", "input": "prompt tokens", "output": "generated tokens", **DEGREES,
    "redundant-experts": "copies of popular experts",
    "rank": "rank of the adapter", "adapters": "distinct adapters in a step",
}  # fmt: skip
_NAMED = {
    "precision": "bf16, fp8, …", "strategy": "base, dynamic, merge", "cost": "cost models",
    "engine": "whose kernels run: vllm, sglang, …", "expert-placement": "random, contiguous, balanced",
}  # fmt: skip
TABLES = (".csv", ".parquet")
_NAMES = {"input": "input_tokens", "output": "output_tokens", "adapters": "active_adapters"}
_WORDS = ("model", "hardware", "engine", "strategy", "lora", "speculation")
_REASONS = 10
"""Number of reasons to print for rows that cannot run."""
_SHOWN = ("model", "hardware", "engine", "strategy", "batch", "input_tokens", "output_tokens", "tp", "rank")


def add_commands(commands: Any) -> None:
    """Add `sweep`."""
    parser = shared.add_command(commands, "sweep", EXAMPLES)
    add_choices(parser)
    parser.add_argument("--to", type=OutFile(TABLES), metavar="FILE", help="write the whole table: .csv or .parquet")
    parser.add_argument(
        "--out", type=OutFolder("Parquet files", "--to", named=(".parquet",)), metavar="FOLDER",
        help="write Parquet in parts, with bounded memory",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="resume the sweep in --out")
    parser.add_argument("--workers", type=shared.whole(1), default=1, metavar="N", help="processes (1)")
    shared.add_json(parser)
    parser.set_defaults(command_function=sweep)


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add MODELS, --hardware and every choice of a sweep."""
    parser.add_argument(
        "models", nargs="+", type=Names(), action=Listed, metavar="MODEL", help="names, YAML files or config.json"
    )
    add_devices(parser)
    for name, text in NUMBERS.items():
        parser.add_argument(f"--{name}", type=Several(), metavar="N,N,…", help=text)
    for name, text in _NAMED.items():
        parser.add_argument(f"--{name}", type=Names(), metavar="A,B,…", help=text)
    parser.add_argument("--targets", metavar="A+B", help="modules with an adapter")
    parser.add_argument(
        "--lora", nargs="+", metavar="SPEC",
        help="adapters to choose from, as for `graphsim run`; --rank, --targets etc. override them",
    )  # fmt: skip
    parser.add_argument(
        "--speculation", nargs="+", metavar="SPEC",
        help="drafts to choose from: none, or draft=MODEL,tokens=N,acceptance=P as for `graphsim run`",
    )  # fmt: skip
    shared.add_passes(parser)


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Add --hardware for several devices."""
    parser.add_argument(
        "--hardware", nargs="+", type=Names(), action=Listed, required=True, metavar="HW",
        help="devices to choose from: names or YAML files",
    )  # fmt: skip


def choices_of(options: argparse.Namespace) -> dict[str, Any]:
    """The given choices as arguments of `sweep`."""
    choices: dict[str, Any] = {"passes": shared.passes(options)}
    for name in (*NUMBERS, *_NAMED):
        argument = name.replace("-", "_")
        if (values := getattr(options, argument)) is not None:
            choices[_NAMES.get(name, argument)] = values
    if options.targets:
        choices["targets"] = "all-linear" if options.targets == "all-linear" else [options.targets.split("+")]
    if options.lora:
        choices["lora"] = [_adapter(text, options) for text in options.lora]
    if options.speculation:
        from graphsim.speculation.parsing import speculation_of

        choices["speculation"] = [None if text == "none" else speculation_of(text) for text in options.speculation]
    return choices


def _adapter(text: str, options: argparse.Namespace) -> Any:
    """The adapter that a text describes; None for `none`."""
    batches = options.batch or [1]
    if len(batches) > 1 and "registered=" in text:
        raise ConfigError("--lora: 'registered' says how many adapters to expect in one batch; give one --batch")
    return shared.lora_config(text, batches[0])


def sweep(options: argparse.Namespace) -> None:
    """Run the sweep, then write or print the table."""
    from graphsim.sweeps.grid import grid_of
    from graphsim.sweeps.sweep import frame_of, remote_jobs
    from graphsim.sweeps.workers import Processes

    if options.out:
        _to_folder(options)
        return
    if options.resume:
        raise ConfigError("--resume needs --out FOLDER, the sweep to resume")
    choices = choices_of(options)
    passes = choices.pop("passes")
    grid = grid_of(options.models, options.hardware, choices, (), passes)
    processes, jobs = Processes(options.workers), remote_jobs(grid)
    with processes.of(jobs) if processes.at_once(jobs) > 1 else nullcontext() as pool:
        frame = frame_of(grid, pool, Progress())
    if options.to:
        _write(frame, Path(options.to))
        report_written(options, [options.to])
    if options.json:
        print_json(frame.to_dict("records"))
    elif not options.to:
        _print(frame)


def _to_folder(options: argparse.Namespace) -> None:
    from graphsim.sweeps.parquet import sweep_to_parquet
    from graphsim.sweeps.workers import Processes

    if options.to:
        raise ConfigError("--to and --out exclude each other: one file, or a folder of parts")
    if not options.resume and is_folder(options.out) and any(Path(options.out).iterdir()):
        raise ConfigError(f"--out {options.out}: the folder is not empty; add --resume to resume its sweep")
    folder = sweep_to_parquet(
        options.out,
        options.models,
        options.hardware,
        executor=Processes(options.workers) if options.workers > 1 else None,
        progress=Progress(),
        **choices_of(options),
    )
    report_written(options, [folder])
    if options.json:
        print_json({"written": [str(folder)]})


def _write(frame: Any, path: Path) -> None:
    try:
        with whole(path) as file:
            if path.suffix.lower() == ".csv":
                frame.to_csv(file, index=False)
            else:
                frame.to_parquet(file, index=False)
    except ImportError:
        raise needs("pyarrow", "parquet", f"--to {path}: Parquet", "write .csv") from None


def choice_text(name: str, row: dict[str, Any]) -> str:
    """A choice of a row as text; a dash for an adapter's numbers where there is no adapter, and for no value."""
    value = row[name]
    if value is None or value != value or (name in ("rank", "active_adapters") and row["strategy"] == "base"):
        return "-"
    return amount_text(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _print(frame: Any) -> None:
    shown = [*_SHOWN, *(name for name in ("lora", "sp", "cp", "speculation") if name in frame)]
    header = [*shown, "TTFT ms", "TPOT ms", "tokens/s", "J/token", "GiB", "reason"]
    columns = [[choice_text(name, row) for row in frame.to_dict("records")] for name in shown]
    figures = [frame["ttft_s"] * 1e3, frame["tpot_s"] * 1e3, frame["tokens_per_s"]]
    figures += [frame["energy_per_token_j"], frame["memory_bytes"] / 2**30]
    columns += [figures_column(values.tolist()) for values in figures]
    reasons = {reason: f"({number})" for number, reason in enumerate(filter(None, dict.fromkeys(frame["reason"])), 1)}
    rows = [list(row) for row in zip(*columns, (reasons.get(reason, "") for reason in frame["reason"]), strict=True)]
    print_basis(bases_of(frame))
    print_table(header, rows, right=[at for at, name in enumerate(header[:-1]) if name not in _WORDS])
    for reason, number in [*reasons.items()][:_REASONS]:
        print_line(f"{number} {reason}")
    if len(reasons) > _REASONS:
        print_line(f"… and {len(reasons) - _REASONS:,} more reasons (--to, --json)")
    print_cautions(frame)
