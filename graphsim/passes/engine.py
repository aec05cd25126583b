"""An engine's profile for one adapter configuration, and helpers of its passes for an adapter's nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from graphsim.graph import inputs_of
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import Buffers
from graphsim.lora.profile import EngineProfile
from graphsim.lora.schemes import SCHEMES
from graphsim.ops import Collective, Op, Slice
from graphsim.ops.base import BF16
from graphsim.ops.formats import FORMATS, Format
from graphsim.ops.lora import LoraB
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A profile applied to one adapter configuration and one model.

    tokens: tokens of the step on this device's replica
    defers: whether the model's layers, rather than its row-parallel linears, reduce partial sums
    embedding_slots: whether the model's embedding and output head have slots
    """

    profile: EngineProfile
    lora: LoraConfig
    embedding_slots: bool
    expert_layout: str = "parameter"
    tokens: Num = 1.0
    defers: bool = False

    @property
    def buffers(self) -> Buffers:
        """The adapter as the engine's buffers hold it."""
        return Buffers(
            rank=self.padded_rank if self.profile.rank == "padded" else None,
            every_linear=self.profile.modules == "every_linear",
            expert_layout=self.expert_layout,
            ends=self.embedding_slots,
            merge_passes=self.profile.merge_passes,
            tp_scheme=self.tp_scheme,
        )

    @property
    def tp_scheme(self) -> str:
        """How the engine shards factors of this model."""
        name = self.profile.tensor_parallel
        return (SCHEMES[name].deferred if self.defers else "") or name

    @property
    def slots(self) -> Num:
        """Number of adapters for which the engine has slots."""
        return self.lora.slots

    @property
    def uncaptured_s(self) -> Num:
        """Host time to launch one adapter kernel; 0 within a captured graph."""
        profile = self.profile
        return profile.eager_lora_launch_s * np.greater(self.tokens, profile.captured_tokens)[()]

    @property
    def idle(self) -> Num:
        """1 where adapter kernels run although no token has an adapter, since the captured graph contains them."""
        captured = np.less_equal(self.tokens, self.profile.captured_tokens)[()]
        return np.greater(self.slots, 0.0) * captured * 1.0 if self.profile.idle_kernels else 0.0

    @property
    def format(self) -> Format:
        """Format of the factors."""
        return self.kept(FORMATS[self.lora.lora_dtype])

    def kept(self, given: Format) -> Format:
        """The format in which the engine stores factors that are given in a format.

        Factors that it converts to a wider format are GEMMs of a few columns, which are memory-bound, so the rates of
        16 bits are used.
        """
        if self.profile.factors == "fp32" and given.bytes <= BF16.bytes:
            return replace(FORMATS["fp32"], compute="", gemm=BF16.gemm)
        return given

    @property
    def padded_rank(self) -> Num:
        """The rank of the engine's buffers: one that it offers, the smallest if the adapter names none."""
        return self.profile.limits.reserved(np.maximum(self.lora.max_lora_rank, self.lora.largest_rank))


def terms(graph: nx.DiGraph, joined: str) -> tuple[int, int]:
    """Which of an ADD's two inputs is the adapter's result, and which the base's."""
    first = inputs_of(graph, joined)[0].node
    return (0, 1) if isinstance(graph.nodes[source(graph, first)]["op"], LoraB) else (1, 0)


def source(graph: nx.DiGraph, name: str) -> str:
    """The node whose result the collectives move."""
    while isinstance(graph.nodes[name]["op"], Collective | Slice):
        name = inputs_of(graph, name)[0].node
    return name


def back_to(graph: nx.DiGraph, name: str, kind: type[Op]) -> tuple[str, tuple[str, ...]]:
    """The node of a given kind that a value comes from, and the nodes in between."""
    between: list[str] = []
    while not isinstance(graph.nodes[name]["op"], kind):
        between.insert(0, name)
        name = inputs_of(graph, name)[0].node
    return name, tuple(between)
