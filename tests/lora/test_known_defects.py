"""Defects that tools of this kind have shown, one test or more for each; where another file goes deeper, it is named.

The warm call's time is measured in tests/benchmarks/test_speed.py, use from a built wheel in tests/test_wheel.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.graph import walk
from graphsim.ops import Attention, LoraA, LoraB, Op
from graphsim.ops.lora_kernels import LoraShrink
from tests.paths import REFERENCE

MODEL, DEVICE, RANK = "llama-3.1-8b", "h100-sxm", 16
HIDDEN, INNER, KV, LAYERS = 4096, 14336, 1024, 32
ADAPTER = gs.LoraConfig(rank=RANK)
MERGED = gs.LoraConfig(rank=RANK, strategy="merge")


def found(graph: nx.DiGraph, kind: type[Op]) -> dict[str, Op]:
    """Operations of a kind in one layer, by role."""
    return {op.role: op for _, op, _ in walk(graph) if isinstance(op, kind)}


@pytest.mark.parametrize(("phase", "tokens"), [("prefill", 3 * 100), ("decode", 3)])
def test_1_the_first_factor_takes_two_flops_per_token_input_and_rank_in_every_phase(phase: str, tokens: int) -> None:
    graph = gs.build_graph(MODEL, phase, batch=3, input_tokens=100, lora=ADAPTER)
    for role, op in found(graph, LoraA).items():
        assert op.work().flops == 2 * tokens * (INNER if role.startswith("down") else HIDDEN) * RANK, role


def test_2_a_merge_costs_the_same_for_any_tokens_and_is_charged_once() -> None:
    short = gs.simulate(MODEL, DEVICE, 1, 16, 4, lora=MERGED, engine="reference")
    long = gs.simulate(MODEL, DEVICE, 64, 4096, 256, lora=MERGED, engine="reference")
    assert short.one_time_s == long.one_time_s > 0
    for merged, asked in ((short, (1, 16, 4)), (long, (64, 4096, 256))):
        base = gs.simulate(MODEL, DEVICE, *asked, engine="reference")
        assert (merged.ttft_s, merged.tpot_s, merged.latency_s) == (base.ttft_s, base.tpot_s, base.latency_s)


@pytest.mark.parametrize("strategy", ["dynamic", "merge"])
@pytest.mark.parametrize("engine", gs.list_engines())
def test_3_every_mode_runs_on_every_engine(strategy: str, engine: str) -> None:
    lora = gs.LoraConfig(rank=RANK, strategy=strategy)
    estimate = gs.simulate(MODEL, DEVICE, 2, 64, 8, lora=lora, engine=engine)
    assert np.isfinite(estimate.latency_s) and estimate.latency_s > 0
    assert (estimate.one_time_s > 0) == (strategy == "merge")


def test_4_packed_qkv_has_three_first_factors() -> None:
    logical = found(gs.build_graph(MODEL, "decode", lora=ADAPTER), LoraA)
    assert {"q_proj.lora_a", "k_proj.lora_a", "v_proj.lora_a"} <= set(logical)
    (packed,) = (
        op
        for role, op in found(gs.build_graph(MODEL, "decode", lora=ADAPTER, engine="vllm"), LoraShrink).items()
        if role.startswith("qkv")
    )
    assert (packed.slices, packed.n) == (3, 3 * RANK)


def test_5_keys_and_values_have_the_width_of_their_heads() -> None:
    ups = found(gs.build_graph(MODEL, "decode", lora=ADAPTER), LoraB)
    assert {role.split("_")[0]: op.n for role, op in ups.items() if role[0] in "qkv"} == {"q": HIDDEN, "k": KV, "v": KV}
    assert gs.lora_parameters(MODEL, gs.LoraConfig(rank=RANK, target_modules=["k_proj"])) == LAYERS * RANK * (
        HIDDEN + KV
    )


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_6_column_parallel_bases_cut_the_second_factor_and_row_parallel_ones_the_first(tp: int) -> None:
    graph = gs.build_graph(MODEL, "decode", lora=ADAPTER, parallelism=gs.Parallelism(tp=tp))
    downs, ups = found(graph, LoraA), found(graph, LoraB)
    assert (downs["gate_proj.lora_a"].k, ups["gate_proj.lora_b"].n) == (HIDDEN, INNER / tp)
    assert (downs["down_proj.lora_a"].k, ups["down_proj.lora_b"].n) == (INNER / tp, HIDDEN)


def test_7_unknown_targets_raise_and_a_report_lists_what_was_wrapped() -> None:
    with pytest.raises(gs.ConfigError, match="q_prj.*did you mean 'q_proj'"):
        gs.simulate(MODEL, DEVICE, lora=gs.LoraConfig(target_modules=["q_prj", "v_proj"]), engine="reference")
    report = gs.match_report(MODEL, gs.LoraConfig(target_modules=["q_proj"]))
    assert set(report.module[report.matched]) == {f"model.layers.{i}.self_attn.q_proj" for i in range(LAYERS)}


def test_8_an_adapter_has_a_fixed_cost_that_no_rank_takes_away() -> None:
    base = gs.simulate(MODEL, DEVICE, 1, 64, 8, engine="vllm").tpot_s
    ranks = np.array([1.0, 2.0, 4.0])
    added = gs.simulate(MODEL, DEVICE, 1, 64, 8, lora=gs.LoraConfig(rank=ranks), engine="vllm").tpot_s - base
    traffic_s = 4 * LAYERS * 2 * ranks * 4 * (HIDDEN + INNER) / 3.35e12
    assert np.all(added > 20 * traffic_s)
    assert added[2] < 1.5 * added[0]


@pytest.mark.parametrize("engine", ["reference", "vllm", "sglang"])
@pytest.mark.parametrize("device", gs.list_hardware())
@pytest.mark.slow
def test_9_no_operation_achieves_more_than_the_hardware_has(device: str, engine: str) -> None:
    hardware = gs.load_hardware(device)
    fastest = max(max(hardware.flops_per_s.values()), hardware.vector_flops_per_s)
    for batch, phase in ((1, "decode"), (64, "decode"), (4, "prefill")):
        graph = gs.annotate(gs.build_graph(MODEL, phase, batch, 512, lora=ADAPTER, engine=engine), device)
        body = next(op.body for _, op in graph.nodes(data="op") if hasattr(op, "body"))
        for name, node in gs.annotate(body, device).nodes(data=True):
            seconds, work = np.max(node["latency_s"]), node["op"].work()
            assert work.flops <= fastest * seconds * (1 + 1e-9), name
            assert work.memory_bytes - hardware.cache_bytes <= hardware.memory_bytes_per_s * seconds * (1 + 1e-9), name


@pytest.mark.parametrize(("batch", "context"), [(1, 100), (7, 1000), (32, 8191)])
def test_10_attention_moves_the_cache_once_and_the_queries_and_results(batch: int, context: int) -> None:
    """Decode: 2 bytes for K and V of context + 1 tokens, and for one query and one result per head."""
    (op,) = found(gs.build_graph(MODEL, "decode", batch, context), Attention).values()
    cache = batch * (context + 1) * 2 * KV * 2
    assert op.work().memory_bytes == cache + 2 * batch * HIDDEN * 2


def test_11_estimating_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened: list[str] = []
    real = open

    def watching(path: object, mode: str = "r", *rest: object, **more: object) -> object:
        if set(mode) & set("wax+"):
            opened.append(str(path))
        return real(path, mode, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", watching)
    gs.simulate("gpt-2", "l4", 3, 77, 5, lora=ADAPTER, engine="vllm")
    gs.sweep("gpt-2", "l4", batch=[1, 2], rank=[8, 16], engine="reference")
    assert not opened and not list(tmp_path.iterdir())


def test_12_a_warm_call_builds_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(tokens: int) -> float:
        return float(gs.simulate(MODEL, DEVICE, 3, tokens, 5, lora=ADAPTER, engine="reference").latency_s)

    asked(300)
    added: list[object] = []
    real = nx.DiGraph.add_node
    monkeypatch.setattr(
        nx.DiGraph, "add_node", lambda self, *node, **data: (added.append(node), real(self, *node, **data))
    )
    assert asked(400) > asked(350)
    assert not added


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference data is not here")
def test_13_one_command_judges_every_table_that_a_folder_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("structure.csv", "hf_configs", "lora_serving.csv", "lora_memory.csv"):
        (tmp_path / name).symlink_to(REFERENCE / name)
    assert main(["validate", "all", str(tmp_path), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert {name for name, rows in tables.items() if rows} == {"structure", "lora", "slots"}
    assert max(abs(row["loading_error"]) for row in tables["slots"]) < 0.001


@pytest.mark.slow
@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference data is not here")
def test_13_one_command_reproduces_the_error_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "all", str(REFERENCE), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert set(tables) == {
        "structure", "capacity", "kernels", "e2e", "lora", "slots", "lifecycle", "published", "traces"
    }  # fmt: skip
    assert all(row["equal"] for row in tables["structure"])
    assert max(abs(row["error"]) for row in tables["lora"]) < 0.15
    assert max(abs(row["ratio_error"]) for row in tables["lora"]) < 0.12
    assert max(abs(row["loading_error"]) for row in tables["slots"]) < 0.001
    assert np.median([abs(row["error"]) for row in tables["published"]]) < 0.2


def test_13_a_folder_without_facts_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "all", str(tmp_path)]) == 2
    assert "holds none of e2e_serving.csv, kernels/*" in capsys.readouterr().err
