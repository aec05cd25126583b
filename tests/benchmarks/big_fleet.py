"""A large fleet, once: `python -m tests.benchmarks.big_fleet [REPLICAS [REQUESTS]]` prints requests/s and peak memory.

By default 64 replicas and a million requests, each with one of 20 adapters, behind the least loaded replica.
"""

from __future__ import annotations

import resource
import sys
import time

from tests.benchmarks.test_fleet_speed import fleet, shared


def main() -> None:
    """Run it, and print what it took."""
    replicas, requests = (int(text) for text in (sys.argv[1:] + ["64", "1000000"][len(sys.argv) - 1 :])[:2])
    table = shared(requests // replicas, replicas)
    start, cpu = time.perf_counter(), time.process_time()
    loop = fleet(table, replicas)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    steps = sum(len(member.driven.log.runs) for member in loop.members)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{replicas} replicas, {len(table):,} requests, {steps:,} runs of steps")
    print(f"{seconds:.1f} s, {len(table) / seconds:,.0f} requests/s ({len(table) / cpu:,.0f} per second of processor)")
    print(f"peak memory {peak:,.0f} MiB, {(peak * 2**20) / len(table):,.0f} bytes a request")


if __name__ == "__main__":
    main()
