"""What the table of docs/speed.md holds, measured: graphsim, and beside it the peers that are installed.

Peers run under the interpreter that GRAPHSIM_PEERS names (a virtual environment of their own), else under this one.
"""

from __future__ import annotations

import cProfile
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import graphsim as gs

HERE = Path(__file__).resolve().parent
MODEL, DEVICE = "llama-2-7b", "a100-sxm-80gb"
GRID: dict[str, Any] = {
    "batch": list(range(1, 129)), "input_tokens": list(range(16, 4096, 16)), "tp": [1, 2, 4, 8],
    "rank": [1, 4, 8, 16, 32, 64, 128, 256], "output_tokens": 128,
}  # fmt: skip
"""About a million scenarios of Llama-2-7B with an adapter on A100s, prefill and decode."""

PEERS = {
    "genz-llm": ("GenZ", "peer_genz_llm.py", "0.0.16"),
    "llm-analysis": ("llm_analysis", "peer_llm_analysis.py", "0.2.2"),
}
"""Distribution: its module, the script that times it, the version compared with."""

POOLS: dict[str, Callable[[], Any]] = {
    "one core": nullcontext,
    "two threads": lambda: ThreadPoolExecutor(2),
    "two processes": lambda: ProcessPoolExecutor(2),
}


def seconds(call: Callable[[], object], turns: int = 3) -> float:
    """The shortest of some turns: what the machine does when nothing else disturbs it."""
    found = []
    for _ in range(turns):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def cpu_seconds(*calls: Callable[[], object], turns: int = 5) -> list[float]:
    """The least processor time of each of some calls, which take turns: machines change their pace.

    Whoever else uses the machine takes no part in it, so ratios of these hold on a busy one.
    """
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(turns):
        for times, call in zip(found, calls, strict=True):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
    return [min(times) for times in found]


def start_cpu_seconds(*commands: Sequence[str], turns: int = 9) -> list[float]:
    """The least processor time of processes of this interpreter from start to end, which take turns.

    commands: arguments of the interpreter. A first turn, which may write bytecode, does not count.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": folder, "PYTHONPATH": str(HERE.parents[1])}
        found: list[list[float]] = [[] for _ in commands]
        for turn in range(turns + 1):
            for times, command in zip(found, commands, strict=True):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(
                    [sys.executable, *command], capture_output=True, check=True, timeout=120, env=environment
                )
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                if turn:
                    times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return [min(times) for times in found]


START = {
    "libraries": ("-c", "import numpy, networkx, yaml"),
    "help": ("-m", "graphsim", "--help"),
    "run": ("-m", "graphsim", "run", "llama-3.1-8b", "--hardware", "h100-sxm", "--batch", "8"),
}
"""What a first command takes, and what no command that simulates can do without."""


def start_ratios(turns: int = 9) -> dict[str, float]:
    """Processor time of the help and of a first estimate, in parts of importing the libraries alone."""
    libraries, *others = start_cpu_seconds(*START.values(), turns=turns)
    return {name: seconds / libraries for name, seconds in zip(list(START)[1:], others, strict=True)}


def calls(call: Callable[[], object]) -> int:
    """Calls of functions that a call makes."""
    profile = cProfile.Profile()
    profile.runcall(call)
    return sum(entry.callcount for entry in profile.getstats())


def rows_per_s(cost: str, pool: str = "one core", grid: dict[str, Any] = GRID, turns: int = 3) -> float:
    """Scenarios per second of one sweep into a table; graphs are known after the first turn, which counts too."""
    with POOLS[pool]() as executor:
        some: Executor | None = executor
        rows = len(gs.sweep(MODEL, DEVICE, cost=cost, executor=some, **grid, engine="reference"))
        return rows / seconds(
            lambda: gs.sweep(MODEL, DEVICE, cost=cost, executor=some, **grid, engine="reference"), turns
        )


def rows_per_s_to_disk(cost: str, millions: int = 3) -> float:
    """Scenarios per second of a sweep to Parquet by two processes, their start included."""
    grid = GRID | {"active_adapters": list(range(1, millions + 1))}
    rows = millions * len(GRID["batch"]) * len(GRID["input_tokens"]) * len(GRID["tp"]) * len(GRID["rank"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.parquet"
        pool = partial(ProcessPoolExecutor, 2)
        return rows / seconds(
            lambda: gs.sweep_to_parquet(path, MODEL, DEVICE, cost=cost, executor=pool, **grid, engine="reference"), 1
        )


def interpreter() -> str:
    """Python of the peers."""
    return os.environ.get("GRAPHSIM_PEERS") or sys.executable


def version(peer: str) -> str | None:
    """The installed version of a peer, or None."""
    code = f"from importlib.metadata import version; print(version({peer!r}))"
    done = _peer_runs(["-c", code])
    return done.stdout.strip() if done.returncode == 0 else None


def peer_rows_per_s(peer: str, rows: int) -> float:
    """Calls per second of a peer on some rows of the grid, drawn at random; median of their times."""
    draw = random.Random(0)
    asked = [
        [draw.choice(GRID["batch"]), draw.choice(GRID["input_tokens"]), 128, draw.choice(GRID["tp"])]
        for _ in range(rows)
    ]
    done = _peer_runs([str(HERE / PEERS[peer][1])], json.dumps(asked))
    if done.returncode:
        raise RuntimeError(f"{peer} failed: {done.stderr.strip()[-500:]}")
    return 1.0 / statistics.median(json.loads(done.stdout.strip().splitlines()[-1]))


def import_s(statement: str, python: str, turns: int = 3) -> float:
    """Seconds of a process that imports something, less those of one that does not."""

    def process(code: str) -> float:
        return seconds(lambda: _run(python, ["-c", code]).check_returncode(), turns)

    return process(statement) - process("pass")


def _peer_runs(arguments: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return _run(interpreter(), arguments, stdin)


def _run(python: str, arguments: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """In a fresh process; a peer's finds nothing of ours."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if python == sys.executable:
        environment["PYTHONPATH"] = str(HERE.parents[1])
    return subprocess.run(
        [python, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env=environment,
        cwd=tempfile.gettempdir(),
    )


def told(code: str, *arguments: str) -> list[float]:
    """The numbers that a fresh process prints."""
    done = _run(sys.executable, ["-c", code, *arguments])
    done.check_returncode()
    return [float(text) for text in done.stdout.split()]


def alone(function: str) -> list[float]:
    """What a function of this module measures in a process of its own, where nothing else fills caches and memory."""
    code = f"from tests.benchmarks import measure; import numpy; print(*numpy.ravel(measure.{function}()))"
    return told(code)


GRAPHSIM = "import graphsim; graphsim.simulate; graphsim.sweep"
"""Loads the simulator with all that it needs; `import graphsim` alone loads next to nothing."""


PEAK = """
import json, resource, sys
from pathlib import Path
import graphsim as gs
grid, where = json.loads(sys.argv[1]), sys.argv[2]
if where:
    gs.sweep_to_parquet(where, "llama-2-7b", "a100-sxm-80gb", cost="roofline", **grid)
else:
    gs.sweep("llama-2-7b", "a100-sxm-80gb", cost="roofline", **grid)
status = Path("/proc/self/status")  # where there is none, getrusage may count what the parent held when it forked
lines = status.read_text().splitlines() if status.exists() else []
kib = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
print((kib or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0] / 1024)
"""


def peak_mib(times: int, disk: bool) -> float:
    """Most memory of a process that sweeps `times` million scenarios, into a table or to disk; 0 for a few alone."""
    grid = GRID | {"active_adapters": list(range(1, times + 1))} if times else {"batch": [1], "rank": [8]}
    with tempfile.TemporaryDirectory() as folder:
        return told(PEAK, json.dumps(grid), str(Path(folder) / "sweep.parquet") if disk else "")[0]


def warm_simulate_s(cost: str | None = None) -> float:
    """One call with other numbers than any before, in a process that knows the graph; with an adapter."""
    adapter = gs.LoraConfig()
    calls = [(batch, 512 + batch) for batch in range(1, 60)]
    gs.simulate(MODEL, DEVICE, 60, 700, lora=adapter, cost=cost, engine="reference")
    found = []
    for batch, tokens in calls:
        start = time.perf_counter()
        gs.simulate(MODEL, DEVICE, batch, tokens, lora=adapter, cost=cost, engine="reference")
        found.append(time.perf_counter() - start)
    return statistics.median(found)


DEPLOYMENTS: list[tuple[str, str, bool]] = [
    ("llama-2-7b", "a100-sxm-80gb", True), ("llama-2-7b", "a100-sxm-80gb", False), ("llama-3.1-8b", "h100-sxm", True),
    ("llama-3.1-70b", "h100-sxm", False), ("mixtral-8x7b", "b200-sxm", True), ("llama-3.1-8b", "l40s", True),
]  # fmt: skip
"""Model, device, and whether there is an adapter. Nobody measured the last device: it is priced from two others."""


def calibrated_over_roofline() -> tuple[float, float, float]:
    """How many times as long a calibrated call takes: when asked again, at most; with new numbers, at least and most.

    Of the deployments above; blocks of calls of both kinds take turns, since machines change their pace.
    """
    again = [ratio(*deployment, new=False) for deployment in DEPLOYMENTS]
    new = [ratio(*deployment, new=True) for deployment in DEPLOYMENTS]
    return max(again), min(new), max(new)


_SIZES = count(1)
"""So many that no two calls of a process have the same numbers, whatever was asked before."""


def ratio(model: str, device: str, adapter: bool, *, new: bool, turns: int = 12) -> float:
    """Median processor time of calibrated calls over that of roofline calls, in a process that knows the graph."""
    lora, known = gs.LoraConfig() if adapter else None, gs.load_model(model)

    def call(cost: str) -> float:
        size = next(_SIZES) if new else 8
        start = time.process_time()
        gs.simulate(known, device, 1 + size % 997, 512 + 7 * size % 8009, lora=lora, cost=cost, engine="reference")
        return time.process_time() - start

    def block(cost: str, calls: int = 15) -> float:
        return statistics.median([call(cost) for _ in range(calls)][calls // 4 :])

    costs = ("roofline", "calibrated")
    for cost in costs:
        block(cost, 60)
    pairs = [[block(cost) for cost in costs] for _ in range(turns)]
    return statistics.median([calibrated / roofline for roofline, calibrated in pairs])


COLD = """
import time, numpy, networkx, pandas, yaml
import graphsim as gs
gs.simulate, gs.LoraConfig
start = time.perf_counter()
gs.simulate("llama-2-7b", "a100-sxm-80gb", 4, 512, lora=gs.LoraConfig())
print(time.perf_counter() - start)
"""


def cold_simulate_s(turns: int = 3) -> float:
    """The first call of a process whose modules are imported: catalog, constants, graph and all."""
    return min(told(COLD)[0] for _ in range(turns))


def deep_model(layers: int = 400) -> gs.ModelConfig:
    """Llama-2-7B with many more layers."""
    from dataclasses import replace

    model = gs.load_model(MODEL)
    return replace(model, layers=tuple(model.layers[0] for _ in range(layers)))


def deep_graph_s() -> tuple[int, float]:
    """Nodes of a 400-layer graph spelt out, with an adapter, and the time to build, price and schedule it."""
    model, nodes = deep_model(), 0

    def call() -> None:
        nonlocal nodes
        graph = gs.build_graph(model, lora=gs.LoraConfig(), expand=True)
        gs.critical_path(gs.annotate(graph, DEVICE))
        nodes = len(graph)

    best = seconds(call)
    return nodes, best


def steps_s() -> list[float]:
    """One call of a compiled step, as another simulator makes it.

    Priced by the roofline; then calibrated: known, with a context that is new, and with a prompt of a new length.
    """
    bare, fitted = (
        gs.compile_step(MODEL, DEVICE, lora=gs.LoraConfig(), cost=c, engine="reference")
        for c in ("roofline", "calibrated")
    )
    sizes = iter(range(512, 10**9))
    kinds: list[Callable[[], object]] = [
        lambda: bare(decode_batch=8, context=next(sizes)),
        lambda: fitted(decode_batch=8, context=512),
        lambda: fitted(decode_batch=8, context=next(sizes)),
        lambda: fitted(prefill_tokens=next(sizes), decode_batch=8, context=next(sizes)),
    ]
    calls = 500
    return [seconds(lambda: [kind() for _ in range(calls)]) / calls for kind in kinds]  # noqa: B023


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
