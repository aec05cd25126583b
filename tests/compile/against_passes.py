"""Recorded formulas against the passes, on random deployments: `python -m tests.compile.against_passes COUNT`."""

from __future__ import annotations

import sys
from typing import Any

import graphsim as gs
from graphsim.compile.formulas import Formulas
from graphsim.compile.symbols import numbers_of
from graphsim.deployment.inference import Inference, Requests
from tests.golden.scenarios import scenarios

SEED = 23


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
        formulas, inputs = Formulas(inference), numbers_of(inference)
        found = [*formulas.times_s(inputs), formulas.memory(inputs).total_bytes]
        passes = [inference.ttft_s(), inference.generation_s(), inference.one_time_s(), inference.memory().total_bytes]
    except gs.GraphsimError:
        return None
    pairs = zip(map(float, found), map(float, passes), strict=True)
    return max([abs(one - other) / max(abs(other), 1e-30) for one, other in pairs])


def main(count: int) -> None:
    """Print how far formulas lie from the passes."""
    found = [difference(scenario) for scenario in scenarios(count, SEED)]
    ran = [one for one in found if one is not None]
    print(f"{len(ran)} of {count} random deployments run; the largest relative difference is {max(ran):.1e}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
