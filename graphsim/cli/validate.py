"""`graphsim validate`: comparison of predictions with measured or counted facts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli.outputs import JSON, OutFile, report_written
from graphsim.cli.printing import print_json, print_line, print_table
from graphsim.display.axes import PICTURES
from graphsim.errors import ConfigError
from graphsim.files.present import is_present

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = """examples:
  graphsim validate all reference/
  graphsim validate kernels h100_sxm.parquet
  graphsim validate held-out h100_sxm.parquet --family gemm
  graphsim validate unmeasured kernels/*.parquet --plot residuals.svg --record hardware/residuals.json
  graphsim validate structure structure.csv --json
  graphsim validate e2e e2e_serving.csv
  graphsim validate served served.csv --refit
  graphsim validate public measured_public.csv
  graphsim validate serving runs.csv metrics.csv --rows 40
  graphsim validate training fms_hf_tuning_a100.csv --json
"""
WHAT = (
    "all",
    "kernels",
    "held-out",
    "unmeasured",
    "structure",
    "e2e",
    "served",
    "public",
    "serving",
    "lora",
    "slots",
    "capacity",
    "lifecycle",
    "published",
    "traces",
    "training",
)
_SHOWN = {
    "lora": (
        "model", "framework", "max_loras", "batch", "output_tokens", "adapters", "distinct", "mean_itl_ms",
        "itl_predicted_ms", "error", "ratio", "ratio_predicted", "ratio_error", "problem",
    ),
    "slots": (
        "model", "max_loras", "max_lora_rank", "model_loading_gib", "loading_predicted_gib", "loading_error",
        "kv_cache_tokens", "kv_predicted_tokens", "kv_error", "problem",
    ),
    "capacity": ("source", "model", "device", "tp", "engine", "unit", "logged", "predicted", "error"),
    "published": (
        "model", "engine", "rank", "input", "batch", "distinct", "published_ms", "predicted_ms", "error",
        "published_added_ms", "predicted_added_ms",
    ),
    "traces": (
        "model", "hardware", "adapters", "rank", "offered", "batch", "distinct", "tpot_ms", "capacity", "published",
        "predicted", "error",
    ),
    "lifecycle": ("metric", "model", "engine", "rank", "note", "published_ms", "predicted_ms", "error"),
}  # fmt: skip
"""Columns that are printed; JSON contains all columns."""


def add_commands(commands: Any) -> None:
    """Add `validate`."""
    parser = shared.add_command(commands, "validate", EXAMPLES)
    parser.add_argument(
        "what",
        choices=WHAT,
        help="what the file holds (held-out: kernels, judged on shapes left out;"
        " unmeasured: kernels, judged without their device's calibration; all: a folder)",
    )
    parser.add_argument("path", nargs="+", metavar="PATH", help="files with the facts")
    parser.add_argument("--hardware", metavar="HW", help="device of kernel measurements (by default, each row's gpu)")
    parser.add_argument("--datasheet", action="store_true", help="ignore the device's own calibration")
    parser.add_argument("--family", action="append", metavar="F", help="held-out: gemm, attention, moe, … (all)")
    parser.add_argument(
        "--plot",
        type=OutFile(PICTURES),
        metavar="FILE",
        help="kernels, unmeasured: draw the residuals by size: .png, .svg or .pdf (extra plot)",
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        help="served: fit the host's times; each model is judged with the times of the other models",
    )
    parser.add_argument(
        "--record",
        type=OutFile(JSON),
        metavar="FILE",
        help="unmeasured, served: write the residuals for intervals, as JSON",
    )
    parser.add_argument(
        "--rows",
        metavar="N",
        type=shared.whole(1),
        help="serving: simulate N evenly spaced runs of each table",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.set_defaults(command_function=validate)


def validate(options: argparse.Namespace) -> None:
    """Compute the errors and print them."""
    for path in options.path:
        if not is_present(path):
            raise ConfigError(f"{path}: there is no such file or folder")
    drawing = _drawing(options)
    if options.what == "all":
        _print_all(options)
        return
    if options.record and options.what not in ("unmeasured", "served"):
        raise ConfigError(f"--record {options.record}: only unmeasured and served are recorded, not {options.what}")
    if options.rows is not None and options.what != "serving":
        raise ConfigError(f"--rows {options.rows}: only serving takes a number of rows, not {options.what}")
    frame, residuals = _scored(options, drawing)
    more = _coverage(options, frame) if not options.refit else frame.iloc[:0]
    if drawing:
        from graphsim.display.axes import save
        from graphsim.export.residuals import plot_residuals

        save(plot_residuals(residuals), drawing, "--plot")
    report_written(options, [options.plot, options.record])
    if options.json:
        rows = [] if options.what == "served" else more.to_dict("records")
        print_json([*frame.to_dict("records"), *rows])
        return
    if options.refit:
        _print(frame)
        return
    _print_table(options.what, frame)
    if not more.empty:
        print_line(
            "\nintervals of 80%, by residuals of what is left: rows within, and width in parts of their own range"
        )
        _print(more)


def _coverage(options: argparse.Namespace, frame: pd.DataFrame) -> pd.DataFrame:
    """The coverage of the intervals, if that is a separate table; residuals are written if requested."""
    import pandas as pd

    if options.what == "unmeasured":
        from graphsim.validation.borrowed import borrowed_coverage, borrowed_rows, save_borrowed

        found = borrowed_rows(options.path, options.hardware)
        if options.record:
            save_borrowed(found, Path(options.record))
        return borrowed_coverage(found)
    if options.what == "served":
        from graphsim.validation.served_intervals import save_served, served_coverage

        if options.record:
            save_served(frame, Path(options.record))
        return served_coverage(frame)
    return pd.DataFrame()


def _drawing(options: argparse.Namespace) -> Path | None:
    """Path of the plot of residuals; None if none was requested."""
    if not options.plot:
        return None
    if options.what not in ("kernels", "unmeasured"):
        raise ConfigError(f"--plot {options.plot}: only kernels and unmeasured are drawn, not {options.what}")
    return Path(options.plot)


def _scored(options: argparse.Namespace, drawing: Path | None) -> tuple[pd.DataFrame, Any]:
    """The requested table, and its residuals if they are to be plotted."""
    if options.what == "kernels":
        from graphsim.validation.validate import file_residuals, validate_files

        own = not options.datasheet
        frame = validate_files(options.path, options.hardware, own=own)
        return frame, file_residuals(options.path, options.hardware, own=own) if drawing else None
    if options.what == "held-out":
        from graphsim.validation.validate import validate_held_out

        return validate_held_out(options.path, options.hardware, families=options.family, progress=_say), None
    if options.what == "unmeasured":
        from graphsim.validation.unmeasured import unmeasured_errors, unmeasured_residuals

        found = unmeasured_residuals(options.path, options.hardware)
        return unmeasured_errors(found), found
    if options.what == "serving":
        from graphsim.validation.serving import validate_serving

        return validate_serving(options.path, options.rows, _say), None
    if options.refit:
        return _refitted(options), None
    return _joined(options.what, options.path), None


def _refitted(options: argparse.Namespace) -> pd.DataFrame:
    if options.what != "served":
        raise ConfigError(f"--refit: only the constants of served are fitted, not those of {options.what}")
    import pandas as pd

    from graphsim.validation.refit import left_out

    return pd.concat([left_out(path) for path in options.path], ignore_index=True)


FILES = {
    "structure": "structure.csv", "kernels": "kernels/*", "e2e": "e2e_serving.csv", "lora": "lora_serving.csv",
    "slots": "lora_memory.csv",
    "capacity": "measured_public.csv serving/blis_*_runs.csv serving/llmservingsim_runs.csv",
    "lifecycle": "lora_published.csv", "published": "lora_published.csv",
    "traces": "lora_published.csv",
}  # fmt: skip
"""File name patterns of each kind of facts in a folder."""


def _print_all(options: argparse.Namespace) -> None:
    """Print every table for which the folder contains files."""
    tables = {what: frame for folder in options.path for what, frame in _tables(Path(folder), options)}
    if options.json:
        print_json({what: frame.to_dict("records") for what, frame in tables.items()})
        return
    for what, frame in tables.items():
        print_line(f"\n{what}")
        _print_table(what, frame)


def _tables(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, pd.DataFrame]]:
    from graphsim.validation.validate import validate_files

    patterns = {what: names.split() for what, names in FILES.items()}
    known = {pattern for names in patterns.values() for pattern in names}
    if not any(path for pattern in known for path in folder.glob(pattern)):
        raise ConfigError(f"{folder}: holds none of {', '.join(sorted(known))}")
    for what, names in patterns.items():
        paths = sorted(str(path) for pattern in names for path in folder.glob(pattern))
        if not paths:
            continue
        _say(f"{what}: {', '.join(Path(path).name for path in paths)}")
        if what == "kernels":
            frame = validate_files(paths, options.hardware, own=not options.datasheet)
            yield what, frame[frame["size"] == "all"]
        else:
            yield what, _joined(what, paths)


def _print_table(what: str, frame: pd.DataFrame) -> None:
    if what in _SUMMARIES:
        _print_problems(frame)
        module, name = _SUMMARIES[what]
        frame = getattr(import_module(module), name)(frame)
    _print(frame[[name for name in _SHOWN.get(what, frame.columns) if name in frame.columns]])
    for name in ("error", "ratio_error", "loading_error", "kv_error"):
        if what in _SHOWN and name in frame.columns:
            sizes = frame[name].abs()
            print_line(f"{name}: median {sizes.median():.2%}, largest {sizes.max():.2%} of {sizes.count()} rows")
    if what == "capacity":
        from graphsim.validation.capacity import once_each

        sizes = once_each(frame)["error"]
        print_line(
            f"each source, model and device once: median {sizes.median():.2%}, "
            f"largest {sizes.max():.2%} of {len(sizes)}"
        )


def _print_problems(frame: pd.DataFrame) -> None:
    problems = frame["problem"][frame["problem"] != ""]
    for problem, count in problems.value_counts().items():
        print_line(f"left out: {count} of {len(frame)} rows: {problem}")


_SUMMARIES = {
    "e2e": ("graphsim.validation.e2e", "summary"),
    "served": ("graphsim.validation.served", "summary"),
    "public": ("graphsim.validation.public", "summary"),
    "serving": ("graphsim.validation.serving_summary", "summary"),
    "training": ("graphsim.validation.training", "summary"),
}
"""Functions that summarise a long table in a short one."""


def _joined(what: str, paths: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([_check(what)(path) for path in paths], ignore_index=True)


_CHECKS = {
    "structure": ("graphsim.validation.structure", "validate_structure"),
    "e2e": ("graphsim.validation.e2e", "validate_serving_file"),
    "served": ("graphsim.validation.served", "validate_served"),
    "public": ("graphsim.validation.public", "validate_public"),
    "lora": ("graphsim.validation.adapters", "validate_adapter_serving"),
    "slots": ("graphsim.validation.adapters", "validate_slots"),
    "capacity": ("graphsim.validation.capacity", "validate_capacity"),
    "lifecycle": ("graphsim.validation.lifecycles", "validate_lifecycles"),
    "published": ("graphsim.validation.published", "validate_published"),
    "traces": ("graphsim.validation.traces", "validate_traces"),
    "training": ("graphsim.validation.training", "validate_training"),
}
"""Functions that read a file of facts of each kind and add the estimates; imported on demand."""


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


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
