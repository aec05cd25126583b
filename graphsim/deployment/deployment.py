"""From a model, a workload and a deployment to the program that one device (or pipeline) runs in a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.graph.rewriting import walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject
from graphsim.lora.profile import EngineProfile
from graphsim.lora.variants import require_engine
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.phase import Phase, decode, prefill
from graphsim.ops import Attention, ExpertGemm
from graphsim.ops.precision import Precision, load_precision
from graphsim.passes.dequantise import FUSED_TOKENS, WIDENED, dequantise
from graphsim.passes.engine import Engine
from graphsim.passes.experts import deal_experts
from graphsim.passes.lower import eager, lower
from graphsim.passes.pack import pack
from graphsim.passes.pipeline import layer_ranges, pipeline
from graphsim.passes.shard import shard
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.questions import alike, most
from graphsim.symbolic.substitute import with_fields
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deployment:
    """What runs, apart from the requests and the device."""

    model: ModelConfig
    parallelism: Parallelism
    precision: Precision
    lora: LoraConfig | None = None
    engine: EngineProfile | None = None

    def stages(self, phase: Phase) -> list[nx.DiGraph]:
        """The sharded and lowered graph of each pipeline stage, for one micro-batch."""
        layers = layer_ranges(self.model.num_layers, self.parallelism.pp)
        here = replace(self, lora=_invoked(self.lora, phase)) if self.lora else self
        return [here._lowered(build(self.model, phase, self.precision, stage)) for stage in layers]

    def _lowered(self, logical: nx.DiGraph) -> nx.DiGraph:
        sequence_parallel = bool(np.any(np.asarray(self.parallelism.sp) > 1))
        if np.any(np.asarray(self.parallelism.ep) > 1):
            logical = deal_experts(logical, self.parallelism.ep, self.parallelism.tp)
        adapters = self._adapters()
        graph = inject(logical, self.lora, adapters.buffers if adapters else None)
        graph = pack(shard(graph, self.parallelism.tp, sequence_parallel))
        if self.precision.weights.name in WIDENED:
            graph = dequantise(graph, self.engine.fused_4bit_tokens if self.engine else FUSED_TOKENS)
        graph = lower(graph, adapters) if adapters else graph
        return eager(graph) if self.engine is not None and self.engine.launch == "eager" else graph

    def _adapters(self) -> Engine | None:
        """The engine's way with the adapters, where there are any."""
        if self.lora is None or self.engine is None:
            return None
        if self.lora.strategy == "dynamic":
            require_engine(self.lora, self.engine.kernels, self.engine.name)
        slots = self.engine.has_embedding_slots(self.model.name)
        return Engine(profile=self.engine, lora=self.lora, embedding_slots=slots)

    @property
    def stored(self) -> Deployment:
        """The same with adapters as they lie in memory."""
        return self if self.engine is None else replace(self, engine=self.engine.stored)

    def prefill(self, batch: Num, input_tokens: Num) -> nx.DiGraph:
        """The program of the prompt step; `batch` sequences in all, dealt out to replicas and micro-batches."""
        return self.program([prefill(share, input_tokens) for share in self.shares(batch)])

    def decode(self, batch: Num, context_tokens: Num) -> nx.DiGraph:
        """The program of one decode step behind `context_tokens`."""
        return self.program([decode(share, context_tokens) for share in self.shares(batch)])

    def program(self, micro_batches: Sequence[Phase]) -> nx.DiGraph:
        """The stages of each micro-batch, one after another through the pipeline."""
        staged: list[list[nx.DiGraph]] = []
        for i, phase in enumerate(micro_batches):
            same = i > 0 and alike(phase.tokens, micro_batches[i - 1].tokens)
            staged.append(staged[-1] if same else self.stages(phase))
        return pipeline(staged, self.parallelism.tp * self.parallelism.pp)

    def sequences(self, batch: Num) -> Num:
        """Sequences on the replica that has most of them."""
        replicas = self.parallelism.dp * self.parallelism.attention_replicas
        return np.ceil(np.true_divide(batch, replicas))[()]

    def shares(self, batch: Num) -> list[Num]:
        """Sequences of each micro-batch on one replica, as even as possible, the larger ones first.

        A micro-batch that no sequence is left for is empty and takes no time; so many scenarios may share a graph.
        """
        sequences, m = self.sequences(batch), self.micro_batches(batch)
        return [np.floor((sequences + m - 1.0 - j) / m) for j in range(m)]

    def micro_batches(self, batch: Num) -> int:
        """How many micro-batches there are: as many as stages unless asked otherwise, but no more than sequences."""
        return int(max(1, min(self.most_micro_batches, most(self.sequences(batch)))))

    @property
    def most_micro_batches(self) -> int:
        """How many micro-batches a large batch is dealt out to."""
        return self.parallelism.micro_batches or self.parallelism.pp


def _invoked(lora: LoraConfig, phase: Phase) -> LoraConfig:
    """The adapter with its share of a step's tokens: aLoRA works on those behind its invocation only.

    aLoRA: Greenewald et al., arXiv 2504.12397; every generated token lies behind it.
    """
    if lora.variant != "alora":
        return lora
    adapted: Num = 0.0
    for segment in phase.segments:
        new = segment.new_tokens if segment.decode else np.minimum(lora.invocation_tokens, segment.new_tokens)
        adapted = adapted + segment.sequences * new
    share = lora.adapter_share * adapted / np.maximum(phase.tokens, 1.0)
    return with_fields(lora, {"adapter_share": share})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Units:
    """What tensor and expert parallelism deal out: heads (and those for keys and values), experts."""

    heads: frozenset[tuple[Num, Num]]
    experts: frozenset[int]


_units: Memo[_Units] = Memo(most=64)


def _units_of(model: ModelConfig) -> _Units:
    ops = [op for _, op, _ in walk(build(model, prefill(1.0, 1.0), load_precision("bf16")))]
    return _Units(
        heads=frozenset((op.heads, op.kv_heads) for op in ops if isinstance(op, Attention)),
        experts=frozenset(op.of for op in ops if isinstance(op, ExpertGemm)),
    )


def check_cut(model: ModelConfig, parallelism: Parallelism) -> None:
    """Raise ConfigError unless the model can be cut as asked, naming the degrees that would do."""
    if parallelism.pp > model.num_layers:
        raise ConfigError(
            f"parallelism.pp = {parallelism.pp} is not allowed for model '{model.name}'; "
            f"it has {model.num_layers} layers, allowed: 1 to {model.num_layers}"
        )
    units = _units.get((model.layers,), lambda: _units_of(model))
    _check_experts(model, parallelism, units.experts)
    tp = np.asarray(parallelism.tp, dtype=float)
    for heads, kv_heads in units.heads:
        if not _deals_out(tp, heads, kv_heads):
            allowed = [n for n in range(1, 129) if _deals_out(np.asarray(float(n)), heads, kv_heads)]
            raise ConfigError(
                f"parallelism.tp = {parallelism.tp} does not divide the {heads:g} attention heads "
                f"({kv_heads:g} for keys and values) of model '{model.name}'; "
                f"allowed: {', '.join(map(str, allowed))}"
            )


def _check_experts(model: ModelConfig, parallelism: Parallelism, counts: frozenset[int]) -> None:
    ep = np.asarray(parallelism.ep, dtype=float)
    if not np.any(ep > 1):
        return
    if not counts:
        raise ConfigError(f"parallelism.ep = {parallelism.ep} is not allowed: model '{model.name}' has no experts")
    for experts in counts:
        if np.any(experts % ep):
            allowed = [str(n) for n in range(1, experts + 1) if experts % n == 0]
            raise ConfigError(
                f"parallelism.ep = {parallelism.ep} does not divide the {experts} experts of model '{model.name}'; "
                f"allowed: {', '.join(allowed)}"
            )


def _deals_out(tp: np.ndarray, heads: Num, kv_heads: Num) -> bool:
    return bool(np.all((heads % tp == 0) & ((kv_heads % tp == 0) | (tp % np.maximum(kv_heads, 1) == 0))))
