"""The report of a served run as one self-contained page: no network access, light and dark themes, any width."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.display.columns import latencies_column
from graphsim.export.html_page import card, escaped, filled, json_text, listed, table_html
from graphsim.export.serving_figures import figures_of, worst_first
from graphsim.export.serving_series import series_of
from graphsim.files.written import write_text
from graphsim.serving.fleet.fleet_service import FleetService
from graphsim.serving.goodput import Limits, checked_limits, goodput, has_limits, judged
from graphsim.serving.run_log import STATUSES
from graphsim.serving.service_tables import BASE_NAME
from graphsim.serving.service_view import ms_text, share_text, title_of
from graphsim.serving.utilisation import FULL, NEAR
from graphsim.units import counted_text, rate_text, seconds_text

if TYPE_CHECKING:
    from graphsim.serving.served_run import ServedRun

MOST_ROWS = 500
"""Largest number of adapters in the table."""

MOST_SLOW = 20
KINDS = ("mean", "median", "p90", "p95", "p99")
Row = Sequence[str]


def serving_html(
    service: ServedRun,
    path: str | Path | None = None,
    *,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    e2e_s: float | None = None,
) -> str:
    """The report of a run as one HTML page, also written to `path` if given.

    Headline figures and warnings; arrivals, queue, batch, KV cache, slots and TTFT over time; distributions of
    latencies with the limits; adapters, slowest first; the slowest requests; the rules.
    path: the file to write, None for none
    ttft_s, tpot_s, e2e_s: limits in seconds for all requests, in place of those of their classes
    Raises ConfigError if a limit is not above 0, or `path` is not writable.
    """
    asked = checked_limits({"ttft_s": ttft_s, "tpot_s": tpot_s, "e2e_s": e2e_s})
    limits = service.classes if asked is None else (asked,)
    summary = service.summary()
    content = {
        "title": escaped(title_of(service)),
        "subtitle": escaped(_asked(service)),
        "warnings": _warnings(service.warnings),
        "cards": "".join(_cards(service, summary, limits)),
        "width": seconds_text(series_of(service).width_s),
        "parts": escaped(_parts(service)),
        "latencies": _latencies(summary),
        "classes": _classes(service),
        "adapters": _adapters(service),
        "slowest": _slowest(service),
        "notes": _replicas(service) + _pools(service) + listed("Notes", service.notes) + _rules(service),
        "figures": json_text(figures_of(service, limits)),
    }
    page = filled("serving.html", content)
    if path is not None:
        write_text(path, page)
    return page


def _asked(service: ServedRun) -> str:
    table = service.table
    parts = [f"{len(table):,} requests"]
    if service.open_loop and service.request_rate < inf:
        parts.append(f"{service.request_rate:.4g} requests/s asked for")
    if service.concurrency is not None:
        parts.append(f"concurrency {service.concurrency}")
    if len(table):
        parts.append(f"{table.input_tokens.mean():.0f} tokens in, {table.output_tokens.mean():.0f} out on average")
    if service.adapter_names:
        slots = counted_text(service.rules.adapters.max_loras, "slot")
        parts.append(f"{counted_text(len(service.adapter_names), 'adapter')}, {slots}")
    return " · ".join(parts)


def _warnings(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    told = "".join(f"<p>{escaped(line[:1].upper() + line[1:])}.</p>" for line in lines)
    return f'<section class="wide warning">{told}</section>'


def _pools(service: ServedRun) -> str:
    """Content for runs with several kinds of workers."""
    kind = "Prefill and decode" if hasattr(service, "pools") else "Tiers of the KV cache"
    return listed(kind, [f"{label}: {text}" for label, text in service.more_rows])


def _cards(service: ServedRun, found: dict[str, Any], limits: Sequence[Limits]) -> Iterable[str]:
    done, used = found["completed"], service.utilisation
    lost = f", {found['failed']} failed" if found["failed"] else ""
    left = len(service.table) - done - found["failed"]
    lost += f", {left} cut off" if left else ""
    yield card("completed", "Requests answered", float(done), f"{done:,}", f"of {len(service.table):,}{lost}")
    rate, tokens = found["request_throughput"], found["output_throughput"]
    hint = f"{rate_text(tokens, 'tokens/s')} of answers"
    yield card("request_throughput", "Throughput", rate, rate_text(rate, "requests/s"), hint)
    for name, label in (("ttft", "Time to first token"), ("tpot", "Time per token"), ("e2el", "End to end")):
        value = found[f"median_{name}_ms"]
        hint = f"median; p99 {ms_text(found[f'p99_{name}_ms'])}"
        yield card(f"median_{name}_ms", label, value, ms_text(value), hint)
    if has_limits(limits):
        good = goodput(judged(service.latencies, service.log, service.table.group, limits), service.duration_s)
        hint = f"{rate_text(good.requests_per_s, 'requests/s')} meet all limits"
        yield card("good_share", "Goodput", good.share, f"{good.share:.1%}", hint, bad=good.share < 0.99)
    if service.open_loop:
        load = min(used.load, 1.0)
        yield card(
            "load",
            "Load",
            load,
            f"{share_text(load)}",
            f"of what fills the server: {FULL[used.limit]}",
            bad=load >= NEAR,
        )
    hint = f"on average, {share_text(used.kv_peak)} at most"
    yield card("kv", "KV cache", used.kv, f"{share_text(used.kv)}", hint, bad=used.kv_peak > 0.99)
    hint = f"of max_num_seqs on average, {share_text(used.running_peak)} at most; busy {used.busy:.0%} of the time"
    yield card("running", "Batch", used.running, f"{share_text(used.running)}", hint)
    if service.adapter_names:
        loads = service.log.loads
        disk, stall_s = sum(int(row[3]) for row in loads), sum(float(row[1]) for row in loads)
        hint = f"{disk:,} from disk; {seconds_text(stall_s)} in all; fairness {service.fairness:.2f}"
        yield card("loads", "Adapter loads", float(len(loads)), f"{len(loads):,}", hint)
    if service.log.switches:
        switch_s = sum(float(row[1]) for row in service.log.switches)
        hint = f"{seconds_text(switch_s)} in all, {switch_s / max(service.duration_s, 1e-12):.1%} of the run"
        yield card(
            "switches", "Switches of weights", float(len(service.log.switches)), f"{len(service.log.switches):,}", hint
        )
    preempted = int(service.log.preemptions.sum())
    if preempted:
        yield card("preemptions", "Preemptions", float(preempted), f"{preempted:,}", "computed again", bad=True)


def _parts(service: ServedRun) -> str:
    """The parts of the mean time to first token."""
    log, done = service.log, service.latencies.done
    if not done.any():
        return "No request was answered."
    ttft_s = float(service.latencies.ttft_s[done].mean())
    queue_s = float((log.admitted_s - log.sent_s)[done].mean())
    stall_s = float(np.minimum(log.load_stall_s, log.first_token_s - log.admitted_s)[done].mean())
    loads = f"{seconds_text(stall_s)} while adapters were loaded, " if stall_s > 0 else ""
    return (
        f"Of the {seconds_text(ttft_s)} to the first token on average, {seconds_text(queue_s)} were spent before the "
        f"first step (front end and queue), {loads}{seconds_text(ttft_s - queue_s - stall_s)} in the prompt's steps."
    )


def _latencies(found: dict[str, Any]) -> str:
    names = (
        ("time to first token (TTFT)", "ttft"), ("time per token (TPOT), by request", "tpot"),
        ("between tokens (ITL), all gaps", "itl"), ("end to end (E2EL)", "e2el"),
    )  # fmt: skip
    rows = [(label, *latencies_column([found[f"{kind}_{name}_ms"] / 1e3 for kind in KINDS])) for label, name in names]
    return table_html(("", *KINDS), rows)


def _seconds(value: Any) -> str:
    return "–" if not np.isfinite(value) else seconds_text(float(value))


def _count(value: Any) -> str:
    return f"{value:,}"


def _classes(service: ServedRun) -> str:
    frame = service.groups
    if len(frame) < 2:
        return ""
    head = (
        "class", "requests", "answered", "meet their limits", "limits", "median TTFT", "p99 TTFT", "p99 TPOT",
        "p99 E2E",
    )  # fmt: skip
    rows = []
    for row in frame.itertuples():
        own = [(name, getattr(row, f"limit_{name.lower()}_s")) for name in ("TTFT", "TPOT", "E2E")]
        limits = ", ".join(f"{name} {seconds_text(limit)}" for name, limit in own if limit < inf) or "none"
        share = getattr(row, "good_share", float("nan"))
        figures = (row.p50_ttft_s, row.p99_ttft_s, row.p99_tpot_s, row.p99_e2e_s)
        told = "–" if share != share or limits == "none" else f"{share:.1%}"
        cells = (str(row.group), f"{row.requests:,}", f"{row.completed:,}", told, limits, *map(_seconds, figures))
        rows.append(cells)
    return f'<section class="wide"><h2>Classes</h2><div class="scroll">{table_html(head, rows)}</div></section>'


_ADAPTER_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("adapter", "adapter", str),
    ("requests", "requests", _count),
    ("completed", "answered", _count),
    ("p50_ttft_s", "median TTFT", _seconds),
    ("p99_ttft_s", "p99 TTFT", _seconds),
    ("p50_tpot_s", "median TPOT", _seconds),
    ("longest_wait_s", "longest wait", _seconds),
    ("loads", "loads", _count),
    ("disk_loads", "from disk", _count),
    ("switches", "switches", _count),
    ("hits", "hits", _count),
    ("load_s", "load time", _seconds),
    ("load_stall_s", "stalled", _seconds),
    ("preemptions", "preempted", _count),
)


def _adapters(service: ServedRun) -> str:
    if not service.adapter_names:
        return ""
    frame = worst_first(service.adapters)
    base = service.adapters[service.adapters.adapter == BASE_NAME]
    shown = [*frame.head(MOST_ROWS).to_dict("records"), *base.to_dict("records")]
    rows = [tuple(text(row[name]) for name, _, text in _ADAPTER_COLUMNS) for row in shown]
    body = table_html(tuple(label for _, label, _ in _ADAPTER_COLUMNS), rows)
    idle = len(service.adapter_names) - len(frame)
    count = f"{len(frame):,}"
    cut = f"the {MOST_ROWS} that suffered the most of {count}" if len(frame) > MOST_ROWS else f"all {count}"
    asked = f"{idle:,} of {len(service.adapter_names):,} registered adapters were never asked for. " if idle else ""
    return (
        '<section><h2>Adapters by popularity</h2><div class="chart" id="chart-popular"></div></section>'
        '<section><h2>Adapters that suffered</h2><div class="chart" id="chart-worst"></div></section>'
        f'<section class="wide"><details open><summary>Adapters: {escaped(cut)}, the worst first</summary>'
        f'<p class="hint">{escaped(asked)}Hits: requests let in without a load or switch; stalled: '
        f"seconds that its requests waited for loads, each for itself.</p>"
        f'<div class="scroll">{body}</div></details></section>'
    )


_REPLICA_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("replica", "replica", str),
    ("requests", "requests", _count),
    ("completed", "answered", _count),
    ("mean_ttft_s", "mean TTFT", _seconds),
    ("p99_ttft_s", "p99 TTFT", _seconds),
    ("mean_tpot_s", "mean TPOT", _seconds),
    ("load", "load", share_text),
    ("busy", "busy", share_text),
    ("kv", "KV cache", share_text),
    ("waits", "has a queue", share_text),
    ("preemptions", "preempted", _count),
    ("adapters", "adapters loaded", _count),
    ("loads", "loads", _count),
    ("load_s", "load time", _seconds),
)


def _replicas(service: ServedRun) -> str:
    """A table with one row per replica of a fleet, and the balance that the router achieved."""
    if not isinstance(service, FleetService):
        return ""
    rows = [tuple(text(row[name]) for name, _, text in _REPLICA_COLUMNS) for row in service.replicas.to_dict("records")]
    even = service.balance
    told = f"Router {service.router}; the fullest replica has {even.tokens:.2f} times the mean's tokens"
    if service.adapter_names:
        told += f"; {even.reloads:,} of {even.loads:,} loads bring an adapter back"
    body = table_html(tuple(label for _, label, _ in _REPLICA_COLUMNS), rows)
    return (
        f'<section class="wide"><h2>Replicas</h2><p class="hint">{escaped(told)}.</p>'
        f'<div class="scroll">{body}</div></section>'
    )


def _cells(values: Any, shown: Callable[[Any], str]) -> Callable[[int], str]:
    """Cells of a column of a table."""
    return lambda i: shown(values[i])


def _slowest(service: ServedRun) -> str:
    """The requests with the longest wait before their first step, including those that never had one."""
    log, table, seen = service.log, service.table, service.latencies
    waits = np.fmin(log.admitted_s, service.ends_s) - log.sent_s
    order = np.argsort(-np.nan_to_num(waits, nan=-1.0), kind="stable")[:MOST_SLOW]
    names = [*service.adapter_names, BASE_NAME]  # -1 stands for the base model
    known: dict[str, Callable[[int], str]] = {"request": str}
    if service.adapter_names:
        known["adapter"] = lambda i: names[int(table.adapter[i])]
    if len(service.classes) > 1:
        known["class"] = lambda i: service.classes[int(table.group[i])].name
    figures = {"sent at": log.sent_s, "waited": waits, "TTFT": seen.ttft_s, "TPOT": seen.tpot_s, "E2E": seen.e2e_s}
    counts = {"tokens in": table.input_tokens, "out": table.output_tokens, "preempted": log.preemptions}
    known |= {label: _cells(values, _seconds) for label, values in figures.items()}
    known |= {label: _cells(values, _count) for label, values in counts.items()}
    if service.log.loads:
        known["stalled"] = lambda i: _seconds(log.load_stall_s[i])
    known["ended"] = lambda i: STATUSES[log.status[i]]
    return table_html(tuple(known), (tuple(shown(i) for shown in known.values()) for i in order.tolist()))


def _rules(service: ServedRun) -> str:
    rules = service.rules
    shown = [
        f"KV cache: {rules.kv_blocks:,} blocks of {rules.block_tokens} tokens",
        f"max_num_batched_tokens {rules.max_num_batched_tokens:,}, max_num_seqs {rules.max_num_seqs:,}",
        f"order {rules.order}, policy {rules.policy}, admission by {rules.admission}, preemption of {rules.shortage}",
    ]
    if service.adapter_names:
        own = rules.adapters
        tiers = f"max_loras {own.max_loras}, max_cpu_loras {own.max_cpu_loras}"
        shown.append(f"{tiers}, eviction {own.eviction}, loads {own.loads}")
    shown += [f"{name}: {value}" for name, value in service.settings.items()]
    return listed("Rules", shown)
