"""What was there before a step comes from memory in it: kernels were measured in loops, which keep it in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.ops import Attention, CausalConv, Gemm, Op, Repeat, Scan

CASES = [
    ("llama-3.1-8b", "rtx-pro-6000", "vllm", "bf16"), ("llama-3.1-8b", "l40s", "trtllm", "fp8"),
    ("gemma-3-4b", "l4", "vllm", "bf16"), ("qwen3.5-35b-a3b", "l20", "reference", "int4"),
    ("mixtral-8x7b", "rtx-6000-ada", "vllm", "bf16"), ("deepseek-v2-lite", "h200-sxm", "vllm", "bf16"),
    ("llama-3.1-8b", "rtx-pro-6000", "sglang", "fp8,kv=fp8"),
]  # fmt: skip


def priced(graph: nx.DiGraph) -> Iterator[tuple[str, Op, Any]]:
    for name, data in graph.nodes(data=True):
        if isinstance(data["op"], Repeat):
            yield from priced(data["op"].body)
        else:
            yield name, data["op"], data["cost"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_weights_caches_and_states_take_at_least_their_time_from_memory(case: tuple[str, ...]) -> None:
    """Of every layer, although one layer's would fit in the last level of cache, of up to 128 MiB."""
    model, device, engine, precision = case
    hardware = gs.load_hardware(device)
    batch, context = np.array([1.0, 8.0, 64.0]), np.array([4096.0, 1024.0, 128.0])
    found = gs.simulate(model, device, batch, context, 16, engine=engine, precision=precision)
    for name, op, cost in priced(found.decode.graph):
        held = op.work().weight_bytes
        if isinstance(op, Attention):
            held = op.kv_tokens * op.kv_heads * op.read_width * op.kv.bytes
        elif isinstance(op, Scan | CausalConv):
            held = 2.0 * op.state_bytes
        assert np.all(cost.latency_s >= held / hardware.memory_bytes_per_s * (1 - 1e-9)), name


def test_prompts_that_come_from_the_kernel_before_stay_in_the_cache() -> None:
    """Only the cache of a generating step and weights are old; a prompt's keys have just been written."""
    attention = Attention(
        sequences=1.0, query_tokens=512.0, kv_tokens=512.0, pairs=512.0 * 513.0 / 2.0, heads=8.0, kv_heads=8.0,
        head_dim=128.0, value_dim=128.0,
    )  # fmt: skip
    assert attention.lasting_bytes == 0.0
    assert Gemm(m=4.0, n=8.0, k=16.0).lasting_bytes == 8.0 * 16.0 * 2.0
    assert Gemm(m=0.0, n=8.0, k=16.0).lasting_bytes == 0.0
