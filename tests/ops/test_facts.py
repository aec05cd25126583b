"""What each operation says of itself, beside its work: adapters, trained weights, kernels, saved values."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from graphsim.ops import (
    AllReduce,
    AllReduceNorm,
    Collective,
    Launch,
    LoraA,
    LoraB,
    LoraGemm,
    LoraMerge,
    Op,
    SendReceive,
    Together,
)
from graphsim.ops.adapter_values import ColumnScale
from graphsim.ops.adapter_weights import HeldWeights
from graphsim.ops.base import AdapterPart
from graphsim.ops.bitsandbytes import Dequantise, Outliers
from graphsim.ops.lora_variants import VectorScale
from graphsim.ops.update import UpdateWeights
from tests.operations import KINDS, example

RANKLESS = (VectorScale, ColumnScale, HeldWeights)
"""What an adapter trains beside matrices of a rank."""

ADAPTERS = [kind for kind in KINDS if example(kind).adapter]


def test_what_an_adapter_brings_is_what_its_document_and_kernels_name() -> None:
    """The op types of the LoRA document, and what only variants and engines' kernels have."""
    named = {kind.__name__ for kind in KINDS if kind.op_type.name.startswith(("LORA_", "GEMM_LORA_"))}
    others = {"LoraGemm", "LoraAdd", "DoraScale", "VectorScale", "GroupPool", "ModuleScale"}
    others |= {"ColumnScale", "ResultScale", "HeldWeights", "OverridingGemm", "OverrideResult"}
    others |= {"LoraInput", "LoraInputBackward", "LoraAddBackward", "DoraScaleBackward"}
    others |= {"ExpertFactorInputGradient", "ExpertFactorGradient"}
    others |= {"ExpertLoraGemm", "ExpertLoraAdd", "ExpertVectorScale", "ExpertGroupPool"}
    assert {kind.__name__ for kind in ADAPTERS} == named | others


@pytest.mark.parametrize("kind", KINDS)
def test_only_an_adapters_own_weights_are_trained_and_reserved(kind: type[Op]) -> None:
    op = example(kind)
    if not op.adapter:
        assert op.trainable_parameters == 0 and op.buffers == () and op.adapter_rank == 0
        return
    if not isinstance(op, LoraMerge):  # its factors lie nowhere once they are merged
        assert op.trainable_parameters == op.parameters
    assert sum(op.buffers) == pytest.approx(op.parameters)
    assert (op.adapter_rank > 0) == (op.trainable_parameters > 0) or issubclass(kind, RANKLESS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, LoraGemm)])
def test_a_frozen_factor_lies_in_memory_and_is_not_trained(kind: type[LoraGemm]) -> None:
    op, frozen = example(kind), example(kind, frozen=True)
    assert frozen.trainable_parameters == 0 < op.trainable_parameters
    assert frozen.parameters == op.parameters and frozen.weight_storage_bytes == op.weight_storage_bytes > 0
    assert frozen.saved_for_weights.bytes == 0 < op.saved_for_weights.bytes


def test_a_merge_trains_a_and_b_and_owns_nothing() -> None:
    op = LoraMerge(n=10.0, k=6.0, rank=2.0, copies=3.0)
    assert op.trainable_parameters == 3 * 2 * (10 + 6)
    assert op.parameters == 0 and op.weight_storage_bytes == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_joins_the_base_belongs_to_an_adapter_and_to_a_part_of_it(kind: type[Op]) -> None:
    assert not kind.joins_base or example(kind).adapter
    assert isinstance(kind.adapter_part, AdapterPart)
    assert (kind.adapter_part is AdapterPart.COLLECTIVE) == issubclass(kind, Collective)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_are_started_for_what_is_launched_and_for_nothing_else(kind: type[Op]) -> None:
    op = example(kind)
    if any(f.name == "launches" for f in fields(kind)):
        assert replace(op, launches=7.0).launches == 7  # type: ignore[call-arg]
    elif kind in (Dequantise, Outliers):
        assert bool(op.launches) == bool(op.work().memory_bytes)
    elif kind is UpdateWeights:
        found = [UpdateWeights(elems=8.0, moved_bytes=8.0, tensors=tensors, kernels=3.0) for tensors in (1.0, 100.0)]
        assert [update.launches for update in found] == [3, 9]
    elif kind is AllReduceNorm:
        assert [replace(op, apart=apart).launches for apart in (0.0, 1.0)] == [1, 2]  # type: ignore[call-arg]
    else:
        assert op.launches == (1.0 if kind.launched else 0.0)
    assert kind.launched or op.launches == 0


def test_nothing_to_exchange_or_nobody_to_exchange_it_with_starts_no_kernel() -> None:
    assert [AllReduce(elems=elems, group=group).launches for elems, group in ((8.0, 4.0), (0.0, 4.0), (8.0, 1.0))] == [
        1.0, 0.0, 0.0,
    ]  # fmt: skip
    many = AllReduce(elems=np.array([8.0, 0.0]), group=4.0)
    assert np.array_equal(many.launches, [1.0, 0.0])
    assert SendReceive(elems=8.0, group=2.0).launches == 1
    assert Launch(times=3.0).launches == 0


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_what_more_is_saved_for(kind: type[Op]) -> None:
    op = example(kind)
    for kept in (op.saved, op.saved_for_weights):
        assert all(np.isfinite(part) and part >= 0 for part in (kept.inputs, kept.result, kept.own))
    owns = op.parameters > 0
    assert owns or op.saved_for_weights.bytes == 0


def test_kernels_that_run_together_keep_and_train_what_their_parts_do() -> None:
    a, b = LoraA(m=4.0, n=2.0, k=8.0), LoraB(m=4.0, n=6.0, k=2.0)
    both = Together(parts=(a, b))
    assert both.trainable_parameters == 2 * (8 + 6)
    assert both.saved_for_weights.bytes == 2 * 4 * (8 + 2) and both.saved.bytes == 0


def test_a_role_says_which_operation_an_adapters_part_serves() -> None:
    assert LoraA(role="q_proj.lora_a", m=1.0, n=1.0, k=1.0).serves == ("q_proj", "lora_a")
