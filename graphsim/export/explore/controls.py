"""The controls of a page."""

from __future__ import annotations

from typing import Any

from graphsim.lora.config import LoraConfig

_FEW = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

OPTIONS: dict[str, tuple[float, ...]] = {
    "batch": _FEW,
    "input_tokens": tuple(float(2**e * odd) for e in range(4, 17) for odd in (1.0, 1.5)) + (131072.0,),
    "output_tokens": (1.0, *[2.0**e * odd for e in range(3, 13) for odd in (1.0, 1.5)], 8192.0),
    "dp": (1, 2, 4, 8, 16),
    "rank": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "active_adapters": (1, 2, 4, 8, 16, 32, 64, 128),
    "max_loras": (0, 1, 2, 4, 8, 16, 32, 64, 128),
    "adapter_share": (0.125, 0.25, 0.5, 0.75, 1.0),
}
"""The positions of each slider; initial and typed values may lie between."""


def options_of(start: dict[str, Any], adapter: LoraConfig) -> dict[str, list[float]]:
    """The positions of each slider, including its initial value; only one if the adapter's field is not numeric."""
    fixed = {"rank": bool(adapter.mixed_ranks), "active_adapters": bool(adapter.shares)}
    return {
        name: sorted({*(() if fixed.get(name) else map(float, places)), float(start[name])})
        for name, places in OPTIONS.items()
    }
