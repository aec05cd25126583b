"""Engine profiles: how a serving engine turns an adapter into kernels, slots and copies. One YAML each.

A profile is data: which modules get slots, at what rank, which kernels run per packed linear, over what grid. The
passes turn the three logical nodes of an adapter into these kernels; `reference` leaves the three nodes as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from graphsim.errors import ConfigError, choices_text
from graphsim.files.present import is_file
from graphsim.files.reading import Fields, load_mapping
from graphsim.lora.calls import ModuleCall, read_calls
from graphsim.lora.experts import EngineExperts, read_experts
from graphsim.lora.families import is_one_of, read_families
from graphsim.lora.fusions import EngineFusions, read_fusions
from graphsim.lora.host import EngineHost, read_host
from graphsim.lora.limits import Limits, read_limits
from graphsim.lora.memory import EngineMemory, read_memory
from graphsim.lora.prices import EnginePrices, read_prices
from graphsim.lora.scheduler import EngineScheduler, read_scheduler
from graphsim.lora.schemes import SCHEMES
from graphsim.lora.sources import inherited, read_references, read_sources, with_documents
from graphsim.lora.tiling import Tiling, read_tilings
from graphsim.units import short

MODULES = ("targets", "every_linear")
RANKS = ("true", "padded")
KERNELS = ("separate", "eager_modules", "fused")
GRIDS = ("slots", "active", "chunks", "tokens")
INTERMEDIATES = ("fp32", "model")
LAUNCHES = ("graph", "eager")
FACTORS = ("given", "fp32")
DISPATCHES = ("experts", "ranks", "all")
DISPATCH_FORMATS = ("model", "fp8", "quantised")
EXCHANGES = {
    "collective": ("", ""), "deepep": ("normal", "low_latency"), "deepep_v2": ("elastic_prefill", "elastic_decode"),
    "nvlink_two_sided": ("two_sided", "two_sided"), "nvlink_one_sided": ("one_sided", "one_sided"),
}  # fmt: skip
"""Kernels that exchange tokens, of steps with prompts and of steps without: names of `graphsim.ops.dispatch.EXCHANGES`,
"" for a plain all-to-all."""
SHARED_EXPERTS = ("behind", "dispatch", "combine")
SUFFIXES = (".yaml", ".yml")

_Group = TypeVar("_Group", EngineExperts, EngineFusions, EngineHost, EngineMemory, EnginePrices, EngineScheduler)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """How an engine runs adapters.

    modules: which linears have adapter buffers and run its kernels: the adapter's `targets`, or `every_linear`
    rank: kernels at the adapter's `true` rank, or `padded` to max_lora_rank; storage: the same of the buffers
    embedding_families: models whose embedding and output head have slots too, by the first word of their names
    extra_vocab_rows: rows of full width that a slot reserves for added tokens in embedding and head
    kernels: `separate` GEMM_LORA_A, GEMM_LORA_B, ADD per projection; `eager_modules` the same and a scaling, once per
        adapter; `fused` a shrink and an expand per packed linear, the expand adding in place
    factors: the factors' format: as `given`, or `fp32` where they are given in 16 bits
    packs_projections: whether q, k, v and gate, up that lie apart in a checkpoint are run as one GEMM each
    packed: whether the slices of a packed linear share kernels; fill: whether one clears the intermediate first
    grid: what kernels are launched over: all `slots`, `active` adapters, `chunks` of tokens alike, or `tokens`
    extra_slots: places of a grid over slots beside those of adapters, such as the one for tokens without any
    shrink, expand: tiles, the last one whose `tokens` are reached; expand_one: where there is a single slice
    tile_clocks, empty_tile_clocks: cores' clocks that a tile with tokens takes, and one without
    side_stream: whether shrinks, and what experts' pairs before the activation give, run beside the base's kernels
    side_waits: starts of kernels that it takes the base's kernels to wait for what ran beside them
    intermediate: format of what goes from shrink to expand
    experts: how it runs adapters on experts, with sources of its own
    fusions: which of the model's operations share a kernel, with sources of its own
    host: what its own work takes beside its kernels, with sources of its own
    memory: what it does with the device's memory, with sources of its own
    prices: whose measured kernels price its operations, with sources of its own
    scheduler: by which rules it fills its steps, with sources of its own
    fused_4bit_tokens: rows up to which a GEMM reads 4-bit weights itself; with more it widens them first
    nested_scales: whether doubly quantised scales are widened in every GEMM, not once at load
    launch: kernels from a captured `graph`, or `eager` from the host
    module_calls: kernels and calls of an operation by its kind, where modules run one by one; one kernel for all others
    call_s: host time of a call from Python, of a module or of an operation, beside the start of its kernel
    idle_kernels: whether a captured step without any adapted token runs the kernels of adapters all the same
    captured_tokens: the largest step that is a captured graph; eager_lora_launch_s: what starting a kernel of adapters
        takes the host in larger ones, beyond what runs on the device meanwhile
    dispatch: what tokens are sent to experts on other ranks as: a copy for each of a token's `experts`, one for each
        of the `ranks` that hold some of them, or `all` tokens to all ranks
    dispatch_format: in which they travel there: the `model`'s activations, `fp8` to experts that compute in it, or
        `quantised` as these take them, in fp8 or nvfp4
    exchange: what moves a copy for each expert or rank: a plain all-to-all `collective`, or kernels of EXCHANGES
    shared_experts: which exchange of tokens they are computed beside: the `dispatch` to experts on other ranks, the
        `combine` of what these give, or none, `behind` both
    split_prompt_tokens, split_decode_tokens: from how many tokens on a step with prompts, or one without, runs in two
        halves that take turns at each exchange, where there is no pipeline; 0 for never
    tensor_parallel: how factors are cut over a tensor-parallel group: a name of `graphsim.lora.schemes`
    merge_passes: times that its merge reads or writes a temporary of the weight's shape; 0 where it is one kernel
    load_tensor_s: host time of a load into a slot, per tensor; the copies themselves run beside it
    disk_s, disk_bytes_per_s: reading an adapter's file from the page cache: its start, its rate
    cold_disk_bytes_per_s: reading it from disk
    load_overlapped: whether loads run beside steps
    limits: what it refuses to run; notes_only: whether that is noted and simulated all the same
    sources: where each field comes from; of a field kept from another profile, "inherited from NAME: …"
    """

    name: str
    title: str
    modules: str = "targets"
    rank: str = "true"
    embedding_families: tuple[str, ...] = ()
    extra_vocab_rows: float = 0.0
    storage: str = "true"
    kernels: str = "separate"
    factors: str = "given"
    packs_projections: bool = True
    packed: bool = True
    fill: bool = False
    grid: str = "active"
    extra_slots: float = 0.0
    shrink: tuple[Tiling, ...] = ()
    expand: tuple[Tiling, ...] = ()
    expand_one: tuple[Tiling, ...] = ()
    tile_clocks: float = 0.0
    empty_tile_clocks: float = 0.0
    side_stream: bool = False
    side_waits: float = 0.0
    intermediate: str = "model"
    experts: EngineExperts = EngineExperts()
    fusions: EngineFusions = EngineFusions()
    host: EngineHost = EngineHost()
    memory: EngineMemory = EngineMemory()
    prices: EnginePrices = EnginePrices()
    scheduler: EngineScheduler = EngineScheduler()
    fused_4bit_tokens: float = 1.0
    nested_scales: bool = True
    launch: str = "graph"
    module_calls: tuple[ModuleCall, ...] = ()
    call_s: float = 0.0
    idle_kernels: bool = False
    captured_tokens: float = 1e9
    eager_lora_launch_s: float = 0.0
    dispatch: str = "experts"
    dispatch_format: str = "model"
    exchange: str = "collective"
    shared_experts: str = "behind"
    split_prompt_tokens: float = 0.0
    split_decode_tokens: float = 0.0
    tensor_parallel: str = "vllm"
    merge_passes: float = 0.0
    load_tensor_s: float = 0.0
    disk_s: float = 0.0
    disk_bytes_per_s: float = 1e9
    cold_disk_bytes_per_s: float = 1e9
    load_overlapped: bool = False
    limits: Limits = Limits()
    notes_only: bool = False
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def exchange_kernels(self, generates: bool) -> str:
        """Kernels made for exchanging tokens, of a step in which every sequence generates, or of one with prompts."""
        of_prompts, of_generation = EXCHANGES[self.exchange]
        return of_generation if generates else of_prompts

    def has_embedding_slots(self, model: str) -> bool:
        """Whether a model's embedding and output head have slots, by its name."""
        return is_one_of(model, self.embedding_families)

    def __repr__(self) -> str:
        return f"<EngineProfile {self.name}: {self.title}>"

    @property
    def stored(self) -> EngineProfile:
        """The same engine as its buffers are: kernels at the rank that is stored."""
        return self if self.storage == self.rank else replace(self, rank=self.storage)


def list_engines() -> list[str]:
    """Names of the profiles that come with graphsim."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_profile(ref: str | Path | Mapping[str, Any] | EngineProfile) -> EngineProfile:
    """A profile from its name, a YAML path, or a mapping; `base` in it names the profile that it changes.

    Raises ConfigError naming the file, the field, what was found and what is allowed.
    """
    if isinstance(ref, EngineProfile):
        return ref
    if isinstance(ref, Mapping):
        return _read(Fields(ref, "the engine profile given as a mapping"), str(ref.get("name", "custom")))
    if not isinstance(ref, str | Path) or not str(ref).strip():
        raise ConfigError(f"engine = {ref!r} is not allowed; expected a name, a path or a mapping")
    return _from_file(*_version(_path_of(ref)))


def _path_of(ref: str | Path) -> Path:
    """The file that a name or a path stands for."""
    path = Path(ref)
    is_name = path.suffix not in SUFFIXES
    if is_name:
        path = _folder() / f"{ALIASES.get(str(ref).lower(), str(ref).lower())}.yaml"
    if not is_file(path):
        known = f"is not known; {choices_text(str(ref), list_engines())}"
        raise ConfigError(f"engine = {short(str(ref))}" + (f" {known}" if is_name else ": there is no such file"))
    return path.absolute()


def _folder() -> Path:
    return Path(__file__).parent / "engines"


def _version(path: Path) -> tuple[Path, int]:
    return path, path.stat().st_mtime_ns


@lru_cache(maxsize=64)
def _from_file(path: Path, _modified: int, above: tuple[Path, ...] = ()) -> EngineProfile:
    """The profile of a file. above: the files that it is a base of, directly or through others."""
    return _read(Fields(load_mapping(path), str(path)), path.stem, (*above, path))


def _base(given: str, above: tuple[Path, ...]) -> EngineProfile:
    """The profile named as a base. Raises ConfigError where it is one of those that it would be the base of."""
    path = _path_of(given)
    if path in above:
        circle = " -> ".join(each.stem for each in (*above[above.index(path) :], path))
        raise ConfigError(f"{above[-1]}: base = {given!r} is not allowed: {circle} is a circle; leave one base out")
    return _from_file(*_version(path), above)


def _read(fields: Fields, name: str, above: tuple[Path, ...] = ()) -> EngineProfile:
    given = fields.text("base", None)
    base = _base(given, above) if given is not None else None
    kept: dict[str, Any] = {key: getattr(base, key) for key in EngineProfile.__dataclass_fields__} if base else {}
    fields.text("name", None)
    found: dict[str, Any] = {"name": name, "title": fields.text("title", kept.get("title", name))}
    for key, choices in _CHOICES.items():
        found[key] = fields.text(key, kept.get(key, _DEFAULTS[key]), choices)
    for key, (unit, least, most) in _NUMBERS.items():
        found[key] = fields.number(key, kept.get(key, _DEFAULTS[key]), kind=unit, least=least, most=most)
    for key in _FLAGS:
        found[key] = fields.flag(key, kept.get(key, EngineProfile.__dataclass_fields__[key].default))
    found["module_calls"] = read_calls(fields, "module_calls", kept.get("module_calls", ()))
    found["limits"] = read_limits(fields.mapping("limits"), kept.get("limits", Limits()))
    found["embedding_families"] = read_families(fields, "embedding_families", kept.get("embedding_families", ()))
    for key in ("shrink", "expand", "expand_one"):
        found[key] = read_tilings(fields, key, kept.get(key, ()))
    base_name = base.name if base else ""
    found["experts"] = _group(fields, "experts", read_experts, kept.get("experts", EngineExperts()), base_name)
    found["fusions"] = _group(fields, "fusions", read_fusions, kept.get("fusions", EngineFusions()), base_name)
    found["host"] = _group(fields, "host", read_host, kept.get("host", EngineHost()), base_name)
    found["memory"] = _group(fields, "memory", read_memory, kept.get("memory", EngineMemory()), base_name)
    found["prices"] = _group(fields, "prices", read_prices, kept.get("prices", EnginePrices()), base_name)
    scheduler = kept.get("scheduler", EngineScheduler())
    found["scheduler"] = _group(fields, "scheduler", read_scheduler, scheduler, base_name)
    own = with_documents(read_sources(fields, EngineProfile.__dataclass_fields__), read_references(fields))
    found["sources"] = {**inherited(kept.get("sources", {}), base_name, fields), **own}
    if found["kernels"] == "fused" and found["grid"] != "tokens" and not (found["shrink"] and found["expand"]):
        fields.problems.append("kernels = 'fused' needs the tiles of shrink and expand")
    fields.finish()
    return EngineProfile(**found)


def _group(
    fields: Fields, key: str, read: Callable[[Fields, _Group, Mapping[str, str]], _Group], kept: _Group, base: str
) -> _Group:
    """A group of a profile's file, over the one kept from its base, with its sources' documents spelled out.

    base: the name of the profile that it is kept from
    """
    own = fields.mapping(key)
    group = read(own, kept, inherited(kept.sources, base, own))
    return replace(group, sources=with_documents(group.sources, read_references(fields)))


_CHOICES = {
    "modules": MODULES, "rank": RANKS, "storage": RANKS, "kernels": KERNELS, "grid": GRIDS,
    "intermediate": INTERMEDIATES, "factors": FACTORS, "launch": LAUNCHES, "tensor_parallel": tuple(SCHEMES),
    "dispatch": DISPATCHES, "dispatch_format": DISPATCH_FORMATS, "exchange": tuple(EXCHANGES),
    "shared_experts": SHARED_EXPERTS,
}  # fmt: skip
LEAST_RATE = 1e6
"""Least plausible rate in bytes per second: times stay finite, and 3 without its GB/s is a slip."""

_FLAGS = (
    "packs_projections", "packed", "fill", "load_overlapped", "nested_scales", "notes_only", "idle_kernels",
    "side_stream",
)  # fmt: skip
_NUMBERS = {
    "extra_vocab_rows": ("", 0.0, 1e6), "extra_slots": ("", 0.0, 1e3), "captured_tokens": ("", 0.0, 1e9),
    "eager_lora_launch_s": ("s", 0.0, 1.0), "tile_clocks": ("", 0.0, 1e9), "empty_tile_clocks": ("", 0.0, 1e9),
    "load_tensor_s": ("s", 0.0, 10.0), "disk_s": ("s", 0.0, 100.0), "disk_bytes_per_s": ("bytes/s", LEAST_RATE, 1e13),
    "cold_disk_bytes_per_s": ("bytes/s", LEAST_RATE, 1e13), "merge_passes": ("", 0.0, 100.0),
    "fused_4bit_tokens": ("", 0.0, 1e9), "call_s": ("s", 0.0, 1.0), "side_waits": ("", 0.0, 100.0),
    "split_prompt_tokens": ("", 0.0, 1e9), "split_decode_tokens": ("", 0.0, 1e9),
}  # fmt: skip
ALIASES = {"tensorrt-llm": "trtllm", "vllm-2025-05": "vllm-0.8"}
"""Further names of profiles."""

_DEFAULTS = {key: EngineProfile.__dataclass_fields__[key].default for key in (*_CHOICES, *_NUMBERS)}
