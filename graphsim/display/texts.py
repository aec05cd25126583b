"""An estimate in six lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.brief import range_text
from graphsim.display.intervals import interval_text
from graphsim.units import Num, amount_text, bytes_text, seconds_text, throughput_text

if TYPE_CHECKING:
    from graphsim.deployment.basis import Basis
    from graphsim.display.shown import ShownEstimate


def estimate_text(estimate: ShownEstimate, basis: Basis, settings: dict[str, Any]) -> str:
    """Six lines: basis, settings, three times with their intervals (one with the throughput), and memory."""
    several = np.size(estimate.latency_s) > 1
    ends = {} if several else estimate.intervals()

    def figure(name: str, shown: Callable[[float], str]) -> str:
        value: Num = getattr(estimate, name)
        if name not in ends:
            return range_text(value, shown)
        low, high = ends[name]
        return interval_text(float(value), (float(low), float(high)), shown)

    memory = estimate.memory
    fits = "fits" if np.all(memory.fits) else "does not fit" if not np.any(memory.fits) else "some do not fit"
    used, room = (range_text(size, bytes_text) for size in (memory.total_bytes, memory.capacity_bytes))
    return "\n".join(
        (
            str(basis),
            asked_text(settings) + (f"; {np.size(estimate.latency_s)} scenarios" if several else ""),
            f"time to first token    {figure('ttft_s', seconds_text)}",
            f"time per output token  {figure('tpot_s', seconds_text)}",
            f"whole batch            {figure('latency_s', seconds_text)}, "
            f"{range_text(estimate.tokens_per_s, throughput_text)}",
            f"memory per device      {used} of {room}, {fits}",
        )
    )


def asked_text(settings: dict[str, Any]) -> str:
    """`batch 8, 512 tokens in, 128 out, lora rank 16 dynamic`."""
    texts = [range_text(settings[name], amount_text) for name in _REQUESTS]
    adapter = f", {adapter_text(settings['lora'])}" if settings.get("lora") else ""
    return f"batch {texts[0]}, {texts[1]} tokens in, {texts[2]} out{adapter}"


def adapter_text(lora: Mapping[str, Any]) -> str:
    """`lora rank 16 dynamic`.

    lora: the fields of a `LoraConfig` by name
    """
    return f"{lora['variant']} rank {range_text(lora['rank'], amount_text)} {lora['strategy']}"


_REQUESTS = ("batch", "input_tokens", "output_tokens")
