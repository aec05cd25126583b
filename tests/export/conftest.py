"""Graphs and estimates that the exporters' tests share; built once."""

from __future__ import annotations

import sys

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import add
from graphsim.ops import Add, Gemm, Input, Norm

QV = gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"])
MERGE = gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"], strategy="merge")
SHARDED = gs.LoraConfig(rank=16, target_modules=["attn", "ffn"], fully_sharded_loras=True)


EXPERTS = {
    "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": 512, "intermediate_size": 1024,
    "num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 4, "num_local_experts": 8,
    "num_experts_per_tok": 2, "vocab_size": 1000, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096,
}  # fmt: skip
STATE_SPACE = {
    "model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"], "hidden_size": 256, "num_hidden_layers": 4,
    "vocab_size": 1000, "num_heads": 8, "head_dim": 64, "state_size": 64, "n_groups": 1, "expand": 2, "conv_kernel": 4,
}  # fmt: skip


@pytest.fixture(scope="session")
def estimates() -> dict[str, gs.Estimate]:
    """Llama-3.1-8B on an H100, four ways."""
    asked = {"batch": 2, "input_tokens": 512, "output_tokens": 64}
    two = gs.Parallelism(tp=2)
    return {
        "base": gs.simulate("llama-3.1-8b", "h100-sxm", **asked, engine="reference"),
        "dynamic": gs.simulate("llama-3.1-8b", "h100-sxm", lora=QV, **asked, engine="reference"),
        "merge": gs.simulate("llama-3.1-8b", "h100-sxm", lora=MERGE, **asked, engine="reference"),
        "tp2": gs.simulate("llama-3.1-8b", "h100-sxm", lora=SHARDED, parallelism=two, **asked, engine="reference"),
        "experts": gs.simulate(
            EXPERTS, "h100-sxm", lora=SHARDED, parallelism=gs.Parallelism(tp=2, ep=2), **asked, engine="reference"
        ),
        "exchange": gs.simulate(EXPERTS, "h100-sxm", parallelism=gs.Parallelism(ep=4), **asked, engine="reference"),
        "scan": gs.simulate(STATE_SPACE, "l4", **asked, engine="reference"),
        "pipeline": gs.simulate(
            "llama-3.1-8b", "h100-sxm", lora=QV, parallelism=gs.Parallelism(pp=2), **asked, engine="reference"
        ),
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


@pytest.fixture(autouse=True)
def close_figures():
    """Drawn figures stay open until somebody closes them."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
