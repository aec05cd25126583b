"""A step of training with made-up figures on a real deployment, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import graphsim as gs
from graphsim.cost.base import annotate
from graphsim.graph.critical import schedule
from graphsim.models.phase import prefill
from graphsim.training.estimate import TrainEstimate, TrainMemory
from graphsim.training.optimizers import Optimizer
from graphsim.training.recipe import Recipe
from graphsim.training.setup import Method, TrainingSetup

GIB = 2.0**30
LORA = Method(name="lora", base=False, adapters=True)
FULL = Method(name="full", base=True, adapters=False)
ADAMW = Optimizer(name="adamw", state_bytes=8.0, state_bytes_16=4.0, moved_bytes=14.0, moved_fp32_bytes=28.0)
PARTS = {"forward": 1.0, "recompute": 0.0, "backward": 2.0, "optimizer": 0.25, "exposed": 0.5, "bubble": 0.25}


def setup_of(
    method: Method = LORA, *, dp: Any = 1, pp: int = 1, sharding: str = "ddp", precision: str = "bf16", **further: Any
) -> TrainingSetup:
    lora = gs.LoraConfig(rank=16, lora_dtype="fp32") if method.adapters else None
    deployment = gs.Deployment(
        "llama-3.2-1b", "h100-sxm", parallelism=gs.Parallelism(dp=dp, pp=pp), lora=lora, precision=precision
    )
    fields: dict[str, Any] = {"batch": 2.0, "seq_len": 1024.0, "accumulate": 4.0} | further
    return TrainingSetup(
        deployment=deployment, method=method, recipe=Recipe(name="fake"), optimizer=ADAMW, sharding=sharding, **fields
    )


def memory_of(**further: Any) -> TrainMemory:
    parts = {"weights": 3, "gradients": 0.5, "optimizer": 1, "activations": 8, "adapters": 0.5, "logits": 6}
    sizes = {f"{name}_bytes": value * GIB for name, value in parts.items()}
    timeline = (("between steps", 4 * GIB), ("forward", 12 * GIB), ("head", 20 * GIB), ("optimizer", 5 * GIB))
    figures: dict[str, Any] = sizes | {
        "workspace_bytes": 0.5 * GIB, "overhead_bytes": 0.5 * GIB, "total_bytes": 20 * GIB, "steady_bytes": 4 * GIB,
        "reserved": 22 * GIB, "capacity_bytes": 79 * GIB, "peak_moment": "head", "timeline": timeline,
    }  # fmt: skip
    return TrainMemory(**figures | further)


def estimate_of(setup: TrainingSetup | None = None, **further: Any) -> TrainEstimate:
    """4 s a step of 8,192 tokens for each data-parallel device, 40 TF each way."""
    setup = setup or setup_of()
    deployment = setup.deployment

    def build() -> Any:
        graph = deployment.stages(prefill(setup.batch, setup.seq_len))[0]
        return schedule(annotate(graph, deployment.device, deployment.price))

    tokens = setup.batch * setup.seq_len * setup.accumulate * deployment.parallelism.dp
    figures: dict[str, Any] = {
        "step_s": 4.0, "parts_s": PARTS, "tokens_per_s": tokens / 4.0,
        "tokens_per_s_per_gpu": tokens / 4.0 / deployment.parallelism.devices, "mfu": 0.4, "hfu": 0.4,
        "peak_format": "bf16", "flops": {"forward": 4e14, "backward": 4e14, "recompute": 0.0},
        "trainable_parameters": 1e7, "cost_model": "made up", "measure_memory": memory_of,
    }  # fmt: skip
    return TrainEstimate(setup=setup, build=build, **figures | further)
