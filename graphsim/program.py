"""From a model, a workload and a deployment to the program that one device (or pipeline) runs in a step."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from graphsim.config import ModelConfig, Parallelism
from graphsim.errors import ConfigError
from graphsim.graph import walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject
from graphsim.models import build
from graphsim.ops import Attention, ExpertGemm
from graphsim.passes.experts import deal_experts
from graphsim.passes.pack import pack
from graphsim.passes.pipeline import layer_ranges, pipeline
from graphsim.passes.shard import shard
from graphsim.precision import Precision
from graphsim.units import Num
from graphsim.workload import Phase, decode, prefill


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deployment:
    """What runs, apart from the requests and the device."""

    model: ModelConfig
    parallelism: Parallelism
    precision: Precision
    lora: LoraConfig | None = None

    def stages(self, phase: Phase) -> list[nx.DiGraph]:
        """The sharded and lowered graph of each pipeline stage, for one micro-batch."""
        layers = layer_ranges(self.model.num_layers, self.parallelism.pp)
        return [self._lowered(build(self.model, phase, self.precision, stage)) for stage in layers]

    def _lowered(self, logical: nx.DiGraph) -> nx.DiGraph:
        sequence_parallel = bool(np.any(np.asarray(self.parallelism.sp) > 1))
        if np.any(np.asarray(self.parallelism.ep) > 1):
            logical = deal_experts(logical, self.parallelism.ep, self.parallelism.tp)
        return pack(shard(inject(logical, self.lora), self.parallelism.tp, sequence_parallel))

    def prefill(self, batch: Num, input_tokens: Num, micro_batches: int = 1) -> nx.DiGraph:
        """The program of the prompt step; `batch` sequences in all, cut into micro-batches."""
        return self._program(prefill(self.share(batch, micro_batches), input_tokens), micro_batches)

    def decode(self, batch: Num, context_tokens: Num, micro_batches: int = 1) -> nx.DiGraph:
        """The program of one decode step behind `context_tokens`."""
        return self._program(decode(self.share(batch, micro_batches), context_tokens), micro_batches)

    def _program(self, phase: Phase, micro_batches: int) -> nx.DiGraph:
        reach = self.parallelism.tp * self.parallelism.pp
        return pipeline(self.stages(phase), micro_batches, reach)

    def share(self, batch: Num, micro_batches: int) -> Num:
        """Sequences of one micro-batch on one replica."""
        replicas = self.parallelism.dp * self.parallelism.attention_replicas
        return np.ceil(np.asarray(batch, dtype=float) / replicas / micro_batches)[()]

    def micro_batches(self, batch: Num) -> int:
        """How many micro-batches fill the pipeline: as many as stages, but no more than sequences."""
        if self.parallelism.micro_batches:
            return self.parallelism.micro_batches
        sequences = np.min(np.asarray(batch, dtype=float) / self.parallelism.dp)
        return int(max(1, min(self.parallelism.pp, np.floor(sequences))))


def check_cut(model: ModelConfig, parallelism: Parallelism, logical: nx.DiGraph) -> None:
    """Raise ConfigError unless the model can be cut as asked, naming the degrees that would do."""
    if parallelism.pp > model.num_layers:
        raise ConfigError(
            f"parallelism.pp = {parallelism.pp} is not allowed for model '{model.name}'; "
            f"it has {model.num_layers} layers, allowed: 1 to {model.num_layers}"
        )
    _check_experts(model, parallelism, logical)
    tp = np.asarray(parallelism.tp, dtype=float)
    for _, op, _ in walk(logical):
        if isinstance(op, Attention) and not _deals_out(tp, op.heads, op.kv_heads):
            allowed = [n for n in range(1, 129) if _deals_out(np.asarray(float(n)), op.heads, op.kv_heads)]
            raise ConfigError(
                f"parallelism.tp = {parallelism.tp} does not divide the {op.heads:g} attention heads "
                f"({op.kv_heads:g} for keys and values) of model '{model.name}'; "
                f"allowed: {', '.join(map(str, allowed))}"
            )


def _check_experts(model: ModelConfig, parallelism: Parallelism, logical: nx.DiGraph) -> None:
    ep = np.asarray(parallelism.ep, dtype=float)
    if not np.any(ep > 1):
        return
    counts = {op.of for _, op, _ in walk(logical) if isinstance(op, ExpertGemm)}
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
