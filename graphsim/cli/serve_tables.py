"""What `graphsim serve` prints: latencies, what was held, capacity and strategies, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphsim.cli.fleet_tables import print_replicas
from graphsim.cli.printing import print_line, print_table
from graphsim.units import seconds_text

if TYPE_CHECKING:
    import pandas as pd

    from graphsim.serving.advice import Outcome, ServeAdvice
    from graphsim.serving.capacity import Capacity
    from graphsim.serving.own_run import OwnRun
    from graphsim.serving.scenario import Serving
    from graphsim.serving.service import Service

KINDS = ("mean", "median", "p90", "p99")
MOST_ADAPTERS = 5
"""Rows of the table of adapters: those whose first tokens take longest."""


def print_service(service: Service, limits: Mapping[str, float]) -> None:
    """Headline, latencies, what was kept of the limits, adapters that suffered, and what to beware of."""
    from graphsim.serving.service_view import headline, ms_text

    found = service.summary()
    several = f"{service.servers} replicas, " if service.servers > 1 else ""
    print_line(f"{several}{len(service.table):,} requests\n")
    print_table(["served", ""], [[label, text] for label, text in headline(service)])
    rows = [
        [label, *(ms_text(found[f"{kind}_{key}_ms"]) for kind in KINDS)]
        for label, key in (("TTFT", "ttft"), ("TPOT", "tpot"), ("ITL", "itl"), ("end to end", "e2el"))
    ]
    print_line()
    print_table(["latency", *KINDS], rows, right=range(1, 5))
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
        rows = [
            [str(row[frame.columns[0]]), *(_cell(name, row[name]) for name in names)] for _, row in frame.iterrows()
        ]
        print_table(["class", *names], rows, right=range(1, len(names) + 1))


def _limit(name: str, value: float) -> str:
    return f"{name.removesuffix('_s').upper()} up to {seconds_text(value)}"


def _kept(service: Service, limit: Mapping[str, float]) -> str:
    return f"{service.goodput(**limit).share:.1%}"


def _print_adapters(service: Service) -> None:
    from graphsim.serving.service_view import counted

    frame = service.adapters
    frame = frame[frame["requests"] > 0].nlargest(MOST_ADAPTERS, "mean_ttft_s")
    print_line()
    rows = [
        [
            str(row["adapter"]), f"{row['requests']:,}",
            *(_cell(name, row[name]) for name in ("mean_ttft_s", "p99_ttft_s", "loads", "longest_wait_s")),
        ]
        for _, row in frame.iterrows()
    ]  # fmt: skip
    header = ["slowest adapters", "requests", "mean TTFT", "p99 TTFT", "loads", "longest wait"]
    print_table(header, rows, right=range(1, 6))
    print_line(f"fairness over {counted(len(service.adapter_names), 'adapter')} (Jain's index): {service.fairness:.2f}")


def print_capacity(found: Capacity, limits: Mapping[str, float], attainment: float) -> None:
    """The answer, then what was tried."""
    from graphsim.serving.capacity_runs import limits_text, value_text

    service = found.service
    print_line(f"{found} keep {limits_text(limits)} for {attainment:.4g} of the requests\n")
    rows = [
        [
            value_text(found.over, row[found.over]), "yes" if row["kept"] else "no", f"{row['attainment']:.1%}",
            _ms(row["mean_ttft_ms"]), _ms(row["p99_ttft_ms"]), _ms(row["mean_tpot_ms"]), _ms(row["p99_e2el_ms"]),
            f"{row['output_throughput']:,.0f}", str(row["limit"]),
        ]
        for row in found.tried.to_dict("records")
    ]  # fmt: skip
    header = ["tried", "kept", "attained", "mean TTFT", "p99 TTFT", "mean TPOT", "p99 E2E", "tokens/s", "limited by"]
    print_table(header, rows, right=range(2, 8))
    for text in (*found.notes, *service.notes):
        print_line(f"note: {text}")


def print_measured(found: OwnRun) -> None:
    """Measured and simulated figures, where they part, and the constants that would bring them together."""
    print_line()
    rows = [
        [str(row["metric"]), f"{row['measured']:,.4g}", f"{row['predicted']:,.4g}", _error(row["error"])]
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
    """A row a strategy, or a value."""
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
    rows = []
    for value, row in frame.iterrows():
        if row["reason"]:
            rows.append([str(value), *["-"] * (len(header) - 2), str(row["reason"])[:60]])
            continue
        cells = [f"{row['request_throughput']:.3g}", f"{row['output_throughput']:,.0f}"]
        cells += [seconds_text(row[name]) for name in ("mean_ttft_s", "p99_ttft_s", "mean_tpot_s", "p99_e2e_s")]
        cells += [
            f"{row['loads']:,.0f}",
            f"{row['switches']:,.0f}",
            f"{row['stalled']:.1%}",
            f"{row['kv_tokens']:,.0f}",
        ]
        cells += [f"{row['imbalance']:.2f}", f"{row['reloads']:,.0f}"] if spread else []
        cells += [f"{row['attainment']:.1%}"] if "attainment" in frame else []
        rows.append([str(value), *cells, str(row["limit"])])
    print_table(header, rows, right=range(1, len(header) - 1))
    for text in frame.attrs["notes"]:
        print_line(f"note: {text}")


def print_advice(advice: ServeAdvice) -> None:
    """What limits, and a row for each change that helps."""
    print_line()
    for text in advice.seen.lines():
        print_line(text)
    if not advice.levers:
        print_line(str(advice).splitlines()[-1 - len(advice.notes)])
    else:
        print_line()
        limited = advice.now.attainment is not None
        header = ["what would help", *(["kept"] if limited else []), "p99 TTFT", "TPOT", "p99 E2E", "requests/s"]
        rows = [_outcome("as it is", advice.now), *(_outcome(lever.name, lever.outcome) for lever in advice.levers)]
        print_table(header, rows, right=range(1, len(header)))
    for note in advice.notes:
        print_line(f"note: {note}")


def _outcome(name: str, found: Outcome) -> list[str]:
    times = [seconds_text(value) for value in (found.p99_ttft_s, found.tpot_s, found.p99_e2e_s)]
    kept = [] if found.attainment is None else [f"{found.attainment:.1%}"]
    return [name, *kept, *times, f"{found.requests_per_s:.3g}"]


def _ms(value: float) -> str:
    return "-" if value != value else seconds_text(value / 1e3)


def _cell(name: str, value: Any) -> str:
    if value != value:
        return "-"
    return seconds_text(value) if name.endswith("_s") else f"{value:.1%}" if name == "good_share" else f"{value:,.0f}"
