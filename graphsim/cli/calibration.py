"""`graphsim validate`, `graphsim calibrate`, `graphsim measure`: how good the numbers are, and making them better."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli.printing import print_json, print_line, print_table

if TYPE_CHECKING:
    import pandas as pd

VALIDATE_EXAMPLES = """examples:
  graphsim validate kernels h100_sxm.parquet
  graphsim validate held-out h100_sxm.parquet --family gemm
  graphsim validate structure structure.csv --json
  graphsim validate e2e e2e_serving.csv
"""
CALIBRATE_EXAMPLES = """examples:
  graphsim measure mine.csv
  graphsim calibrate --data mine.csv --hardware my-card.yaml
"""

WHAT = ("kernels", "held-out", "structure", "e2e", "lora", "slots", "lifecycle", "published")
_SHOWN = {
    "lora": (
        "model", "framework", "max_loras", "batch", "output_tokens", "adapters", "distinct", "mean_itl_ms",
        "itl_predicted_ms", "error", "ratio", "ratio_predicted", "ratio_error", "problem",
    ),
    "slots": (
        "model", "max_loras", "max_lora_rank", "model_loading_gib", "loading_predicted_gib", "loading_error",
        "kv_cache_tokens", "kv_predicted_tokens", "kv_error", "problem",
    ),
    "published": (
        "model", "engine", "rank", "input", "batch", "distinct", "published_ms", "predicted_ms", "error",
        "published_added_ms", "predicted_added_ms",
    ),
    "lifecycle": ("metric", "model", "engine", "rank", "note", "published_ms", "predicted_ms", "error"),
}  # fmt: skip
"""Columns that are printed; JSON has all."""


def add_commands(commands: Any) -> None:
    """Add `validate`, `calibrate` and `measure`."""
    parser = shared.add_command(
        commands, "validate", "score predictions against measured or counted facts", VALIDATE_EXAMPLES
    )
    parser.add_argument("what", choices=WHAT, help="what the file holds (held-out: kernels, judged on shapes left out)")
    parser.add_argument("path", nargs="+", metavar="PATH", help="files with the facts")
    parser.add_argument("--hardware", metavar="HW", help="device of kernel measurements (by default, each row's gpu)")
    parser.add_argument("--datasheet", action="store_true", help="leave the device's own calibration aside")
    parser.add_argument("--family", action="append", metavar="F", help="held-out: gemm, attention, moe, … (all)")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.set_defaults(command_function=validate)

    parser = shared.add_command(
        commands, "calibrate", "fit a device's constants to kernel measurements", CALIBRATE_EXAMPLES
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="measurements, Parquet or CSV")
    parser.add_argument("--hardware", required=True, metavar="HW", help="a name or a YAML file")
    parser.add_argument("--to", metavar="FILE", help="file to write (beside the device's own)")
    parser.set_defaults(command_function=calibrate)

    parser = shared.add_command(commands, "measure", "time kernels on this machine with PyTorch", CALIBRATE_EXAMPLES)
    parser.add_argument("path", metavar="FILE.csv", help="where to append the measurements; a rerun goes on")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="what to measure (cuda where there is one)")
    parser.set_defaults(command_function=measure)


def validate(options: argparse.Namespace) -> None:
    """Score and print."""
    if options.what == "kernels":
        from graphsim.calibration.validate import validate_files

        frame = validate_files(options.path, options.hardware, own=not options.datasheet)
    elif options.what == "held-out":
        from graphsim.calibration.validate import validate_held_out

        frame = validate_held_out(options.path, options.hardware, families=options.family, progress=_say)
    else:
        frame = _joined(options.what, options.path)
    if options.json:
        print_json(frame.to_dict("records"))
        return
    if options.what == "e2e":
        from graphsim.calibration.serving import summary

        frame = summary(frame)
    _print(frame[[name for name in _SHOWN.get(options.what, frame.columns) if name in frame.columns]])
    for name in ("error", "ratio_error", "loading_error", "kv_error"):
        if options.what in _SHOWN and name in frame.columns:
            sizes = frame[name].abs()
            print_line(f"{name}: median {sizes.median():.2%}, largest {sizes.max():.2%} of {sizes.count()} rows")


def _joined(what: str, paths: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([_check(what)(path) for path in paths], ignore_index=True)


_CHECKS = {
    "structure": ("graphsim.structure", "validate_structure"),
    "e2e": ("graphsim.calibration.serving", "validate_serving_file"),
    "lora": ("graphsim.calibration.adapters", "validate_adapter_serving"),
    "slots": ("graphsim.calibration.adapters", "validate_slots"),
    "lifecycle": ("graphsim.calibration.lifecycles", "validate_lifecycles"),
    "published": ("graphsim.calibration.published", "validate_published"),
}
"""What reads a file of facts of each kind and puts the estimate beside them; loaded when asked for."""


def _check(what: str) -> Callable[[str], pd.DataFrame]:
    module, name = _CHECKS[what]
    check: Callable[[str], pd.DataFrame] = getattr(import_module(module), name)
    return check


def _print(frame: pd.DataFrame) -> None:
    numeric = [i for i, column in enumerate(frame.columns) if frame[column].dtype.kind in "if"]
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    print_table(list(map(str, frame.columns)), rows, right=numeric)
    if "equal" in frame.columns:
        print_line(f"\n{int(frame['equal'].sum())} of {len(frame)} facts are equal")


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def calibrate(options: argparse.Namespace) -> None:
    """Fit, save, say where."""
    from graphsim.calibration.fit import calibrate_files

    path = calibrate_files(options.data, options.hardware, Path(options.to) if options.to else None, progress=_say)
    print_line(str(path))


def measure(options: argparse.Namespace) -> None:
    """Measure what is still missing."""
    from graphsim.calibration.measure import measure as measure_kernels

    count = measure_kernels(options.path, device=options.device, progress=_count)
    print_line(f"{count} kernels measured, in {options.path}")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _count(done: int, total: int, at_hand: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {total}  {at_hand[:80]:80}")
        if done == total:
            sys.stderr.write("\n")
