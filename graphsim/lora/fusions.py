"""Which of a model's operations an engine fuses into another kernel, or runs concurrently with it: `fusions` of its
profile.

Structure only, with its source; nothing here is fitted. Entries by architecture apply to devices; a graph without a
device uses the entries for all architectures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.lora.families import is_one_of, read_families
from graphsim.lora.sources import place, read_flags

ANY = "any"
SHARED_EXPERTS = ("apart", "stream", "kernel")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFusions:
    """Which operations share a kernel, or run concurrently.

    residual_norms: whether RMSNorms add the residual
    all_reduce_norms: largest message in bytes up to which norms are fused into the preceding all-reduce, by
        architecture and number of devices; other numbers of devices use the next larger entry
    all_reduce_norm_rows: largest number of rows for that, 0 for any
    all_reduce_norm_families: the models to which it
        applies, by the first word of their names, all if empty
    latent_projections: whether latent attention's down-projections, to queries and to keys and values, are one GEMM
    delta_projections: whether a gated delta-net's projections to queries, keys, values and z are one GEMM, and those to
        b and a another
    rope_caches: architectures on which the rotary embedding's kernel also writes keys to the cache
    expert_all_reduce: whether routed and shared experts are summed, scaled by a gate or not, before one all-reduce
    routing_in_experts: architectures on which the experts' kernel selects the experts
    shared_experts: how shared experts run, by architecture: `apart`; in a `stream` concurrently with the routed ones in
        steps without prompts; or as one more expert of the routed `kernel`, if they have the same shape
    static_quantisation: whether activations are quantised to fp8 by the kernel that computes them, if scales are known
        in advance
    sources: the source of each field; "inherited from NAME: …" for a field taken from another profile
    """

    residual_norms: bool = False
    all_reduce_norms: tuple[tuple[str, float, float], ...] = ()
    all_reduce_norm_rows: float = 0.0
    all_reduce_norm_families: tuple[str, ...] = ()
    latent_projections: bool = False
    delta_projections: bool = False
    rope_caches: tuple[str, ...] = ()
    expert_all_reduce: bool = False
    routing_in_experts: tuple[str, ...] = ()
    shared_experts: tuple[tuple[str, str], ...] = ()
    static_quantisation: bool = False
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def completes_sums_of(self, model: str) -> bool:
        """Whether the model's layers reduce partial sums, not its linears: layers that may fuse this with a norm do."""
        return bool(self.all_reduce_norm_families) and is_one_of(model, self.all_reduce_norm_families)

    def message_limits(self, model: str, architecture: str) -> tuple[tuple[float, float], ...]:
        """Numbers of devices, increasing, and the largest message in bytes of an all-reduce with a fused norm."""
        families = self.all_reduce_norm_families
        if families and not is_one_of(model, families):
            return ()
        found = [(devices, most) for name, devices, most in self.all_reduce_norms if name in (architecture, ANY)]
        return tuple(sorted(found))

    def shared_experts_on(self, architecture: str) -> str:
        """How shared experts run on an architecture."""
        named = dict(self.shared_experts)
        return named.get(architecture, named.get(ANY, "apart"))

    def routes_in_experts(self, architecture: str) -> bool:
        """Whether the experts' kernel selects the experts."""
        return architecture in self.routing_in_experts or ANY in self.routing_in_experts

    def writes_rope(self, architecture: str) -> bool:
        """Whether the rotary embedding's kernel writes keys to the cache."""
        return architecture in self.rope_caches or ANY in self.rope_caches


_FLAGS = (
    "residual_norms", "latent_projections", "delta_projections", "expert_all_reduce", "static_quantisation",
)  # fmt: skip


_NUMBERS = {"all_reduce_norm_rows": (0.0, 1e9)}


def read_fusions(fields: Fields, base: EngineFusions, inherited: Mapping[str, str]) -> EngineFusions:
    """The `fusions` group of a profile's file, based on that of its base; a field may be `{value: …, source: …}`.

    all_reduce_norms: bytes by number of devices, by architecture; shared_experts: one of SHARED_EXPERTS by architecture
    inherited: sources of the fields inherited from the base
    Problems are noted in `fields`: a value that is not allowed.
    """
    found: dict[str, Any] = {}
    sources = dict(inherited)
    found |= read_flags(fields, _FLAGS, base, sources)
    for key, (least, most) in _NUMBERS.items():
        at, name = place(fields, key, sources)
        found[key] = at.number(name, getattr(base, key), least=least, most=most)
    for key in ("all_reduce_norm_families", "rope_caches", "routing_in_experts"):
        at, name = place(fields, key, sources)
        found[key] = read_families(at, name, getattr(base, key))
    if "all_reduce_norms" in fields:
        found["all_reduce_norms"] = _limits(_valued(fields, "all_reduce_norms", sources))
    if "shared_experts" in fields:
        chosen = _valued(fields, "shared_experts", sources)
        found["shared_experts"] = tuple((name, chosen.text(name, "apart", SHARED_EXPERTS)) for name in chosen.keys())  # noqa: SIM118
    return replace(base, **found, sources=sources)


def _valued(fields: Fields, key: str, sources: dict[str, str]) -> Fields:
    """The mapping below a key, or below its `value` where it has a source."""
    own = fields.mapping(key)
    if "value" not in own:
        return own
    sources[key] = own.text("source", "")
    return own.mapping("value")


def _limits(architectures: Fields) -> tuple[tuple[str, float, float], ...]:
    found = []
    for name in architectures.keys():  # noqa: SIM118 - Fields is not a mapping
        devices = architectures.mapping(name)
        counts: list[Any] = list(devices.data)
        for count in counts:
            if not isinstance(count, int) or isinstance(count, bool) or count < 2:
                devices.problem(count, "is not a number of devices; expected a whole number from 2")
            most = devices.number(count, 0.0, kind="bytes", least=0.0, most=1e12)
            found.append((name, float(count) if isinstance(count, int) else 0.0, float(most)))
    return tuple(found)
