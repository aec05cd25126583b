"""What engines refuse of adapters: ranks, slots, variants, weights trained in addition to the factors, and how factors
are sharded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.deployment.refusals.broken import Broken
from graphsim.graph import walk
from graphsim.lora.limits import Limits
from graphsim.lora.profile import EngineProfile
from graphsim.lora.schemes import SCHEMES
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.ops import Sharding
from graphsim.ops.type_guards import is_expert_gemm
from graphsim.symbolic.questions import is_known
from graphsim.units import Num, amount_text

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment
    from graphsim.lora.config import LoraConfig

ROUNDING = 1.0 + 1e-9
"""Of an expected number of distinct adapters."""


def of_adapters(deployment: Deployment, profile: EngineProfile, *, has_experts: bool) -> Iterator[Broken]:
    """Every rule of adapters that the deployment may break. A merged adapter meets no engine's kernels or slots."""
    lora = deployment.adapter
    if lora is None:
        return
    if lora.strategy == "merge":
        yield Broken(
            rule="merged", where=np.greater(lora.active_adapters, ROUNDING) & _there(lora),
            asked="lora.active_adapters", value=lora.active_adapters, words="merged weights serve one adapter",
            always=True, allowed="1, or strategy dynamic",
        )  # fmt: skip
        return
    yield from _ranks(lora, profile.limits)
    yield from _slots(lora, profile.limits)
    yield from _trained(lora, profile)
    yield from _cuts(deployment, lora, profile, has_experts=has_experts)
    reached = _expert_reached(deployment, lora) if has_experts and profile.limits.get("experts") else ""
    if reached:
        yield Broken(
            rule="experts", where=_there(lora), asked="lora.target_modules", value=_listed(lora),
            told={"module": reached}, allowed="targets without experts, such as attn",
        )  # fmt: skip
    limit = profile.limits.get("kernels")
    device = deployment.hardware
    if limit and device is not None and device.architecture in limit.architectures:
        yield Broken(
            rule="kernels", where=_there(lora), asked="hardware", value=device.name,
            told={"architecture": device.architecture}, allowed="no adapter, a merged one, or another device",
        )  # fmt: skip


def _expert_reached(deployment: Deployment, lora: LoraConfig) -> str:
    """The first expert module that the adapter targets; "" for none."""
    from graphsim.lora.targets import Targets

    model, targets = deployment.model, Targets(lora)
    ops = [op for _, op, _ in walk(build(model, prefill(1.0, 1.0), deployment.precision)) if is_expert_gemm(op)]
    paths = ((op, op.module.replace("{}", str(layer))) for layer in range(model.num_layers) for op in ops)
    return next((path for op, path in paths if targets.key(op, path) is not None), "")


def _listed(lora: LoraConfig) -> str:
    targets = lora.target_modules or lora.target_parameters
    return targets if isinstance(targets, str) else ", ".join(targets)


def _there(lora: LoraConfig) -> Any:
    """Whether there is anything to load: an adapter of rank 0 is the base model."""
    return np.greater(lora.largest_rank, 0.0)


def _ranks(lora: LoraConfig, limits: Limits) -> Iterator[Broken]:
    rank, reserved = lora.largest_rank, lora.max_lora_rank
    given = np.greater(reserved, 0.0) & _there(lora)
    told = {"rank": rank, "max_lora_rank": reserved}
    if limits.get("rank"):
        yield Broken(
            rule="rank", where=given & np.greater(rank, reserved), asked="lora.rank", value=rank, told=told,
            allowed="up to {max_lora_rank}",
        )  # fmt: skip
    offers = limits.get("max_lora_rank")
    if offers:
        offered = ", ".join(amount_text(size) for size in offers.offered)
        for asked, value, here in (
            ("lora.max_lora_rank", reserved, given & _is_none_of(reserved, offers.offered)),
            ("lora.rank", rank, _there(lora) & np.equal(reserved, 0.0)
             & _is_none_of(limits.reserved(rank), offers.offered)),
        ):  # fmt: skip
            yield Broken(
                rule="max_lora_rank", where=here, asked=asked, value=value,
                told={"max_lora_rank": value, "offered": offered}, allowed="{offered}",
            )  # fmt: skip


def _is_none_of(value: Num, offered: tuple[float, ...]) -> Any:
    if is_known(value):
        return ~np.isin(value, offered) if isinstance(value, np.ndarray) else value not in offered
    return reduce(np.logical_and, [np.not_equal(value, size) for size in offered])


def _slots(lora: LoraConfig, limits: Limits) -> Iterator[Broken]:
    limit = limits.get("slots")
    if limit is None:
        return
    base = np.less(lora.adapter_share, 1.0) * 1.0 if limit.base_counts else 0.0
    taken = lora.active_adapters + base
    bounded = np.greater(lora.max_loras, 0.0) & _there(lora)
    yield Broken(
        rule="slots", where=bounded & np.greater(taken, lora.max_loras * ROUNDING),
        asked="lora.active_adapters", value=lora.active_adapters, told={"adapters": taken, "slots": lora.max_loras},
        allowed="up to lora.max_loras = {slots}" + (", base-only requests counted as one" if limit.base_counts else ""),
    )  # fmt: skip


def _trained(lora: LoraConfig, profile: EngineProfile) -> Iterator[Broken]:
    """The weights that are trained in addition to plain factors."""
    limits, there = profile.limits, _there(lora)
    saving = limits.get("modules_to_save")
    saved = [name for name in lora.modules_to_save if saving and name not in saving.but]
    if saved:
        yield Broken(
            rule="modules_to_save", where=True, asked="lora.modules_to_save", value=", ".join(saved),
            told={"module": saved[0]}, allowed=", ".join(saving.but) if saving and saving.but else "none",
        )  # fmt: skip
    if lora.bias and limits.get("bias"):
        yield Broken(
            rule="bias", where=there, asked="lora.bias", value="True", told={"module": "a target"}, allowed="False"
        )
    if lora.left_out and limits.get("left_out"):
        yield Broken(
            rule="left_out", where=there, asked="the adapter's file", value=", ".join(lora.left_out),
            kind=lora.left_out[0], told={"parts": ", ".join(lora.left_out)}, allowed="none of these",
        )  # fmt: skip
    if profile.kernels == "fused" and not lora.kind.fused:
        others = "engine peft or reference" + ("" if lora.kind.unmerged else ", or strategy merge")
        yield Broken(
            rule="variant", where=there, asked="lora.variant", value=lora.variant, kind=lora.variant, allowed=others
        )


def _cuts(deployment: Deployment, lora: LoraConfig, profile: EngineProfile, *, has_experts: bool) -> Iterator[Broken]:
    """Factors sharded over a tensor-parallel group come in whole ranks: those reserved, where buffers are padded."""
    tp, ep = deployment.parallelism.tp, deployment.parallelism.ep
    engine = profile if deployment.engine is not None else None
    scheme = lora.chosen_scheme or (engine.tensor_parallel if engine else "vllm")
    dealt: Mapping[str, Num] = lora.kind.dealt(lora)
    padded = not dealt and engine is not None and engine.storage == "padded"
    cut = dict(dealt)
    if not dealt and SCHEMES[scheme].column_a is Sharding.COLUMN:
        if padded:
            cut = {"max_lora_rank": profile.limits.reserved(np.maximum(lora.max_lora_rank, lora.largest_rank))}
        else:
            cut = {"rank": lora.rank, **{f"rank_pattern.{name}": rank for name, rank in lora.rank_pattern.items()}}
    for name, value in cut.items():
        by = f"variant '{lora.variant}'" if dealt else f"tp_scheme '{scheme}'"
        yield Broken(
            rule="fully_sharded",
            where=np.greater(tp, 1.0) & np.not_equal(np.mod(value, tp), 0.0) & _there(lora),  # ranks may be a mean
            asked=f"lora.{name}", value=value,
            told={"rank": value, "tp": tp, "by": by}, allowed="a multiple of {tp}", always=not padded,
            words="" if padded else "{rank} is not divisible by {tp}, with {by} and tp = {tp}",
        )  # fmt: skip
    if has_experts and lora.chosen_scheme == "fully-sharded" and profile.limits.get("fully_sharded_experts"):
        yield Broken(
            rule="fully_sharded_experts", where=np.greater(ep, 1.0) & _there(lora), asked="lora.fully_sharded_loras",
            value="True", told={"ep": ep}, allowed="False with parallelism.ep = {ep}",
        )  # fmt: skip
