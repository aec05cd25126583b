"""Settings in NVIDIA's scripts for rows of its performance tables that the tables omit.

Settings are those of NVIDIA-NeMo/Megatron-Bridge, scripts/performance/configs, at the commits of each release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FRAMEWORK = re.compile(r"Megatron-Bridge (\d+)\.(\d+)")
FUSED_SINCE = (26, 6)
"""Release whose scripts for MXFP8 on Blackwell first set cutedsl_fused_grouped_mlp."""
BEFORE_FUSED = "megatron-bridge-26.04"
LATEST = (99, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlapped:
    """Runs whose script sets moe_a2a_overlap: words of model, device and precision, pipeline stages, and releases."""

    model: str
    devices: tuple[str, ...]
    precision: str = ""
    pp: str = ""
    since: tuple[int, int] = (0, 0)
    until: tuple[int, int] = LATEST


OVERLAPPED = (
    Overlapped(model="Qwen3_235B", devices=("H100",)),
    Overlapped(model="Qwen3_235B", devices=("B300",), until=(26, 3)),
    Overlapped(model="Qwen3_235B", devices=("GB200", "GB300"), precision="MX", since=FUSED_SINCE),
    Overlapped(model="DeepSeekV3", devices=("H100",), until=(26, 3)),
    Overlapped(model="DeepSeekV3", devices=("B200",), precision="MX", pp="8", since=(26, 4)),
    Overlapped(model="DeepSeekV3", devices=("GB200", "GB300", "B300"), precision="MX", since=FUSED_SINCE),
    Overlapped(model="GPT OSS 120B", devices=("GB200",), since=(26, 2)),
    Overlapped(model="GPT OSS 120B", devices=("GB300", "B300"), precision="MX", since=FUSED_SINCE),
)
"""configs/qwen/qwen3_workload_base_configs.py @f29a269f87 and @01b2977e51, configs/deepseek/workload_base_configs.py
and deepseek_workload_base_configs.py @0426418230, configs/gpt_oss/gpt_oss_workload_base_configs.py @07eea52d45; of
Qwen3 from 26.06 on, src/megatron/bridge/perf_recipes/qwen/common.py @134e903ad6."""


def release_of(framework: str) -> tuple[int, int] | None:
    """Year and month of a release of Megatron-Bridge; None for other frameworks."""
    found = FRAMEWORK.search(framework)
    return (int(found[1]), int(found[2])) if found else None


def recipe_of_release(framework: str) -> str:
    """The recipe of a release of Megatron-Bridge; "" for the latest release or another framework."""
    release = release_of(framework)
    return BEFORE_FUSED if release and release < FUSED_SINCE else ""


def exchange_overlaps(framework: str, model: str, hardware: str, precision: str, pp: str) -> bool:
    """Whether the script of a run overlaps expert-parallel exchanges with another micro-batch's compute."""
    release, device = release_of(framework), hardware.rpartition("DGX-")[2]
    return release is not None and any(
        model.startswith(known.model)
        and device in known.devices
        and known.precision in precision
        and known.pp in ("", pp)
        and known.since <= release <= known.until
        for known in OVERLAPPED
    )
