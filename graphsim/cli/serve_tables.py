"""Tables of `graphsim serve`: latencies, attained limits, capacity and strategies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphsim.cli.fleet_tables import print_replicas
from graphsim.cli.printing import print_line, print_table
from graphsim.display.columns import figures_column, latencies_column
from graphsim.units import amount_text, counted_text, seconds_text

if TYPE_CHECKING:
    import pandas as pd

    from graphsim.serving.advice import ServeAdvice
    from graphsim.serving.capacity import Capacity
    from graphsim.serving.own_run import OwnRun
    from graphsim.serving.scenario import Serving
    from graphsim.serving.service import Service

KINDS = ("mean", "median", "p90", "p99")
MOST_ADAPTERS = 5
"""Maximum rows in the table of adapters: those with the longest times to first token."""


def print_service(service: Service, limits: Mapping[str, float]) -> None:
    """Print the headline, latencies, attainment of the limits, adapters with the longest waits, and caveats."""
    from graphsim.serving.service_view import headline, latency_rows

    found = service.summary()
    several = f"{service.servers} replicas, " if service.servers > 1 else ""
    print_line(f"{several}{len(service.table):,} requests\n")
    print_table(["served", ""], [[label, text] for label, text in headline(service)])
    print_line()
    print_table(["latency", *KINDS], latency_rows(found, KINDS), right=range(1, 5))
    if limits or len(service.classes) > 1:
        _print_limits(service, limits)
    if service.servers > 1:
        print_replicas(service)
    if len(service.adapter_names) > 1:
        _print_adapters(service)
    for text in service.warnings:
        print_line(f"warning: {text}")
    for text in service.notes:
        print_line(f"note: {text}")


def _print_limits(service: Service, limits: Mapping[str, float]) -> None:
    print_line()
    if limits:
        rows = [[_limit(name, value), _kept(service, {name: value})] for name, value in limits.items()]
        good = service.goodput(**limits)
        rows.append(["all of them", f"{good.share:.1%}"])
        print_table(["limit", "kept by"], rows, right=[1])
        print_line(f"goodput: {good.requests_per_s:.4g} requests/s keep all limits")
    if len(service.classes) > 1:
        frame = service.groups
        names = [name for name in ("requests", "p99_ttft_s", "p99_e2e_s", "good_share") if name in frame]
        rows = _rows(frame[frame.columns[0]], *(_cells(name, frame[name]) for name in names))
        print_table(["class", *names], rows, right=range(1, len(names) + 1))


def _limit(name: str, value: float) -> str:
    return f"{name.removesuffix('_s').upper()} up to {seconds_text(value)}"


def _kept(service: Service, limit: Mapping[str, float]) -> str:
    return f"{service.goodput(**limit).share:.1%}"


def _print_adapters(service: Service) -> None:

    frame = service.adapters
    frame = frame[frame["requests"] > 0].nlargest(MOST_ADAPTERS, "mean_ttft_s")
    print_line()
    names = ("requests", "mean_ttft_s", "p99_ttft_s", "loads", "longest_wait_s")
    rows = _rows(frame["adapter"], *(_cells(name, frame[name]) for name in names))
    header = ["slowest adapters", "requests", "mean TTFT", "p99 TTFT", "loads", "longest wait"]
    print_table(header, rows, right=range(1, 6))
    print_line(
        f"fairness over {counted_text(len(service.adapter_names), 'adapter')} (Jain's index): {service.fairness:.2f}"
    )


def print_capacity(found: Capacity, limits: Mapping[str, float], attainment: float) -> None:
    """Print the capacity, then the loads that were tried."""
    from graphsim.serving.capacity_runs import limits_text, value_text

    service = found.service
    print_line(f"{found} keep {limits_text(limits)} for {amount_text(attainment, 'share')} of the requests\n")
    tried = found.tried
    rows = _rows(
        [value_text(found.over, value) for value in tried[found.over]],
        ["yes" if kept else "no" for kept in tried["kept"]],
        [f"{share:.1%}" for share in tried["attainment"]],
        *(latencies_column((tried[f"{name}_ms"] / 1e3).tolist()) for name in _TRIED),
        _cells("tokens", tried["output_throughput"]), tried["limit"],
    )  # fmt: skip
    header = ["tried", "kept", "attained", "mean TTFT", "p99 TTFT", "mean TPOT", "p99 E2E", "tokens/s", "limited by"]
    print_table(header, rows, right=range(2, 8))
    for text in (*found.notes, *service.notes):
        print_line(f"note: {text}")


def print_measured(found: OwnRun) -> None:
    """Print measured and simulated figures, where they differ, and the constants that would make them agree."""
    print_line()
    rows = [
        [str(row["metric"]), *figures_column([row["measured"], row["predicted"]]), _error(row["error"])]
        for row in found.table.to_dict("records")
    ]
    print_table(["measured run", "measured", "simulated", "error"], rows, right=range(1, 4))
    for text in (*found.parting, *found.fit.sentences()):
        print_line(text)
    known = {name: value for name, value in found.fit.constants.items() if name not in found.fit.unknown}
    if known:
        print_line("to use them: --host " + ",".join(f"{name}={value:.4g}" for name, value in known.items()))


def _error(value: float) -> str:
    return "-" if value != value else f"{value:+.1%}"


def print_comparison(frame: pd.DataFrame, serving: Serving) -> None:
    """Print one row per strategy or value."""
    print_line(f"{serving.traffic!r}\n")
    header = [str(frame.index.name), "requests/s", "tokens/s", "mean TTFT", "p99 TTFT", "TPOT", "p99 E2E"]
    spread = ["imbalance", "reloads"] if "imbalance" in frame else []
    header += [
        "loads",
        "switches",
        "stalled",
        "KV tokens",
        *spread,
        *(["kept"] if "attainment" in frame else []),
        "limited by",
    ]
    names = ["request_throughput", "output_throughput", "mean_ttft_s", "p99_ttft_s", "mean_tpot_s", "p99_e2e_s"]
    names += ["loads", "switches", "stalled", "kv_tokens", *spread]
    names += ["attainment"] if "attainment" in frame else []
    why = [str(row["reason"])[:60] or str(row["limit"]) for _, row in frame.iterrows()]
    rows = _rows(frame.index, *(_cells(name, frame[name]) for name in names), why)
    print_table(header, rows, right=range(1, len(header) - 1))
    for text in frame.attrs["notes"]:
        print_line(f"note: {text}")


def print_advice(advice: ServeAdvice) -> None:
    """Print the bottleneck, and one row per change that helps."""
    print_line()
    for text in advice.seen.lines():
        print_line(text)
    if not advice.levers:
        print_line(str(advice).splitlines()[-1 - len(advice.notes)])
    else:
        print_line()
        limited = advice.now.attainment is not None
        header = ["what would help", *(["kept"] if limited else []), "p99 TTFT", "TPOT", "p99 E2E", "requests/s"]
        found = [advice.now, *(lever.outcome for lever in advice.levers)]
        kept = [[f"{outcome.attainment or 0.0:.1%}" for outcome in found]] if limited else []
        times = ([getattr(outcome, name) for outcome in found] for name in ("p99_ttft_s", "tpot_s", "p99_e2e_s"))
        rates = figures_column([outcome.requests_per_s for outcome in found], 3)
        names = ["as it is", *(lever.name for lever in advice.levers)]
        rows = _rows(names, *kept, *map(latencies_column, times), rates)
        print_table(header, rows, right=range(1, len(header)))
    for note in advice.notes:
        print_line(f"note: {note}")


def _rows(*columns: Iterable[Any]) -> list[list[str]]:
    """The rows of a table given by its columns."""
    return [[str(cell) for cell in row] for row in zip(*columns, strict=True)]


def _cells(name: str, values: pd.Series[Any]) -> list[str]:
    """The cells of a column of a served run, formatted according to its name; `-` for missing values."""
    if name.endswith("_s"):
        return latencies_column(values.tolist())
    form = _FORMS.get(name, ",.0f")
    if not form:
        return figures_column(values.tolist(), 3)
    return ["-" if value != value else format(value, form) for value in values]


_FORMS = {"good_share": ".1%", "attainment": ".1%", "stalled": ".1%", "imbalance": ".2f", "request_throughput": ""}
_TRIED = ("mean_ttft", "p99_ttft", "mean_tpot", "p99_e2el")
