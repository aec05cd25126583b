"""How many adapters per GPU? Llama-3.1-70B on four H100s, tensor parallel.

Run it: `python graphsim/docs/examples/how_many_adapters.py`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import graphsim as gs
from graphsim.lora.popularity import expected_distinct, zipf

MODEL, DEVICE, ENGINE = "llama-3.1-70b", "h100-sxm", "vllm"
FOUR = gs.Parallelism(tp=4)
ADAPTER = gs.LoraConfig(rank=16, max_lora_rank=16)
KV_TOKENS = 64_000
REGISTERED, BATCH = 100, 32


def slots_that_fit(sharded: bool) -> float:
    """The most adapters held at once together with KV_TOKENS tokens of KV cache."""
    lora = replace(ADAPTER, fully_sharded_loras=sharded)
    return float(gs.adapters_that_fit(MODEL, DEVICE, KV_TOKENS, lora, engine=ENGINE, parallelism=FOUR))


def slot(sharded: bool) -> tuple[float, float]:
    """Bytes of one slot on each device, and the tokens of KV cache that it costs."""
    lora = replace(ADAPTER, fully_sharded_loras=sharded, max_loras=1)
    found = gs.footprint(MODEL, DEVICE, lora, engine=ENGINE, parallelism=FOUR)
    return float(found.slot_bytes), float(found.kv_tokens_per_slot)


def step_times(active: np.ndarray) -> np.ndarray:
    """Seconds per generated token with this many distinct adapters in the batch, a slot for each."""
    lora = replace(ADAPTER, active_adapters=active, max_loras=active)
    return gs.simulate(MODEL, DEVICE, BATCH, 1024, 128, FOUR, lora, engine=ENGINE).tpot_s


def main() -> None:
    """Print what fits, what a slot costs, and what a step costs with it."""
    print(f"{MODEL}, 4 x {DEVICE}, rank {ADAPTER.rank}, {KV_TOKENS:,} tokens of KV cache\n")
    for sharded in (False, True):
        size, tokens = slot(sharded)
        name = "fully sharded" if sharded else "one factor replicated"
        print(f"{name}: {slots_that_fit(sharded):.0f} adapters fit;")
        print(f"  each takes {size / 2**20:.1f} MiB per GPU, or {tokens:.0f} tokens of KV cache")
    distinct = expected_distinct(zipf(REGISTERED, 1.0), BATCH)
    print(f"\n{REGISTERED} adapters, Zipf: {distinct:.1f} distinct ones in a batch of {BATCH}")
    base = float(gs.simulate(MODEL, DEVICE, BATCH, 1024, 128, FOUR, engine=ENGINE).tpot_s)
    active = np.array([1, 4, 16, 32])
    print(f"  no adapter {base * 1e3:6.2f} ms per token")
    for count, tpot in zip(active, step_times(active), strict=True):
        print(f"  {count:2} active  {tpot * 1e3:6.2f} ms per token, {tpot / base - 1:+.0%}")


if __name__ == "__main__":
    main()
