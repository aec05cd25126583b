"""Which adapter is evicted from a full tier: slots of the device, or host memory.

Every policy assigns a value to keeping an adapter; the one with the least value is evicted. Among equal ones the least
recently used is evicted, then the one with the lowest number, so that a run does not depend on the order in which a
step's adapters are noted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from graphsim.errors import ConfigError, choices_text
from graphsim.serving.rules import EVICTIONS
from graphsim.traffic.table import BASE


@dataclass(slots=True, kw_only=True)
class Usage:
    """An adapter in a tier.

    entered_s: when it was loaded
    last_s: when it was last in a batch, or was loaded
    uses: number of requests it was used for, in the whole run
    size: the cost of loading it again, in any unit that all adapters share (rank, bytes)
    """

    entered_s: float
    last_s: float
    uses: int = 0
    size: float = 1.0


def victim(
    policy: str,
    tier: Mapping[int, Usage],
    stays: Collection[int],
    now: float,
    weights: tuple[float, float, float],
) -> int | None:
    """The adapter that a tier evicts; None where none may be evicted.

    policy: `lru` the one unused for longest; `fifo` the one loaded first; `lfu` the one used for the fewest requests;
        `size` the one with the least uses times size, the expected cost of loading it again; `scored` the one with the
        least weighted sum of frequency, recency and size (Chameleon, MICRO 2025), each from 0 to 1 among the candidates
    tier: in the order of last use
    stays: adapters that may not be evicted
    weights: of frequency, recency and size
    The base model's own slot (`BASE`, SGLang's) is evicted only if nothing else can be (SGLang,
    `srt/lora/eviction_policy.py`).
    """
    leaving = (adapter for adapter in tier if adapter not in stays and adapter != BASE)
    if policy == "lru":
        found = _first_used(tier, leaving)
    else:
        candidates = list(leaving)
        worth = _WORTH[policy]({adapter: tier[adapter] for adapter in candidates}, now, weights)
        found = min(candidates, key=lambda a: (worth(tier[a]), tier[a].last_s, a), default=None)
    return BASE if found is None and BASE in tier and BASE not in stays else found


def _first_used(tier: Mapping[int, Usage], leaving: Iterable[int]) -> int | None:
    """The first in a tier's order, and of those last used at the same time the one with the lowest number."""
    found: int | None = None
    for adapter in leaving:
        if found is None:
            found = adapter
        elif tier[adapter].last_s > tier[found].last_s:
            break
        else:
            found = min(found, adapter)
    return found


Worth = Callable[[Usage], float]


def _scored(tier: Mapping[int, Usage], now: float, weights: tuple[float, float, float]) -> Worth:
    def most(values: Iterable[float]) -> float:
        return max(values, default=0.0) or 1.0

    uses, size = most(usage.uses for usage in tier.values()), most(usage.size for usage in tier.values())
    age = most(now - usage.last_s for usage in tier.values())
    frequency, recency, weight = weights
    return lambda usage: (
        frequency * usage.uses / uses + recency * (1.0 - (now - usage.last_s) / age) + weight * usage.size / size
    )


_WORTH: dict[str, Callable[[Mapping[int, Usage], float, tuple[float, float, float]], Worth]] = {
    "fifo": lambda tier, now, weights: lambda usage: usage.entered_s,
    "lfu": lambda tier, now, weights: lambda usage: usage.uses,
    "size": lambda tier, now, weights: lambda usage: usage.uses * usage.size,
    "scored": _scored,
}


def checked_eviction(policy: str) -> str:
    """A checked policy name; raises ConfigError for an unknown one."""
    if policy not in EVICTIONS:
        raise ConfigError(f"eviction = '{policy}' is not known; {choices_text(policy, EVICTIONS)}")
    return policy
