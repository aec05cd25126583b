"""Engine profiles: data with sources, and kernels that keep the adapter's work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import yaml

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora import profile as profiles
from graphsim.lora.experts import EngineExperts
from graphsim.lora.fusions import EngineFusions
from graphsim.lora.host import EngineHost
from graphsim.lora.memory import EngineMemory
from graphsim.lora.prices import EnginePrices
from graphsim.lora.profile import EngineProfile, list_engines, load_profile
from graphsim.lora.scheduler import EngineScheduler
from graphsim.ops import Gemm, LoraA, LoraAdd, LoraB
from graphsim.ops.lora_kernels import LoraExpand, LoraFill, LoraKernel, LoraShrink
from tests.engines import each_engine

LORA = gs.LoraConfig(rank=8, target_modules=["q_proj", "v_proj"], max_loras=4)
ENGINES = list_engines()
FUSED = [name for name in ENGINES if load_profile(name).kernels == "fused"]
PROMISED = {"peft", "reference", "sglang", "slora", "trtllm", "vllm", "vllm-0.5", "vllm-0.8", "vllm-0.11", "vllm-0.15"}
LABELS = {"name", "title", "sources", "limits"}
GROUPS = ("experts", "fusions", "host", "memory", "prices", "scheduler")
"""Fields of a profile that have fields and sources of their own."""


def kernels(graph: nx.DiGraph) -> list[tuple[str, Any, float]]:
    return [(name, op, times) for name, op, times in walk(graph) if isinstance(op, LoraKernel)]


def stated(ref: str | Path) -> dict[str, Any]:
    """What the file of a profile itself says, by its name or path."""
    path = ref if isinstance(ref, Path) else Path(profiles.__file__).parent / "engines" / f"{ref}.yaml"
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def test_all_promised_engines_are_there() -> None:
    assert set(ENGINES) >= PROMISED


def unsourced(ref: str | Path) -> list[str]:
    """Fields without a source that the file states, also where they equal a default, or that are not a default."""
    profile, own = load_profile(ref), stated(ref)
    bare = unsourced_in(profile, own, LABELS | set(GROUPS))
    for name in GROUPS:
        bare += [f"{name}.{key}" for key in unsourced_in(getattr(profile, name), own.get(name, {}), {"sources"})]
    return bare


def unsourced_in(
    group: EngineProfile | EngineExperts | EngineFusions | EngineHost | EngineMemory | EnginePrices | EngineScheduler,
    own: dict[str, Any],
    labels: set[str],
) -> list[str]:
    fields = {key: field.default for key, field in group.__dataclass_fields__.items() if key not in labels}
    said = [key for key, default in fields.items() if key in own or getattr(group, key) != default]
    return [key for key in said if not group.sources.get(key, "").strip()]


@pytest.mark.parametrize("name", ENGINES)
def test_every_field_that_is_stated_has_a_source(name: str) -> None:
    assert "title" in stated(name), f"{name}: give it a title of its own"
    bare = unsourced(name)
    assert not bare, f"{name}: add to its sources where {', '.join(bare)} is from"


def test_a_field_set_back_to_its_default_needs_a_source_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: vllm\ntitle: mine\nfill: false\ngrid: active\nexperts: {fills: 0}\nmemory: {block_tokens: 1}\n"
        "sources: {grid: a wish}\n"
    )
    assert unsourced(path) == ["fill", "experts.fills", "memory.block_tokens"], "all defaults, and not what vllm says"


@pytest.mark.parametrize("name", ENGINES)
def test_a_source_says_which_profile_it_is_inherited_from(name: str) -> None:
    profile, said = load_profile(name), stated(name)
    groups = ((getattr(profile, group), said.get(group, {})) for group in GROUPS)
    for part, own in ((profile, said.get("sources", {})), *groups):
        for key, text in part.sources.items():
            assert text.startswith("inherited from ") != (key in own), f"{name}.{key}: {text}"


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_runs_adapters_in_both_phases_and_never_for_nothing(name: str) -> None:
    idle = gs.LoraConfig(rank=8, active_adapters=0, max_loras=4)
    base, none, some = (
        gs.simulate("llama-3.2-1b", "h100-sxm", 8, 100, 10, lora=lora, engine=name) for lora in (None, idle, LORA)
    )
    assert some.ttft_s > base.ttft_s and some.tpot_s > base.tpot_s
    assert none.tpot_s >= base.tpot_s * (1 - 1e-9)
    assert some.memory.adapters_bytes > 0


@pytest.mark.parametrize("engine", FUSED)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_kernels_keep_the_flops_of_the_factors_they_hold(engine: str, phase: str) -> None:
    """2 tokens r (in + out) for each slice: of the targets, or of every linear at the padded rank."""
    graph = gs.build_graph("llama-2-7b", phase, 3, 100, lora=LORA, engine=engine)
    every = load_profile(engine).modules == "every_linear"
    wrapped = gs.LoraConfig(rank=8, target_modules="all-linear") if every else LORA
    tokens = 300 if phase == "prefill" else 3
    body = sum(
        op.work().flops * times for name, op, times in kernels(graph) if "embed" not in name and "lm_head" not in name
    )
    assert body == pytest.approx(2 * tokens * gs.lora_parameters("llama-2-7b", wrapped))


def test_one_fill_shrink_and_expand_per_packed_linear() -> None:
    graph = gs.build_graph("llama-3.1-8b", "decode", lora=LORA, engine="vllm")
    layers = {name: type(op) for name, op, times in kernels(graph) if times == 32}
    assert sum(kind is LoraFill for kind in layers.values()) == 4
    assert sum(kind is LoraShrink for kind in layers.values()) == 4
    assert sum(kind is LoraExpand for kind in layers.values()) == 4
    assert not any(isinstance(op, LoraAdd) for _, op, _ in walk(graph))


def test_packed_qkv_counts_three_factors_and_gqa_sizes() -> None:
    graph = gs.build_graph("llama-3.1-8b", "decode", lora=LORA, engine="vllm")
    ops = {op.role: op for _, op, _ in kernels(graph)}
    shrink, expand = ops["qkv_proj.lora_shrink"], ops["qkv_proj.lora_expand"]
    assert shrink.n == 3 * 8 and shrink.slices == 3
    assert expand.n == 4096 + 1024 + 1024


def test_engines_pad_to_the_reserved_rank_or_do_not() -> None:
    lora = gs.LoraConfig(rank=8, max_lora_rank=64)
    for engine, rank in (("vllm", 64), ("sglang", 8), ("slora", 8)):
        graph = gs.build_graph("llama-3.1-8b", "decode", lora=lora, engine=engine)
        shrinks = [op for _, op, _ in kernels(graph) if isinstance(op, LoraShrink) and op.role.startswith("o_proj")]
        assert [op.n for op in shrinks] == [rank]


@pytest.mark.parametrize("engine", each_engine())
@pytest.mark.parametrize("parallelism", [gs.Parallelism(), gs.Parallelism(tp=2), gs.Parallelism(tp=2, sp=2)])
def test_lowered_graphs_are_valid_and_leave_no_logical_node_behind(engine: str, parallelism: gs.Parallelism) -> None:
    graph = gs.build_graph("llama-3.1-8b", "prefill", 2, 64, lora=LORA, engine=engine, parallelism=parallelism)
    gs.validate(graph)
    assert nx.is_directed_acyclic_graph(graph)
    logical = [op for _, op, _ in walk(graph) if isinstance(op, LoraA | LoraB | LoraAdd)]
    assert bool(logical) == (engine not in FUSED)


@pytest.mark.parametrize("engine", each_engine())
@pytest.mark.parametrize("targets", [["attn", "ffn"], ["attn", "lm_head"]])
def test_every_factor_of_every_engine_has_the_documents_type(engine: str, targets: list[str]) -> None:
    """GEMM_LORA_A takes the base's inputs and gives the rank, GEMM_LORA_B the rank and gives the base's outputs."""
    lora = gs.LoraConfig(rank=8, max_lora_rank=8, target_modules=targets)
    graph = gs.build_graph("llama-3.1-8b", "decode", lora=lora, engine=engine)
    found = {kind: [op for _, op, _ in walk(graph) if op.op_type is kind] for kind in gs.OpType}
    downs, ups = found[gs.OpType.GEMM_LORA_A], found[gs.OpType.GEMM_LORA_B]
    assert downs and len(ups) - len(downs) == (engine.startswith("vllm"))  # its embedding looks A up
    assert all(op.role.endswith((".lora_a", ".lora_shrink")) and op.n in (8, 16, 24) for op in downs)
    assert all(op.role.endswith((".lora_b", ".lora_expand")) and op.k == 8 for op in ups)
    adds = [op for op in found[gs.OpType.ADD] if op.adapter]
    assert len(adds) == (0 if engine in FUSED else len(ups))
    rest = {type(op).__name__ for op in found[gs.OpType.LORA_KERNEL]}
    assert rest <= {"LoraFill", "LoraLookup"}


@pytest.mark.parametrize("engine", each_engine())
@pytest.mark.parametrize("parallelism", [gs.Parallelism(tp=4, sp=4), gs.Parallelism(pp=2), gs.Parallelism(tp=2, dp=2)])
def test_every_linear_of_every_engine_runs_on_every_kind_of_group(engine: str, parallelism: gs.Parallelism) -> None:
    lora = gs.LoraConfig(rank=8, target_modules="all-linear")
    assert gs.simulate("llama-3.1-8b", "h100-sxm", 4, 64, 4, parallelism, lora, engine=engine).latency_s > 0


@pytest.mark.parametrize("engine", [name for name in FUSED if not load_profile(name).idle_kernels])
def test_a_step_without_adapters_skips_the_kernels(engine: str) -> None:
    idle = gs.LoraConfig(rank=8, active_adapters=0, max_loras=4)
    found = gs.simulate("llama-3.1-8b", "h100-sxm", 8, 100, 10, lora=idle, engine=engine)
    base = gs.simulate("llama-3.1-8b", "h100-sxm", 8, 100, 10, engine=engine)
    assert found.tpot_s == pytest.approx(base.tpot_s, rel=1e-9)


def test_slots_without_adapters_are_not_free_and_their_tiles_grow_with_them() -> None:
    times = [
        gs.simulate(
            "llama-3.1-8b", "h100-sxm", 64, 100, 10, lora=gs.LoraConfig(rank=8, max_loras=slots), engine="vllm"
        ).tpot_s
        for slots in (1, 64, 256)
    ]
    assert times[0] < times[1] < times[2]
    assert times[2] > 1.3 * times[0]


def test_more_distinct_adapters_cost_more_and_sglang_has_no_empty_tiles() -> None:
    counts = np.array([1.0, 8.0, 32.0])
    for engine in ("vllm", "sglang", "vllm-0.5"):
        lora = gs.LoraConfig(rank=8, active_adapters=counts, max_loras=32)
        tpot = gs.simulate("llama-3.1-8b", "h100-sxm", 64, 100, 10, lora=lora, engine=engine).tpot_s
        assert np.all(np.diff(tpot) >= 0)
    graph = gs.build_graph("llama-3.1-8b", "decode", lora=LORA, engine="sglang")
    assert all(op.empty_tiles == 0 for _, op, _ in kernels(graph))


def test_eager_modules_launch_once_per_adapter_and_wait_for_the_host() -> None:
    graph = gs.build_graph("gpt-2", "decode", 8, lora=gs.LoraConfig(rank=8, active_adapters=4), engine="peft")
    gemms = [op for _, op, _ in walk(graph) if isinstance(op, Gemm)]
    assert {op.launches for op in gemms if op.role.endswith("lora_a")} == {4}
    eager = gs.simulate("gpt-2", "l4", 1, 16, 10, lora=gs.LoraConfig(rank=8), engine="peft")
    captured = gs.simulate("gpt-2", "l4", 1, 16, 10, lora=gs.LoraConfig(rank=8), engine="reference")
    assert eager.tpot_s > 1.2 * captured.tpot_s


def test_fully_sharded_kernels_gather_the_fp32_result_of_the_shrink() -> None:
    """One all-gather of [slices, T, R] for qkv, one all-reduce of [1, T, R] for the row-parallel output."""
    sharded = gs.LoraConfig(rank=8, target_modules=["q_proj", "v_proj", "o_proj"], fully_sharded_loras=True)
    graph = gs.build_graph("llama-3.1-8b", "decode", 16, lora=sharded, engine="vllm", parallelism=gs.Parallelism(tp=2))
    found = {name: op for name, op, _ in walk(graph) if ".lora_shrink." in name}
    gather = next(op for name, op in found.items() if "qkv" in name)
    reduce = next(op for name, op in found.items() if "o_proj" in name)
    assert (gather.elems * gather.activations.bytes, reduce.elems * reduce.activations.bytes) == (
        3 * 16 * 8 * 4, 16 * 8 * 4,
    )  # fmt: skip


def test_a_profile_of_ones_own_changes_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: vllm\ntitle: mine\nempty_tile_clocks: 0\nsources: {empty_tile_clocks: a wish}\n")
    mine = load_profile(path)
    assert mine.empty_tile_clocks == 0 and mine.tile_clocks == load_profile("vllm").tile_clocks
    lora = gs.LoraConfig(rank=8, max_loras=256)
    ideal = gs.simulate("llama-3.1-8b", "h100-sxm", 64, 100, 10, lora=lora, engine=path)
    real = gs.simulate("llama-3.1-8b", "h100-sxm", 64, 100, 10, lora=lora, engine="vllm")
    assert ideal.tpot_s < real.tpot_s


def test_a_derived_profile_does_not_claim_the_sources_of_its_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: vllm-0.5\ntitle: mine\ntile_clocks: 100\ngrid: active\nsources: {grid: wish}\n"
        "experts: {grid: pairs, sorts: {value: 2, source: 'wish, number two'}}\nreferences: {wish: a wish}\n"
    )
    mine, base, root = load_profile(path), load_profile("vllm-0.5"), load_profile("vllm")
    layout = load_profile("vllm-0.8").experts.sources["layout"]
    assert mine.sources["grid"] == "a wish"
    assert "tile_clocks" not in mine.sources  # changed without saying why
    assert mine.sources["packed"] == f"inherited from vllm-0.5: {base.sources['packed']}"
    assert mine.sources["fill"] == f"inherited from vllm: {root.sources['fill']}"  # where it was first stated
    experts = mine.experts
    assert (experts.grid, experts.sorts, experts.fills) == ("pairs", 2.0, root.experts.fills)
    assert experts.sources["sorts"] == "a wish, number two"
    assert "grid" not in experts.sources
    assert experts.sources["layout"] == f"inherited from vllm-0.8: {layout}"
    assert experts.sources["fills"] == f"inherited from vllm: {root.experts.sources['fills']}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("vlm", "engine = 'vlm' is not known; did you mean 'vllm'"),
        ("nowhere.yaml", "there is no such file"),
        ({"kernels": "magic"}, "kernels = 'magic'"),
        ({"base": "vllm", "grids": "slots"}, "grids is not a known key"),
        ({"base": "vllm", "tile_clocks": -1}, "tile_clocks = -1"),
        ({"kernels": "fused"}, "needs the tiles of shrink and expand"),
        ({"experts": {"kernels": "blocks"}}, "experts.kernels = 'blocks' needs the tiles of experts.shrink"),
        ({"experts": {"grid": {"value": "chunks"}}}, "experts.grid.value = 'chunks' is not allowed"),
        ({"experts": {"sorts": -1}}, "experts.sorts = -1 is not allowed"),
        ({"experts": {"tile_clocks": 1}}, "experts.tile_clocks is not a known key"),
        ({"experts": {"expand": [{"rows": 0, "columns": 1}]}}, "experts.expand[0].rows = 0"),
        ({"experts": {"fused_families": [7]}}, "experts.fused_families = [7] is not allowed; expected a list of names"),
        ({"base": "vllm", "expand": [{"rows": 0, "columns": 1}]}, "rows = 0"),
        (
            {"base": "vllm", "expand": [{"rows": 32.5, "columns": 1}]},
            "rows = 32.5 is not allowed; expected a whole number",
        ),
        ({"base": "vllm", "shrink": [{"tokens": 128, "rows": 1, "columns": 1}]}, "expected a first entry at tokens 0"),
        ({"base": "vllm", "shrink": [{"rows": 1, "columns": 1}] * 2}, "has two entries with the same tokens"),
        ({"disk_bytes_per_s": 0}, "disk_bytes_per_s = 0 is not allowed; expected a number from 1 MB/s "),
        ({"cold_disk_bytes_per_s": 0}, "cold_disk_bytes_per_s = 0 is not allowed"),
        ({"sources": {"colour": "red"}}, "is not a field that has a source"),
        (7, "engine = 7 is not allowed"),
    ],
)
def test_a_wrong_profile_is_one_sentence(given: Any, said: str) -> None:
    with pytest.raises(gs.ConfigError) as error:
        load_profile(given)
    assert said in str(error.value)


def test_a_profile_that_is_its_own_base_is_told_the_circle(tmp_path: Path) -> None:
    tuned, other = tmp_path / "tuned.yaml", tmp_path / "other.yaml"
    tuned.write_text(f"base: {tuned}\n")
    with pytest.raises(gs.ConfigError, match="tuned -> tuned is a circle"):
        load_profile(tuned)
    other.write_text(f"base: {tuned}\n")
    tuned.write_text(f"base: {other}\ntitle: tuned\n")
    with pytest.raises(gs.ConfigError, match="tuned -> other -> tuned is a circle"):
        load_profile(tuned)


def test_a_grid_over_tokens_needs_no_tiles() -> None:
    own = {"base": "vllm-0.5", "shrink": [], "expand": [], "expand_one": []}
    lora = gs.LoraConfig(rank=8, active_adapters=2)
    found, tiled = (gs.simulate("gpt-2", "h100-sxm", 4, lora=lora, engine=name) for name in (own, "vllm-0.5"))
    assert 0 < found.tpot_s <= tiled.tpot_s
