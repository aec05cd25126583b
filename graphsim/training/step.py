"""The graphs of a training step: forward, loss and backward of one micro-batch on each stage, followed by the update.

Order of the passes: build, pack where the recipe packs, deal experts, inject the adapter, mark what is trained,
backward, shard, the trainer's kernels, launches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np

from graphsim.cost.base import annotate
from graphsim.deployment.order import run
from graphsim.graph import Pass
from graphsim.lora.injection import Inject
from graphsim.models.build import build
from graphsim.models.phase import Phase, prefill
from graphsim.ops import Repeat
from graphsim.passes.backward import backward
from graphsim.passes.experts import DealExperts
from graphsim.passes.pack import Pack
from graphsim.passes.pipeline import layer_ranges
from graphsim.passes.shard import Shard
from graphsim.passes.trained import mark_trained
from graphsim.training.context_parallel import context_passes, own_tokens
from graphsim.training.held import HeldBytes
from graphsim.training.kernels import LaunchKernels, WriteOut
from graphsim.training.overlap import exchanged_beside_compute, hidden_behind_products
from graphsim.training.prices import prices_of
from graphsim.training.rules import rules_of
from graphsim.training.setup import Method, TrainingSetup
from graphsim.training.sharing import rule_of
from graphsim.training.stored import held_of
from graphsim.training.update import append_update
from graphsim.units import Num


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One pipeline stage of a step.

    logical: forward, loss and backward of a micro-batch before sharding
    sharded: a device's share of them, weights
        in the formats they are stored in, saved values as nodes
    """

    setup: TrainingSetup
    logical: nx.DiGraph
    sharded: nx.DiGraph

    @cached_property
    def held(self) -> HeldBytes:
        """What a device stores before data parallelism."""
        return held_of(self.sharded, self.setup)

    @cached_property
    def micro_batch(self) -> nx.DiGraph:
        """The priced graph of one micro-batch on a device."""
        return self._priced(self.sharded)

    def update(self, share: Num) -> nx.DiGraph:
        """The clipping and the optimizer's step, priced.

        share: part of the trained weights that the device updates
        """
        graph = nx.DiGraph()
        append_update(graph, self.sharded, self.setup, share, [])
        return self._priced(graph)

    def whole(self, share: Num) -> nx.DiGraph:
        """A micro-batch and the update after it, as one graph."""
        graph = self.sharded.copy()
        append_update(graph, self.sharded, self.setup, share, _ends(graph))
        return self._priced(graph)

    def _priced(self, graph: nx.DiGraph) -> nx.DiGraph:
        recipe, deployment = self.setup.recipe, self.setup.deployment
        casts = recipe.weight_format != "given" and not rule_of(self.setup.sharding).weights
        written = WriteOut(recipe=recipe, casts_weights=casts)(graph)
        launched = LaunchKernels(recipe=recipe, adapted=deployment.adapter is not None)(written)
        priced = annotate(launched, deployment.device, prices_of(self.setup), deployment.caution)
        if recipe.exchange_overlap:
            priced = exchanged_beside_compute(priced, recipe.exchange_overlap)
        return hidden_behind_products(priced, recipe.tensor_overlap) if recipe.tensor_overlap else priced


def _ends(graph: nx.DiGraph) -> list[str]:
    """The nodes that the update waits for: every gradient of weights, and the repeats that contain some."""
    return [
        name for name, op in graph.nodes(data="op")
        if (op.ends or isinstance(op, Repeat)) and not graph.succ[name]
    ] or [list(graph)[-1]]  # fmt: skip


def stages_of(setup: TrainingSetup) -> list[Stage]:
    """Every pipeline stage of a step; stages of equal layers between the ends are one object."""
    deployment, found = setup.deployment, dict[object, Stage]()
    ranges = layer_ranges(deployment.model.num_layers, deployment.parallelism.pp)
    for layers in ranges:
        alike = _alike(setup, layers)
        if alike not in found:
            found[alike] = stage_of(setup, layers)
    return [found[_alike(setup, layers)] for layers in ranges]


def _alike(setup: TrainingSetup, layers: range) -> object:
    """A key that is equal for stages with equal graphs: their layers, unless something depends on a layer's number."""
    deployment = setup.deployment
    numbered = deployment.adapter or deployment.passes or deployment.precision.modules or setup.recompute_every > 1
    inner = layers.start > 0 and layers.stop < deployment.model.num_layers
    return deployment.model.layers[layers.start : layers.stop] if inner and not numbered else layers


def stage_of(setup: TrainingSetup, layers: range) -> Stage:
    """One stage with some of the layers."""
    deployment = setup.deployment
    graph = run(logical_passes(setup), build(deployment.model, phase_of(setup), deployment.precision, layers))
    logical = backward(marked(graph, setup.method), rules_of(setup, entry=float(layers.start > 0)))
    return Stage(setup=setup, logical=logical, sharded=run(_cutting(setup), logical))


def marked(graph: nx.DiGraph, method: Method) -> nx.DiGraph:
    """The graph with what the method trains marked."""
    freeze_a = method.variant == "lora-fa"
    return mark_trained(graph, method.base, method.adapters, method.embeddings, freeze_a=freeze_a, others=method.others)


def logical_passes(setup: TrainingSetup) -> tuple[Pass, ...]:
    """The passes from the model's graph to the trained one: packing, distributed experts, adapters."""
    deployment, passes = setup.deployment, list[Pass]()
    parallelism = deployment.parallelism
    if setup.recipe.packs_projections:
        passes.append(Pack())
    if np.any(np.asarray(parallelism.ep) > 1):
        passes.append(
            DealExperts(
                ep=parallelism.ep,
                tp=parallelism.tp,
                placement=parallelism.expert_placement,
                redundant=parallelism.redundant_experts,
                dispatch="experts",
                sent_as="model",
                kernels="",
            )  # fmt: skip
        )
    if deployment.adapter is not None:
        passes.append(Inject(lora=deployment.adapter, everywhere=bool(parallelism.pp == 1)))
    return tuple(passes)


def _cutting(setup: TrainingSetup) -> tuple[Pass, ...]:
    """The passes from the logical graph of forward and backward to a device's share."""
    parallelism = setup.deployment.parallelism
    own = (*context_passes(parallelism), *setup.deployment.passes)
    if np.all(np.less_equal(parallelism.tp, 1)):
        return own
    cut = Shard(tp=parallelism.tp, sequence_parallel=bool(np.any(np.asarray(parallelism.sp) > 1)))
    return (cut, *own)


def phase_of(setup: TrainingSetup) -> Phase:
    """A micro-batch: every position has logits; packed documents count as equal ones with the same sums.

    Under context parallelism a device has its part of each sequence's tokens.
    """
    length, sequences = setup.seq_len, setup.batch
    if setup.squares is not None:
        tokens = sequences * length
        length, sequences = setup.squares / tokens, tokens * tokens / setup.squares
    own, encoder = own_tokens(length, setup.deployment.parallelism), setup.deployment.model.source_encoder
    source = 0.0 if encoder is None else encoder.rows_of(own)  # as long as the objects made from it
    return prefill(sequences, own, all_logits=True, source_tokens=source)


def tokens_of(setup: TrainingSetup) -> Num:
    """Tokens of a step, of all devices."""
    degrees = setup.deployment.parallelism
    return setup.batch * setup.seq_len * setup.accumulate * degrees.dp * degrees.attention_replicas
