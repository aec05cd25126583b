"""One device's part of a model without data parallelism, unit by unit, in bytes and seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields

from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Held:
    """Bytes of weights on one device after tensor, expert and pipeline parallelism, before data parallelism.

    frozen_bytes: frozen weights as they are stored (a packed 4-bit base: 0.52 bytes each)
    trained_bytes: trained weights as they are stored (fp32 where the sharded copy is the master copy)
    gathered_bytes: trained weights in the format in which they are gathered for a GEMM; frozen ones are sent as stored
    gradient_bytes: gradients of the trained weights as they are stored
    reduced_bytes: the same in the format in which they are reduced over devices
    state_bytes: optimizer states and master copies
    tensors: number of trained tensors, which determines buckets and launches
    """

    frozen_bytes: Num = 0.0
    trained_bytes: Num = 0.0
    gathered_bytes: Num = 0.0
    gradient_bytes: Num = 0.0
    reduced_bytes: Num = 0.0
    state_bytes: Num = 0.0
    tensors: Num = 0.0

    def __add__(self, other: Held) -> Held:
        return Held(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __mul__(self, times: Num) -> Held:
        return Held(**{f.name: getattr(self, f.name) * times for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldUnit:
    """A unit that a framework wraps, such as a decoder layer, whose collectives are issued together.

    name: as in the graph (`embed`, `layers`, `head`)
    times: number of identical units in a row
    shared: weights that every data-parallel device holds
    experts: weights of a rank's own experts, which only the
        replicas of that rank share
    forward_s, backward_s: compute seconds of one micro-batch in one of the units; backward_s includes recomputation
    """

    name: str
    times: int = 1
    shared: Held = Held()
    experts: Held = Held()
    forward_s: Num = 0.0
    backward_s: Num = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldBytes:
    """The units of one pipeline stage in the order of the forward pass."""

    units: tuple[HeldUnit, ...]

    @property
    def shared(self) -> Held:
        """All that every data-parallel device holds."""
        return sum((unit.shared * unit.times for unit in self.units), start=Held())

    @property
    def experts(self) -> Held:
        """All that belongs to the rank's own experts."""
        return sum((unit.experts * unit.times for unit in self.units), start=Held())
