"""Laws of training, on models and sizes that nobody chose: what is trained, recomputed, cut, and how memory goes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.graph import walk
from graphsim.ops import KeptValue
from graphsim.ops.gradients import HeadWeightGradient, WeightGradient
from graphsim.training.estimated import ComputedStep
from graphsim.training.flops import by_direction
from graphsim.training.memory import persistent_of
from graphsim.training.moments import HEAD
from graphsim.training.recipe import load_recipe
from graphsim.training.reserved import events_of, program_of
from graphsim.training.step import stages_of
from graphsim.training.train import setup_of, train
from tests.training.torch_facts import MODELS

FEW = settings(max_examples=2, deadline=None, derandomize=True)
MORE = settings(max_examples=4, deadline=None, derandomize=True)
NAMES = st.sampled_from(["llama", "qwen3", "gpt2", "gemma2", "falcon", "opt", "phi3", "olmo2"])
RECIPES = st.sampled_from(["peft", "torchtune", "unsloth", "megatron-bridge", "transformers", "axolotl"])
BATCHES, LENGTHS = st.integers(1, 8), st.integers(16, 512)
ALL = gs.LoraConfig(rank=8, target_modules="all-linear")
H100 = "h100-sxm"


def step(name: str, method: str = "full", **further: Any) -> gs.training.estimate.TrainEstimate:
    lora = further.pop("lora", ALL if method != "full" else None)
    return train(MODELS[name], H100, method=method, lora=lora, **{"batch": 2, "seq_len": 64} | further)


def graph_of(name: str, method: str = "full", **further: Any) -> Any:
    lora = further.pop("lora", ALL if method != "full" else None)
    setup = setup_of(MODELS[name], H100, method=method, lora=lora, **{"batch": 2, "seq_len": 64} | further)
    return stages_of(setup)[0].sharded


def weight_gradients(graph: Any) -> float:
    kinds = WeightGradient | HeadWeightGradient
    return sum(times * float(op.work().flops) for _, op, times in walk(graph) if isinstance(op, kinds))


@FEW
@given(NAMES, BATCHES, LENGTHS)
def test_full_training_is_the_gradients_of_values_and_those_of_every_weight(name: str, batch: int, length: int) -> None:
    sizes = {"batch": batch, "seq_len": length, "recipe": "transformers", "recompute": "none"}
    full = graph_of(name, **sizes)
    recipe = replace(setup_of("llama-3.2-1b", H100, recipe="transformers").recipe, input_requires_grad=True)
    frozen = graph_of(name, "lora", lora=replace(ALL, rank=0), **sizes | {"recipe": recipe})
    values = by_direction(full)["backward"] - weight_gradients(full)
    assert values == pytest.approx(by_direction(frozen)["backward"], rel=1e-12)
    assert weight_gradients(frozen) == 0.0


@pytest.mark.slow
@MORE
@given(NAMES)
def test_full_training_trains_every_parameter_and_an_adapter_its_own(name: str) -> None:
    model = gs.load_model(MODELS[name])
    assert step(name).trainable_parameters == model.num_parameters
    assert step(name, "lora").trainable_parameters == gs.lora_parameters(model, ALL)


@FEW
@given(NAMES, RECIPES)
def test_an_adapter_of_rank_0_trains_nothing_and_nothing_runs_backward(name: str, recipe: str) -> None:
    recipe_of = replace(setup_of("llama-3.2-1b", H100, recipe=recipe).recipe, input_requires_grad=False)
    graph = graph_of(name, "lora", lora=replace(ALL, rank=0), recipe=recipe_of, recompute="none")
    assert by_direction(graph)["backward"] == 0.0
    assert sum(float(op.kept_bytes) for _, op, _ in walk(graph) if isinstance(op, KeptValue)) == 0.0
    found = step(name, "lora", lora=replace(ALL, rank=0), recipe=recipe_of, recompute="none")
    assert found.trainable_parameters == found.memory.gradients_bytes == found.memory.optimizer_bytes == 0.0


@FEW
@given(NAMES, st.sampled_from(["full", "lora"]), RECIPES)
def test_recomputation_changes_time_and_memory_but_no_gradient(name: str, method: str, recipe: str) -> None:
    sizes = {"batch": 4, "seq_len": 256, "recipe": recipe}
    none, again = (step(name, method, recompute=kind, **sizes) for kind in ("none", "full"))
    entry = step(name, "full", recompute="none", **sizes) if method == "full" else none
    assert again.flops["backward"] >= none.flops["backward"] == entry.flops["backward"]
    if method == "full":
        assert again.flops["backward"] == none.flops["backward"]
    assert again.flops["recompute"] > 0.0 == none.flops["recompute"]
    assert again.flops["forward"] == none.flops["forward"]
    assert again.step_s > none.step_s
    assert again.memory.total_bytes <= none.memory.total_bytes


@FEW
@given(st.sampled_from(["llama", "qwen3", "phi3", "olmo2"]), st.sampled_from(["full", "lora"]))
def test_shards_of_tensor_parallelism_add_up_to_the_whole(name: str, method: str) -> None:
    whole, half = (step(name, method, parallelism=gs.Parallelism(tp=tp), recompute="none") for tp in (1, 2))
    for direction in ("forward", "backward"):
        base = whole.flops[direction]
        assert base <= 2.0 * half.flops[direction] <= (1.0 if method == "full" else 1.2) * base * (1 + 1e-9)
    assert half.trainable_parameters == whole.trainable_parameters


@pytest.mark.slow
@MORE
@given(NAMES, st.sampled_from([2, 4, 8]))
def test_shards_of_zero_add_up_to_the_whole(name: str, ways: int) -> None:
    alone = step(name, recipe="transformers")
    for level, dealt in ((1, ["optimizer"]), (2, ["optimizer"]), (3, ["optimizer", "weights"])):
        shared = step(name, recipe="transformers", parallelism=gs.Parallelism(dp=ways, zero=level))
        for part in dealt:
            whole, own = (getattr(found.memory, f"{part}_bytes") for found in (alone, shared))
            assert own * ways == pytest.approx(whole, rel=1e-9), (level, part)


@FEW
@given(NAMES, RECIPES, st.sampled_from(["full", "lora", "qlora"]), BATCHES)
def test_memory_is_never_below_0_and_its_parts_are_all_of_it(name: str, recipe: str, method: str, batch: int) -> None:
    memory = step(name, method, recipe=recipe, batch=batch).memory
    parts = [getattr(memory, f"{part}_bytes") for part in (
        "weights", "gradients", "optimizer", "activations", "adapters", "logits", "workspace", "overhead",
    )]  # fmt: skip
    assert min(parts) >= 0.0
    assert sum(parts) == pytest.approx(memory.total_bytes)
    sizes = dict(memory.timeline)
    assert min(sizes.values()) >= 0.0
    assert max(sizes.values()) == pytest.approx(memory.total_bytes)
    assert memory.timeline[0][1] == memory.steady_bytes <= memory.total_bytes <= memory.reserved_bytes * (1 + 1e-9)


@FEW
@given(NAMES, RECIPES, st.sampled_from(["full", "lora"]), st.sampled_from([1, 3]))
def test_tensors_of_a_step_end_where_they_began(name: str, recipe: str, method: str, accumulate: int) -> None:
    lora = ALL if method != "full" else None
    setup = setup_of(
        MODELS[name], H100, batch=2, seq_len=64, method=method, lora=lora, recipe=recipe, accumulate=accumulate
    )
    computed = ComputedStep(setup)
    program = program_of(computed.stages[0], persistent_of(computed.numbers[0], setup), 1.0, float)
    alive: dict[str, float] = {}
    for tensor, size in events_of(program):
        if size:
            alive[tensor] = size
        else:
            del alive[tensor]
    standing = sum(program.there) + sum(program.states)
    gradients = sum(alive.values()) - standing
    trained = float(computed.trainable_parameters)
    assert gradients == pytest.approx(0.0, abs=1.0) or (program.keeps and gradients <= 4.0 * trained * (1 + 1e-9))


@pytest.mark.slow
@MORE
@given(NAMES, RECIPES, st.sampled_from(["full", "lora", "qlora"]), st.integers(1, 4), st.integers(32, 256))
def test_more_tokens_ranks_and_layers_are_never_cheaper(
    name: str, recipe: str, method: str, batch: int, length: int
) -> None:
    sizes: dict[str, Any] = {"recipe": recipe, "batch": batch, "seq_len": length}
    least = step(name, method, **sizes)
    more = [step(name, method, **sizes | {"batch": batch + 1}), step(name, method, **sizes | {"seq_len": 2 * length})]
    if method != "full":
        more.append(step(name, method, lora=replace(ALL, rank=64), **sizes))
    for found in more:
        assert found.step_s >= least.step_s * (1 - 1e-9)
        assert found.memory.total_bytes >= least.memory.total_bytes * (1 - 1e-9)


@pytest.mark.slow
@MORE
@given(NAMES, RECIPES, st.sampled_from(["full", "lora", "qlora"]))
def test_arrays_equal_scalars(name: str, recipe: str, method: str) -> None:
    batches, lengths = [1, 3, 2], [64, 32, 256]
    arrays = step(name, method, recipe=recipe, batch=np.array(batches), seq_len=np.array(lengths))
    for i, (batch, length) in enumerate(zip(batches, lengths, strict=True)):
        one = step(name, method, recipe=recipe, batch=batch, seq_len=length)
        assert arrays.step_s[i] == pytest.approx(one.step_s, rel=1e-9)
        for size in ("total_bytes", "steady_bytes", "activations_bytes", "reserved_bytes"):
            found = np.broadcast_to(getattr(arrays.memory, size), 3)[i]
            assert found == pytest.approx(getattr(one.memory, size), rel=1e-9), size
        assert np.broadcast_to(arrays.memory.peak_moment, 3)[i] == one.memory.peak_moment


@pytest.mark.parametrize("precision", ["nf4", "int8", "mxfp4", "fp8_wo"])
def test_weights_that_are_only_stored_are_not_trained(precision: str) -> None:
    with pytest.raises(gs.ConfigError, match=f"trains the model's weights, which precision '{precision}' keeps in"):
        step("llama", "full", precision=precision)


def test_towers_lie_on_the_device_though_text_alone_is_trained() -> None:
    whole = gs.load_model("qwen2.5-vl-7b").num_parameters
    memory = train("qwen2.5-vl-7b", H100, method="lora", recipe="transformers").memory
    assert memory.weights_bytes == 2.0 * whole


@pytest.mark.parametrize("sharding", ["fsdp1", "fsdp2"])
def test_gradients_whose_reduction_is_deferred_are_whole_while_the_last_micro_batch_runs(sharding: str) -> None:
    """Against the same recipe that reduces each micro-batch: all but a device's share, at the head."""
    devices, weights = 4, 2.0 * step("llama").trainable_parameters
    recipe, at = load_recipe("transformers"), HEAD
    found = {
        (defers, accumulate): dict(step(
            "llama", recipe=replace(recipe, defers_reduction=defers), sharding=sharding, accumulate=accumulate,
            parallelism=gs.Parallelism(dp=devices),
        ).memory.timeline)
        for defers in (False, True) for accumulate in (1, 2)
    }  # fmt: skip
    assert found[True, 1] == found[False, 1]
    more = found[True, 2][at] - found[False, 2][at]
    assert more == pytest.approx(weights * (1.0 - 1.0 / devices), rel=1e-6)
    assert found[True, 2]["between steps"] == found[False, 2]["between steps"]
