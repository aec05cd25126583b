"""Prints the table of docs/speed.md: `python -m tests.benchmarks.table`.

Peers are measured beside graphsim if the interpreter that GRAPHSIM_PEERS names has them:

    python -m venv peers && peers/bin/pip install genz-llm==0.0.16 llm-analysis==0.2.2
    GRAPHSIM_PEERS=peers/bin/python python -m tests.benchmarks.table

`--quick` leaves out the sweep of ten million rows.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator

from tests.benchmarks import measure

Line = tuple[str, str]


def rates() -> Iterator[Line]:
    """Scenarios per second, ours and the peers', and how they compare."""
    best = {}
    for cost in ("roofline", "calibrated"):
        found = {pool: measure.rows_per_s(cost, pool) for pool in measure.POOLS}
        best[cost] = max(found.values())
        told = ", ".join(f"{rate:,.0f} ({pool})" for pool, rate in found.items())
        yield f"`gs.sweep`, {cost}, scenarios/s", told
    found = {cost: measure.rows_per_s_to_disk(cost) for cost in best}
    told = ", ".join(f"{rate:,.0f} ({cost})" for cost, rate in found.items())
    yield "`gs.sweep_to_parquet`, two processes, scenarios/s", told
    for peer in measure.PEERS:
        version = measure.version(peer)
        if version is None:
            yield f"{peer}, scenarios/s", "not installed"
            continue
        rate = measure.peer_rows_per_s(peer, 30 if peer == "genz-llm" else 3000)
        ratios = ", ".join(f"{cost} {best[cost] / rate:,.0f} ×" for cost in best)
        yield f"{peer} {version}, scenarios/s", f"{rate:,.1f} (graphsim: {ratios})"


def calls() -> Iterator[Line]:
    """Single calls."""
    yield "`gs.simulate`, warm", f"{measure.alone('warm_simulate_s')[0] * 1e3:.2f} ms"
    yield "`gs.simulate`, first call of a process, catalog included", f"{measure.cold_simulate_s() * 1e3:.1f} ms"
    again, least, most = measure.alone("calibrated_over_roofline")
    told = f"{again:.2f} × asked again, {least:.2f} to {most:.2f} × with new numbers"
    yield f"`gs.simulate`, calibrated over roofline, {len(measure.DEPLOYMENTS)} deployments", told
    bare, *fitted = (f"{took * 1e6:.0f}" for took in measure.alone("steps_s"))
    yield (
        "a step of `gs.compile_step`",
        f"roofline {bare} µs; calibrated {fitted[0]} µs known, {fitted[1]} µs new context, {fitted[2]} µs new prompt",
    )
    nodes, took = measure.alone("deep_graph_s")
    yield f"400 layers spelt out ({nodes:,.0f} nodes): build, price, critical path", f"{took:.2f} s"


def imports() -> Iterator[Line]:
    """Import times."""
    bare = measure.import_s("import graphsim", sys.executable)
    whole = measure.import_s(measure.GRAPHSIM, sys.executable)
    yield "`import graphsim`; with the simulator loaded", f"{bare * 1e3:.0f} ms; {whole * 1e3:.0f} ms"
    if measure.version("genz-llm"):
        peer = measure.import_s("import GenZ", measure.interpreter())
        yield (
            "`import GenZ` (genz-llm)",
            f"{peer * 1e3:.0f} ms (graphsim: {bare / peer:.3f} ×; loaded {whole / peer:.2f} ×)",
        )


def memory(quick: bool) -> Iterator[Line]:
    """Peak memory of whole processes."""
    few = measure.peak_mib(0, disk=True)
    yield "peak memory, a few scenarios", f"{few:.0f} MiB"
    yield "peak memory, 1.04 million to a table", f"{measure.peak_mib(1, disk=False):.0f} MiB"
    for times in (1,) if quick else (1, 10):
        yield f"peak memory, {1.04448 * times:.3g} million to Parquet", f"{measure.peak_mib(times, disk=True):.0f} MiB"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the sweep of ten million rows")
    quick = parser.parse_args().quick
    print(
        "| Llama-2-7B with LoRA on A100, batch × input × tp × rank, prefill and decode | measured |\n|---|---|",
        flush=True,
    )
    for lines in (rates(), calls(), imports(), memory(quick)):
        for name, value in lines:
            print(f"| {name} | {value} |", flush=True)
    print(f"\nPython {platform.python_version()}, {platform.machine()}, {measure.cores()} cores.")


if __name__ == "__main__":
    main()
