"""Graphs and estimates that the exporters' tests share; built once."""

from __future__ import annotations

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import add
from graphsim.ops import Add, Gemm, Input, Norm

QV = gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"])
MERGE = gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"], strategy="merge")
SHARDED = gs.LoraConfig(rank=16, target_modules=["attn", "ffn"], fully_sharded_loras=True)


@pytest.fixture(scope="session")
def estimates() -> dict[str, gs.Estimate]:
    """Llama-3.1-8B on an H100, four ways."""
    asked = {"batch": 2, "input_tokens": 512, "output_tokens": 64}
    two = gs.Parallelism(tp=2)
    return {
        "base": gs.simulate("llama-3.1-8b", "h100-sxm", **asked),
        "dynamic": gs.simulate("llama-3.1-8b", "h100-sxm", lora=QV, **asked),
        "merge": gs.simulate("llama-3.1-8b", "h100-sxm", lora=MERGE, **asked),
        "tp2": gs.simulate("llama-3.1-8b", "h100-sxm", lora=SHARDED, parallelism=two, **asked),
        "pipeline": gs.simulate("llama-3.1-8b", "h100-sxm", lora=QV, parallelism=gs.Parallelism(pp=2), **asked),
    }


@pytest.fixture(scope="session")
def graphs(estimates: dict[str, gs.Estimate]) -> dict[str, nx.DiGraph]:
    """Graphs of every make: plain, sharded, injected, annotated, scheduled, unrolled, staged, over scenarios."""
    plain = gs.build_graph("llama-3.1-8b", input_tokens=256, lora=QV)
    return {name: estimate.prefill.graph for name, estimate in estimates.items()} | {
        "decode": estimates["dynamic"].decode.graph,
        "plain": plain,
        "annotated": gs.annotate(plain, "h100-sxm"),
        "unrolled": gs.build_graph("gpt2", input_tokens=64, expand=True),
        "windows": gs.build_graph("gemma-2-9b", input_tokens=256),
        "scenarios": gs.build_graph("gpt2", batch=[1, 2, 3], input_tokens=[64, 128, 256]),
    }


HOSTILE = (
    'q"uote', "back\\slash", "ends\\", "<b>bold</b>", "a & b &amp; c", "new\nline", "tab\tand\rreturn", "{rec|ord}",
    "\\N", "\\G\\l", "naïve ünï 漢字 🦙", "", " ", "node", "graph", "]]>", "<!--", "a\x00b", "a\x01b", "';alert(1)//",
    "</script><script>alert(1)</script>", "\ud800",
)  # fmt: skip
"""Names that break what does not escape them."""


@pytest.fixture(scope="session")
def hostile() -> nx.DiGraph:
    """A chain of GEMMs under hostile names and roles."""
    graph = nx.DiGraph()
    last = add(graph, "x", Input(elems=64.0 * 8))
    for name in HOSTILE:
        last = add(graph, name, Gemm(role=name, m=64.0, n=8.0, k=8.0), [last])
    add(graph, "norm", Norm(rows=64.0, width=8.0), [last])
    add(graph, "sum", Add(elems=64.0 * 8), ["norm", "x"])
    return graph
