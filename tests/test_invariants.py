"""What holds for every model, device and batch: nothing gets faster with more work or slower hardware."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.graph import walk
from graphsim.hardware import Hardware, load_hardware

QUICK = settings.get_profile("laws of deployments")
TINY = {
    "name": "tiny",
    "hidden_size": 256,
    "vocab_size": 1000,
    "layers": 4,
    "attention": {"heads": 8, "kv_heads": 2, "head_dim": 32},
    "mlp": {"intermediate_size": 704},
}
FIGURES = ("ttft_s", "tpot_s", "latency_s", "one_time_s")
DEVICE = load_hardware("h100-sxm")

deployments = st.fixed_dictionaries(
    {
        "tp": st.sampled_from([1, 2, 4, 8]),
        "sequence": st.booleans(),
        "dp": st.sampled_from([1, 3]),
        "pp": st.sampled_from([1, 1, 2, 3]),
        "micro_batches": st.sampled_from([0, 4]),
    }
).map(
    lambda d: gs.Parallelism(
        tp=d["tp"], sp=d["tp"] if d["sequence"] else 1, dp=d["dp"], pp=d["pp"], micro_batches=d["micro_batches"]
    )
)
adapters = st.builds(
    gs.LoraConfig,
    rank=st.sampled_from([8, 16, 64]),
    target_modules=st.sampled_from(["all-linear", ("q_proj", "v_proj"), ("ffn",), ("o_proj", "down_proj")]),
    strategy=st.sampled_from(["dynamic", "merge"]),
    fully_sharded_loras=st.booleans(),
    active_adapters=st.sampled_from([1, 4]),
).map(lambda lora: replace(lora, active_adapters=1) if lora.strategy == "merge" else lora)
requests = st.fixed_dictionaries(
    {"batch": st.integers(1, 40), "input_tokens": st.integers(1, 5000), "output_tokens": st.integers(1, 60)}
)


def estimate(
    asked: dict[str, object], hardware: Hardware = DEVICE, model: object = TINY, **more: object
) -> gs.Estimate:
    return gs.simulate(model, hardware, cost="roofline", **{**asked, **more}, engine="reference")  # type: ignore[arg-type]


def not_faster(more: gs.Estimate, less: gs.Estimate, figures: tuple[str, ...] = FIGURES) -> None:
    for name in figures:
        assert getattr(more, name) >= getattr(less, name) * (1 - 1e-12), name


@QUICK
@given(asked=requests, parallelism=deployments, lora=adapters, further=st.integers(1, 50))
def test_more_sequences_are_never_faster(
    asked: dict, parallelism: gs.Parallelism, lora: gs.LoraConfig, further: int
) -> None:
    more = asked | {"batch": asked["batch"] + further}
    not_faster(*(estimate(a, parallelism=parallelism, lora=lora) for a in (more, asked)))


@QUICK
@given(asked=requests, parallelism=deployments, lora=adapters, further=st.integers(1, 5000))
def test_longer_prompts_are_never_faster(
    asked: dict, parallelism: gs.Parallelism, lora: gs.LoraConfig, further: int
) -> None:
    more = asked | {"input_tokens": asked["input_tokens"] + further}
    not_faster(*(estimate(a, parallelism=parallelism, lora=lora) for a in (more, asked)))


@QUICK
@given(asked=requests, parallelism=deployments, lora=adapters, further=st.integers(1, 60))
def test_longer_outputs_are_never_faster(
    asked: dict, parallelism: gs.Parallelism, lora: gs.LoraConfig, further: int
) -> None:
    more = asked | {"output_tokens": asked["output_tokens"] + further}
    not_faster(*(estimate(a, parallelism=parallelism, lora=lora) for a in (more, asked)))


@QUICK
@given(asked=requests, parallelism=deployments, lora=adapters, further=st.integers(1, 100))
def test_higher_ranks_are_never_faster(
    asked: dict, parallelism: gs.Parallelism, lora: gs.LoraConfig, further: int
) -> None:
    higher = replace(lora, rank=lora.rank + 8 * further)  # shares of every degree of tensor parallelism
    not_faster(*(estimate(asked, parallelism=parallelism, lora=a) for a in (higher, lora)))


@QUICK
@given(asked=requests, parallelism=deployments, lora=adapters, further=st.integers(1, 5))
def test_more_layers_are_never_faster(
    asked: dict, parallelism: gs.Parallelism, lora: gs.LoraConfig, further: int
) -> None:
    if parallelism.pp > 1:  # one more layer may balance the stages better, but not as a whole number per stage
        further *= parallelism.pp
    deeper = TINY | {"layers": 4 + further}
    not_faster(*(estimate(asked, model=m, parallelism=parallelism, lora=lora) for m in (deeper, TINY)))


SLOWER = {
    "matrix peak": lambda hw, f: replace(hw, flops_per_s={k: v * f for k, v in hw.flops_per_s.items()}),
    "vector peak": lambda hw, f: replace(hw, vector_flops_per_s=hw.vector_flops_per_s * f),
    "memory bandwidth": lambda hw, f: replace(hw, memory_bytes_per_s=hw.memory_bytes_per_s * f),
    "link bandwidth": lambda hw, f: replace(
        hw, links=tuple(replace(x, bytes_per_s=x.bytes_per_s * f) for x in hw.links)
    ),
    "link latency": lambda hw, f: replace(hw, links=tuple(replace(x, latency_s=x.latency_s / f) for x in hw.links)),
    "launch": lambda hw, f: replace(hw, launch_s=hw.launch_s / f),
}


@pytest.mark.parametrize("part", SLOWER)
@QUICK
@given(asked=requests, parallelism=deployments, lora=adapters, factor=st.floats(0.05, 0.95))
@pytest.mark.slow
def test_slower_hardware_is_never_faster(
    part: str, asked: dict, parallelism: gs.Parallelism, lora: gs.LoraConfig, factor: float
) -> None:
    slower = SLOWER[part](DEVICE, factor)
    not_faster(*(estimate(asked, hw, parallelism=parallelism, lora=lora) for hw in (slower, DEVICE)))


@QUICK
@given(asked=requests, parallelism=deployments, lora=adapters, factor=st.sampled_from([0.5, 2.0, 4.0]))
def test_time_scales_with_the_hardware(
    asked: dict, parallelism: gs.Parallelism, lora: gs.LoraConfig, factor: float
) -> None:
    """All rates times c and all fixed times over c: every figure over c."""
    scaled = DEVICE
    for change in SLOWER.values():
        scaled = change(scaled, factor)
    here, there = (estimate(asked, hw, parallelism=parallelism, lora=lora) for hw in (DEVICE, scaled))
    for name in FIGURES:
        assert getattr(there, name) == pytest.approx(getattr(here, name) / factor, rel=1e-12)


@QUICK
@given(asked=requests, parallelism=deployments, lora=adapters)
def test_rank_zero_is_the_base_model(asked: dict, parallelism: gs.Parallelism, lora: gs.LoraConfig) -> None:
    base = estimate(asked, parallelism=parallelism)
    none = estimate(asked, parallelism=parallelism, lora=replace(lora, rank=0))
    for name in FIGURES:
        assert getattr(none, name) == pytest.approx(getattr(base, name), rel=1e-12)
    for name in ("weights_bytes", "kv_cache_bytes", "adapters_bytes"):
        assert getattr(none.memory, name) == getattr(base.memory, name)


@QUICK
@given(asked=requests, lora=adapters)
def test_degrees_of_one_are_no_parallelism(asked: dict, lora: gs.LoraConfig) -> None:
    plain = estimate(asked, lora=lora)
    ones = np.ones(2)
    for parallelism in (gs.Parallelism(tp=1, pp=1, dp=1, sp=1, ep=1), gs.Parallelism(tp=ones, sp=ones)):
        found = estimate(asked, lora=lora, parallelism=parallelism)
        for name in FIGURES:
            assert np.broadcast_to(getattr(found, name), 2) == pytest.approx(getattr(plain, name), rel=1e-12)


@QUICK
@given(asked=requests, parallelism=deployments, lora=adapters)
def test_the_critical_path_is_no_shorter_than_any_node_and_no_longer_than_all(
    asked: dict, parallelism: gs.Parallelism, lora: gs.LoraConfig
) -> None:
    found = estimate(asked, parallelism=parallelism, lora=lora)
    for phase in (found.prefill, found.decode):
        frame = phase.to_frame()
        frame = frame[~frame["once"]]
        assert frame["latency_s"].max() <= phase.latency_s * (1 + 1e-12)
        total = (frame["latency_s"] * frame["times"]).sum()
        assert phase.latency_s <= total * (1 + 1e-12)
        if parallelism.pp == 1 and parallelism.tp == 1:
            assert phase.latency_s == pytest.approx(total, rel=1e-12), "one stream takes the sum"
        slacks = [d["slack_s"] for _, d in phase.graph.nodes(data=True) if "slack_s" in d]
        assert min(slacks) >= -1e-9 * phase.latency_s and min(slacks) <= 1e-9 * phase.latency_s


@QUICK
@given(asked=requests, tp=st.sampled_from([1, 2, 4]), lora=adapters)
def test_no_phase_beats_its_flops_at_peak_or_its_bytes_at_bandwidth(asked: dict, tp: int, lora: gs.LoraConfig) -> None:
    found = estimate(asked, parallelism=gs.Parallelism(tp=tp), lora=lora)
    for phase in (found.prefill, found.decode):
        work = gs.total_work(phase.graph)
        assert phase.latency_s >= work.flops / DEVICE.flops_per_s["bf16"]
        assert phase.latency_s >= work.memory_bytes / DEVICE.memory_bytes_per_s


@QUICK
@given(asked=requests, lora=adapters)
def test_spelling_layers_out_changes_nothing(asked: dict, lora: gs.LoraConfig) -> None:
    for phase in ("prefill", "decode"):
        step = {"batch": asked["batch"], "input_tokens": asked["input_tokens"], "phase": phase, "lora": lora}
        whole, flat = (gs.build_graph(TINY, expand=expand, **step) for expand in (False, True))
        assert gs.total_work(flat).flops == pytest.approx(gs.total_work(whole).flops, rel=1e-12)
        assert sum(times for *_, times in walk(whole)) == len(flat)
        ends = [gs.critical_path(gs.annotate(graph, DEVICE)).latency_s for graph in (whole, flat)]
        assert ends[0] == pytest.approx(ends[1], rel=1e-12)


@QUICK
@given(order=st.permutations(range(5)))
def test_scenarios_do_not_know_of_each_other(order: list[int]) -> None:
    batch, length = np.array([1.0, 7.0, 64.0, 2.0, 9.0]), np.array([10.0, 3000.0, 64.0, 513.0, 1.0])
    there = estimate({"batch": batch, "input_tokens": length, "output_tokens": 30})
    here = estimate({"batch": batch[list(order)], "input_tokens": length[list(order)], "output_tokens": 30})
    for name in FIGURES[:3]:
        assert np.array_equal(getattr(here, name), getattr(there, name)[list(order)])
