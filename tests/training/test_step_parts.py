"""The parts of a training step by themselves: what is alive when, what a chain adds, what ends a step, and rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest

import graphsim as gs
from graphsim.cost.calibrated import Prices
from graphsim.cost.choose import choose_cost
from graphsim.errors import ConfigError
from graphsim.graph import add, walk
from graphsim.ops import (
    Activation,
    Attention,
    AttentionBackward,
    Direction,
    Gemm,
    Input,
    InputGradient,
    KeptValue,
    Norm,
)
from graphsim.ops.update import ELEMENTS_PER_KERNEL, UpdateWeights
from graphsim.training import rates
from graphsim.training.alive import Storages, peak_bytes
from graphsim.training.estimated import ComputedStep
from graphsim.training.kernels import WriteOut
from graphsim.training.prices import TrainingPrices
from graphsim.training.rates import Rates, rates_of
from graphsim.training.recipe import Chain, load_recipe
from graphsim.training.sections import sections_of
from graphsim.training.train import setup_of, train

DEVICE = gs.load_hardware("a100-sxm-80gb")


def nothing(op: object) -> float:
    return 0.0


def chain() -> nx.DiGraph:
    """x -> a (twice as wide) -> b (as x)."""
    graph = nx.DiGraph()
    add(graph, "x", Input(elems=100.0))
    add(graph, "a", Gemm(m=10.0, n=20.0, k=10.0), ["x"])
    add(graph, "b", Gemm(m=10.0, n=10.0, k=20.0), ["a"])
    return graph


def test_values_live_until_their_last_use() -> None:
    assert peak_bytes(chain(), Storages(), nothing) == 2.0 * (200 + 100)  # a and b; x is gone
    late = chain()
    add(late, "c", Activation(elems=100.0, reads=2.0), ["x", "b"])
    assert peak_bytes(late, Storages(), nothing) == 2.0 * (100 + 200 + 100)  # x waits for c


def test_what_is_kept_stays_and_what_is_made_beside_counts() -> None:
    assert peak_bytes(chain(), Storages(stays={"x": 200.0}), nothing) == 2.0 * (100 + 200 + 100)
    assert peak_bytes(chain(), Storages(appears={"a": 50.0}), nothing) == 2.0 * (200 + 100) + 50.0


def test_temporaries_count_where_they_are() -> None:
    assert peak_bytes(chain(), Storages(), lambda op: 1000.0 if op.out_elems == 200 else 0.0) == 2.0 * 300 + 1000.0


def test_kept_values_are_freed_behind_their_gradient() -> None:
    graph = nx.DiGraph()
    add(graph, "dy", Input(elems=100.0, direction=Direction.BACKWARD))
    add(graph, "late.kept", KeptValue(elems=400.0, of="late"))
    add(graph, "late.dgrad", InputGradient(m=10.0, n=10.0, k=10.0), ["dy", "late.kept"])
    add(graph, "early.kept", KeptValue(elems=400.0, of="early"))
    add(graph, "early.dgrad", InputGradient(m=10.0, n=30.0, k=10.0), ["late.dgrad", "early.kept"])
    kept = {"late.kept": 800.0, "early.kept": 800.0}
    at_first = 2.0 * 800 + 2.0 * (100 + 100)
    assert peak_bytes(graph, Storages(outside=kept), nothing) == at_first
    assert peak_bytes(graph, Storages(outside=kept, held=True), nothing) == 2.0 * 800 + 2.0 * (100 + 300)


def test_a_chain_adds_what_the_operation_itself_does_not_move() -> None:
    recipe = replace(
        load_recipe("peft"), fused=(), chains=(Chain(kind="RMSNorm", forward_kernels=7.0, forward_bytes=36.0),)
    )
    graph = nx.DiGraph()
    add(graph, "x", Input(elems=1000.0))
    norm = Norm(rows=10.0, width=100.0)
    add(graph, "norm", norm, ["x"])
    written = WriteOut(recipe=recipe)(graph)
    steps, own = written.nodes["norm.steps"]["op"], written.nodes["norm"]["op"]
    assert steps.work().memory_bytes + own.work().memory_bytes == pytest.approx(36.0 * 1000)
    assert steps.launches + own.launches == 7.0
    fused = WriteOut(recipe=replace(recipe, fused=("norm",)))(graph)
    assert list(fused) == ["x", "norm"]


def test_a_quantised_base_is_widened_in_every_direction_that_runs() -> None:
    setup = setup_of("llama-3.2-1b", DEVICE, method="qlora", recompute="full", recipe="peft")
    graph = ComputedStep(setup).stages[0].micro_batch
    widened: dict[Direction, float] = {}
    for name, op, times in walk(graph):
        if name.endswith(".dequantise"):
            widened[op.direction] = widened.get(op.direction, 0.0) + times * op.elems
    linears = sum(
        times * op.n * op.k for _, op, times in walk(graph) if type(op) is Gemm and op.linear
        and op.direction is Direction.FORWARD
    )  # fmt: skip
    assert widened[Direction.FORWARD] == widened[Direction.RECOMPUTE] == linears
    assert widened[Direction.BACKWARD] == pytest.approx(linears, rel=0.05)  # all but the first layer's q, k and v


def test_an_update_moves_each_weight_in_groups_of_tensors() -> None:
    update = UpdateWeights(elems=1e6, moved_bytes=28.0, tensors=72.0, kernels=2.0)
    assert update.work().memory_bytes == 28e6
    assert update.launches == 4.0
    assert replace(update, tensors=1.0, elems=10.0 * ELEMENTS_PER_KERNEL).launches == 20.0
    assert replace(update, elems=0.0).launches == 0.0


def test_optimizers_that_keep_less_take_less() -> None:
    adamw, eight, sgd = (
        train("llama-3.2-1b", DEVICE, method="full", optimizer=name) for name in ("adamw", "adamw_8bit", "sgd")
    )
    assert adamw.memory.optimizer_bytes > eight.memory.optimizer_bytes > sgd.memory.optimizer_bytes
    assert adamw.parts_s["optimizer"] > sgd.parts_s["optimizer"]


def test_sections_are_the_step_in_its_order() -> None:
    setup = setup_of("llama-3.2-1b", DEVICE, method="full")
    names = [section.name for section in sections_of(ComputedStep(setup).stages[0].sharded)]
    assert names == ["stem", "layers_0_15", "head", "head.backward", "layers_0_15.backward", "stem.backward"]


def test_attentions_gradient_takes_the_forward_kernels_time_times_a_rate() -> None:
    base = choose_cost(None, DEVICE)[0]
    assert isinstance(base, Prices)
    sizes = {
        "sequences": 2.0, "query_tokens": 4096.0, "kv_tokens": 4096.0, "pairs": 2048.0 * 2049.0, "heads": 32.0,
        "kv_heads": 8.0, "head_dim": 128.0, "value_dim": 128.0,
    }  # fmt: skip
    prices = TrainingPrices(base, Rates(attention_backward=3.0), load_recipe("peft"))
    forward, backward = (prices(kind(**sizes), DEVICE).latency_s for kind in (Attention, AttentionBackward))
    assert backward == pytest.approx(3.0 * forward, rel=0.01)


def test_products_run_at_the_rate_of_their_direction() -> None:
    base = choose_cost(None, DEVICE)[0]
    slow = TrainingPrices(base, Rates(fprop=1.0, dgrad=0.5), load_recipe("peft"))
    shape = {"m": 8192.0, "n": 4096.0, "k": 4096.0}
    forward, gradient = slow(Gemm(**shape), DEVICE), slow(InputGradient(**shape), DEVICE)
    assert gradient.latency_s == pytest.approx(2.0 * forward.latency_s)


def test_every_device_has_rates_with_a_source() -> None:
    for name in ("a100-sxm-80gb", "h100-sxm", "gb300", "mi300x", "l40s"):
        found = rates_of(gs.load_hardware(name))
        assert found.source
        assert 0.3 < found.fprop < 1.5


def test_a_rate_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("default: {fprop: fast, speed: 1.0}\n")
    monkeypatch.setattr(rates, "PATH", path)
    with pytest.raises(ConfigError, match=r"rates\.yaml.*fprop.*fast.*|speed"):
        rates_of(DEVICE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "batch", "peak", "steady"),
    [("full", 4, 67.46, 40.48), ("lora", 4, 24.87, 13.66), ("lora", 8, 36.08, 13.66)],
)
def test_mistral_on_one_gpu_allocates_what_was_measured(method: str, batch: int, peak: float, steady: float) -> None:
    """fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv: torch's peak and steady bytes."""
    lora = gs.LoraConfig(rank=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    step = train(
        "mistral-7b", DEVICE, batch=batch, seq_len=4096, method=method, lora=lora if method == "lora" else None,
        recipe="fms-hf-tuning",
    )  # fmt: skip
    assert step.memory.total_bytes / 2**30 == pytest.approx(peak, rel=0.005)
    assert step.memory.steady_bytes / 2**30 == pytest.approx(steady, rel=0.005)


def test_conventions_of_utilisation_count_what_their_users_say() -> None:
    """PaLM: 6 N + 12 L h s for each token; Megatron: three forwards; NVIDIA's LoRA: two for products."""
    tokens, length = 4 * 1024.0, 1024.0
    full = train("llama-3.2-1b", DEVICE, method="full", batch=4, seq_len=1024)
    model = gs.load_model("llama-3.2-1b")
    layers, hidden = model.num_layers, model.hidden_size
    palm = (6.0 * model.num_parameters + 12.0 * layers * hidden * length) * tokens
    assert full.counted_flops["palm"] == pytest.approx(palm, rel=1e-3)
    assert full.counted_flops["megatron"] == pytest.approx(3.0 * full.flops["forward"])
    assert full.counted_flops["graph"] == pytest.approx(full.counted_flops["megatron"], rel=1e-3)
    assert full.utilisation("graph") == full.mfu < full.hfu
    assert full.counted_flops["lora"] < 0.7 * full.counted_flops["megatron"]
    with pytest.raises(ConfigError, match="convention = 'mine' is not known"):
        full.utilisation("mine")


def test_an_optimizer_that_takes_tensors_one_by_one_has_a_copy_of_the_largest_only() -> None:
    """Muon's and Adafactor's temporaries: of the embedding (or head), and not of all weights together."""
    model = gs.load_model("llama-3.2-1b")
    adafactor = gs.train(model, "h100-sxm", seq_len=64, method="full", optimizer="adafactor")
    moments = dict(adafactor.memory.timeline)
    held = adafactor.memory.steady_bytes + 2.0 * model.num_parameters  # gradients, in 16 bits
    assert moments["optimizer"] - held == pytest.approx(12.0 * 128_256 * 2048, rel=0.01)


def test_decompositions_are_work_of_the_update_and_noted() -> None:
    """GaLore's projections are singular vectors, worked out every 200 steps; APOLLO's are drawn."""
    steps = [
        gs.train("llama-3.2-1b", "h100-sxm", seq_len=64, method="full", optimizer=name) for name in ("galore", "apollo")
    ]
    frames = [step.to_frame().set_index("name") for step in steps]
    galore, apollo = (frame[frame.direction == "update"].vector_flops.sum() for frame in frames)
    each = {(2048, 2048): 2, (512, 2048): 2, (2048, 8192): 3}  # matrices of a layer
    decomposed = 16 * sum(count * (6 * high * low**2 + 20 * low**3) for (low, high), count in each.items()) / 200
    assert galore - apollo == pytest.approx(decomposed, rel=0.01)
    assert any("lower bound" in note for note in steps[0].notes) and not any("lower" in n for n in steps[1].notes)


def test_states_that_may_be_paged_out_are_noted() -> None:
    noted = gs.train("llama-3.2-1b", "h100-sxm", seq_len=64, optimizer="paged_adamw_8bit").notes
    assert any("paged out" in note for note in noted)
