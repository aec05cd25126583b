"""What to do about an adapter: merge it or not, what its time goes to, and which lever helps by how much.

Every number is an estimate of the deployment, or of the deployment with that one thing changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphsim.adapter_times import lifecycle
from graphsim.compare import strategies
from graphsim.config import Parallelism
from graphsim.cost.base import CostModel
from graphsim.crossings import BreakEven, crossing
from graphsim.errors import GraphsimError
from graphsim.estimate import REFERENCE, EngineRef, HardwareRef, ModelRef, simulate
from graphsim.graph import walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.profile import load_profile
from graphsim.ops import LoraAdd, LoraGemm
from graphsim.ops.lora_kernels import LoraKernel
from graphsim.precision import Precision
from graphsim.result import Estimate, plain
from graphsim.units import seconds_text

WORTH = 0.01
"""Part of the time per token that a lever has to save to be named."""

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank takes (0.33, `vllm/config/lora.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One thing to change, and the time per token with it."""

    name: str
    tpot_s: float
    saved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do, why, and with which engine flags.

    choice: `merge` or `dynamic`; parts: seconds per step that the adapter's nodes take, by cause
    levers: what would help, the most helpful first
    """

    choice: str
    reason: str
    overhead: float
    break_even: BreakEven
    parts: dict[str, float] = field(default_factory=dict)
    levers: tuple[Lever, ...] = ()
    flags: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        levers = [{"name": lever.name, "tpot_s": lever.tpot_s, "saved": lever.saved} for lever in self.levers]
        return {
            "choice": self.choice, "reason": self.reason, "overhead": plain(self.overhead),
            "break_even": self.break_even.to_dict(), "parts": plain(self.parts), "levers": plain(levers),
            "flags": list(self.flags),
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.choice}: {self.reason}"]
        total = sum(self.parts.values())
        if total > 0:
            shares = sorted(self.parts.items(), key=lambda entry: -entry[1])
            lines.append("where the adapter's time goes: " + ", ".join(f"{k} {v / total:.0%}" for k, v in shares if v))
        lines += [
            f"- {lever.name}: {seconds_text(lever.tpot_s)} per token, {lever.saved:.0%} less" for lever in self.levers
        ]
        return "\n".join([*lines, *(["flags: " + " ".join(self.flags)] if self.flags else [])])


def lora_advice(
    model: ModelRef,
    hardware: HardwareRef,
    batch: float = 1,
    input_tokens: float = 512,
    output_tokens: float = 128,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef = REFERENCE,
) -> Advice:
    """Advice for one scenario; the arguments are those of `simulate`. Raises ConfigError as it does."""
    lora = replace(lora or LoraConfig(), enabled=True, strategy="dynamic")
    asked: dict[str, Any] = {
        "model": model, "hardware": hardware, "batch": batch, "input_tokens": input_tokens,
        "output_tokens": output_tokens, "parallelism": parallelism, "precision": precision, "cost": cost,
        "engine": engine,
    }  # fmt: skip
    estimates = strategies(lora=lora, **asked)
    kept = {name: asked[name] for name in ("engine", "parallelism", "precision", "cost")}
    life = lifecycle(model, hardware, lora, **kept)
    found = crossing(estimates["dynamic"], estimates["merge"], life, float(batch), float(output_tokens))
    dynamic = estimates["dynamic"]
    overhead = float(dynamic.latency_s) / float(estimates["base"].latency_s) - 1.0
    choice, reason = _choice(lora, found, overhead)
    return Advice(
        choice=choice, reason=reason, overhead=overhead, break_even=found, parts=_parts(dynamic),
        levers=tuple(_levers(dynamic, lora, asked)), flags=tuple(_flags(lora)) if choice == "dynamic" else (),
    )  # fmt: skip


def _choice(lora: LoraConfig, found: BreakEven, overhead: float) -> tuple[str, str]:
    several = float(np.max(lora.active_adapters)) > 1 or float(np.min(lora.adapter_share)) < 1
    if several:
        return "dynamic", (
            "a merged model serves one adapter only, and here requests differ in theirs; "
            f"applying them dynamically costs {overhead:+.1%}, a switch would cost {seconds_text(found.switch_s)} each"
        )
    if not np.isfinite(found.tokens):
        return "dynamic", "the adapter costs nothing here, so merging never pays"
    return "merge", (
        f"one adapter for all requests: merging takes {seconds_text(found.merge_s)} once and saves {overhead:.1%} "
        f"of every request; it pays after {found.tokens:,.0f} generated tokens ({found.requests:,.1f} requests, "
        f"{seconds_text(found.seconds)})"
    )


def _parts(dynamic: Estimate) -> dict[str, float]:
    """Seconds of one decode step that go to the adapter's kernels: launches, empty tiles, factors, additions."""
    run = dynamic.run
    parts = dict.fromkeys(("launches", "empty tiles", "factors", "additions"), 0.0)
    for _, op, times in walk(dynamic.decode.graph):
        if run is None or not isinstance(op, LoraGemm | LoraAdd | LoraKernel):
            continue
        price = run.price(op, run.hardware)
        clocks = run.hardware.cores * run.hardware.clock_hz
        empty = float(op.empty_core_clocks / clocks) if isinstance(op, LoraKernel) else 0.0
        parts["launches"] += times * float(price.launch_s)
        parts["empty tiles"] += times * empty
        parts["additions" if type(op) is LoraAdd else "factors"] += times * max(float(price.busy_s) - empty, 0.0)
    return parts


def _levers(dynamic: Estimate, lora: LoraConfig, asked: dict[str, Any]) -> Iterator[Lever]:
    now = float(dynamic.tpot_s)
    found = []
    for name, changes, other in _changes(lora, asked):
        try:
            tpot = float(simulate(lora=replace(lora, **changes), **{**asked, **other}).tpot_s)
        except GraphsimError:
            continue
        if tpot < now * (1.0 - WORTH):
            found.append(Lever(name=name, tpot_s=tpot, saved=1.0 - tpot / now))
    yield from sorted(found, key=lambda lever: lever.tpot_s)


def _changes(lora: LoraConfig, asked: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """What could be changed: its name, fields of the adapter, arguments of the simulation."""
    profile = load_profile(asked["engine"])
    reserved, used = float(np.max(lora.max_loras)), float(np.max(lora.active_adapters))
    rank, most = float(np.max(lora.largest_rank)), float(np.max(lora.max_lora_rank))
    if reserved > used:
        slots = int(np.ceil(used))
        yield f"as many slots as adapters are active (--max-loras {slots})", {"max_loras": slots}, {}
    if most > rank:
        yield f"no more rank than adapters have (--max-lora-rank {int(rank)})", {"max_lora_rank": int(rank)}, {}
    if rank >= 16:
        half = int(rank // 2)
        yield f"half the rank ({half})", {"rank": half, "rank_pattern": {}, "max_lora_rank": half if most else 0}, {}
    yield "attention only", {"target_modules": ("attn",), "rank_pattern": {}}, {}
    if profile.kernels != "fused":
        yield "fused kernels (engine sglang)", {}, {"engine": "sglang"}
    if profile.launch == "eager":
        yield "a captured graph", {}, {"engine": replace(profile, launch="graph", name=f"{profile.name}, captured")}
    if profile.empty_tile_clocks and profile.grid == "slots":
        yield "a grid over active adapters only", {}, {"engine": replace(profile, grid="active")}
    tp = float(np.max(asked["parallelism"].tp)) if asked["parallelism"] else 1.0
    if tp > 1 and not lora.fully_sharded_loras:
        yield "both factors cut over the group (--fully-sharded-loras)", {"fully_sharded_loras": True}, {}


def _flags(lora: LoraConfig) -> Iterator[str]:
    """vLLM's names for what follows (SGLang's differ in spelling)."""
    largest = float(np.max(lora.largest_rank))
    yield "--enable-lora"
    yield f"--max-loras {max(1, int(np.ceil(np.max(lora.active_adapters))))}"
    yield f"--max-lora-rank {next((size for size in VLLM_RANKS if size >= largest), VLLM_RANKS[-1])}"
    if lora.fully_sharded_loras:
        yield "--fully-sharded-loras"
