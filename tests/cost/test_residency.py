"""Where an operation's operands lie is a fact of it: seen in every output, and part of its price."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.cost.calibrated import calibrated
from graphsim.cost.roofline import roofline
from graphsim.graph import Rule, Step, Value, walk
from graphsim.hardware import load_hardware
from graphsim.lora.profile import load_profile
from graphsim.lora.variants import known
from graphsim.ops import Gemm, LoraA, LoraB, Norm, Op, Residency
from graphsim.ops.lora_expert_kernels import ExpertLoraExpand, ExpertLoraShrink
from graphsim.ops.lora_kernels import LoraExpand, LoraShrink

H100 = load_hardware("h100-sxm")
PRICES = {"roofline": roofline, "calibrated": calibrated(H100)[0]}
EXPERT_KERNELS = ExpertLoraShrink, ExpertLoraExpand
TILES = {"tiles": 512.0, "tile_clocks": 3410.0}
OPS: dict[str, Op] = {
    "a": LoraA(m=8.0, n=16.0, k=8192.0),
    "b": LoraB(m=8.0, n=8192.0, k=16.0),
    "shrink": LoraShrink(m=8.0, n=48.0, k=8192.0, adapters=4.0, slices=3, **TILES),
    "expand": LoraExpand(m=8.0, width=8192.0, rows=8.0, n=8192.0, k=16.0, adapters=4.0, slices=1, **TILES),
    "gemm": Gemm(m=8.0, n=4096.0, k=4096.0),
    "norm": Norm(rows=512.0, width=8192.0),
}


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
@pytest.mark.parametrize("price", PRICES.values(), ids=list(PRICES))
def test_operands_on_the_chip_take_less_time(op: Op, price: gs.CostModel) -> None:
    """All of these fit the 50 MB of the cache, so none of their bytes comes from memory."""
    on, off = (price(replace(op, residency=where), H100) for where in (Residency.All_onchip, Residency.All_offchip))
    assert op.work().memory_bytes < H100.cache_bytes
    assert 0 < on.latency_s < off.latency_s
    assert on.memory_s == 0 < off.memory_s and on.compute_s == off.compute_s


@pytest.mark.parametrize("price", PRICES.values(), ids=list(PRICES))
def test_what_the_cache_does_not_hold_still_comes_from_memory(price: gs.CostModel) -> None:
    """By hand: 2 (8192² + 2 · 8 · 8192) bytes less 50 MB, at 3.35 TB/s."""
    op = Gemm(m=8.0, n=8192.0, k=8192.0, residency=Residency.All_onchip)
    moved = 2 * (8192 * 8192 + 2 * 8 * 8192) - H100.cache_bytes
    assert price(op, H100).memory_s == pytest.approx(moved / H100.memory_bytes_per_s)


@pytest.mark.parametrize("price", PRICES.values(), ids=list(PRICES))
def test_many_scenarios_are_priced_as_each_alone(price: gs.CostModel) -> None:
    rows = np.array([1.0, 64.0, 8192.0])
    for op in OPS.values():
        dim = "rows" if hasattr(op, "rows") else "m"
        placed = replace(op, residency=Residency.All_onchip)
        many = price(replace(placed, **{dim: rows}), H100).latency_s
        each = [price(replace(placed, **{dim: float(row)}), H100).latency_s for row in rows]
        assert many == pytest.approx(each, rel=1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChip(gs.Pass):
    """Keeps an adapter's factors in the cache."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield name, replace(op, residency=Residency.All_onchip) if op.buffers else op, inputs

        return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChipEarly(OnChip):
    """The same ahead of the engine's kernels, which take it over."""

    stage = "logical"


LORA = gs.LoraConfig(rank=64, max_lora_rank=64, target_modules=["attn", "ffn"])


@pytest.mark.parametrize("own", [OnChip(), OnChipEarly()], ids=["lowered", "logical"])
@pytest.mark.parametrize("engine", ["reference", "peft", "vllm", "sglang", "slora"])
def test_a_pass_that_moves_factors_onto_the_chip_makes_a_step_faster(engine: str, own: gs.Pass) -> None:
    plain = gs.Deployment("llama-3.1-8b", "h100-sxm", lora=LORA, engine=engine)
    placed = replace(plain, passes=(own,))
    off, on = (gs.simulate(d, batch=8, input_tokens=256, output_tokens=16).decode for d in (plain, placed))
    kept = {op.residency.name for _, op, _ in walk(on.graph) if op.adapter and op.buffers}
    assert kept == {"All_onchip"}
    busy = [sum(frame.latency_s * frame.times) for frame in (off.to_frame(), on.to_frame())]
    assert busy[1] < busy[0] and (engine == "peft" or on.latency_s < off.latency_s)  # eager: the host hides it


@pytest.mark.parametrize("own", [OnChip(), OnChipEarly()], ids=["lowered", "logical"])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_so_does_one_that_moves_the_factors_of_experts(engine: str, own: gs.Pass) -> None:
    lora = gs.LoraConfig(rank=64, max_lora_rank=64, target_modules=["ffn"])
    plain = gs.Deployment("mixtral-8x7b", "h100-sxm", lora=lora, engine=engine)
    off, on = (gs.build_graph(d, "decode", 8, 256) for d in (plain, replace(plain, passes=(own,))))
    factors = [[op for _, op, _ in walk(graph) if isinstance(op, EXPERT_KERNELS)] for graph in (off, on)]
    assert factors[0] and {op.residency.name for op in factors[1]} == {"All_onchip"}
    assert sum(roofline(op, H100).latency_s for op in factors[1]) < sum(
        roofline(op, H100).latency_s for op in factors[0]
    )


def engines_and_variants() -> list[tuple[str, str]]:
    """Every engine with every variant that it runs."""
    fused = {name for name in gs.list_engines() if load_profile(name).kernels == "fused"}
    return [(e, v) for e in gs.list_engines() for v in known() if e not in fused or known()[v].fused]


@pytest.mark.parametrize(("engine", "variant"), engines_and_variants())
def test_every_engines_adapter_weights_lie_off_the_chip(engine: str, variant: str) -> None:
    lora = gs.LoraConfig(rank=8, variant=variant, blocks=2 if variant == "bd-lora" else 1, target_modules=["attn"])
    graph = gs.build_graph("llama-3.2-1b", "decode", lora=lora, engine=engine)
    found = [op for _, op, _ in walk(graph) if op.adapter and (op.buffers or op.adapter_rank > 0)]
    assert found and {op.residency.name for op in found} == {"All_offchip"}


def test_every_output_says_where_operands_lie(tmp_path: Path) -> None:
    placed = gs.Deployment("llama-3.2-1b", "h100-sxm", lora=LORA, engine="vllm", passes=(OnChip(),))
    estimate = gs.simulate(placed, batch=2, input_tokens=64, output_tokens=4)
    graph = estimate.decode.graph
    frame = estimate.decode.to_frame().set_index("name")
    assert set(frame.residency) == {"All_offchip", "All_onchip"}
    assert (frame.residency == "All_onchip").equals(frame.op.isin(["LoraShrink", "LoraExpand", "LoraLookup"]))
    assert "operands All_onchip" in gs.to_dot(graph) and "operands All_offchip" in gs.to_dot(graph)
    written = gs.to_json(graph)
    assert '"name": "All_onchip"' in written or '"name":"All_onchip"' in written
    back = gs.from_json(written)
    assert {op.residency for _, op, _ in walk(back)} == {*Residency}
    gs.to_html(estimate, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<th>residency</th>" in page and "<td>All_onchip</td>" in page
    gs.to_trace(estimate, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert {e["args"]["residency"] for e in events if "op_type" in e.get("args", {})} == {"All_offchip", "All_onchip"}
    assert " All_onchip" in gs.to_text(graph) and " All_offchip" not in gs.to_text(graph)


def test_the_documents_table_has_it(tmp_path: Path) -> None:
    config = gs.get_configs("llama-7b")
    config.lora_config = gs.LoraConfig(enabled=True, rank=16, target_modules=["attn", "ffn"], strategy="dynamic")
    path = gs.create_full_prefill_model(name=config, input_sequence_length=64, data_path=str(tmp_path))
    head, *rows = Path(path).read_text(encoding="utf-8").splitlines()
    assert "residency" in head.split(",") and all("All_offchip" in row for row in rows)
