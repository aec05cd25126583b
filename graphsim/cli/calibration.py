"""`graphsim calibrate` and `graphsim measure`: improving the estimates with the user's own measurements."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.outputs import JSON, OutFile, report_written
from graphsim.cli.printing import print_json, print_line
from graphsim.units import counted_text

CALIBRATE_EXAMPLES = """examples:
  graphsim measure mine.csv
  graphsim calibrate --data mine.csv --hardware my-card.yaml
"""


def add_commands(commands: Any) -> None:
    """Add `calibrate` and `measure`."""
    parser = shared.add_command(commands, "calibrate", CALIBRATE_EXAMPLES)
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="measurements, Parquet or CSV")
    parser.add_argument("--hardware", required=True, metavar="HW", help="a name or a YAML file")
    parser.add_argument(
        "--to",
        type=OutFile(JSON),
        metavar="FILE",
        help="file to write, .json (next to the device's file; for an engine, with its name in the file name)",
    )
    shared.add_json(parser)
    parser.set_defaults(command_function=calibrate)

    parser = shared.add_command(commands, "measure", CALIBRATE_EXAMPLES)
    parser.add_argument(
        "path",
        type=OutFile((".csv",)),
        metavar="FILE",
        help="file to append the measurements to, .csv; a rerun resumes",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), help="what to measure (cuda where there is one)")
    shared.add_json(parser)
    parser.set_defaults(command_function=measure)


def calibrate(options: argparse.Namespace) -> None:
    """Fit a calibration, save it and print the path."""
    from graphsim.calibration.fit import calibrate_files

    paths = calibrate_files(options.data, options.hardware, Path(options.to) if options.to else None, progress=_say)
    report_written(options, paths)
    if options.json:
        print_json({"written": [str(path) for path in paths]})


def measure(options: argparse.Namespace) -> None:
    """Run the measurements that are still missing."""
    from graphsim.calibration.measure import measure as measure_kernels

    count = measure_kernels(options.path, device=options.device, progress=_count)
    report_written(options, [options.path])
    if options.json:
        print_json({"measured": count, "written": [options.path]})
    else:
        print_line(counted_text(count, "kernel") + " measured")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _count(done: int, total: int, current: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {total}  {current[:80]:80}")
        if done == total:
            sys.stderr.write("\n")
