"""Communication between devices. `elems` is the whole value's size; work is per device.

Traffic and steps of ring algorithms: Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication
Operations in MPICH", 2005, sections 4.1 to 4.4. A group of one device does nothing.

A group that is spread over nodes sends over several levels at once (`leg`). Rings visit every device of a node before
the next node, as many rings as a node has NICs, so that its devices share what crosses (NCCL, src/graph/rings.cc);
all-to-all sends each pair's part straight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphsim.ops.base import NETWORK, AdapterPart, Op, OpType, Sharding, Work
from graphsim.ops.saved import Saved
from graphsim.units import Num


def ring_part(group: Num, below: Num, count: Num) -> Num:
    """Share of a gathered or scattered value (twice for a reduced one): (m-1)/m around m = n·below devices, over
    `below` links side by side; nothing where there is one part.
    """
    reached = below * count
    return (reached - 1.0) / reached / below * np.minimum(count - 1.0, 1.0)


def direct_part(group: Num, below: Num, count: Num) -> Num:
    """Share of what a device holds for the whole group that goes to devices elsewhere on the level."""
    return below * (count - 1.0) / group


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Collective(Op):
    """Communication over a `group` of devices.

    stride: devices from one member to the next; those between them belong to other groups, which do the same at the
        same time
    """

    op_type: ClassVar[OpType] = OpType.COLLECTIVE
    sharding: ClassVar[Sharding] = Sharding.WHOLE
    adapter_part: ClassVar[AdapterPart] = AdapterPart.COLLECTIVE

    elems: Num
    group: Num
    stride: Num = 1.0
    stream: str = NETWORK

    @property
    def payload_bytes(self) -> Num:
        """Size of the whole value."""
        return self.elems * self.activations.bytes

    @property
    def share(self) -> Num:
        """(g - 1) / g: the part of a value that belongs to the others."""
        return (self.group - 1.0) / self.group

    @property
    def steps(self) -> Num:
        """g - 1 steps around the ring; none where there is nothing to move."""
        return (self.group - 1.0) * np.minimum(self.elems, 1.0)

    def leg(self, below: Num, count: Num) -> Work:
        """What a device sends on the level that connects `count` parts of the group with `below` devices each.

        For a group that one level holds, `leg(1, group)` is `work()`. Unless a collective says more, all of it is sent
        on the outermost level that the group reaches.
        """
        outermost = np.greater(count, 1.0) & np.greater(below * count, self.group * (1.0 - 1e-9))
        work = self.work()
        return Work(message_bytes=work.message_bytes * outermost, message_hops=work.message_hops * outermost)

    @property
    def out_elems(self) -> Num:
        """The whole value."""
        return self.elems

    @property
    def launches(self) -> Num:
        """One; none where there is nothing to exchange, or no rank to exchange it with."""
        return np.minimum(self.elems, 1.0) * np.minimum(self.group - 1.0, 1.0)

    @property
    def saved(self) -> Saved:
        """Nothing: sums and copies are linear."""
        return Saved()

    @property
    def is_view(self) -> Any:
        """Always a view in a group of one device."""
        return np.less_equal(self.group, 1.0)

    def cut(self, ways: Num) -> Collective:
        """Communication is never cut again."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllReduce(Collective):
    """Every device ends with the sum of all values."""

    family: ClassVar[str] = "collectives"

    def work(self) -> Work:
        """2 (g-1)/g of the payload in 2 (g-1) steps."""
        return Work(message_bytes=2.0 * self.share * self.payload_bytes, message_hops=2.0 * self.steps)

    def leg(self, below: Num, count: Num) -> Work:
        """Twice what passes around the rings, in 2 (n-1) steps."""
        sent = 2.0 * ring_part(self.group, below, count) * self.payload_bytes
        return Work(message_bytes=sent, message_hops=2.0 * (count - 1.0) * np.minimum(self.elems, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllGather(Collective):
    """Every device ends with all parts of a cut value."""

    family: ClassVar[str] = "collectives"

    def work(self) -> Work:
        """(g-1)/g of the payload in g-1 steps."""
        return Work(message_bytes=self.share * self.payload_bytes, message_hops=self.steps)

    def leg(self, below: Num, count: Num) -> Work:
        """What passes around the rings, which the devices of a node share, in n-1 steps."""
        sent = ring_part(self.group, below, count) * self.payload_bytes
        return Work(message_bytes=sent, message_hops=(count - 1.0) * np.minimum(self.elems, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReduceScatter(Collective):
    """Every device ends with its part of the sum."""

    family: ClassVar[str] = "collectives"

    def work(self) -> Work:
        """(g-1)/g of the payload in g-1 steps."""
        return Work(message_bytes=self.share * self.payload_bytes, message_hops=self.steps)

    def leg(self, below: Num, count: Num) -> Work:
        """What passes around the rings, which the devices of a node share, in n-1 steps."""
        sent = ring_part(self.group, below, count) * self.payload_bytes
        return Work(message_bytes=sent, message_hops=(count - 1.0) * np.minimum(self.elems, 1.0))

    @property
    def out_elems(self) -> Num:
        """One part."""
        return self.elems / self.group


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllToAll(Collective):
    """Every device sends a different part to every other; `elems` is what one device holds."""

    family: ClassVar[str] = "collectives"

    def work(self) -> Work:
        """(g-1)/g of what a device holds, in g-1 steps."""
        return Work(message_bytes=self.share * self.payload_bytes, message_hops=self.steps)

    def leg(self, below: Num, count: Num) -> Work:
        """What the devices in the other parts receive, over the device's own link, in n-1 steps."""
        sent = direct_part(self.group, below, count) * self.payload_bytes
        return Work(message_bytes=sent, message_hops=(count - 1.0) * np.minimum(self.elems, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SendReceive(Collective):
    """Hands a value to one other device; `group` is the reach: how many devices the link must span."""

    def work(self) -> Work:
        """The payload, in one step."""
        return Work(message_bytes=self.payload_bytes, message_hops=np.minimum(self.elems, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RingPass(SendReceive):
    """Every device's own value travels around the ring, from neighbour to neighbour; `elems` is what one device holds.

    Ring attention (arXiv 2310.01889): no rank ever holds all of it.
    """

    def work(self) -> Work:
        """g - 1 times the payload, in as many steps."""
        return Work(message_bytes=(self.group - 1.0) * self.payload_bytes, message_hops=self.steps)
