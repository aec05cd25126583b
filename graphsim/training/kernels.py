"""Further kernels of a trainer's code in addition to an operation's main kernel, in either direction.

Eager chains (norms, rotary embedding, activations, PEFT's casts, dropout, scale and sum) are data of the recipe, as
are those of a loss; quantised weights are widened before every GEMM, forward, backward and when recomputed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import (
    Activation,
    ActivationBackward,
    Direction,
    Gemm,
    Launch,
    LoraA,
    LoraAdd,
    LoraAddBackward,
    LoraGemm,
    LoraInput,
    LoraInputBackward,
    Loss,
    LossBackward,
    ModuleSteps,
    Norm,
    NormBackward,
    Op,
    Rope,
    RopeBackward,
    VectorGradient,
)
from graphsim.ops.adapter_values import ColumnScale
from graphsim.ops.base import BF16
from graphsim.ops.gradients.elementwise import ColumnScaleBackward
from graphsim.ops.update import UpdateWeights
from graphsim.training.expert_steps import expert_steps
from graphsim.training.presence import there
from graphsim.training.recipe import Chain, Recipe
from graphsim.units import Num

NORMS, ROPES = (Norm, NormBackward), (Rope, RopeBackward)
INPUTS, RESULTS = (LoraInput, LoraInputBackward), (LoraAdd, LoraAddBackward)
ACTIVATIONS, LOSSES = (Activation, ActivationBackward), (Loss, LossBackward)
SCALES = (ColumnScale, ColumnScaleBackward)


def kind_of(op: Op) -> str:
    """The recipe's chain of an operation, or of the one whose gradient it computes; "" where it has none."""
    if isinstance(op, NORMS):
        return "RMSNorm" if op.vectors < 2 else "LayerNorm"
    if isinstance(op, ACTIVATIONS):
        gates = op.reads > 1 if isinstance(op, Activation) else len(op.gives) > 1
        return "GatedActivation" if gates else "Activation"
    if isinstance(op, SCALES):
        return "ColumnScale" if op.steps == 1.0 else ""
    for kinds, name in ((ROPES, "Rope"), (INPUTS, "LoraInput"), (RESULTS, "LoraResult"), (LOSSES, "Loss")):
        if isinstance(op, kinds):
            return name
    return type(op).__name__


FUSED = {
    "RMSNorm": "norm", "LayerNorm": "norm", "Rope": "rope", "GatedActivation": "activation", "Activation": "activation",
    "LoraInput": "lora", "LoraResult": "lora",
}  # fmt: skip
"""The name with which a recipe states that a kind is one kernel."""


def chain_of(recipe: Recipe, op: Op) -> Chain | None:
    """The separate kernels of an operation in the recipe; None if it is one kernel."""
    kind = kind_of(op)
    if kind == "Loss":
        half = recipe.loss.moved_bytes / 2.0, recipe.loss.kernels / 2.0
        return Chain(
            kind=kind, forward_bytes=half[0], forward_kernels=half[1], backward_bytes=half[0], backward_kernels=half[1]
        )
    if isinstance(op, VectorGradient):
        return _of_weights(recipe, op)
    if FUSED.get(kind) in recipe.fused:
        return None
    found = next((chain for chain in recipe.chains if chain.kind == kind), None)
    if kind == "LoraInput" and isinstance(op, INPUTS) and op.dropout:
        return _summed(kind, found, next((chain for chain in recipe.chains if chain.kind == "LoraDropout"), None))
    return found


def _of_weights(recipe: Recipe, op: VectorGradient) -> Chain | None:
    """The part of a norm's chain for the gradient of its weights; none for a bias, which reads one value."""
    kind = "RMSNorm" if op.vectors < 2 else "LayerNorm"
    norm = next((chain for chain in recipe.chains if chain.kind == kind), None)
    if op.reads < 2 or norm is None or "norm" in recipe.fused:
        return None
    return Chain(kind=kind, backward_kernels=norm.trained_kernels, backward_bytes=norm.trained_bytes)


def _summed(kind: str, one: Chain | None, other: Chain | None) -> Chain | None:
    """Two chains one after another."""
    if one is None or other is None:
        return one or other
    names = [name for name in Chain.__dataclass_fields__ if name != "kind"]
    return Chain(kind=kind, **{name: getattr(one, name) + getattr(other, name) for name in names})


def elements(op: Op) -> Num:
    """The elements that a chain's bytes refer to: the logits of a loss, else the elements of the result."""
    if isinstance(op, Loss | LossBackward):
        return op.rows * op.vocab
    if isinstance(op, ActivationBackward):
        return op.elems
    if isinstance(op, VectorGradient):
        return op.rows * op.width
    return op.added if isinstance(op, LoraAdd) else op.out_elems


def temporary_bytes(recipe: Recipe, op: Op) -> Num:
    """Bytes that exist only while an operation runs: copies of an eager chain, a widened weight."""
    if isinstance(op, Gemm) and widens(op):
        return BF16.bytes * op.n * op.k
    if isinstance(op, LOSSES):
        return 0.0
    chain = chain_of(recipe, op)
    if chain is None:
        return 0.0
    backward = op.direction is Direction.BACKWARD
    return elements(op) * (chain.backward_temporary if backward else chain.forward_temporary)


def widens(op: Gemm) -> bool:
    """Whether a GEMM's weights are stored in a format that is widened to 16 bits before it."""
    return not isinstance(op, LoraGemm) and not op.adapter and not op.weights.compute and op.weights.bytes < BF16.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOut(Pass):
    """The further kernels of each operation, before it, and the widening of weights.

    casts_weights: whether trained weights in fp32 are cast to 16 bits in the forward, as autocast does and remembers
    """

    stage: ClassVar[Stage] = "lowered"

    recipe: Recipe
    casts_weights: bool = False

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The operation waits for them: a framework's kernels run one after another."""

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            steps = self._steps(op)
            if steps is not None:
                yield f"{name}.steps", steps, inputs
                inputs = [*inputs, Value(f"{name}.steps")]
            for kind, further in expert_steps(self.recipe, op):
                yield f"{name}.{kind}", further, inputs
                inputs = [*inputs, Value(f"{name}.{kind}")]
            if isinstance(op, Gemm) and widens(op):
                yield f"{name}.dequantise", widening(op), []
                op = replace(op, weights=BF16)
                inputs = [*inputs, Value(f"{name}.dequantise")]
            elif self.casts_weights and isinstance(op, Gemm) and op.direction is Direction.FORWARD and not op.adapter:
                yield f"{name}.cast_weights", _cast(op), []
                inputs = [*inputs, Value(f"{name}.cast_weights")]
            yield name, op, inputs

        return rule

    def _steps(self, op: Op) -> ModuleSteps | None:
        chain = chain_of(self.recipe, op)
        if chain is None:
            return None
        backward = op.direction is Direction.BACKWARD
        kernels = chain.backward_kernels if backward else chain.forward_kernels
        moved = chain.backward_bytes if backward else chain.forward_bytes
        elems = elements(op)
        own = op.work().memory_bytes / np.maximum(elems, 1.0)
        return ModuleSteps(
            role=f"{op.role}.steps", elems=elems, moved_bytes=np.maximum(moved - own, 0.0),
            launches=np.maximum(kernels - 1.0, 0.0) * there(elems), activations=op.activations,
            layer=op.layer, adapter=op.adapter, direction=op.direction, stream=op.stream,
        )  # fmt: skip


def _cast(op: Gemm) -> ModuleSteps:
    """Trained weights from fp32 to 16 bits: 6 bytes each."""
    elems = op.parameters * op.trained
    return ModuleSteps(
        role=f"{op.role}.cast_weights", elems=elems, moved_bytes=6.0, launches=there(elems),
        activations=op.activations, layer=op.layer,
    )  # fmt: skip


def widening(op: Gemm) -> ModuleSteps:
    """Reads the stored weights, writes them in 16 bits, in two kernels: of the scales, and of the weights.

    bitsandbytes, `autograd/_functions.py`, MatMul4Bit: once in forward, once in backward.
    """
    live = there(op.m)
    return ModuleSteps(
        role=f"{op.role}.dequantise", elems=op.n * op.k * live, moved_bytes=op.weights.bytes + BF16.bytes, launches=2.0,
        activations=op.activations, layer=op.layer, direction=op.direction, stream=op.stream,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchKernels(Pass):
    """Every kernel waits for its launch by the host, which launches them one after another.

    The price of a launch is the recipe's (`graphsim.training.prices`), by direction: Python launches forward and
    recomputation, autograd's engine the backward pass. Module wrappers take additional host time.
    adapted: whether there is an adapter, whose rank may be 0
    """

    stage: ClassVar[Stage] = "launched"

    recipe: Recipe
    adapted: bool = False

    def rule(self, graph: nx.DiGraph) -> Rule:
        """A LAUNCH before each kernel."""
        wrapper_s = self.recipe.wrapper_s

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if op.launched and not op.once:
                live = _live(op) if self.adapted else 1.0
                called_s = _called_s(name, op, wrapper_s) * live
                launch = Launch(
                    role="launch", times=op.launches * live, called_s=called_s, layer=op.layer, adapter=op.adapter,
                    direction=op.direction,
                )  # fmt: skip
                yield f"{name}.launch", launch, []
                inputs = [*inputs, Value(f"{name}.launch")]
            yield name, op, inputs

        return rule


def _live(op: Op) -> Num:
    """0 without work, as for an adapter of rank 0, which has no kernel; else 1."""
    if not op.adapter and op.direction is Direction.FORWARD:
        return 1.0
    work = op.work()
    return there(work.memory_bytes + work.message_bytes)


def _called_s(name: str, op: Op, wrapper_s: Mapping[str, float]) -> Num:
    """Host time of the module that wraps an operation, or of an optimizer beyond its launches."""
    if isinstance(op, UpdateWeights):
        return op.called_s * there(op.elems)
    if isinstance(op, LoraA) and op.direction is not Direction.BACKWARD:
        return wrapper_s.get("lora", 0.0) * there(op.n * op.m)
    if name.endswith(".dequantise"):
        return wrapper_s.get("bitsandbytes", 0.0)
    return 0.0
