"""Scenarios per second over how many different values each axis of a list takes: the picture of docs/compiler.md.

`python -m tests.benchmarks.distinct_values FILE` measures this machine, in processor time, and draws.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import graphsim as gs
from tests.benchmarks import measure

COUNT = 2**15
DISTINCT = (1, 4, 16, 64, 256, 1024, 4096)
LARGEST = {"batch": 128, "input_tokens": 7000, "output_tokens": 1000}
WAYS = {
    "simulate": lambda deployment, asked: gs.simulate(deployment, **asked).latency_s,
    "zipped sweep": lambda deployment, asked: gs.sweep(deployment, **asked, zipped=[tuple(asked)]),
}


def drawn(distinct: int) -> dict[str, Any]:
    """A list of scenarios whose axes take that many values each, or as many as there are."""
    draw = np.random.default_rng(distinct)
    return {
        name: draw.choice(draw.choice(np.arange(2, most + 2), min(distinct, most), replace=False), COUNT)
        for name, most in LARGEST.items()
    }


def rates(cost: str, way: str) -> list[float]:
    """Scenarios per second at each number of different values; formulas are known."""
    deployment = gs.Deployment("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(rank=16), cost=cost)
    found = []
    for distinct in DISTINCT:
        asked = drawn(distinct)
        (took,) = measure.cpu_seconds(lambda asked=asked: WAYS[way](deployment, asked), turns=3)
        found.append(COUNT / took)
        print(f"{cost}, {way}, {distinct}: {found[-1]:,.0f}", flush=True)
    return found


def main(path: Path) -> None:
    """Measure and draw."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "graphsim", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(figsize=(6.0, 3.4), layout="constrained")
    for cost, colour in (("roofline", "tab:blue"), ("calibrated", "tab:orange")):
        for way, line in zip(WAYS, ("-", "--"), strict=True):
            axes.plot(DISTINCT, rates(cost, way), line, color=colour, marker="o", ms=3, label=f"{way}, {cost}")
    axes.set(
        xscale="log", yscale="log", xlabel="different values of each axis", ylabel="scenarios per second, one core"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
