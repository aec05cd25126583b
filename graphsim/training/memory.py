"""Bytes per device of a training step: stored tensors, sharded over data-parallel devices, and the lifetimes of the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from graphsim.models.layers.base import parameters_of
from graphsim.models.layers.encoder import Encoder
from graphsim.ops.base import BF16
from graphsim.training.estimate import TrainMemory
from graphsim.training.moments import Moment, Persistent, fullest, moments_of
from graphsim.training.numbers import StageNumbers
from graphsim.training.reserved import MOST_REPLAYED, in_pages, reserved_bytes
from graphsim.training.setup import TrainingSetup
from graphsim.training.sharing import groups_of, resident, rule_of, sums_each, whole_units
from graphsim.training.step import Stage
from graphsim.training.stored import FP32
from graphsim.units import Num

KEEPING = ("fsdp1", "fsdp2")
"""Kinds of sharding whose gradients stay allocated between steps with several devices: with two and four GPUs,
allocated memory between steps of a full fine-tuning is four units of weights, with one three (fms-acceleration
a100_80gb.csv)."""


def persistent_of(stage: StageNumbers, setup: TrainingSetup) -> Persistent:
    """Memory that one device of a stage holds throughout a step."""
    recipe, parallelism, rule = setup.recipe, setup.deployment.parallelism, rule_of(setup.sharding)
    kept = resident(stage.held, setup.sharding, parallelism, recipe.units_in_flight)
    ways = groups_of(parallelism).ways
    several = np.minimum(ways - 1.0, 1.0)
    adapters = stage.adapter_bytes / (ways if rule.weights else 1.0)
    on_device = 0.0 if "parameters" in setup.offload else 1.0
    brought = (1.0 - on_device) * whole_units(stage.held, recipe.units_in_flight)
    copies = 0.0 if recipe.weight_format == "given" or rule.weights else stage.held.shared.gathered_bytes
    gradients, share, standing = kept.gradients_bytes, kept.gradient_share, float(recipe.keeps_gradients)
    if recipe.optimizer_in_backward:
        gradients, share, standing = _largest_gradients(stage), 0.0, 1.0
    keeps = np.maximum(float(recipe.keeps_gradients), several * float(setup.sharding in KEEPING))
    return Persistent(
        weights=(kept.weights_bytes - adapters) * on_device,
        adapters=adapters * on_device,
        optimizer=kept.states_bytes * (0.0 if "optimizer" in setup.offload else 1.0),
        gradients=gradients,
        standing=np.where(np.greater(setup.accumulate, 1.0), 1.0, standing)[()],
        whole=_beyond_share(stage, setup, gradients),
        kept=keeps,
        gathered=np.maximum(kept.gathered_bytes, brought) + copies,
        # buffers allocated once are reduced in place
        reducing=kept.bucket_bytes * (1.0 - float(recipe.keeps_gradients)),
        update=_update_bytes(stage, setup) * kept.update_share,
        overhead=recipe.framework_bytes,
        gradient_share=share,
        again=several * float(setup.sharding == "fsdp1" and not setup.method.base),
    )


def _beyond_share(stage: StageNumbers, setup: TrainingSetup, share: Num) -> Num:
    """Memory of accumulated gradients beyond a device's share, if they are reduced in the last micro-batch only.

    They are unsharded until then, in the format in which weights are multiplied (torch,
    FullyShardedDataParallel.no_sync).
    """
    rule = rule_of(setup.sharding)
    if not rule.gradients or sums_each(rule, setup.recipe.defers_reduction):
        return 0.0
    whole = stage.held.shared.gathered_bytes + stage.held.experts.gathered_bytes
    several = np.minimum(groups_of(setup.deployment.parallelism).ways - 1.0, 1.0)
    return np.where(np.greater(setup.accumulate, 1.0), whole - share, 0.0)[()] * several


def _largest_gradients(stage: StageNumbers) -> Num:
    """The largest gradients of one unit, if each unit is updated in the backward pass and its gradients are freed."""
    largest: Num = 0.0
    for unit in stage.held.units:
        largest = np.maximum(largest, unit.shared.gradient_bytes + unit.experts.gradient_bytes)
    return largest


def _update_bytes(stage: StageNumbers, setup: TrainingSetup) -> Num:
    """Memory during the optimizer's step only: a copy of each trained weight, or of one tensor after another."""
    held, optimizer = stage.held.shared + stage.held.experts, setup.optimizer
    wide = np.greater_equal(held.trained_bytes, 0.75 * FP32.bytes * stage.updated)
    wide = wide | setup.recipe.master_weights
    each = np.where(wide, optimizer.temporary_fp32_bytes, optimizer.temporary_bytes)[()]
    return stage.updated * each + stage.largest * optimizer.largest_temporary_bytes


def memory_of(
    stages: list[StageNumbers], setup: TrainingSetup, in_flight: Sequence[Num], graphs: Callable[[], Sequence[Stage]]
) -> TrainMemory:
    """Memory of the stage that needs most.

    in_flight: most micro-batches whose saved values each stage holds at once
    graphs: of the stages, needed for the caching allocator
    """
    found = []
    for i, (stage, held) in enumerate(zip(stages, in_flight, strict=True)):
        persistent = persistent_of(stage, setup)
        if not i:
            persistent = replace(persistent, weights=persistent.weights + tower_bytes(setup))
        moments = moments_of(list(stage.turns), persistent, setup, stage.logits, held, stage.learned)
        found.append(_memory(moments, setup, partial(_reserved, graphs, i, persistent, held)))
    return max(found, key=lambda memory: float(np.max(memory.total_bytes)))


def tower_bytes(setup: TrainingSetup) -> Num:
    """Weights of a multimodal model's towers, which are on the first stage although a text step does not run them."""
    model = setup.deployment.model
    if not model.encoders:
        return 0.0
    ways = groups_of(setup.deployment.parallelism).ways if rule_of(setup.sharding).weights else 1.0
    return _tower_parameters(model.encoders, model.hidden_size) * BF16.bytes / ways


@lru_cache(maxsize=64)
def _tower_parameters(towers: tuple[Encoder, ...], hidden_size: int) -> int:
    return sum(parameters_of(tower.build, hidden_size) for tower in towers)


def _reserved(
    graphs: Callable[[], Sequence[Stage]], number: int, persistent: Persistent, in_flight: Num, total: Num
) -> Num:
    """Reserved memory of one stage, whose graphs are built when it is replayed."""
    if np.size(total) > MOST_REPLAYED:
        return in_pages(total)
    stage = graphs()[number]
    return reserved_bytes(stage, persistent, total, in_flight, stage.setup.deployment.device.usable_bytes)


def _memory(moments: list[Moment], setup: TrainingSetup, reserved: Callable[[Num], Num]) -> TrainMemory:
    parts, number = fullest(moments)
    total = sum(parts.values(), start=0.0)
    names = [moment.name for moment in moments]
    return TrainMemory(
        weights_bytes=parts["weights"], gradients_bytes=parts["gradients"], optimizer_bytes=parts["optimizer"],
        activations_bytes=parts["activations"], adapters_bytes=parts["adapters"], logits_bytes=parts["logits"],
        workspace_bytes=parts["workspace"], overhead_bytes=parts["overhead"], total_bytes=total,
        steady_bytes=moments[0].total, reserved=partial(reserved, total),
        capacity_bytes=setup.deployment.device.usable_bytes, peak_moment=named(number, names),
        timeline=tuple((moment.name, moment.total) for moment in moments),
    )  # fmt: skip


def named(number: Num, names: list[str]) -> Any:
    """The name of the fullest moment, an array of names where there are several scenarios."""
    if np.ndim(number) == 0:
        return names[int(number)]
    return np.array(names)[np.asarray(number).astype(int)]
