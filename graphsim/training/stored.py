"""Storage of a trained model on a device: weights, gradients and optimizer states, section by section."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np

from graphsim.graph import walk
from graphsim.ops import Embedding, ExpertGemm, Gemm, LoraGemm, Norm, Op
from graphsim.ops.base import BF16
from graphsim.ops.formats import FORMATS
from graphsim.ops.lora_experts import ExpertLoraGemm
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.training.held import Held, HeldBytes, HeldUnit
from graphsim.training.sections import Section, sections_of
from graphsim.training.setup import TrainingSetup
from graphsim.units import Num

FP32 = FORMATS["fp32"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """The tensors of one operation: `count` of n x k each (k = 1: a vector).

    table: whether it is an embedding or a head, which some optimizers treat separately
    """

    n: Num
    k: Num = 1.0
    count: Num = 1.0
    table: bool = False

    @property
    def elems(self) -> Num:
        """Total number of elements."""
        return self.n * self.k * self.count


def weights_of(op: Op) -> Iterator[Weights]:
    """The tensors of an operation; they add up to its `parameters`."""
    if isinstance(op, ExpertGemm | ExpertLoraGemm):
        yield Weights(n=op.parameters)
    elif isinstance(op, Gemm) and type(op).parameters is Gemm.parameters:
        if not op.shared:
            yield Weights(n=op.n, k=op.k, table=op.head)
        if op.bias:
            yield Weights(n=op.n)
    elif isinstance(op, LoraGemm):
        yield Weights(n=op.parameters / np.maximum(op.k, 1.0), k=np.maximum(op.k, 1.0))
    elif isinstance(op, Embedding):
        if not op.shared:
            yield Weights(n=op.entries, k=op.width, table=True)
    elif isinstance(op, Norm):
        yield Weights(n=op.width, count=op.parameters / np.maximum(op.width, 1.0))
    else:
        yield Weights(n=op.parameters)


def held_of(graph: nx.DiGraph, setup: TrainingSetup) -> HeldBytes:
    """A device's part of a pipeline stage before data parallelism.

    graph: sharded, weights in stored formats
    """
    units = [unit_of(section, setup) for section in sections_of(graph) if not section.backward]
    return HeldBytes(units=tuple(units))


def unit_of(section: Section, setup: TrainingSetup) -> HeldUnit:
    """The part of one turn of a section."""
    shared, experts = Held(), Held()
    for _, op, times in walk(section.graph):
        if may_be_nonzero(op.parameters):
            if isinstance(op, ExpertGemm | ExpertLoraGemm):
                experts = experts + held(op, setup) * times
            else:
                shared = shared + held(op, setup) * times
    return HeldUnit(name=section.name, times=section.times, shared=shared, experts=experts)


def held(op: Op, setup: TrainingSetup) -> Held:
    """The storage of one operation's weights."""
    recipe, optimizer, trained = setup.recipe, setup.optimizer, op.trained
    stored, wide = stored_bytes(op, setup), is_wide(op, setup)
    kept = op.parameters * (FP32.bytes if wide else BF16.bytes)
    width = FP32.bytes if wide else BF16.bytes
    master = recipe.master_weights and not wide
    states: Num = FP32.bytes * op.parameters if master else 0.0
    tensors: Num = 0.0
    for weights in weights_of(op):
        each = optimizer.held_bytes(weights.n, weights.k, fp32=wide or master, table=weights.table)
        states, tensors = states + weights.count * each, tensors + weights.count * np.minimum(weights.elems, 1.0)
    gradients = gradient_bytes(setup, wide)
    return Held(
        frozen_bytes=(1.0 - trained) * stored,
        trained_bytes=trained * kept,
        gathered_bytes=trained * gathered_width(op, width) * op.parameters,
        gradient_bytes=trained * gradients * op.parameters,
        reduced_bytes=trained * gradients * op.parameters,
        state_bytes=trained * states,
        tensors=trained * tensors,
    )


def is_wide(op: Op, setup: TrainingSetup) -> bool:
    """Whether an operation's weights, where they are trained, are in fp32."""
    if isinstance(op, LoraGemm):
        return float(op.weights.bytes) >= FP32.bytes
    return setup.recipe.weight_format == FP32.name and not op.adapter


def gathered_width(op: Op, width: float) -> float:
    """Bytes of each gathered trained weight: 16 bits for the base's, as stored for adapters'."""
    return width if op.adapter else min(width, BF16.bytes)


def gradient_bytes(setup: TrainingSetup, wide: bool) -> float:
    """Bytes of the gradient of one weight, which is in fp32 where `wide`."""
    kept = setup.recipe.gradient_format
    return (FP32.bytes if wide else BF16.bytes) if kept == "weights" else FORMATS[kept].bytes


def stored_bytes(op: Op, setup: TrainingSetup) -> Num:
    """Bytes of an operation's weights; weights that are not quantised may be kept in fp32."""
    upcast = setup.method.upcasts and not op.adapter and not (isinstance(op, Gemm) and op.weights.bytes < BF16.bytes)
    if isinstance(op, Embedding) or (isinstance(op, Gemm) and op.head):
        upcast = upcast and setup.recipe.upcasts_tables
    return op.parameters * FP32.bytes if upcast else op.weight_storage_bytes


def trained_parameters(graph: nx.DiGraph) -> Num:
    """Weights that the step changes.

    graph: logical, of all stages, or sharded, of a device
    """
    total: Num = 0.0
    for _, op, times in walk(graph):
        total = total + times * op.trained * op.parameters
    return total
