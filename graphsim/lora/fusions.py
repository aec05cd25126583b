"""Which of a model's operations an engine runs within another kernel, or beside it: `fusions` of its profile.

Structure alone, with its source; nothing here is fitted. What is said of architectures counts for devices; of a
graph without a device, what the engine does on any.
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
    """Which operations share a kernel, or the device.

    residual_norms: RMSNorms add the residual themselves
    all_reduce_norms: and run within the all-reduce before them: the largest message in bytes, by architecture and
        number of devices; of other numbers, as of the next larger one
    all_reduce_norm_rows: at most with so many rows, 0 for any number; all_reduce_norm_families: of which models, by the
        first word of their names, none for all
    latent_projections: latent attention's GEMMs down to queries, and to keys and values, are one
    delta_projections: of a gated delta-net's, those to queries, keys, values and z are one, and those to b and a
    rope_caches: on which architectures rotary embeddings are written to the cache by the kernel that makes them
    expert_all_reduce: routed and shared experts are summed before one all-reduce, scaled by a gate or not
    routing_in_experts: on which architectures experts' kernel picks them by itself
    shared_experts: `apart`, in a `stream` beside the routed ones in steps without prompts, or one more expert of their
        `kernel` where they are alike, by architecture
    static_quantisation: activations are quantised to fp8 by the kernel that makes them, where scales are known ahead
    sources: where each field comes from; of one kept from another profile, "inherited from NAME: …"
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
        """Whether layers of the model complete the sums of their linears: those that may do so with a norm."""
        return bool(self.all_reduce_norm_families) and is_one_of(model, self.all_reduce_norm_families)

    def message_limits(self, model: str, architecture: str) -> tuple[tuple[float, float], ...]:
        """Numbers of devices and the largest message that an all-reduce with a norm has with them, fewest first."""
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
        """Whether experts' kernel picks them."""
        return architecture in self.routing_in_experts or ANY in self.routing_in_experts

    def writes_rope(self, architecture: str) -> bool:
        """Whether rotary embeddings are written to the cache by their own kernel."""
        return architecture in self.rope_caches or ANY in self.rope_caches


_FLAGS = (
    "residual_norms", "latent_projections", "delta_projections", "expert_all_reduce", "static_quantisation",
)  # fmt: skip


_NUMBERS = {"all_reduce_norm_rows": (0.0, 1e9)}


def read_fusions(fields: Fields, base: EngineFusions, inherited: Mapping[str, str]) -> EngineFusions:
    """The group of a profile's file over that of its base; a field may be `{value: …, source: …}`.

    all_reduce_norms: bytes by number of devices, by architecture; shared_experts: one of SHARED_EXPERTS by architecture
    inherited: sources of what is kept from the base
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
    for name in architectures.keys():  # noqa: SIM118 - Fields is no mapping
        devices = architectures.mapping(name)
        counts: list[Any] = list(devices.data)
        for count in counts:
            if not isinstance(count, int) or isinstance(count, bool) or count < 2:
                devices.problem(count, "is of no number of devices; expected a whole number from 2 up")
            most = devices.number(count, 0.0, kind="bytes", least=0.0, most=1e12)
            found.append((name, float(count) if isinstance(count, int) else 0.0, float(most)))
    return tuple(found)
