"""From an engine's settings and a device to the tiers of its KV cache: how much each holds, and how fast it is.

A block of b bytes on each of n devices comes from the host's memory in b / (rate of the host link), over which each
device has its own; from the one disk of the server in n b / (rate of the disk), or in the former where that is longer.
An engine that writes through has copies in a tier of what is on the device or in a nearer tier, too, so that only the
rest of its room is a gain; one that writes back has not.
"""

from __future__ import annotations

import numpy as np

from graphsim.analysis.slots import Footprint
from graphsim.deployment.deployment import Deployment
from graphsim.errors import ConfigError
from graphsim.lora.profile import EngineProfile
from graphsim.serving.engine_flags import Settings
from graphsim.serving.offloading import Tier

MOST_BLOCKS = 2**50
HOST_SIZES = ("kv_host", "kv_host_rank", "kv_host_ratio")
HICACHE_RATIO = 2.0
"""Size of the host's tier over the device's cache by default: SGLang's default (`--hicache-ratio`)."""


def tiers_of(
    deployment: Deployment, engine: EngineProfile, space: Footprint, settings: Settings, blocks: int, block_tokens: int
) -> tuple[Tier, ...]:
    """The tiers of a server, nearest first; none where none is asked for.

    space: of its memory
    blocks, block_tokens: of its cache on the device
    Raises ConfigError where there is nothing to keep in one, or the speed of the host's link is not stated.
    """
    hosts, disk = _host_bytes(deployment, space, settings, blocks * block_tokens), float(settings.get("kv_disk", 0.0))
    if hosts <= 0.0 and disk <= 0.0:
        return ()
    if not settings.get("prefix_cache", engine.scheduler.prefix_cache):
        raise ConfigError("limits: tiers of the KV cache keep prefixes, but prefix caching is off; switch it on")
    each = float(space.kv_token_bytes) * block_tokens
    if not each > 0.0:
        raise ConfigError(f"limits: '{deployment.model.name}' keeps no keys and values that a tier could take")
    link, devices = deployment.device.host_link, float(np.max(deployment.parallelism.devices))
    rate = float(settings.get("kv_host_rate", link.bytes_per_s))
    if not rate > 0.0:
        raise ConfigError(
            f"limits: hardware '{deployment.device.name}' has no host_link; add one to its file, or give kv_host_rate"
        )
    through = settings.get("kv_writes", "back" if engine.scheduler.flags == "trtllm" else "through") == "through"
    host_blocks, disk_blocks = _whole(hosts / each), _whole(disk / devices / each)
    if through:
        host_blocks, disk_blocks = host_blocks - blocks, disk_blocks - max(blocks, host_blocks)
    host_s = each / rate
    disk_s = max(host_s, each * devices / float(settings.get("kv_disk_rate", engine.cold_disk_bytes_per_s)))
    setup_s = float(link.latency_s)
    return (
        Tier(name="host", blocks=max(host_blocks, 0), setup_s=setup_s, block_s=host_s),
        Tier(name="disk", blocks=max(disk_blocks, 0), setup_s=setup_s, block_s=disk_s),
    )


def tier_notes(tiers: tuple[Tier, ...]) -> tuple[str, ...]:
    """Caveats on a server with tiers."""
    if tiers and not any(tier.blocks for tier in tiers):
        return (
            "tiers of the KV cache hold no more than the device's cache, of which they have copies, too: nothing is "
            "gained; make them larger, or write back what leaves the device alone (kv_writes = 'back')",
        )
    return ()


def _host_bytes(deployment: Deployment, space: Footprint, settings: Settings, cache_tokens: int) -> float:
    """Host memory in bytes for each device."""
    given = [name for name in HOST_SIZES if name in settings]
    if len(given) > 1:
        raise ConfigError(f"limits: {' and '.join(given)} say the size of the host's tier; leave one out")
    if "kv_host" in settings:
        return float(settings["kv_host"]) / float(np.max(deployment.parallelism.devices))
    if "kv_host_rank" in settings:
        return float(settings["kv_host_rank"])
    ratio = settings.get("kv_host_ratio", HICACHE_RATIO if settings.get("kv_tiers") else 0.0)
    return float(ratio) * float(space.kv_token_bytes) * cache_tokens


def _whole(blocks: float) -> int:
    return int(min(blocks + 1e-9, MOST_BLOCKS))
