"""Seconds that a prompt's keys and values take from one worker to another.

    seconds = setup_s + descriptors * descriptor_s + bytes of the busiest link / bytes_per_s

Computed parts may be sent while the rest is computed (`HandOff.overlap`). Of a prompt in n equal parts, of which
the first is ready `ahead` before the last, n parts of b / n bytes each end

    max(b / n / rate, b / rate - ahead)

after the last part is ready: either only the last part remains, or the link has been busy since the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Any

from graphsim.deployment.deployment import Deployment
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Link
from graphsim.serving.disaggregated.hand_off import HandOff
from graphsim.serving.disaggregated.layout import CacheLayout, link_bytes
from graphsim.units import checked_number, parse_quantity, short

WIRE_SHARE = 0.92
"""Share of a link's rate that large transfers reach: 22.96 of 25 GB/s in NIXLBench with 64 MiB (ai-dynamo/nixl, pull
request 2276)."""

DESCRIPTOR_S = 3.75e-6
"""Seconds per posted descriptor: 6.7 ms for 1,785 of them (vLLM issue 50913, decode side, 3 prefill workers)."""

NAMES = ("link", "bandwidth", "setup", "descriptor", "overlap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How keys and values travel from prefill to decode workers; replaces what hardware files and engines state.

    link: name of a level of the hardware's interconnect; by default the nearest one that connects both workers
    bytes_per_s: bandwidth of a link in each direction; inf for transfers that cost only setup_s
    setup_s: seconds to start a transfer, whatever its size; by default the engine's `HandOff.dispatch_s`
    descriptor_s: seconds per descriptor posted
    overlap: how transfer and compute overlap: `none`, `chunks` or `layers`; by default the engine's
    Raises ConfigError for a rate that is not above 0, a negative time, or an unknown overlap.
    """

    link: str | None = None
    bytes_per_s: float | None = None
    setup_s: float | None = None
    descriptor_s: float = DESCRIPTOR_S
    overlap: str | None = None

    def __post_init__(self) -> None:
        unlimited = isinstance(self.bytes_per_s, float) and self.bytes_per_s == inf
        if self.bytes_per_s is not None and not unlimited:
            checked_number("transfer: bytes_per_s", self.bytes_per_s, 1.0, whole=False, one=True)
        for name in ("setup_s", "descriptor_s"):
            if getattr(self, name) is not None:
                checked_number(f"transfer: {name}", getattr(self, name), 0.0, whole=False, one=True)
        if self.overlap is not None:
            HandOff(overlap=self.overlap)


FREE = Transfer(bytes_per_s=inf, setup_s=0.0, descriptor_s=0.0)
"""A transfer that takes no time."""


def read_transfer(spec: str) -> Transfer:
    """`link=…,bandwidth=25 GB/s,setup=2 ms,descriptor=4 us,overlap=layers`. Raises ConfigError as Transfer does."""
    found: dict[str, Any] = {}
    for part in spec.split(","):
        name, given, value = (piece.strip() for piece in part.partition("="))
        if name not in NAMES or not given or not value:
            raise ConfigError(
                f"transfer: {short(part)} is not understood; expected NAME=VALUE, {choices_text(name, NAMES)}"
            )
        if name == "bandwidth":
            found["bytes_per_s"] = inf if value == "inf" else parse_quantity(value, "bytes/s")
        elif name in ("setup", "descriptor"):
            found[f"{name}_s"] = parse_quantity(value, "s")
        else:
            found[name] = value
    return Transfer(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPlan:
    """A transfer between workers of two layouts, with all defaults resolved.

    link: its name, for reports
    bytes_per_s: its bandwidth
    sender, receiver: layouts of both sides
    block_tokens: tokens per block of the receiver
    chunk_tokens: most tokens of a step of the sender
    """

    link: str
    bytes_per_s: float
    setup_s: float
    descriptor_s: float
    hand_off: HandOff
    sender: CacheLayout
    receiver: CacheLayout
    block_tokens: int = 16
    chunk_tokens: float = inf
    _seconds: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def bytes(self, tokens: int) -> float:
        """Bytes over all links together."""
        return self.receiver.bytes(tokens)

    def seconds(self, tokens: int) -> float:
        """Seconds to transfer a prompt's keys and values if nothing overlaps."""
        found = self._seconds.get(tokens)
        if found is None:
            found = self._seconds[tokens] = self.setup_s + self.busy_s(tokens)
        return found

    def busy_s(self, tokens: int) -> float:
        """Seconds for which both workers are occupied by it: posting descriptors, transferring bytes."""
        return self.descriptors(tokens) * self.descriptor_s + self.wire_s(tokens)

    def wire_s(self, tokens: int) -> float:
        """Seconds for which the busiest link carries bytes."""
        return link_bytes(self.sender, self.receiver, tokens) / self.bytes_per_s

    def descriptors(self, tokens: int) -> float:
        """Number of descriptors that one device of the receiver posts."""
        kind, buffers = self.hand_off.descriptors, self.receiver.buffers
        return {"one": 1, "layers": buffers, "blocks": buffers * ceil(tokens / self.block_tokens)}[kind]

    def left_s(self, tokens: int, computed_s: float) -> float:
        """Seconds from the end of a prompt, which took `computed_s` to compute, to the arrival of its last byte."""
        whole, parts = self.seconds(tokens), self.parts(tokens)
        if parts <= 1:
            return whole
        each = self.wire_s(tokens) / parts
        return max(whole - self.wire_s(tokens) + each, whole - computed_s * (parts - 1) / parts)

    def parts(self, tokens: int) -> int:
        """Number of parts in which a prompt is sent."""
        chunks = max(1, ceil(tokens / self.chunk_tokens)) if self.chunk_tokens < inf else 1
        kind = self.hand_off.overlap
        return {"none": 1, "chunks": chunks, "layers": chunks * max(self.sender.buffers // 2, 1)}[kind]


def way_between(
    prefill: Deployment, decode: Deployment, layouts: tuple[CacheLayout, CacheLayout], hand_off: HandOff,
    given: Transfer, *, workers: tuple[int, int], block_tokens: int, chunk_tokens: float,
) -> TransferPlan:  # fmt: skip
    """The way from prefill workers to decode workers. workers: how many there are of each.

    Raises ConfigError for a link that the hardware does not have, or hardware without any.
    """
    sender, receiver = layouts
    devices = workers[0] * sender.devices + workers[1] * receiver.devices
    link = _link(prefill, decode, devices, given.link)
    rate = given.bytes_per_s if given.bytes_per_s is not None else WIRE_SHARE * float(link.bytes_per_s)
    setup_s = hand_off.dispatch_s if given.setup_s is None else given.setup_s
    hop_s = float(link.latency_s) if rate < inf else 0.0
    own = given.bytes_per_s is not None and given.link is None
    return TransferPlan(
        link="a link of the given rate" if own else link.name, bytes_per_s=rate, setup_s=setup_s + hop_s,
        descriptor_s=given.descriptor_s, sender=sender, receiver=receiver, block_tokens=block_tokens,
        chunk_tokens=chunk_tokens,
        hand_off=hand_off if given.overlap is None else replace(hand_off, overlap=given.overlap),
    )  # fmt: skip


def _link(prefill: Deployment, decode: Deployment, devices: int, asked: str | None) -> Link:
    """The nearest level of the interconnect that holds all workers, or the requested one.

    Workers of different devices are connected by a network at the slower side's rate.
    """
    ours, theirs = prefill.device, decode.device
    known = {link.name: link for link in (*ours.links, *theirs.links)}
    if asked is not None:
        if asked not in known:
            raise ConfigError(
                f"transfer: link = {short(asked)} is not a level of {_both(ours.name, theirs.name)}; "
                f"{choices_text(asked, known)}"
            )
        return known[asked]
    if not ours.links or not theirs.links:
        bare = ours if not ours.links else theirs
        return bare.host_link
    if ours.name == theirs.name:
        return next((link for link in ours.links if float(link.devices) >= devices), ours.links[-1])
    return min((ours.links[-1], theirs.links[-1]), key=lambda link: float(link.bytes_per_s))


def _both(one: str, other: str) -> str:
    return f"'{one}'" if one == other else f"'{one}' or '{other}'"
