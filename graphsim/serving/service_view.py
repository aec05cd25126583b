"""A run in a line, and in a notebook's table."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphsim.display.columns import latencies_column
from graphsim.display.notebook import framed, table
from graphsim.serving.adapter_events import adapter_events
from graphsim.serving.goodput import has_limits
from graphsim.serving.utilisation import FULL
from graphsim.units import counted_text, rate_text, seconds_text

if TYPE_CHECKING:
    from graphsim.serving.served_run import ServedRun


def ms_text(value: float) -> str:
    """Milliseconds as a person reads them."""
    return "–" if value != value else seconds_text(value / 1e3)


def latency_rows(summary: Mapping[str, Any], kinds: Sequence[str]) -> list[list[str]]:
    """The figures of each kind of latency, such as its mean and its p99; each row in one unit."""
    names = (("TTFT", "ttft"), ("TPOT", "tpot"), ("ITL", "itl"), ("end to end", "e2el"))
    return [[label, *latencies_column([summary[f"{kind}_{name}_ms"] / 1e3 for kind in kinds])] for label, name in names]


def share_text(value: float) -> str:
    """A share in percent, small ones with a digit more."""
    return f"{value:.1%}" if 0 < value < 0.0995 else f"{value:.0%}"


def title_of(service: ServedRun) -> str:
    """`llama-3.1-8b on h100-sxm, engine vllm`; `4 replicas of …` of a fleet."""
    several = f"{service.servers} replicas of " if service.servers > 1 else ""
    engine = f", engine {service.engine}" if service.engine else ""
    return f"{several}{service.model or 'a model'} on {service.hardware or 'a device'}{engine}"


def service_text(service: ServedRun) -> str:
    """Body of `Service.__repr__`: what was answered, how fast."""
    found = service.summary((99.0,))
    figures = [
        f"{found['completed']} of {found['num_prompts']} requests in {seconds_text(found['duration'])}",
        rate_text(found["request_throughput"], "requests/s"),
        rate_text(found["output_throughput"], "tokens/s"),
        f"TTFT {ms_text(found['median_ttft_ms'])} (p99 {ms_text(found['p99_ttft_ms'])})",
        f"TPOT {ms_text(found['median_tpot_ms'])} (p99 {ms_text(found['p99_tpot_ms'])})",
    ]
    return f"<Service {title_of(service)}: {', '.join(figures)}>"


def _answered(found: dict[str, Any]) -> str:
    missing = found["num_prompts"] - found["completed"] - found["failed"]
    unfinished = f", {missing:,} unfinished" if missing else ""
    return f"{found['completed']:,} of {found['num_prompts']:,}, {found['failed']:,} failed{unfinished}"


def headline(service: ServedRun) -> list[tuple[str, str]]:
    """Labels and figures of a run, the latencies left out."""
    found: dict[str, Any] = service.summary()
    used = service.utilisation
    rows = [
        ("requests answered", _answered(found)),
        ("simulated time", seconds_text(found["duration"])),
        ("requests", rate_text(found["request_throughput"], "requests/s")),
        ("output tokens", rate_text(found["output_throughput"], "tokens/s")),
        ("all tokens", rate_text(found["total_token_throughput"], "tokens/s")),
    ]
    if has_limits(service.classes):
        good = service.goodput()
        rows.append(("goodput", f"{rate_text(good.requests_per_s, 'requests/s')}, {good.share:.1%} of requests"))
    if service.open_loop:
        rows.append(("load", f"{share_text(min(used.load, 1.0))} of what fills the server ({FULL[used.limit]})"))
    rows.append(("KV cache", f"{share_text(used.kv)} on average, {share_text(used.kv_peak)} at most"))
    rows.append(
        ("batch", f"{share_text(used.running)} of max_num_seqs on average, {share_text(used.running_peak)} at most")
    )
    rows.append(("preemptions", f"{int(service.log.preemptions.sum())}"))
    if service.adapter_names:
        events = adapter_events(service.log)
        text = (
            f"{len(events):,} for {counted_text(len(service.adapter_names), 'adapter')}, "
            f"{seconds_text(float(events[:, 1].sum()))} in all"
        )
        rows.append(("adapter switches" if service.log.switches else "adapter loads", text))
    return rows + service.more_rows


def service_html(service: ServedRun) -> str:
    """Body of `Service._repr_html_`: headline figures, and a table of latencies."""
    kinds = ("mean", "median", "p90", "p95", "p99")
    latencies = [tuple(row) for row in latency_rows(service.summary(), kinds)]
    body = table(["", ""], headline(service)) + table(["latency", *kinds], latencies)
    told = [("warning", text) for text in service.warnings] + [("note", text) for text in service.notes]
    body += "".join(f"<div>{kind}: {html.escape(text)}</div>" for kind, text in told)
    return framed(title_of(service), body)
