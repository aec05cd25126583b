"""How data-parallel devices shard a model: the bytes that each keeps, those gathered temporarily, and the groups.

Facts about the frameworks' code and defaults, each with its source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError, choices_text
from graphsim.training.held import Held, HeldBytes, HeldUnit
from graphsim.units import Num

MEBI = 2.0**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The shards of a kind of data parallelism, and its communication.

    weights, gradients, states: whether each device keeps only its share of them
    regathers: whether a unit's weights are gathered again for the backward pass
    every: whether gradients are reduced in every micro-batch, rather than in the last one
    defers: whether a framework may postpone that to the last one, with whole gradients until then
    bucket_bytes: size of gradient buckets that several units share; 0 = each unit is reduced by itself
    copies: whether buckets take memory in addition to the gradients
    gathers_updates: whether updated weights are gathered after the optimizer
    hides_updates: during the next forward
        pass
    rooted: whether the parts outside the layers are one unit, gathered first and kept to the end
    leaves: whether the trained weights of an otherwise frozen unit are separate units, one per tensor
    """

    weights: bool = False
    gradients: bool = False
    states: bool = False
    regathers: bool = False
    every: bool = False
    defers: bool = False
    bucket_bytes: float = 0.0
    copies: bool = False
    gathers_updates: bool = False
    hides_updates: bool = False
    rooted: bool = False
    leaves: bool = False
    source: str = ""


DEEPSPEED_BUCKET = 5e8 * 2.0
"""Elements in 16 bits."""

RULES = {
    "ddp": Rule(
        bucket_bytes=25.0 * MEBI, copies=True,
        source="torch DistributedDataParallel: bucket_cap_mb 25; gradient_as_bucket_view "
        "False; Accelerate: no_sync in all micro-batches but the last",
    ),
    "zero1": Rule(
        states=True, bucket_bytes=DEEPSPEED_BUCKET, gathers_updates=True,
        source="arXiv 1910.02054; DeepSpeed config: reduce_bucket_size and allgather_bucket_size 5e8",
    ),
    "zero2": Rule(
        states=True, gradients=True, every=True, bucket_bytes=DEEPSPEED_BUCKET, gathers_updates=True,
        source="arXiv 1910.02054; DeepSpeed, runtime/zero/stage_1_and_2.py: gradients are reduced as they are computed",
    ),
    "zero3": Rule(
        weights=True, gradients=True, states=True, regathers=True, every=True,
        source="arXiv 1910.02054; DeepSpeed, runtime/zero/stage3.py",
    ),
    "fsdp1": Rule(
        weights=True, gradients=True, states=True, regathers=True, every=True, defers=True, rooted=True, leaves=True,
        source="torch FullyShardedDataParallel, FULL_SHARD: a flat parameter for each unit, the root's kept for the "
        "backward; no_sync keeps gradients whole; PEFT, fsdp_auto_wrap_policy: trained leaves are units",
    ),
    "fsdp2": Rule(
        weights=True, gradients=True, states=True, regathers=True, every=True, defers=True,
        source="torch fully_shard: a parameter each, reshard_after_forward for all but the root; "
        "set_requires_gradient_sync(False) keeps whole gradients",
    ),
    "shard_grad_op": Rule(
        weights=True, gradients=True, states=True, every=True, defers=True,
        source="torch FullyShardedDataParallel, SHARD_GRAD_OP; fully_shard with reshard_after_forward=False",
    ),
    "distributed_optimizer": Rule(
        states=True, bucket_bytes=40e6 * 4.0, gathers_updates=True, hides_updates=True,
        source="Megatron-LM, core/distributed: bucket_size 40 million or a million for each rank; overlap_grad_reduce, "
        "overlap_param_gather",
    ),
}  # fmt: skip


def rule_of(sharding: str) -> Rule:
    """The rule of that name. Raises ConfigError for an unknown one."""
    if sharding not in RULES:
        raise ConfigError(f"sharding = {sharding!r} is not known; {choices_text(str(sharding), RULES)}")
    return RULES[sharding]


def sums_each(rule: Rule, defers_reduction: bool) -> bool:
    """Whether gradients are summed over devices in each micro-batch.

    defers_reduction: of the recipe
    """
    return rule.every and not (rule.defers and defers_reduction)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """Devices that hold the same weights: `ways` devices shard them, and `replicas` such groups hold copies.

    stride: distance, in device numbers, between members of a sharding group
    """

    ways: Num
    replicas: Num
    stride: Num

    @property
    def all(self) -> Num:
        """Devices that hold the same weights."""
        return self.ways * self.replicas


def groups_of(parallelism: Parallelism, *, experts: bool = False) -> Groups:
    """The devices that share what all data-parallel ranks hold, or the experts of a rank.

    Context-parallel ranks hold the same weights. Devices are counted tensor parallel first, then expert, context and
    data parallel (Megatron-LM, core/parallel_state.py, order tp-cp-ep-dp-pp).
    """
    replicas = parallelism.attention_replicas
    copies = parallelism.cp * (1.0 if experts else replicas)
    shared = np.where(np.greater(parallelism.shard_group, 0), parallelism.shard_group, parallelism.dp)
    return Groups(
        ways=shared * copies,
        replicas=parallelism.dp / shared,
        stride=parallelism.tp * (replicas if experts else 1.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resident:
    """Bytes on a device, data parallelism taken into account.

    weights_bytes, gradients_bytes, states_bytes: bytes of the device's shares
    gathered_bytes: most bytes of units that are gathered at the same time
    bucket_bytes: bytes of gradient buckets
    gradient_share, expert_gradient_share: share of the backward pass's gradients that stays on the device
    update_share: share of the trained weights that this device updates
    """

    weights_bytes: Num
    gradients_bytes: Num
    states_bytes: Num
    gathered_bytes: Num
    bucket_bytes: Num
    gradient_share: Num
    expert_gradient_share: Num
    update_share: Num


def resident(held: HeldBytes, sharding: str, parallelism: Parallelism, units_in_flight: float = 2.0) -> Resident:
    """A device's part of a stage.

    units_in_flight: units whose weights are gathered at once, if they are sharded
    """
    rule = rule_of(sharding)
    ways, expert_ways = (groups_of(parallelism, experts=experts).ways for experts in (False, True))
    shares = [(held.shared, ways), (held.experts, expert_ways)]

    def kept(name: str, shared: bool) -> Num:
        return sum((getattr(part, name) / (each if shared else 1.0) for part, each in shares), start=0.0)

    return Resident(
        weights_bytes=kept("frozen_bytes", rule.weights) + kept("trained_bytes", rule.weights),
        gradients_bytes=kept("gradient_bytes", rule.gradients),
        states_bytes=kept("state_bytes", rule.states),
        gathered_bytes=_gathered(held, rule, units_in_flight) * _several(ways) if rule.weights else 0.0,
        bucket_bytes=_bucket(held, rule) * _several(ways),
        gradient_share=1.0 / (ways if rule.gradients else 1.0),
        expert_gradient_share=1.0 / (expert_ways if rule.gradients else 1.0),
        update_share=1.0 / (ways if rule.states else 1.0),
    )


def _gathered(held: HeldBytes, rule: Rule, units_in_flight: float) -> Num:
    """Weights that are gathered at the same time: all of them if they are not gathered again for the backward pass."""
    if rule.regathers:
        return whole_units(held, units_in_flight)
    return sum((unit_bytes(unit) * unit.times for unit in held.units), start=0.0)


def _several(ways: Num) -> Num:
    """1 with several devices, else 0."""
    return np.minimum(ways - 1.0, 1.0)


def unit_bytes(unit: HeldUnit) -> Num:
    """Bytes of a unit's gathered weights."""
    return sum((part.frozen_bytes + part.gathered_bytes for part in (unit.shared, unit.experts)), start=0.0)


def whole_units(held: HeldBytes, units_in_flight: float) -> Num:
    """Bytes of the largest units gathered at the same time: up to `units_in_flight` layers, and all other parts."""
    layers = [unit_bytes(unit) * min(unit.times, units_in_flight) for unit in held.units if unit.times > 1]
    apart = sum((unit_bytes(unit) for unit in held.units if unit.times == 1), start=0.0)
    largest: Num = 0.0
    for each in layers:
        largest = np.maximum(largest, each)
    return largest + apart


def _bucket(held: HeldBytes, rule: Rule) -> Num:
    """Gradients that are collected in a bucket before they are reduced; a whole unit's if a framework reduce-scatters
    them.
    """
    total: Held = held.shared + held.experts
    if rule.copies:
        return total.reduced_bytes
    if rule.bucket_bytes:
        return np.minimum(total.reduced_bytes, rule.bucket_bytes) if rule.gradients else 0.0
    largest: Num = 0.0
    for unit in held.units:
        largest = np.maximum(largest, unit.shared.reduced_bytes + unit.experts.reduced_bytes)
    return largest
