"""Recorded formulas against the passes, on random deployments: `python -m tests.compile.against_passes COUNT`."""

from __future__ import annotations

import sys
from typing import Any

import graphsim as gs
from graphsim.compile.formulas import formulas_of
from graphsim.compile.symbols import numbers_of
from graphsim.deployment.inference import Inference, Requests
from tests.golden.scenarios import scenarios

SEED = 23
WORTH_A_LINE = 1e-12
"""Difference from which on a deployment is printed."""


def difference(scenario: dict[str, Any]) -> float | None:
    """The largest relative difference of a scenario's times and memory; None where it cannot be run."""
    asked = dict(scenario)
    adapter = asked.pop("lora")
    requests = {name: asked.pop(name) for name in ("batch", "input_tokens", "output_tokens")}
    requests["output_tokens"] = min(requests["output_tokens"], 60)
    try:
        asked["parallelism"] = gs.Parallelism(**asked["parallelism"])
        asked["lora"] = None if adapter is None else gs.LoraConfig(**adapter)
        inference = Inference(deployment=gs.Deployment(**asked), requests=Requests(**requests))
        formulas, inputs = formulas_of(inference), numbers_of(inference)
        if formulas is None:
            return None
        found = [*formulas.times_s(inputs), formulas.memory(inputs).total_bytes]
        passes = [inference.ttft_s(), inference.generation_s(), inference.one_time_s(), inference.memory().total_bytes]
    except gs.GraphsimError:
        return None
    pairs = zip(map(float, found), map(float, passes), strict=True)
    return max([abs(one - other) / max(abs(other), 1e-30) for one, other in pairs])


def main(count: int) -> None:
    """Print how far formulas lie from the passes, every hundred deployments."""
    ran: list[float] = []
    for at, scenario in enumerate(scenarios(count, SEED), 1):
        found = difference(scenario)
        ran += [] if found is None else [found]
        if at % 100 == 0 or at == count:
            worst = f"the largest relative difference is {max(ran, default=0.0):.1e}"
            print(f"{len(ran)} of {at} random deployments run; {worst}", flush=True)
        if found is not None and found > WORTH_A_LINE:
            print(f"{found:.1e}: {scenario}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
