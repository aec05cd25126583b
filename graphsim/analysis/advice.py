"""Advice on an adapter: whether to merge it, the causes of its overhead, and how much each change would save.

Every number is an estimate of the deployment, or of the deployment with one change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphsim.analysis.break_even import BreakEven, crossing
from graphsim.analysis.compare import one_scenario, strategies
from graphsim.analysis.lifecycle import lifecycle_of
from graphsim.deployment.arguments import request_verb
from graphsim.deployment.deployment import REFERENCE, Deployment
from graphsim.deployment.inference import Inference
from graphsim.errors import GraphsimError
from graphsim.graph import walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.matching import Matching
from graphsim.lora.profile import load_profile
from graphsim.ops import Launch
from graphsim.ops.base import AdapterPart
from graphsim.ops.lora_kernels import LoraKernel
from graphsim.result import Estimate, plain
from graphsim.simulation import estimate_of
from graphsim.units import amount_text, bytes_text, counted_text, seconds_text

WORTH = 0.01
"""Fraction of the time per token that a change must save to be listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One change, and the time per token with it."""

    name: str
    tpot_s: float
    saved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The recommended strategy, the reasons, and the engine flags.

    choice: `merge` or `dynamic`
    parts: seconds per step that the adapter's nodes take, by cause
    levers: changes that would help, the most helpful first
    cautions: obstacles to the choice, and its costs other than time
    """

    choice: str
    reason: str
    overhead: float
    break_even: BreakEven
    parts: dict[str, float] = field(default_factory=dict)
    levers: tuple[Lever, ...] = ()
    flags: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Advice {self.choice}: {self.reason}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name for JSON."""
        levers = [{"name": lever.name, "tpot_s": lever.tpot_s, "saved": lever.saved} for lever in self.levers]
        return {
            "choice": self.choice, "reason": self.reason, "overhead": plain(self.overhead),
            "break_even": self.break_even.to_dict(), "parts": plain(self.parts), "levers": plain(levers),
            "flags": list(self.flags), "cautions": list(self.cautions),
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.choice}: {self.reason}", *(f"but {caution}" for caution in self.cautions)]
        total = sum(self.parts.values())
        if total > 0:
            shares = sorted(self.parts.items(), key=lambda entry: -entry[1])
            lines.append("where the adapter's time goes: " + ", ".join(f"{k} {v / total:.0%}" for k, v in shares if v))
        lines += [
            f"- {lever.name}: {seconds_text(lever.tpot_s)} per token, {lever.saved:.0%} less" for lever in self.levers
        ]
        return "\n".join([*lines, *(["flags: " + " ".join(self.flags)] if self.flags else [])])


@request_verb
def lora_advice(inference: Inference) -> Advice:
    """Advice for one scenario. Arguments are those of `simulate`; it raises ConfigError as `simulate` does.

    Without an adapter, the advice is for a common one (rank 16 on attention and MLP).
    """
    lora = replace(inference.deployment.lora or LoraConfig(), enabled=True, strategy="dynamic")
    inference = replace(inference, deployment=replace(inference.deployment, lora=lora))
    one_scenario(inference)
    estimates = strategies(inference)
    dynamic, base = estimates["dynamic"], estimates["base"]
    found = crossing(inference, estimates)
    overhead = float(dynamic.latency_s) / float(base.latency_s) - 1.0
    choice, reason = _choice(inference.deployment, lora, found, overhead)
    levers = tuple(_levers(inference, float(dynamic.tpot_s)))
    engine = inference.deployment.engine_name
    return Advice(
        choice=choice, reason=reason, overhead=overhead, break_even=found, parts=_parts(dynamic), levers=levers,
        flags=tuple(_flags(lora, levers, engine)) if choice == "dynamic" else (),
        cautions=tuple(_cautions(choice, estimates, lora)),
    )  # fmt: skip


def _choice(deployment: Deployment, lora: LoraConfig, found: BreakEven, overhead: float) -> tuple[str, str]:
    if not float(np.max(lora.active_adapters)) * float(np.max(lora.adapter_share)):
        return "dynamic", "no request has an adapter, so there is nothing to merge, and its kernels are skipped"
    if why := lora.kind.unmergeable(deployment.precision.of_weights):
        return "dynamic", (
            f"an adapter of variant '{lora.variant}' cannot be merged here: {why}; "
            f"applying it dynamically costs {overhead:+.1%}"
        )
    several = float(np.max(lora.active_adapters)) > 1 or float(np.min(lora.adapter_share)) < 1
    if several:
        switch_s = float(lifecycle_of(deployment).switch_s)
        return "dynamic", (
            "a merged model serves one adapter only, and here requests differ in theirs; "
            f"applying them dynamically costs {overhead:+.1%}, a switch would cost {seconds_text(switch_s)} each"
        )
    if not np.isfinite(found.tokens):
        return "dynamic", "the adapter costs nothing here, so merging never pays"
    after = counted_text(round(found.tokens), "generated token")
    return "merge", (
        f"one adapter for all requests: merging takes {seconds_text(found.merge_s)} once and saves "
        f"{overhead / (1.0 + overhead):.1%} of every request; it pays after {after} "
        f"({found.requests:,.1f} requests, {seconds_text(found.seconds)})"
    )


def _parts(dynamic: Estimate) -> dict[str, float]:
    """Seconds of one decode step that the adapter's nodes take, by cause."""
    inference = dynamic.inference
    parts = dict.fromkeys(("launches", "empty tiles", *(part.value for part in AdapterPart)), 0.0)
    for _, op, times in walk(dynamic.decode.graph):
        if inference is None or not op.adapter or isinstance(op, Launch):
            continue
        price = inference.price(op, inference.hardware)
        clocks = inference.hardware.cores * inference.hardware.clock_hz
        empty = float(op.empty_core_clocks / clocks) if isinstance(op, LoraKernel) else 0.0
        parts["launches"] += times * float(price.launch_s)
        parts["empty tiles"] += times * empty
        parts[op.adapter_part.value] += times * max(float(price.busy_s) - empty, 0.0)
    return parts


def _levers(inference: Inference, now_s: float) -> Iterator[Lever]:
    """Changes that save time per token, the most helpful first.

    inference: the inference without changes
    now_s: its time per token in seconds
    """
    found = []
    for name, changes in _changes(inference.deployment):
        try:
            changed = replace(inference, deployment=replace(inference.deployment, **changes))
            tpot = float(estimate_of(changed).tpot_s)
        except GraphsimError:
            continue
        if tpot < now_s * (1.0 - WORTH):
            found.append(Lever(name=name, tpot_s=tpot, saved=1.0 - tpot / now_s))
    yield from sorted(found, key=lambda lever: lever.tpot_s)


def _changes(deployment: Deployment) -> Iterator[tuple[str, dict[str, Any]]]:
    """Possible changes: name, and changed fields of the deployment."""
    for name, fields in _adapter_changes(deployment):
        try:
            yield name, {"lora": replace(deployment.lora or LoraConfig(), **fields)}
        except GraphsimError:
            continue
    yield from _engine_changes(deployment)


def _adapter_changes(deployment: Deployment) -> Iterator[tuple[str, dict[str, Any]]]:
    """Possible changes of the adapter: name, and changed fields of the adapter."""
    lora = deployment.lora or LoraConfig()
    reserved, used = float(np.max(lora.max_loras)), float(np.max(lora.active_adapters))
    rank, most = float(np.max(lora.largest_rank)), float(np.max(lora.max_lora_rank))
    if reserved > used:
        slots = int(np.ceil(used))
        yield f"as many slots as adapters are active (--max-loras {slots})", {"max_loras": slots}
    least = int((deployment.engine or load_profile(REFERENCE)).limits.reserved(rank))
    if most > least:
        yield f"no more rank than adapters have (--max-lora-rank {least})", {"max_lora_rank": least}
    if rank >= 16:
        half = int(rank // 2)
        changed = {"rank": half, "rank_pattern": {}, "mixed_ranks": (), "max_lora_rank": 0}
        yield f"half the rank ({half})", changed
    attention = {"target_modules": ("attn",), "target_parameters": (), "rank_pattern": {}, "matching": Matching.NAMES}
    yield "attention only", attention
    if lora.kind.simpler:
        yield lora.kind.simpler, {"variant": "lora"}
    if np.max(deployment.parallelism.tp) > 1 and not lora.fully_sharded_loras:
        yield "both factors sharded across the group (--fully-sharded-loras)", {"fully_sharded_loras": True}


def _engine_changes(deployment: Deployment) -> Iterator[tuple[str, dict[str, Any]]]:
    """Possible changes of the engine: name, and changed fields of the deployment."""
    profile = deployment.engine or load_profile(REFERENCE)
    if profile.kernels != "fused" and deployment.lora and deployment.lora.kind.fused:
        yield "fused kernels (engine sglang)", {"engine": "sglang"}
    if profile.launch == "eager":
        yield "a captured graph", {"engine": replace(profile, launch="graph", name=f"{profile.name}, captured")}
    if profile.empty_tile_clocks and profile.grid == "slots":
        yield "a grid over active adapters only", {"engine": replace(profile, grid="active")}


def _flags(lora: LoraConfig, levers: Sequence[Lever], engine: str) -> Iterator[str]:
    """The engine's flags, SGLang's for SGLang and vLLM's for all others; none for adapters that neither loads.

    SGLang counts requests without an adapter as one more (0.5.23, `server_args.py`); vLLM accepts only certain ranks.
    """
    slots, largest = int(np.ceil(np.max(lora.active_adapters))), int(np.ceil(np.max(lora.largest_rank)))
    if not slots or not float(np.max(lora.adapter_share)) or not lora.kind.fused:
        return
    if engine == "sglang":
        more = int(float(np.min(lora.adapter_share)) < 1)
        yield from ("--enable-lora", f"--max-loras-per-batch {slots + more}", f"--max-lora-rank {largest}")
        return
    if largest > _most_rank():
        return
    yield from ("--enable-lora", f"--max-loras {slots}")
    yield f"--max-lora-rank {load_profile('vllm').limits.reserved(float(largest)):.0f}"
    if lora.fully_sharded_loras or any("--fully-sharded-loras" in lever.name for lever in levers):
        yield "--fully-sharded-loras"


def _cautions(choice: str, estimates: dict[str, Estimate], lora: LoraConfig) -> Iterator[str]:
    """Obstacles to the choice, and its costs other than time."""
    chosen = estimates[choice]
    if not np.all(chosen.memory.fits):
        need, have = (
            bytes_text(float(np.max(size))) for size in (chosen.memory.total_bytes, chosen.memory.capacity_bytes)
        )
        yield f"it does not fit: {need} are needed, and the engine takes {have} of a device"
    inference = chosen.inference
    weights = inference.deployment.precision.weights if inference else None
    if choice == "merge" and weights is not None and weights.bytes < 2 and not lora.kind.exact_merge:
        yield f"the base is stored in {weights.name}: merging rounds it again, and unmerging does not restore it"
    largest = float(np.max(lora.largest_rank))
    if choice == "dynamic" and largest > _most_rank():
        yield f"rank {amount_text(largest)} is above what vLLM takes, {amount_text(_most_rank())} (--max-lora-rank)"
    if chosen.caution:
        yield chosen.caution


def _most_rank() -> float:
    """The largest value of vLLM's --max-lora-rank."""
    limit = load_profile("vllm").limits.get("max_lora_rank")
    return max(limit.offered) if limit else np.inf
