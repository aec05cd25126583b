"""How a framework that runs module by module executes an operation: kernels, the bytes between them, Python calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphsim.files.reading import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCall:
    """How eager modules run one kind of operation.

    kind: the operation's class, RMSNorm, LayerNorm or GatedActivation (`graphsim.passes.eager.kind_of`), or RepeatKv
    kernels: total number of kernels, including the one that an engine would run
    bytes: bytes that the other kernels read and write per element of the result in a 16-bit format; for attention, per
        score
    modules: number of Python module calls
    For experts, these count per expert: of a GEMM for every expert that receives tokens, of the router for every
    expert.
    """

    kind: str = ""
    kernels: float = 1.0
    bytes: float = 0.0
    modules: float = 0.0


PLAIN = ModuleCall()
"""One kernel, called as a function."""

REPEATED = "RepeatKv"
"""The entry of the copies that give every query head keys and values of its own; `bytes` for each of their elements."""


def read_calls(fields: Fields, key: str, kept: Iterable[ModuleCall]) -> tuple[ModuleCall, ...]:
    """A profile's entries by kind of operation, added to those inherited from its base."""
    entries = fields.mapping(key)
    found = {call.kind: call for call in kept}
    for kind in entries.keys():  # noqa: SIM118 - Fields is not a mapping
        entry = entries.mapping(kind)
        found[kind] = ModuleCall(
            kind=kind,
            kernels=entry.number("kernels", 1.0, least=1.0, most=1e4),
            bytes=entry.number("bytes", 0.0, most=1e4),
            modules=entry.number("modules", 0.0, most=1e4),
        )
    return tuple(found.values())
