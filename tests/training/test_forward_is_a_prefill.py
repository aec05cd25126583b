"""The forward pass of a training step computes what a prefill of the same tokens does, but for the head's rows."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.ops.direction import Direction

LORA = gs.LoraConfig(rank=16, target_modules=["attn"])


def flops(graph: nx.DiGraph) -> Counter[str]:
    """Floating-point operations by kind of operation, of what runs forward; without the head, which serves one row."""
    found = Counter[str]()
    for name, op, times in walk(graph):
        if op.direction is Direction.FORWARD and not op.once and not name.endswith("lm_head"):
            found[type(op).__name__] += float(op.work().flops) * times
    return found


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize(
    ("model", "degrees"),
    [
        ("llama-3.1-8b", {}), ("gemma-2-9b", {"tp": 2}), ("gpt-2", {}), ("mixtral-8x7b", {"tp": 8}),
        ("qwen3-30b-a3b", {"tp": 4, "ep": 4}), ("deepseek-v2-lite", {}), ("qwen3-next-80b-a3b", {"tp": 8}),
        ("falcon-mamba-7b", {}), ("nemotron-nano-9b-v2", {}),
    ],
)  # fmt: skip
def test_training_forward_is_a_prefill(model: str, degrees: dict[str, int], lora: gs.LoraConfig | None) -> None:
    parallelism = gs.Parallelism(**degrees)
    step = gs.train(
        model, "h200-sxm", batch=2, seq_len=1024, method="lora" if lora else "full", lora=lora, recipe="peft",
        parallelism=parallelism,
    )  # fmt: skip
    prefill = gs.simulate(
        model, "h200-sxm", batch=2, input_tokens=1024, output_tokens=1, lora=lora, engine="peft",
        parallelism=parallelism,
    )  # fmt: skip
    trained, served = flops(step.graph), flops(prefill.prefill.graph)
    products = {"Gemm", "ExpertGemm", "Attention", "MlaAttention", "Scan", "LoraA", "LoraB"} & {*trained}
    assert products >= ({"Gemm", "LoraA", "LoraB"} if lora else {"Gemm"})
    for kind in products:
        assert trained[kind] == pytest.approx(served[kind], rel=1e-9), kind
    assert products == products & {*served}
