"""The rules by which an engine's scheduler fills its steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from graphsim.lora.scheduler import ADMISSIONS as ADMISSIONS
from graphsim.lora.scheduler import EVICTIONS as EVICTIONS
from graphsim.lora.scheduler import POLICIES as POLICIES
from graphsim.lora.scheduler import SHORTAGES as SHORTAGES
from graphsim.serving.offloading import Tier
from graphsim.speculation.drafted import Drafted

ORDERS = ("mixed", "prefill_first")
LOADS = ("stall", "overlapped")
CHAMELEON_WEIGHTS = (0.45, 0.10, 0.45)
"""Frequency, recency and size in Chameleon's score (Iliakopoulou et al., MICRO 2025; quoted from memory)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRules:
    """Slots and tiers of adapters.

    max_loras: most distinct adapters of one step, and slots; 0 where no adapters are served
    max_cpu_loras: adapters in host memory, including those in slots; disk holds all
    skips: whether a request whose adapter does not fit is skipped; otherwise all requests after it wait
    skip_s: seconds that this takes in each step, per skipped request
    loads: whether a load stalls the batch or overlaps with steps (the request waits, the others run)
    eviction: which adapter leaves a slot or host memory
    weights: of frequency, recency and size for `scored`,
        Chameleon's by default
    prefetch: number of adapters of waiting requests that are loaded into free slots before their turn
    preloaded: whether host memory is filled before the first request arrives, as with SGLang's --lora-paths
    pinned: adapters that are never evicted
    base_takes_place: whether base requests in a step count as one adapter
        (SGLang)
    drain_after_s: seconds of waiting after which an adapter counts as starving, so that requests of others are held
        back (SGLang's drainer)
    """

    max_loras: int = 0
    max_cpu_loras: int = 0
    skips: bool = True
    skip_s: float = 0.0
    loads: str = "stall"
    eviction: str = "lru"
    weights: tuple[float, float, float] = CHAMELEON_WEIGHTS
    prefetch: int = 0
    preloaded: bool = False
    pinned: tuple[int, ...] = ()
    base_takes_place: bool = False
    drain_after_s: float = inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A scheduler's rules, resolved for one deployment.

    kv_blocks: blocks of the cache, of block_tokens tokens each
    max_model_len: most tokens of a request, prompt and
        answer
    max_num_batched_tokens, max_num_seqs: most tokens and sequences of a step
    long_prefill_token_threshold: most tokens
        of one prompt in a step, 0 for no limit
    order: `mixed` (running requests first, prompts in the same step) or `prefill_first` (a step with prompts has
        nothing else)
    chunked: whether a prompt may be split to fit; chunks: most prompts that are split at a time
    admission, watermark, shortage, policy, prefix_cache: as in `graphsim.lora.scheduler.EngineScheduler`
    new_token_ratio, ratio_decay, least_ratio: share of remaining tokens that is reserved, its decrease per step, its
        minimum
    prefill_interval: steps between two admissions (1: every step)
    async_scheduling: whether a step is planned while
        the previous one runs
    receive_steps: decode steps between two looks for new requests
    wait_steps, wait_share: steps for which prompts wait until they fill this share of a step
    drafted: tokens that a draft proposes per sequence; None without speculation
    tiers: tiers of the KV cache below device memory, nearest first
    tier_reads: whether a step waits until what it
        needs of them has been loaded (`stall`), or computes meanwhile, layer by layer, and takes the longer of both
        times
    """

    kv_blocks: int
    block_tokens: int = 16
    max_model_len: float = inf
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 256
    long_prefill_token_threshold: int = 0
    order: str = "mixed"
    chunked: bool = True
    admission: str = "blocks"
    watermark: float = 0.0
    shortage: str = "last"
    policy: str = "fcfs"
    prefix_cache: bool = True
    new_token_ratio: float = 0.7
    ratio_decay: float = 0.001
    least_ratio: float = 0.1
    prefill_interval: int = 1
    async_scheduling: bool = False
    receive_steps: int = 1
    wait_steps: int = 0
    wait_share: float = 0.0
    adapters: AdapterRules = AdapterRules()
    drafted: Drafted | None = None
    tiers: tuple[Tier, ...] = ()
    tier_reads: str = "stall"

    @property
    def piece_tokens(self) -> int:
        """Most tokens of one prompt in a step, where prompts are split."""
        return min(self.long_prefill_token_threshold or self.max_num_batched_tokens, self.max_num_batched_tokens)
