"""How many devices share the work, and in which way."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np

from graphsim.brief import settings_text
from graphsim.deployment.scenarios import scenarios_in
from graphsim.errors import ConfigError, as_allowed, choices_text
from graphsim.ops.expert_ranks import PLACEMENTS
from graphsim.units import Num, checked_number, short

MOST_DEVICES = 10**6
"""Largest allowed degree of parallelism."""

CONTEXT_EXCHANGES = ("p2p", "a2a", "all_gather")
"""How context-parallel ranks obtain each other's keys and values, in Megatron's terms (`cp_comm_type`)."""

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe")
"""Orders in which the stages of a pipeline train their micro-batches (`graphsim.training.schedules`)."""

_CHOICES = {"expert_placement": tuple(PLACEMENTS), "schedule": SCHEDULES, "cp_comm": CONTEXT_EXCHANGES}
"""Fields that are one of a few names."""

_NAMES = ("expert_placement", "schedule", "cp_comm")
_COUNTS = {"micro_batches": 0, "redundant_experts": 0, "zero": 0, "shard_group": 0}
"""Fields that may be less than 1, with their least values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """How many devices share the work, and how.

    tp: tensor-parallel degree
    pp: number of pipeline stages
    ep: expert-parallel degree: number of ranks over which the experts are distributed. Up to tp, these are ranks of the
        tensor-parallel group; beyond it, attention runs in ep / tp replicas that share the batch and exchange tokens
        with the ranks of the experts
    sp: sequence parallelism within the tensor-parallel group (arXiv 2205.05198): 1 or tp
    dp: number of replicas that share the batch
    micro_batches: number of micro-batches of the pipeline; 0 for as many as stages, but at most sequences
    expert_placement: how experts are assigned to ranks, which matters if some are more popular: `random` (independent
        of popularity, the engines' default), `contiguous` (the most popular ones together), or `balanced` (by a load
        balancer such as EPLB)
    redundant_experts: total number of extra copies of popular experts; only with balanced placement
    cp: context-parallel degree: number of ranks that share the tokens of each sequence and, like replicas, hold the
        same weights. In inference they share prompts and, where the engine shards it over them, the KV cache

    The remaining fields are for training; inference accepts only their defaults.
    cp_comm: how context-parallel ranks exchange keys and values: `p2p` in a ring (arXiv 2310.01889), `a2a` between
        tokens and heads (arXiv 2309.14509), or `all_gather`; an engine has its own way (`EngineProfile`)
    zero: what data-parallel ranks shard (ZeRO, arXiv 1910.02054): 1 optimizer states, 2 also gradients, 3 also weights;
        0 for the trainer's default
    shard_group: number of data-parallel ranks that shard among themselves, with replicas beyond (hybrid sharding); 0
        for all
    schedule: order of forward and backward passes in a pipeline: `gpipe`, `1f1b`, `interleaved` (arXiv 2104.04473),
        `zb-h1`, `zb-h2` (arXiv 2401.10241), `zb-v` (arXiv 2405.15362), `dualpipe` (arXiv 2412.19437)
    virtual_stages: number of parts of the model on each stage of an interleaved pipeline
    """

    tp: Num = 1
    pp: int = 1
    ep: Num = 1
    sp: Num = 1
    dp: Num = 1
    micro_batches: int = 0
    expert_placement: str = "random"
    redundant_experts: int = 0
    cp: Num = 1
    cp_comm: str = "p2p"
    zero: Num = 0
    shard_group: Num = 0
    schedule: str = "1f1b"
    virtual_stages: int = 1

    def __repr__(self) -> str:
        return settings_text(self, always=("tp",))

    def __post_init__(self) -> None:
        """Raise ConfigError unless every degree is a whole number of at least 1.

        pp, virtual_stages, micro_batches, redundant_experts and whether there is sequence parallelism shape the graph:
        the same for all scenarios.
        """
        for name, one in _numbers():
            least, most = _COUNTS.get(name, 1), 3 if name == "zero" else MOST_DEVICES
            value = checked_number(f"parallelism.{name}", getattr(self, name), least, most, one=one)
            object.__setattr__(self, name, value)
        alike = np.ndim(self.sp) == 0 or np.ndim(self.tp) == 0 or np.shape(self.sp) == np.shape(self.tp)
        if _any(self.sp != 1) and (not alike or _any(self.sp != self.tp)):
            raise ConfigError(
                f"parallelism.sp = {short(self.sp)} is not allowed with tp = {short(self.tp)}; "
                "expected 1, or tp in every scenario"
            )
        scenarios_in(self)
        for name, allowed in _CHOICES.items():
            object.__setattr__(self, name, as_allowed(getattr(self, name), allowed))
        self._check_placement()
        self._check_training()
        if _any((self.tp % self.ep != 0) & (self.ep % self.tp != 0)):
            raise ConfigError(
                f"parallelism.ep = {self.ep} is not allowed with tp = {self.tp}; one must be a multiple of the other"
            )

    def _check_placement(self) -> None:
        if not isinstance(self.expert_placement, str) or self.expert_placement not in PLACEMENTS:
            raise ConfigError(
                f"parallelism.expert_placement = {short(self.expert_placement)} is not known; "
                f"{choices_text(str(self.expert_placement), PLACEMENTS)}"
            )
        if self.redundant_experts and self.expert_placement != "balanced":
            raise ConfigError(
                f"parallelism.redundant_experts = {self.redundant_experts} is not allowed with expert_placement = "
                f"'{self.expert_placement}'; expected 0, or 'balanced'"
            )
        if self.redundant_experts and _any(self.ep == 1):
            raise ConfigError(
                f"parallelism.redundant_experts = {self.redundant_experts} is not allowed with ep = {short(self.ep)}; "
                "expected ep above 1, since copies lie on other ranks"
            )

    def _check_training(self) -> None:
        if not isinstance(self.cp_comm, str) or self.cp_comm not in CONTEXT_EXCHANGES:
            raise ConfigError(
                f"parallelism.cp_comm = {short(self.cp_comm)} is not known; "
                f"{choices_text(str(self.cp_comm), CONTEXT_EXCHANGES)}"
            )
        if not isinstance(self.schedule, str) or self.schedule not in SCHEDULES:
            raise ConfigError(
                f"parallelism.schedule = {short(self.schedule)} is not known; "
                f"{choices_text(str(self.schedule), SCHEDULES)}"
            )
        if self.virtual_stages > 1 and self.schedule != "interleaved":
            raise ConfigError(
                f"parallelism.virtual_stages = {self.virtual_stages} is not allowed with schedule = '{self.schedule}'; "
                "expected 1, or 'interleaved'"
            )
        if self.virtual_stages > 1 and self.pp == 1:
            raise ConfigError(
                f"parallelism.virtual_stages = {self.virtual_stages} is not allowed with pp = 1; expected 1, or more "
                "stages"
            )
        if self.schedule == "dualpipe" and self.pp % 2 and self.pp > 1:
            raise ConfigError(
                f"parallelism.pp = {self.pp} is not allowed with schedule = 'dualpipe'; expected an even number"
            )
        if _any(self.shard_group != 0) and _any(self.dp % np.maximum(self.shard_group, 1) != 0):
            raise ConfigError(
                f"parallelism.shard_group = {short(self.shard_group)} is not allowed with dp = {short(self.dp)}; "
                "expected 0 or a divisor of dp"
            )

    @property
    def training_only(self) -> dict[str, Num | str]:
        """The fields for training that differ from their defaults."""
        names = ("cp_comm", "zero", "shard_group", "schedule", "virtual_stages")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if _any(value != getattr(ONE_DEVICE, name))}

    @property
    def attention_replicas(self) -> Num:
        """Number of attention replicas that share one set of experts."""
        return attention_replicas(self.tp, self.ep)

    @property
    def devices(self) -> Num:
        """Total number of devices."""
        return device_count(tp=self.tp, pp=self.pp, ep=self.ep, dp=self.dp, cp=self.cp)


@cache
def _numbers() -> tuple[tuple[str, bool], ...]:
    """The fields that are numbers, and whether each is the same for all scenarios."""
    return tuple([(field.name, field.type == "int") for field in fields(Parallelism) if field.name not in _NAMES])


def _any(condition: Any) -> bool:
    """Whether a condition holds in some scenario."""
    return condition if isinstance(condition, bool) else bool(np.any(condition))


def attention_replicas(tp: Num, ep: Num) -> Num:
    """Replicas of the attention that one set of experts serves: experts spread beyond the tensor-parallel group."""
    return np.maximum(ep / tp, 1.0)


def device_count(*, tp: Num, pp: Num, ep: Num, dp: Num, cp: Num = 1) -> Num:
    """Devices in all: tp · pp · cp · dp · max(ep / tp, 1)."""
    return tp * attention_replicas(tp, ep) * pp * dp * cp


ONE_DEVICE = Parallelism()
"""A single device."""
