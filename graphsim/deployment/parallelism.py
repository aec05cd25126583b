"""How many devices share the work, and in which way."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.ops.expert_ranks import PLACEMENTS
from graphsim.units import Num, checked_number, short

MOST_DEVICES = 10**6
"""Largest degree of parallelism that is taken for a meaningful number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """How many devices share the work, and in which way.

    tp: tensor parallel; pp: pipeline stages; dp: replicas that share the batch
    ep: ranks that the experts are dealt out to. Up to tp, they are the tensor-parallel group's own; beyond, attention
        runs in ep / tp replicas that share the batch and exchange tokens with the experts' devices
    sp: sequence parallel along the tensor-parallel group (arXiv 2205.05198): 1 or tp
    micro_batches: the pipeline's; 0 = as many as stages, but no more than sequences
    expert_placement: how experts lie on their ranks, which counts where some are more popular than others: `random`,
        by numbers that have nothing to do with it (the engines' default), `contiguous`, the most popular ones
        together, or `balanced`, as a load balancer (EPLB) does
    redundant_experts: copies of popular experts in all, which only a balanced placement has
    """

    tp: Num = 1
    pp: int = 1
    ep: Num = 1
    sp: Num = 1
    dp: Num = 1
    micro_batches: int = 0
    expert_placement: str = "random"
    redundant_experts: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError unless every degree is a whole number of at least 1.

        pp, micro_batches, redundant_experts and whether there is sequence parallelism shape the graph: the same for
        all scenarios.
        """
        for field in fields(self):
            if field.name == "expert_placement":
                continue
            counts = ("micro_batches", "redundant_experts")
            least, one = 0 if field.name in counts else 1, field.name in ("pp", *counts)
            value = checked_number(f"parallelism.{field.name}", getattr(self, field.name), least, MOST_DEVICES, one=one)
            object.__setattr__(self, field.name, value)
        alike = np.ndim(self.sp) == 0 or np.ndim(self.tp) == 0 or np.shape(self.sp) == np.shape(self.tp)
        if not (np.all(np.equal(self.sp, 1)) or (alike and np.all(np.equal(self.sp, self.tp)))):
            raise ConfigError(
                f"parallelism.sp = {short(self.sp)} is not allowed with tp = {short(self.tp)}; "
                "expected 1, or tp in every scenario"
            )

        self._check_placement()
        smaller = np.minimum(np.asarray(self.tp), np.asarray(self.ep))
        if np.any(np.maximum(np.asarray(self.tp), np.asarray(self.ep)) % smaller):
            raise ConfigError(
                f"parallelism.ep = {self.ep} is not allowed with tp = {self.tp}; one must be a multiple of the other"
            )

    def _check_placement(self) -> None:
        if self.expert_placement not in PLACEMENTS:
            raise ConfigError(
                f"parallelism.expert_placement = {self.expert_placement!r} is not known; "
                f"{choices_text(str(self.expert_placement), PLACEMENTS)}"
            )
        if self.redundant_experts and self.expert_placement != "balanced":
            raise ConfigError(
                f"parallelism.redundant_experts = {self.redundant_experts} is not allowed with expert_placement = "
                f"'{self.expert_placement}'; expected 0, or 'balanced'"
            )
        if np.any((np.asarray(self.ep) == 1) & (self.redundant_experts > 0)):
            raise ConfigError(
                f"parallelism.redundant_experts = {self.redundant_experts} is not allowed with ep = {short(self.ep)}; "
                "expected several ranks for copies to lie on"
            )

    @property
    def attention_replicas(self) -> Num:
        """Replicas of the attention that one set of experts serves."""
        return attention_replicas(self.tp, self.ep)

    @property
    def devices(self) -> Num:
        """Devices in all."""
        return device_count(tp=self.tp, pp=self.pp, ep=self.ep, dp=self.dp)


def attention_replicas(tp: Num, ep: Num) -> Num:
    """Replicas of the attention that one set of experts serves: experts spread beyond the tensor-parallel group."""
    return np.maximum(ep / tp, 1.0)


def device_count(*, tp: Num, pp: Num, ep: Num, dp: Num) -> Num:
    """Devices in all: tp · pp · dp · max(ep / tp, 1)."""
    return tp * attention_replicas(tp, ep) * pp * dp
