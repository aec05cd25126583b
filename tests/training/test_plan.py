"""A whole training run: what its parts add up to, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.ops.base import OpType
from graphsim.training.course import FAILURE_DEVICE_HOURS, Course
from graphsim.training.merges import merge_of
from graphsim.training.plan import Plan, fine_tune_plan, plan_of
from graphsim.training.run_parts import checkpoint_bytes
from graphsim.training.setup import Method
from tests.training.fakes import FULL, LORA, estimate_of, memory_of, setup_of

RELORA = Method(name="relora", base=False, adapters=True)
STEP_TOKENS = 8192


def planned(estimate: Any = None, **course: Any) -> Plan:
    return plan_of(estimate or estimate_of(), Course(**course))


def part(plan: Plan, name: str) -> Any:
    return next(part for part in plan.parts if part.name == name)


@pytest.mark.parametrize(
    ("course", "steps"),
    [
        ({"tokens": STEP_TOKENS * 10}, 10),
        ({"tokens": STEP_TOKENS * 10 + 1}, 11),
        ({"steps": 7}, 7),
        ({"epochs": 3, "dataset_tokens": STEP_TOKENS * 1.5}, 6),  # an epoch's last step is a part of one
        ({"epochs": 2, "dataset_samples": 17}, 6),  # 8 sequences a step
        ({"epochs": 0.5, "dataset_samples": 80}, 5),
    ],
)
def test_steps_follow_from_tokens_epochs_or_samples(course: dict[str, Any], steps: int) -> None:
    plan = planned(**course)
    assert plan.steps == steps
    assert plan.tokens == steps * STEP_TOKENS


def test_the_parts_add_up_to_the_whole_and_the_table_says_the_same() -> None:
    plan = planned(
        steps=1000, evaluate_every=100, evaluation_tokens=81920, checkpoint_every=300, failure_device_hours=10
    )
    frame = plan.to_frame()
    assert frame["total_s"].sum() == pytest.approx(plan.total_s)
    assert frame["share"].sum() == pytest.approx(1.0)
    assert set(frame["part"]) == {
        "training", "evaluations", "checkpoints", "steps lost to failures", "restarts"
    }  # fmt: skip
    assert plan.to_dict()["parts"]["training"]["total_s"] == 4000.0


def test_an_evaluation_takes_the_forward_part_of_its_steps() -> None:
    """10 steps' tokens: 1 s forward, and a third of the 0.75 s in which nothing is computed."""
    evaluations = part(planned(steps=1000, evaluate_every=300, evaluation_tokens=10 * STEP_TOKENS), "evaluations")
    assert evaluations.count == 3
    assert evaluations.each_s == pytest.approx(10 * 1.25)


def test_a_checkpoint_holds_what_is_trained_and_its_states() -> None:
    """fp32 factors with 8 bytes of states each; of a base in 16 bits all weights, and 4 bytes for those trained."""
    assert checkpoint_bytes(estimate_of()) == 1e7 * (4 + 8)
    model = gs.load_model("llama-3.2-1b").num_parameters
    full = estimate_of(setup_of(FULL), trainable_parameters=0.8 * model)
    assert checkpoint_bytes(full) == pytest.approx(2 * model + 4 * 0.8 * model)


def test_checkpoints_are_written_at_the_disks_rate_and_one_always_at_the_end() -> None:
    assert part(planned(steps=1000), "checkpoints").count == 1
    written = part(planned(steps=1000, checkpoint_every=300, disk_bytes_per_s="100 MB/s"), "checkpoints")
    assert written.count == 4
    assert written.each_s == pytest.approx(1.2)


def test_failures_cost_half_a_checkpoint_interval_and_a_restart() -> None:
    plan = planned(steps=1000, checkpoint_every=100, failure_device_hours=1.0, restart_s=60.0)
    run_s = 4000.0 + 10 * part(plan, "checkpoints").each_s
    lost, restarts = part(plan, "steps lost to failures"), part(plan, "restarts")
    assert lost.count == restarts.count == pytest.approx(run_s / 3600)
    assert lost.each_s == pytest.approx(0.05 * run_s)
    assert restarts.each_s == pytest.approx(60.0 + part(plan, "checkpoints").each_s)
    assert 50_000 < FAILURE_DEVICE_HOURS < 51_000


def test_money_is_device_hours_times_the_price() -> None:
    estimate = estimate_of(setup_of(dp=8))
    plan = plan_of(estimate, Course(steps=900), {"H100": 2.5, "a100-sxm-80gb": 1.0})
    assert plan.devices == 8
    assert plan.device_hours == pytest.approx(8 * plan.hours)
    assert plan.money == pytest.approx(2.5 * plan.device_hours)
    assert "money" in plan.to_frame() and "money" not in planned(steps=1).to_frame()


def test_energy_lies_between_a_waiting_and_a_busy_device() -> None:
    plan = planned(steps=1000)
    power = gs.load_hardware("h100-sxm").power_w
    assert 0.1 * power < plan.watts <= power
    assert plan.energy_j == pytest.approx(plan.watts * plan.total_s)
    waiting = planned(steps=1, checkpoint_every=1, disk_bytes_per_s=1.0)  # nearly all of it is writing
    assert waiting.watts < 0.5 * plan.watts


def test_numbers_may_be_arrays() -> None:
    plan = planned(tokens=np.array([1e6, 1e7]), checkpoint_every=np.array([0, 10]))
    for i, tokens in enumerate((1e6, 1e7)):
        alone = planned(tokens=tokens, checkpoint_every=(0, 10)[i])
        assert plan.total_s[i] == pytest.approx(alone.total_s)
        assert plan.to_frame(i)["total_s"].sum() == pytest.approx(alone.total_s)


def test_a_merge_is_priced_by_its_nodes_and_comes_behind_every_cycle() -> None:
    setup = setup_of(RELORA)
    plan = planned(estimate_of(setup), steps=1000, relora_every=300, rewarm_steps=50)
    merges = part(plan, "merges")
    assert merges.count == part(plan, "new cycles").count == 3
    once = [op for graph in plan.merge.graphs for _, op, _ in walk(graph) if op.op_type is OpType.LORA_MERGE]
    assert once and merges.each_s == pytest.approx(gs.simulate(
        "llama-3.2-1b", "h100-sxm", lora=gs.LoraConfig(rank=16, strategy="merge", lora_dtype="fp32"), engine="reference"
    ).one_time_s)  # fmt: skip
    assert any("15.0% of the steps" in note for note in plan.notes)


def test_pruning_passes_over_the_optimizers_states() -> None:
    kept, pruned = (merge_of(setup_of(RELORA), 1e9, share).restart_s for share in (0.0, 0.9))
    moved_s = 2 * 8e9 / gs.load_hardware("h100-sxm").memory_bytes_per_s
    assert pruned - kept == pytest.approx(moved_s, rel=0.3)


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        (setup_of(RELORA, precision="int4"), "int4 cannot be written; expected one in 16 or 32 bits"),
        (setup_of(RELORA, precision="fp8_wo"), "fp8_wo cannot be written"),
        (setup_of(RELORA, dp=2, sharding="fsdp2"), "fsdp2 leaves none on a device"),
        (setup_of(FULL), "has no adapter to merge"),
    ],
)
def test_a_base_that_cannot_be_written_is_refused(setup: Any, said: str) -> None:
    with pytest.raises(gs.InfeasibleError, match=said):
        planned(estimate_of(setup), steps=10, relora_every=5)


@pytest.mark.parametrize(
    "asked", [{"precision": "int4"}, {"sharding": "fsdp2", "parallelism": gs.Parallelism(dp=2)}], ids=["int4", "fsdp2"]
)
def test_a_step_of_relora_is_refused_where_its_merges_would_be(asked: dict[str, Any]) -> None:
    with pytest.raises(gs.InfeasibleError, match="'relora' merges into"):
        gs.train("llama-3.2-1b", "h100-sxm", method="relora", **asked)


@pytest.mark.parametrize("precision", ["bf16", "nf4", "llm_int8"])
def test_a_base_that_bitsandbytes_quantises_again_can_be_merged_into(precision: str) -> None:
    assert merge_of(setup_of(RELORA, precision=precision), 1e7, 0.9).merge_s > 0


@pytest.mark.parametrize(
    ("course", "said"),
    [
        ({}, "one of tokens, epochs and steps; none was given"),
        ({"tokens": 1e9, "epochs": 2}, "tokens and epochs were given"),
        ({"epochs": 2}, "needs the dataset's size"),
        ({"tokens": 1e9, "dataset_tokens": 1e6}, "is the size of an epoch and needs epochs, not tokens"),
        ({"tokens": -1}, "tokens = -1 is not allowed; expected a number above 0"),
        ({"tokens": "many"}, "tokens = 'many' is not allowed"),
        ({"steps": 1.5}, "steps = 1.5 is not allowed"),
        ({"steps": 5, "evaluate_every": 2}, "expected how many tokens an evaluation reads"),
        ({"steps": 5, "warm_start_steps": 2}, "give relora_every with it"),
        ({"steps": 5, "disk_bytes_per_s": "3 apples"}, "disk_bytes_per_s: '3 apples' has the unit 'apples'"),
        ({"steps": 5, "pruned": 1.2}, "expected a number from 0 to 1"),
    ],
)
def test_mistakes_are_told_in_a_sentence(course: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        planned(**course)


def test_an_estimate_says_what_is_trained() -> None:
    assert fine_tune_plan(estimate_of(), steps=3).steps == 3
    with pytest.raises(gs.ConfigError, match="hardware, batch given together with an estimate"):
        fine_tune_plan(estimate_of(), "h100-sxm", batch=2, steps=3)
    with pytest.raises(gs.ConfigError, match="price_per_hour has no price for 'h100-sxm'"):
        fine_tune_plan(estimate_of(), steps=3, price_per_hour={"l4": 0.5})
    with pytest.raises(gs.ConfigError, match="price_per_hour = -1"):
        fine_tune_plan(estimate_of(), steps=3, price_per_hour=-1)


def test_what_does_not_fit_is_said() -> None:
    estimate = estimate_of(measure_memory=lambda: memory_of(reserved=1e12))
    assert any("does not fit" in note for note in planned(estimate, steps=1).notes)


def test_texts_and_notebooks_show_the_headline() -> None:
    plan = plan_of(estimate_of(setup_of(LORA)), Course(steps=9000), 2.0)
    assert "time: 10 h" in str(plan) and "kWh" in str(plan)
    assert "training run" in plan._repr_html_()
