"""Whatever block a user writes, its graph stays valid and loses no work when it is cut, packed or adapted."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.graph import validate, walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.models.yaml import read_model
from graphsim.ops import Gemm, LoraGemm, Sharding
from graphsim.ops.precision import load_precision
from graphsim.passes.pack import pack
from graphsim.passes.shard import shard

WIDTH = 64
KINDS = ("gemm", "gemm", "parts", "norm", "add", "activation")
ADAPTERS = {
    "dynamic": LoraConfig(rank=4, target_modules="all-linear"),
    "merge": LoraConfig(rank=4, target_modules="all-linear", strategy="merge"),
    "fully_sharded": LoraConfig(rank=4, target_modules="all-linear", fully_sharded_loras=True),
}


@st.composite
def blocks(draw: st.DrawFn) -> list[dict[str, object]]:
    """Nodes of one width in any order and wiring; whatever is left over is added up at the end."""
    nodes: list[dict[str, object]] = [{"name": "first", "op": "gemm", "n": WIDTH, "k": WIDTH, "inputs": ["input"]}]
    names = ["input", "first"]
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(KINDS))
        name = f"n{i}"
        inputs = list(dict.fromkeys([draw(st.sampled_from(names)), draw(st.sampled_from(names))]))
        gemm = {
            "op": "gemm",
            "k": WIDTH,
            "inputs": inputs[:1],
            "split": draw(st.sampled_from(["column", "row", "replicated"])),
        }
        if kind == "gemm":
            nodes.append({"name": name, **gemm, "n": WIDTH, "pack": draw(st.sampled_from(["", "p"]))})
        elif kind == "parts":
            nodes.append({"name": f"{name}_wide", **gemm, "parts": {"x": WIDTH, "y": WIDTH}, "pack": "p"})
            mixing = draw(st.sampled_from(["activation", "add"]))
            nodes.append({"name": name, "op": mixing, "inputs": [f"{name}_wide.x", f"{name}_wide.y"]})
        else:
            one = kind == "norm" or (kind == "add" and len(inputs) < 2)
            nodes.append({"name": name, "op": "norm" if one else kind, "inputs": inputs[:1] if one else inputs})
        names.append(name)
    used = {str(source).split(".")[0] for node in nodes for source in node["inputs"]}  # type: ignore[attr-defined]
    loose = [str(node["name"]) for node in nodes if node["name"] not in used]
    return [*nodes, {"name": "end", "op": "add", "inputs": [*loose, "input"]}]


def own_flops(graph: nx.DiGraph, tp: float) -> float:
    """Flops of the model's own matrix products on all devices; copies on every device count once."""
    gemms = [(op, times) for _, op, times in walk(graph) if isinstance(op, Gemm) and not isinstance(op, LoraGemm)]
    return sum(times * op.work().flops * (1 if op.split is Sharding.REPLICATED else tp) for op, times in gemms)


@pytest.mark.parametrize("adapter", [None, *ADAPTERS])
@settings(max_examples=25, deadline=None)
@given(nodes=blocks(), tp=st.sampled_from([1.0, 2.0, 4.0]), sequence_parallel=st.booleans())
def test_any_block_stays_valid_and_loses_no_work(adapter, nodes, tp, sequence_parallel):
    model = read_model(
        {"hidden_size": WIDTH, "vocab_size": 128, "blocks": {"own": nodes}, "layers": [{"repeat": 2, "block": "own"}]},
        "own.yaml",
    )
    graph = inject(build(model, prefill(2.0, 8.0), load_precision("bf16")), ADAPTERS.get(adapter or ""))
    cut = shard(graph, tp, sequence_parallel)
    for each in (graph, pack(graph), cut, pack(cut)):
        validate(each)
    assert own_flops(cut, tp) == pytest.approx(own_flops(graph, 1.0), rel=1e-12)
    assert own_flops(pack(cut), tp) == pytest.approx(own_flops(graph, 1.0), rel=1e-12)
