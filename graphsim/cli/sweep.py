"""`graphsim sweep`: the product of many choices as a table."""

from __future__ import annotations

import argparse
from concurrent.futures import Executor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.printing import Progress, print_cautions, print_json, print_line, print_table
from graphsim.errors import ConfigError

EXAMPLES = """examples:
  graphsim sweep llama-3.1-8b --hardware l4 h100-sxm --batch 1,8,32 --rank 8,64 --strategy base,dynamic,merge
  graphsim sweep llama-3.1-70b --hardware h100-sxm --tp 2,4,8 --batch 1,2,4,8 --to sweep.csv
  graphsim sweep llama-3.1-8b --hardware h100-sxm --batch 1,2,4,8 --rank 8,16,32 --out sweep.parquet --workers 2
"""
NUMBERS = {
    "batch": "requests served together", "input": "prompt tokens", "output": "generated tokens",
    "tp": "tensor parallel degree", "pp": "pipeline stages", "ep": "expert parallel degree", "dp": "replicas",
    "redundant-experts": "copies of popular experts",
    "rank": "of the adapter", "adapters": "distinct adapters in a step",
}  # fmt: skip
_NAMED = {
    "precision": "bf16, fp8, …", "strategy": "base, dynamic, merge", "cost": "cost models",
    "engine": "whose kernels run: vllm, sglang, …", "expert-placement": "random, contiguous, balanced",
}  # fmt: skip
_NAMES = {
    "input": "input_tokens", "output": "output_tokens", "adapters": "active_adapters",
    "expert-placement": "expert_placement", "redundant-experts": "redundant_experts",
}  # fmt: skip
_WORDS = ("model", "hardware", "engine", "strategy", "speculation")
_SHOWN = ("model", "hardware", "engine", "strategy", "batch", "input_tokens", "output_tokens", "tp", "rank")


def add_commands(commands: Any) -> None:
    """Add `sweep`."""
    parser = shared.add_command(commands, "sweep", "simulate the product of many choices", EXAMPLES)
    add_choices(parser)
    parser.add_argument("--to", metavar="FILE", help="write the whole table: .csv or .parquet")
    parser.add_argument("--out", metavar="FOLDER", help="straight to Parquet in parts, with bounded memory")
    parser.add_argument("--resume", action="store_true", help="go on with the sweep that --out holds")
    parser.add_argument("--workers", type=shared.whole(1), default=1, metavar="N", help="processes (1)")
    shared.add_json(parser)
    parser.set_defaults(command_function=sweep)


def add_choices(parser: argparse.ArgumentParser) -> None:
    """MODELS, --hardware and every choice of a sweep."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="names, YAML files or config.json")
    parser.add_argument("--hardware", nargs="+", required=True, metavar="HW", help="names or YAML files")
    for name, text in NUMBERS.items():
        parser.add_argument(f"--{name}", metavar="N,N,…", help=text)
    for name, text in _NAMED.items():
        parser.add_argument(f"--{name}", metavar="A,B,…", help=text)
    parser.add_argument("--targets", metavar="A+B", help="modules that the adapter reaches")
    parser.add_argument(
        "--speculation", nargs="+", metavar="SPEC",
        help="drafts to choose from, none or draft=MODEL,tokens=N,acceptance=P; as of `graphsim run`",
    )  # fmt: skip
    shared.add_passes(parser)


def choices_of(options: argparse.Namespace) -> dict[str, Any]:
    """The choices that were given, as `sweep` takes them."""
    choices: dict[str, Any] = {"passes": shared.passes(options)}
    for name in NUMBERS:
        if (text := getattr(options, name.replace("-", "_"))) is not None:
            choices[_NAMES.get(name, name)] = [_number(name, part) for part in text.split(",")]
    for name in _NAMED:
        if (text := getattr(options, name.replace("-", "_"))) is not None:
            choices[_NAMES.get(name, name)] = _listed(text)
    if options.targets:
        choices["targets"] = "all-linear" if options.targets == "all-linear" else [options.targets.split("+")]
    if options.speculation:
        from graphsim.speculation.parsing import speculation_of

        choices["speculation"] = [None if text == "none" else speculation_of(text) for text in options.speculation]
    return choices


def _listed(text: str) -> list[str]:
    """Names between commas; `kv=fp8` and the like are part of the precision ahead of them."""
    found: list[str] = []
    for part in text.split(","):
        if "=" in part and found:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def sweep(options: argparse.Namespace) -> None:
    """Sweep, then write or print."""
    from graphsim.sweeps.sweep import sweep as run_sweep

    if options.to and Path(options.to).suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--to {options.to}: the suffix is not known; allowed: .csv, .parquet")
    if options.out:
        _to_folder(options)
        return
    if options.resume:
        raise ConfigError("--resume goes with --out FOLDER: it says which sweep to go on with")
    with _pool(options.workers) if options.workers > 1 else nullcontext() as pool:
        frame = run_sweep(options.models, options.hardware, executor=pool, progress=Progress(), **choices_of(options))
    if options.to:
        _write(frame, Path(options.to))
    if options.json:
        print_json(frame.to_dict("records"))
    elif not options.to:
        _print(frame)


def _to_folder(options: argparse.Namespace) -> None:
    from graphsim.sweeps.parquet import sweep_to_parquet

    if options.to:
        raise ConfigError("--to and --out exclude each other: one file, or a folder of parts")
    if not options.resume and Path(options.out).is_dir() and any(Path(options.out).iterdir()):
        raise ConfigError(f"--out {options.out}: the folder is not empty; add --resume to go on with its sweep")
    folder = sweep_to_parquet(
        options.out,
        options.models,
        options.hardware,
        executor=partial(_pool, options.workers) if options.workers > 1 else None,
        progress=Progress(),
        **choices_of(options),
    )
    if options.json:
        print_json({"folder": str(folder)})
    else:
        print_line(str(folder))


def _pool(workers: int) -> Executor:
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(workers)


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--{name}: '{text}' is not a whole number") from None


def _write(frame: Any, path: Path) -> None:
    try:
        if path.suffix == ".csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path, index=False)
    except ImportError:
        raise ConfigError(
            f"--to {path}: Parquet needs pyarrow: pip install 'graphsim[parquet]', or write .csv"
        ) from None
    except OSError as error:
        raise ConfigError(f"--to {path}: cannot be written ({error.strerror or error})") from None
    print_line(str(path))


def _print(frame: Any) -> None:
    shown = [*_SHOWN, *(["speculation"] if "speculation" in frame else [])]
    header = [*shown, "TTFT ms", "TPOT ms", "tokens/s", "J/token", "GiB", "reason"]
    rows = []
    for row in frame.to_dict("records"):
        cells = [f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in shown]
        values = [row["ttft_s"] * 1e3, row["tpot_s"] * 1e3, row["tokens_per_s"]]
        values += [row["energy_per_token_j"], row["memory_bytes"] / 2**30]
        rows.append([*cells, *("-" if value != value else f"{value:.4g}" for value in values), row["reason"][:60]])
    print_table(header, rows, right=[at for at, name in enumerate(header[:-1]) if name not in _WORDS])
    print_cautions(frame)
