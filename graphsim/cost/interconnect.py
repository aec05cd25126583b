"""The links of a group of devices: its distribution over the levels, and the bandwidth on each.

A group fills a level before it goes beyond: its devices are distributed over as few nodes as hold them, evenly. If
other devices lie between its members (`stride`), so that a node holds fewer of them, these do the same at the same
time. Operations state the bytes that a collective sends on each level (`Collective.leg`); this module states the rates.

* switch, rails: each device's whole rate, whatever the group
* host: its own lanes; contention at a shared root complex is known from measurements only
* pairs: between two cards; a larger group goes over the next level alone
* full-mesh: g - 1 of the links to the other devices
* torus: the rings of as many dimensions as the group is longer than one side
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from graphsim.errors import HardwareError
from graphsim.hardware import Hardware, Link, require_link
from graphsim.units import Num, amount_text

DIMENSIONS = {"torus-2d": 2, "torus-3d": 3}
"""Of each torus."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leg:
    """A group's part on one level of the interconnect.

    below: devices of the group in each of the parts that this level connects: 1, or those of a node
    count: number of parts that it connects; 1 where the group does not reach the level
    """

    link: Link
    below: Num
    count: Num

    @property
    def bytes_per_s(self) -> Num:
        """Bandwidth of one device in one direction, over all links to other members of the group."""
        link = self.link
        if link.topology == "full-mesh":
            others = np.maximum(link.devices - 1.0, 1.0)
            return link.bytes_per_s * np.minimum(np.maximum(self.count - 1.0, 1.0), others) / others
        if link.topology in DIMENSIONS:
            return link.bytes_per_s * self.rings / DIMENSIONS[link.topology]
        return link.bytes_per_s

    @property
    def rings(self) -> Num:
        """Dimensions of a torus of equal sides in which the group has rings."""
        dimensions = DIMENSIONS[self.link.topology]
        rings: Num = 1.0
        for i in range(1, dimensions):
            rings = rings + np.greater(self.count, self._side**i * (1.0 + 1e-9))
        return rings

    @property
    def _side(self) -> Num:
        return np.power(self.link.devices, 1.0 / DIMENSIONS[self.link.topology])

    @property
    def one_link_bytes_per_s(self) -> Num:
        """Bandwidth towards one other device."""
        link = self.link
        if link.topology == "full-mesh":
            return link.bytes_per_s / np.maximum(link.devices - 1.0, 1.0)
        return link.bytes_per_s / (2.0 * DIMENSIONS[link.topology]) if link.topology in DIMENSIONS else link.bytes_per_s

    @property
    def relayed(self) -> Num:
        """Links that each byte of an all-to-all passes along the group's rings; 1 except for a torus.

        The mean distance to all g devices of a ring is g / 4, and (g - 1) / g of the bytes are sent
        (How to Scale Your Model, part 3, 2025, "AllToAll": a quarter of an all-gather's time).
        """
        if self.link.topology not in DIMENSIONS:
            return 1.0
        count = np.maximum(self.count, 2.0)
        side = np.where(np.less_equal(self.rings, 1.0), count, np.power(count, 1.0 / np.maximum(self.rings, 1.0)))
        return np.maximum(self.rings * side / 4.0 * count / (count - 1.0), 1.0)


def legs(hardware: Hardware, group: Num, stride: Num = 1.0) -> tuple[Leg, ...]:
    """A group's part on each level, nearest first.

    stride: distance, in device numbers, between members, such as data-parallel ranks with tensor-parallel ones in
        between
    Raises HardwareError if there is no level.
    """
    require_link(hardware)
    found, inside = [], group * 1.0
    for nearer, link in zip(hardware.links[-2::-1], hardware.links[:0:-1], strict=True):
        room = np.maximum(nearer.devices / stride, 1.0)
        parts = np.maximum(np.ceil(inside / room - 1e-9), 1.0)
        if nearer.topology == "pairs":
            parts = np.where(np.greater(inside, room), inside, 1.0)
        found.append(Leg(link=link, below=inside / parts, count=parts))
        inside = inside / parts
    found.append(Leg(link=hardware.links[0], below=1.0, count=inside))
    return tuple(reversed(found))


def node_and_beyond(hardware: Hardware, group: Num, stride: Num = 1.0) -> tuple[Leg, tuple[Leg, ...]]:
    """A group's part within one node, and its parts on the levels beyond.

    A node is the nearest level or, beyond bridges between pairs, the next one, which serves every group that a bridge
    does not hold. Raises HardwareError if there is no level.
    """
    near, *beyond = legs(hardware, group, stride)
    if near.link.topology != "pairs" or not beyond:
        return near, tuple(beyond)
    node, *beyond = beyond
    bridged = np.less_equal(node.count, 1.0)
    link = replace(node.link, bytes_per_s=np.where(bridged, near.link.bytes_per_s, node.link.bytes_per_s))
    return Leg(link=link, below=1.0, count=np.where(bridged, near.count, node.count)), tuple(beyond)


def node_link(hardware: Hardware) -> Link:
    """The level of one node, of more than two devices. Raises HardwareError if there is no level."""
    require_link(hardware)
    near, *others = hardware.links
    return others[0] if near.topology == "pairs" and others else near


def require_reach(hardware: Hardware, group: Num, stride: Num = 1.0) -> None:
    """Raise HardwareError if the interconnect has no level that reaches all devices of the group."""
    require_link(hardware)
    reach, spanned = hardware.links[-1].devices, np.asarray(group) * stride
    if np.any(spanned > reach):
        raise HardwareError(
            f"hardware '{hardware.name}' connects at most {amount_text(reach)} devices, asked for "
            f"{amount_text(np.max(spanned))}; "
            "add a level to links in its file"
        )


def slowest_s(hardware: Hardware, group: Num, leg_s: Callable[[Leg], Num], stride: Num = 1.0) -> Num:
    """The longest time of any level, since chunks of a message are on all levels at once."""
    return reduce(np.maximum, map(leg_s, legs(hardware, group, stride)))


def runs_own_all_reduce(hardware: Hardware, group: Num, stride: Num = 1.0) -> Num:
    """Whether engines run their own all-reduce kernel in place of NCCL's: one node of 2, 4, 6 or 8 devices, any two
    of which are joined directly or by a switch; over PCIe only two, which reach each other's memory.

    vLLM, `distributed/device_communicators/custom_all_reduce.py`; SGLang's file of the same name has the same
    conditions.
    """
    node = hardware.links[: 2 if hardware.links[0].topology == "pairs" else 1]
    own: Num = False
    for link in node:
        most = 8.0 if link.topology in ("switch", "full-mesh") else 2.0 if link.topology in ("host", "pairs") else 0.0
        own = own | np.less_equal(group, np.minimum(link.devices, most if link.peer_access else 0.0))
    return own & np.equal(np.ceil(group / 2.0) * 2.0, group) & np.equal(stride, 1.0)
