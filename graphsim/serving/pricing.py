"""The times of steps and of adapter loads, from a deployment and an engine's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import log2

from graphsim.analysis.lifecycle import Lifecycle, lifecycle_of
from graphsim.compile.step import compile_step
from graphsim.deployment.deployment import Deployment
from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.lora.profile import EngineProfile
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import NO_LIMITS, captured_of, served
from graphsim.serving.prices import Sizes, StepPrices
from graphsim.symbolic.memo import Memo
from graphsim.units import short

DISKS = ("warm", "cold")
"""Whether an adapter's file is in the page cache when it is read."""
USUAL_PROMPT = 512.0


def price_of(
    deployment: Deployment,
    limits: EngineLimits = NO_LIMITS,
    *,
    ranks: Sequence[int] = (),
    shares: Sequence[float] = (),
    adapter_share: float | None = None,
    mean_prompt: float = USUAL_PROMPT,
    samples: bool = False,
    disk: str = "warm",
) -> StepPrices:
    """The prices of a server with these settings.

    ranks: of each adapter of the traffic, where they differ from the LoraConfig's; kernels that pad still pad to its
        max_lora_rank, others use the mean
    shares: how popular each adapter is, in any unit, by which ranks are weighted; all alike without it
    adapter_share: of the traffic's tokens, those that have an adapter; by default the LoraConfig's
    mean_prompt: tokens of a prompt on average, by which a step with many is taken to hold several
    samples: whether tokens are sampled from a cut distribution, which takes the engine's `sampling_s` per token
    disk: whether files of adapters are in the page cache: `warm` or `cold`
    Raises ConfigError for a deployment that cannot be compiled, or ranks without adapters.
    """
    deployment = served(deployment, limits, ranks)
    if adapter_share is not None and deployment.lora is not None:
        deployment = replace(deployment, lora=replace(deployment.lora, adapter_share=adapter_share))
    lora = deployment.adapter
    slots = int(lora.max_loras) if lora is not None and lora.strategy == "dynamic" else 0
    captured, pads = captured_of(deployment, limits)
    known = len(ranks) or len(shares)
    if deployment.engine is not None and 0 < known < slots:
        deployment = replace(deployment, engine=_with_free_slots(deployment.engine, known / slots))
    host = deployment.engine.host if deployment.engine else None
    sizes = Sizes(
        captured=captured, pads=pads, mean_prompt=_rounded(mean_prompt), adapters=slots,
        mean_rank=_mean_rank(ranks, shares) if slots else 0.0,
        adapter_share=float(lora.adapter_share) if lora is not None else 1.0,
        step_s=host.step_s if host is not None else 0.0,
        sequence_s=host.sequence_s + (host.sampling_s if samples else 0.0) if host is not None else 0.0,
    )  # fmt: skip
    step, loads = compile_step(deployment), loads_of(deployment, ranks, disk)
    tables = _tables.get((*step.rests_on, repr(sizes)), lambda: StepPrices(step, sizes, loads))
    return tables.with_loads(loads)


def _with_free_slots(engine: EngineProfile, used: float) -> EngineProfile:
    """The engine if at most this share of its slots is ever in use; equal arguments give the same object."""
    if not engine.host.mapping_slot_s:
        return engine
    host = replace(engine.host, mapping_slot_s=engine.host.mapping_slot_s * used)
    return _engines.get((engine, repr(used)), lambda: replace(engine, host=host))


_engines: Memo[EngineProfile] = Memo(most=8)


def _mean_rank(ranks: Sequence[int], shares: Sequence[float]) -> float:
    """Mean rank of the tokens' adapters, weighted by shares; 0 if the plain mean applies."""
    if not ranks or not shares:
        return 0.0
    if len(shares) != len(ranks) or min(shares) < 0.0 or not sum(shares) > 0.0:
        raise ConfigError(f"shares = {short(shares)} is not allowed; expected one for each of {len(ranks)} adapters")
    return sum(rank * share for rank, share in zip(ranks, shares, strict=True)) / sum(shares)


_tables: Memo[StepPrices] = Memo(most=8)
"""Tables of the latest deployments, shared between runs."""


def _rounded(tokens: float) -> float:
    """Tokens of a mean prompt, to the nearest quarter of a doubling, so that similar loads share their tables."""
    return float(max(2.0 ** (round(4.0 * log2(max(tokens, 1.0))) / 4.0), 1.0))


def loads_of(deployment: Deployment, ranks: Sequence[int] = (), disk: str = "warm") -> Callable[[int, bool], float]:
    """Seconds of an adapter's way into a slot, by its number and whether it comes from disk.

    ranks: of each adapter; without them all have the LoraConfig's
    """
    if disk not in DISKS:
        raise ConfigError(f"disk = {short(disk)} is not allowed; allowed: {', '.join(DISKS)}")
    return _Loads(deployment, tuple(ranks), disk == "cold")


@dataclass(slots=True)
class _Loads:
    """Seconds of an adapter's way into a slot; each rank is simulated once.

    cold: whether nothing of the disk is in the host's page cache
    """

    deployment: Deployment
    ranks: tuple[int, ...]
    cold: bool
    by_rank: dict[float, Lifecycle] = field(default_factory=dict)

    def __call__(self, adapter: int, from_disk: bool) -> float:
        lora = self.deployment.adapter
        if lora is None:
            return 0.0
        rank = float(self.ranks[adapter] if self.ranks else lora.rank)
        life = self.by_rank.get(rank)
        if life is None:
            life = self.by_rank[rank] = lifecycle_of(_of_rank(self.deployment, lora, rank))
        read_s = life.cold_disk_s if self.cold else life.warm_disk_s
        return float(life.load_s) + (float(read_s) if from_disk else 0.0)


def _of_rank(deployment: Deployment, lora: LoraConfig, rank: float) -> Deployment:
    """The deployment with one adapter of a rank."""
    return replace(deployment, lora=replace(lora, mixed_ranks=(), rank=round(rank), active_adapters=1))
