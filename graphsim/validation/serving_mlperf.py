"""Submissions to MLPerf Inference: tokens per second of a system under latency limits, compared with its capacity.

A row states model, devices and scenario, but no degrees, formats or lengths; the assumed ones are stated here and in
each line's `configuration`. Arrivals are a Poisson process, and 99 of 100 requests must meet both limits. The devices
of a system are independent replicas, so that one is simulated and scaled. A submission is tuned, and so an upper bound:
the prediction should be 50 to 110 % of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import Row
from graphsim.hardware import device_described
from graphsim.validation.judged import judged_line

COLUMNS = {"scenario", "accelerators", "metric", "value", "unit", "division", "availability"}
REQUESTS = 6000


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A model of the suite.

    tokens: mean tokens of an answer
    limits: ttft_s and tpot_s of each scenario
    """

    model: str
    tokens: float
    limits: Mapping[str, tuple[float, float]]


LLAMA2_70B = Benchmark("llama-2-70b", 294.45, {"Server": (2.0, 0.2), "Interactive": (0.45, 0.04)})
"""Limits of the suite; the mean answer is the middle of what its closed division allows, 265.005 to 323.895 tokens a
sample (mlcommons/inference_results_v4.1, a submission's README). The prompts' length is not stated: prompts are assumed
to be as long as answers, and both to be uniform between 0.5 and 1.5 times the mean."""

BENCHMARKS = {"llama2-70b-99": LLAMA2_70B, "llama2-70b-99.9": LLAMA2_70B}
FORMATS = {
    "blackwell": "nvfp4",
    "blackwell-workstation": "nvfp4",
    "cdna4": "mxfp4_w4a4",
    "cdna3": "fp8",
    "hopper": "fp8",
}
"""The narrowest weight format that the matrix units of an architecture support."""
SEQUENCES, STEP_TOKENS = 2048, 8192
"""Sequences and tokens of a step; submissions do not use the engines' general defaults."""


def mlperf_lines(rows: Sequence[Row], progress: Callable[[str], None] | None) -> Iterator[dict[str, Any]]:
    """One line per row: tokens per second of the system, submitted and predicted."""
    for row in rows:
        predicted, problem, told = np.nan, "", ""
        try:
            if progress:
                progress(f"row {row['id']}")
            predicted, told = _predicted(row)
        except GraphsimError as error:
            problem = str(error)
        yield judged_line(row["id"], str(row["metric"]), row["value"], predicted, problem) | {"configuration": told}


def _predicted(row: Row) -> tuple[float, str]:
    known = BENCHMARKS.get(str(row["model"]))
    if known is None:
        raise ConfigError(f"lengths of the requests of {row['model']} are not known")
    limits = known.limits.get(str(row["scenario"]))
    if limits is None:
        raise ConfigError(f"scenario {row['scenario']} has no limits that a server keeps")
    found = device_described(str(row["hardware"]))
    if found is None:
        raise ConfigError(f"device {row['hardware']} is not known")
    each, told = _capacity(known.model, known.tokens, found.name, *limits)
    return each * float(row["accelerators"]), told


@lru_cache(maxsize=64)
def _capacity(model: str, tokens: float, device: str, ttft_s: float, tpot_s: float) -> tuple[float, str]:
    """Tokens per second of one device at the highest rate that meets the limits, and the simulated configuration."""
    from graphsim.hardware import load_hardware
    from graphsim.serving.capacity import capacity
    from graphsim.serving.engine_limits import EngineLimits
    from graphsim.traffic.traffic import Traffic

    architecture = load_hardware(device).architecture
    precision = FORMATS.get(architecture, "bf16")
    engine = "vllm" if architecture.startswith("cdna") else "trtllm"
    lengths = (round(tokens / 2), round(3 * tokens / 2))
    traffic = Traffic.poisson(rate=8, requests=REQUESTS, input_tokens=lengths, output_tokens=lengths)
    found = capacity(
        model, device, traffic, ttft_s=ttft_s, tpot_s=tpot_s, engine=engine, precision=precision,
        limits=EngineLimits(max_num_seqs=SEQUENCES, max_num_batched_tokens=STEP_TOKENS),
    )  # fmt: skip
    told = (
        f"{model} on one {device}, {engine}, {precision}, {lengths[0]} to {lengths[1]} tokens in and out, "
        f"{SEQUENCES:,} sequences and {STEP_TOKENS:,} tokens in a step"
    )
    return float(found.service.summary()["output_throughput"]), told
