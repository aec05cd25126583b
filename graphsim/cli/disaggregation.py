"""Options of `graphsim serve` for prefill workers, and the table of prefill-decode splits."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli.basis import print_basis, served_basis
from graphsim.cli.printing import RunProgress, print_json, print_line, print_table
from graphsim.display.columns import figures_column, latencies_column
from graphsim.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from graphsim.deployment.deployment import Deployment
    from graphsim.serving.scenario import Serving

_DEGREES = {name: text for name, text in shared.DEGREES.items() if name != "dp"}
_OWN = ("prefill_hardware", *(f"prefill_{name}" for name in _DEGREES), "transfer")


def add_disaggregation(parser: argparse.ArgumentParser) -> None:
    """Add --prefill-replicas and the options that describe these replicas."""
    parser.add_argument(
        "--prefill-replicas", type=shared.whole(0), default=0, metavar="N",
        help="workers that only compute prompts; --replicas then only generate (0: all do both)",
    )  # fmt: skip
    parser.add_argument("--prefill-hardware", metavar="HW", help="device of a prefill worker (that of --hardware)")
    for name, text in _DEGREES.items():
        parser.add_argument(
            f"--prefill-{name}", type=shared.whole(1), metavar="N", help=f"{text}, of a prefill worker (--{name})"
        )
    parser.add_argument(
        "--transfer", metavar="SPEC",
        help="transfer of keys and values: link=NAME,bandwidth=25 GB/s,setup=1 ms,descriptor=4 us,overlap=layers",
    )  # fmt: skip
    parser.add_argument(
        "--splits", type=shared.whole(2), metavar="N",
        help="compare N aggregated workers with every split into prefill and decode workers",
    )  # fmt: skip


def prefill_arguments(options: argparse.Namespace, decode: Deployment) -> dict[str, Any]:
    """Arguments of `serving_of` for the prefill workers.

    Raises ConfigError for options that have no effect without --prefill-replicas.
    """
    from dataclasses import replace

    from graphsim.hardware import load_hardware

    if options.splits:
        for name in ("prefill_replicas", *_OWN[:-1]):
            if getattr(options, name):
                raise ConfigError(
                    f"--{name.replace('_', '-')} and --splits exclude each other; --splits tries every number of them"
                )
        return {}
    if not options.prefill_replicas:
        for name in _OWN:
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} needs --prefill-replicas, the number of prefill workers")
        return {}
    changes: dict[str, Any] = {}
    if options.prefill_hardware is not None:
        changes["hardware"] = load_hardware(options.prefill_hardware)
    degrees = {name: getattr(options, f"prefill_{name}") for name in _DEGREES}
    given = {name: degree for name, degree in degrees.items() if degree is not None}
    if given:
        changes["parallelism"] = replace(decode.parallelism, **given)
    return {
        "prefill": replace(decode, **changes), "prefill_replicas": options.prefill_replicas,
        "transfer": transfer_of(options),
    }  # fmt: skip


def transfer_of(options: argparse.Namespace) -> Any:
    """How the KV cache is transferred; None if not given."""
    from graphsim.serving.disaggregated.transfer import read_transfer

    return None if options.transfer is None else read_transfer(options.transfer)


def compare_splits(serving: Serving, limits: dict[str, float], options: argparse.Namespace) -> None:
    """Print the comparison that `--splits` asks for."""
    from graphsim.serving.disaggregated.splits import compare_splits as compared

    with RunProgress(0) as progress:
        frame = compared(
            serving, options.splits, limits, transfer=transfer_of(options), router=options.router,
            progress=progress.trying,
        )  # fmt: skip
    if options.json:
        print_json(frame.reset_index().to_dict("records"))
        return
    print_basis([served_basis(serving.deployment)])
    print_line(f"{options.splits} workers, {serving.traffic!r}\n")
    columns = [_column(name, frame[name]) for name in list(COLUMNS)[1:] if name in frame]
    header = [head for name, head in COLUMNS.items() if name == "workers" or name in frame]
    rows = [list(row) for row in zip(map(str, frame.index), *columns, strict=True)]
    print_table(header, rows, right=range(1, len(header)))
    for name, reason in frame["reason"].items():
        if reason:
            print_line(f"{name}: {reason}")


COLUMNS = {
    "workers": "workers", "request_throughput": "requests/s", "output_throughput": "tokens/s",
    "mean_ttft_s": "mean TTFT", "p99_ttft_s": "p99 TTFT", "mean_tpot_s": "TPOT", "p99_tpot_s": "p99 TPOT",
    "mean_e2e_s": "mean E2E", "attainment": "kept",
}  # fmt: skip


def _column(name: str, values: pd.Series[Any]) -> list[str]:
    figures = values.astype(float).tolist()
    if name == "attainment":
        return ["-" if share != share else f"{share:.1%}" for share in figures]
    return latencies_column(figures) if name.endswith("_s") else figures_column(figures, 3)
