"""Deployments whose experts lie on other ranks than the tokens that they work on."""

from __future__ import annotations

from typing import Any

import graphsim as gs

MODEL: dict[str, Any] = {
    "name": "shared", "hidden_size": 2048, "vocab_size": 32000, "layers": 6,
    "attention": {"heads": 32, "kv_heads": 4, "head_dim": 128},
    "moe": {"experts": 64, "experts_per_token": 8, "intermediate_size": 768, "shared_experts": 1},
}  # fmt: skip
EP = 16


def deployment(engine: Any, model: Any = MODEL, **described: Any) -> gs.Deployment:
    described = {"parallelism": gs.Parallelism(ep=EP), "precision": "fp8"} | described
    return gs.Deployment(model, "h100-sxm", engine=engine, **described)


def simulated(engine: Any, each: Any = 64, **described: Any) -> gs.Estimate:
    return gs.simulate(deployment(engine, **described), batch=EP * each, input_tokens=200, output_tokens=3)
