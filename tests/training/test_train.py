"""Laws of a training estimate: what is trained, what it takes, and that all ways to ask for it agree."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.training.estimate import TrainEstimate
from graphsim.training.estimated import ComputedStep
from graphsim.training.formulas import leaves, stage_numbers
from graphsim.training.numbers import numbers_of
from graphsim.training.train import setup_of, train

TINY = gs.load_model(
    {
        "name": "tiny", "hidden_size": 512, "vocab_size": 4096, "layers": 4,
        "attention": {"heads": 8, "kv_heads": 2, "head_dim": 64}, "mlp": {"intermediate_size": 1536},
    }
)  # fmt: skip
DEVICE = "a100-sxm-80gb"


def tiny(**described: Any) -> TrainEstimate:
    """A step of a small model."""
    return train(TINY, DEVICE, **{"batch": 2, "seq_len": 512, **described})


def test_full_training_changes_every_weight() -> None:
    assert tiny(method="full").trainable_parameters == TINY.num_parameters


def test_lora_trains_what_peft_counts() -> None:
    lora = gs.LoraConfig(rank=8, target_modules=["q_proj", "down_proj"])
    assert tiny(lora=lora).trainable_parameters == gs.lora_parameters(TINY, lora)


def test_an_adapter_of_rank_0_trains_nothing_and_has_no_backward() -> None:
    step = tiny(lora=gs.LoraConfig(rank=0))
    assert step.trainable_parameters == 0
    assert step.flops["backward"] == 0
    assert step.parts_s["backward"] == step.parts_s["optimizer"] == 0
    assert step.memory.gradients_bytes == step.memory.optimizer_bytes == 0


def test_ranks_in_an_array_are_as_alone() -> None:
    ranks = [0, 8, 64]
    together = tiny(lora=gs.LoraConfig(rank=np.array(ranks)))
    for i, rank in enumerate(ranks):
        alone = tiny(lora=gs.LoraConfig(rank=rank))
        assert together.step_s[i] == pytest.approx(alone.step_s)  # type: ignore[index]
        assert together.memory.total_bytes[i] == pytest.approx(alone.memory.total_bytes)  # type: ignore[index]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_recomputation_takes_time_for_memory_and_leaves_the_gradients_alone(method: str) -> None:
    plain, again = (tiny(method=method, recompute=way, batch=8, recipe="torchtune") for way in ("none", "full"))
    assert again.flops["backward"] == plain.flops["backward"]
    assert again.flops["recompute"] > 0 == plain.flops["recompute"]
    assert again.step_s > plain.step_s
    assert again.memory.total_bytes < plain.memory.total_bytes
    assert again.mfu < plain.mfu


def test_a_frozen_base_has_input_gradients_only() -> None:
    full, lora = tiny(method="full"), tiny(method="lora", lora=gs.LoraConfig(rank=1, target_modules=["q_proj"]))
    assert full.flops["forward"] == pytest.approx(lora.flops["forward"], rel=0.01)
    products = full.flops["backward"] / full.flops["forward"]
    assert 1.9 < products < 2.2
    assert 0.6 < lora.flops["backward"] / lora.flops["forward"] < 1.2  # the first layer asks for fewer


@pytest.mark.parametrize(
    "described",
    [
        {"method": "full"},
        {"method": "lora", "recompute": "full", "accumulate": 4},
        {"method": "full", "parallelism": gs.Parallelism(tp=2, sp=2, dp=2)},
        {"method": "full", "parallelism": gs.Parallelism(pp=2), "accumulate": 8, "recipe": "megatron-lm"},
        {"method": "qlora", "parallelism": gs.Parallelism(dp=4, zero=3)},
    ],
    ids=["full", "recomputed", "tensor", "pipeline", "sharded"],
)
def test_parts_add_up(described: dict[str, Any]) -> None:
    step = tiny(**described)
    assert sum(step.parts_s.values()) == pytest.approx(step.step_s)
    memory = step.memory
    names = ("weights", "gradients", "optimizer", "adapters", "activations", "logits", "workspace", "overhead")
    assert sum(getattr(memory, f"{name}_bytes") for name in names) == pytest.approx(memory.total_bytes)
    assert all(getattr(memory, f"{name}_bytes") >= 0 for name in names)
    totals = dict(memory.timeline)
    assert max(totals.values()) == pytest.approx(memory.total_bytes) == pytest.approx(totals[memory.peak_moment])
    assert memory.timeline[0] == ("between steps", memory.steady_bytes)
    assert min(totals.values()) == memory.steady_bytes


@pytest.mark.parametrize("offload", ["activations", "optimizer", "parameters"])
def test_what_lies_in_the_hosts_memory_is_waited_for(offload: str) -> None:
    here, away = (tiny(method="full", recompute="full", batch=16, offload=lies) for lies in ((), offload))
    assert away.memory.total_bytes < here.memory.total_bytes
    assert away.step_s >= here.step_s
    if offload == "optimizer":
        assert away.memory.optimizer_bytes == 0


def test_micro_batches_add_up() -> None:
    one, four = tiny(accumulate=1), tiny(accumulate=4)
    update_s = one.parts_s["optimizer"]
    assert four.step_s - update_s == pytest.approx(4.0 * (one.step_s - update_s))
    assert four.tokens_per_s * four.step_s == pytest.approx(4.0 * 2 * 512)


def test_micro_batches_of_a_pipeline_in_an_array_are_as_alone() -> None:
    cut = gs.Parallelism(pp=2)
    together = tiny(accumulate=np.array([2, 8]), parallelism=cut)
    for i, count in enumerate((2, 8)):
        assert together.step_s[i] == pytest.approx(tiny(accumulate=count, parallelism=cut).step_s)  # type: ignore[index]


def test_packed_documents_attend_to_themselves() -> None:
    whole, packed = (tiny(method="full", squares=squares, batch=1, seq_len=4096) for squares in (None, 4096.0 * 256))
    assert packed.flops["forward"] < whole.flops["forward"]
    same = tiny(method="full", squares=4096.0**2, batch=1, seq_len=4096)
    assert same.step_s == pytest.approx(whole.step_s)


def test_sizes_in_arrays_are_as_alone() -> None:
    batch, length = np.array([1, 4, 16]), np.array([2048, 128, 512])
    together = tiny(batch=batch, seq_len=length, recompute="full")
    for i in range(3):
        alone = tiny(batch=batch[i], seq_len=length[i], recompute="full")
        assert together.step_s[i] == pytest.approx(alone.step_s)  # type: ignore[index]
        assert together.memory.total_bytes[i] == pytest.approx(alone.memory.total_bytes)  # type: ignore[index]
        assert together.memory.peak_moment[i] == alone.memory.peak_moment


EXPERTS: dict[str, Any] = {
    "name": "tiny-experts", "hidden_size": 512, "vocab_size": 4096, "layers": 2, "attention": {"heads": 8},
    "moe": {"experts": 8, "experts_per_token": 2, "intermediate_size": 256},
}  # fmt: skip
LATENT: dict[str, Any] = {
    "model_type": "deepseek_v3", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 4096, "q_lora_rank": 128, "kv_lora_rank": 64,
    "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "first_k_dense_replace": 2, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "moe_intermediate_size": 256, "max_position_embeddings": 4096,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "device", "method", "recipe"),
    [
        (TINY, DEVICE, "full", "megatron-lm"),
        (TINY, DEVICE, "qlora", "peft"),
        (TINY, DEVICE, "dora", "peft"),
        (TINY, DEVICE, "lora", "unsloth"),
        pytest.param(TINY, "h100-sxm", "lora", "peft", marks=pytest.mark.slow),
        pytest.param(TINY, "rtx-3090", "lora", "peft", marks=pytest.mark.slow),
        pytest.param(EXPERTS, "h100-sxm", "lora", "peft", marks=pytest.mark.slow),
        pytest.param(EXPERTS, "h100-sxm", "full", "megatron-lm", marks=pytest.mark.slow),
        pytest.param(LATENT, "h100-sxm", "lora", "peft", marks=pytest.mark.slow),
    ],
)
def test_recorded_formulas_are_what_the_passes_give(model: Any, device: str, method: str, recipe: str) -> None:
    """Wide enough that chains of kernels find a part of what they read in the cache, and a part in memory."""
    setup = setup_of(model, device, batch=3, seq_len=4096, method=method, recipe=recipe, recompute="full")
    step = ComputedStep(setup)
    recorded = stage_numbers(setup, step.share)
    assert recorded is not None
    passed = [numbers_of(stage, step.share) for stage in step.stages]
    assert list(leaves(recorded)) == pytest.approx(list(leaves(passed)), rel=1e-9)


def test_a_deployment_says_what_it_is_made_of() -> None:
    lora = gs.LoraConfig(rank=4)
    deployment = gs.Deployment(TINY, DEVICE, lora=lora, engine="vllm")
    assert train(deployment, batch=2, seq_len=512).step_s == tiny(lora=lora).step_s
    with pytest.raises(ConfigError, match=r"lora given together with a Deployment.*dataclasses\.replace"):
        train(deployment, lora=lora)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"batch": 0}, "batch = 0"),
        ({"seq_len": 1.5}, "seq_len = 1.5"),
        ({"recompute": "some"}, "recompute = 'some' is not known"),
        ({"sharding": "zero9"}, "sharding = 'zero9' is not known"),
        ({"offload": "weights"}, "offload = 'weights' is not known"),
        ({"method": "prayer"}, "method = 'prayer' is not known"),
        ({"recipe": "none such"}, "recipe = 'none such' is not known"),
        ({"optimizer": "sgdd"}, "optimizer = 'sgdd' is not known"),
        ({"squares": 3.0}, "squares = 3"),
        ({"recompute": np.array([1, 2])}, "recompute = array.* is not known"),
        ({"sharding": ["ddp"]}, r"sharding = \['ddp'\] is not known"),
        ({"passes": 1}, "passes = 1 is not allowed"),
        ({"cost": np.array([1, 2])}, "cost = array.* is not known"),
        ({"batch": np.array([1, 2]), "seq_len": np.array([1, 2, 3])}, "differ in length: 2, 3"),
    ],
)
def test_what_cannot_be_meant_is_told(described: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**described)


MIXERS = {
    "model_type": "mamba", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "state_size": 16,
    "conv_kernel": 4, "time_step_rank": 16, "vocab_size": 1024, "use_bias": False, "use_conv_bias": True,
}  # fmt: skip


def test_nobodys_adapter_goes_on_what_the_model_has() -> None:
    usual, whole = gs.LoraConfig(rank=16, target_modules=["attn", "ffn"]), gs.load_model(MIXERS)
    assert tiny().trainable_parameters == tiny(lora=usual).trainable_parameters
    mixers = gs.LoraConfig(rank=16, target_modules=["attn"])
    assert train(whole, DEVICE, seq_len=64).trainable_parameters == gs.lora_parameters(whole, mixers) > 0


@pytest.mark.parametrize("rank", [0, 8])
def test_what_is_reserved_holds_what_is_allocated(rank: int) -> None:
    memory = tiny(lora=gs.LoraConfig(rank=rank)).memory
    assert memory.reserved_bytes >= memory.total_bytes


def test_a_device_is_needed() -> None:
    with pytest.raises(ConfigError, match="hardware = None"):
        train(TINY)


def test_an_interval_lies_around_the_time_and_turned_around_the_throughput() -> None:
    step = train("llama-3.2-1b", DEVICE)
    low, high = step.interval("step_s")
    assert low < step.step_s < high
    fewest, most = step.interval("tokens_per_s")
    assert fewest == pytest.approx(2048.0 / high)
    assert most == pytest.approx(2048.0 / low)
    with pytest.raises(ConfigError, match="interval of 'ttft_s' is not known"):
        step.interval("ttft_s")
    with pytest.raises(ConfigError, match="roofline"):
        tiny(cost="roofline").interval("step_s")


def test_an_estimate_is_plain_values() -> None:
    values = tiny(batch=np.array([1, 2])).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["settings"]["method"] == "lora"
    assert values["memory"]["peak_moment"] == ["head", "head"]


def test_the_graph_is_scheduled_and_ends_with_the_update() -> None:
    step = tiny(method="full")
    assert step.graph.graph["latency_s"] == pytest.approx(step.step_s, rel=0.02)  # the host is ahead at the update
    assert step.critical_path[-1].startswith("update_")
    frame = step.to_frame()
    assert {"q_proj.dgrad", "q_proj.wgrad"} <= {str(name).rpartition(".backward.")[2] for name in frame["name"]}


def test_a_users_cost_function_prices_gradients_by_their_own_work() -> None:
    from graphsim.cost.roofline import roofline

    def twice(op: Any, hardware: Any) -> Any:
        cost = roofline(op, hardware)
        return replace(cost, busy_s=2.0 * cost.busy_s)

    plain, slow = tiny(cost="roofline"), tiny(cost=twice)
    assert plain.step_s < slow.step_s <= 2.0 * plain.step_s
