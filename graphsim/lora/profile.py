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
CONTEXT_EXCHANGES = ("all_gather", "p2p")
CONTEXT_CACHES = ("sharded", "replicated")
SUFFIXES = (".yaml", ".yml")

_Group = TypeVar("_Group", EngineExperts, EngineFusions, EngineHost, EngineMemory, EnginePrices, EngineScheduler)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """How an engine runs adapters.

    modules: which linears have adapter buffers and run adapter kernels: the adapter's `targets`, or `every_linear`
    rank: rank at which kernels run: the adapter's `true` rank, or `padded` to max_lora_rank
    storage: rank of the
        buffers, `true` or `padded`
    embedding_families: models whose embedding and output head have slots too, given by the first word of the model's
        name
    extra_vocab_rows: rows of full width that a slot reserves in embedding and head for added tokens
    kernels: `separate` runs GEMM_LORA_A, GEMM_LORA_B and ADD per projection; `eager_modules` adds a scaling and runs
        them once per adapter; `fused` runs a shrink and an expand per packed linear, and the expand adds in place
    factors: number format in which the factors are used: as `given`, or `fp32` where they are given in 16 bits
    packs_projections: whether q, k, v (and gate, up) that are separate in a checkpoint run as one GEMM
    packed: whether the slices of a packed linear share kernels
    fill: whether a kernel clears the intermediate first
    grid: what the kernels' grid covers: all `slots`, the `active` adapters, `chunks` of tokens of one adapter, or
        `tokens`
    extra_slots: slots that a grid covers in addition to those of adapters, such as the one for tokens without an
        adapter
    shrink, expand: tile sizes; the entry with the largest `tokens` that a step reaches applies. expand_one: tiles of an
        expand with a single slice
    tile_clocks, empty_tile_clocks: clock cycles that a core spends on a tile with tokens, and on a tile without
    side_stream: whether shrinks, and the experts' adapter GEMMs before the activation, run concurrently with the base's
        kernels
    side_waits: how long the base's kernels wait for the side stream, as a multiple of the launch of a kernel
    intermediate: number format of the intermediate between shrink and expand: `fp32`, or the `model`'s
    experts, fusions, host, memory, prices, scheduler: how the engine runs adapters on experts; which of the model's
        operations it fuses; the host time it takes; how it divides device memory; whose measured kernels give its
        times; how it schedules requests. Each group has its own sources
    fused_4bit_tokens: rows up to which a GEMM reads 4-bit weights directly; with more rows it dequantises them first
    nested_scales: whether doubly quantised scales are dequantised in every GEMM rather than once at load
    launch: kernels start from a captured `graph`, or `eager` from the host
    module_calls: kernels and host calls per kind of operation where modules run one by one; other kinds have one kernel
    call_s: host time in seconds of one Python call of a module or operation, without the launch of its kernel
    idle_kernels: whether a captured step runs adapter kernels even if no token has an adapter
    captured_tokens: tokens of the largest step that runs as a captured graph
    eager_lora_launch_s: host time in seconds
        to launch one adapter kernel in a larger step, beyond what overlaps with the device
    dispatch: how tokens are sent to experts on other ranks: one copy for each of a token's `experts`, one for each of
        the `ranks` that hold any of them, or `all` tokens to all ranks
    dispatch_format: number format of dispatched tokens: the `model`'s activations, `fp8` for experts that compute in
        fp8, or `quantised` as the experts take them, in fp8 or nvfp4
    exchange: what moves these copies: a plain all-to-all `collective`, or a kernel family of EXCHANGES
    shared_experts: the exchange that shared experts overlap with: `dispatch`, `combine`, or none (they run `behind`
        both)
    split_prompt_tokens, split_decode_tokens: number of tokens from which a step with prompts, or one without, runs in
        two halves that alternate at each exchange, if there is no pipeline; 0 for never
    context_exchange: how context-parallel ranks exchange the keys and values of prompts: `all_gather`, or `p2p` in a
        ring
    context_cache: whether each of them stores its own part of the KV cache (`sharded`, required by a ring), or all of
        it (`replicated`)
    tensor_parallel: how factors are sharded over a tensor-parallel group: a name of `graphsim.lora.schemes`
    merge_passes: how often a merge reads or writes a temporary of the weight's shape; 0 where it is one kernel
    load_tensor_s: host time in seconds per tensor loaded into a slot; the copies themselves overlap with it
    disk_s, disk_bytes_per_s: reading an adapter's file from the page cache: seconds to start, bytes per second
    cold_disk_bytes_per_s: bytes per second of reading it from disk
    load_overlapped: whether loads overlap steps
    limits: what the engine refuses to run
    notes_only: whether that is simulated anyway, with a note
    sources: the source of each field; "inherited from NAME: …" for a field taken from another profile
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
    context_exchange: str = "p2p"
    context_cache: str = "sharded"
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
        """Name of the kernels that exchange tokens, "" for a plain all-to-all.

        generates: whether every sequence of the step generates; False for a step with prompts
        """
        of_prompts, of_generation = EXCHANGES[self.exchange]
        return of_generation if generates else of_prompts

    def has_embedding_slots(self, model: str) -> bool:
        """Whether a model's embedding and output head have slots, by its name."""
        return is_one_of(model, self.embedding_families)

    def __repr__(self) -> str:
        return f"<EngineProfile {self.name}: {self.title}>"

    @property
    def stored(self) -> EngineProfile:
        """The same engine with kernels at the rank of its buffers."""
        return self if self.storage == self.rank else replace(self, rank=self.storage)


def list_engines() -> list[str]:
    """Names of the profiles that come with graphsim."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_profile(ref: str | Path | Mapping[str, Any] | EngineProfile) -> EngineProfile:
    """The profile that `ref` names: a name, a YAML path or a mapping, whose `base` names a profile that it modifies.

    Raises ConfigError naming the file, the field, what was found and what is allowed.
    """
    if isinstance(ref, EngineProfile):
        return ref
    if isinstance(ref, Mapping):
        return _read(Fields(ref, "the engine profile given as a mapping"), str(ref.get("name", "custom")))
    if not isinstance(ref, str | Path) or not str(ref).strip():
        raise ConfigError(f"engine = {short(ref)} is not allowed; expected a name, a path or a mapping")
    return _from_file(*_version(_path_of(ref)))


def _path_of(ref: str | Path) -> Path:
    """The file of a name or a path."""
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
    """The profile of a file.

    above: the files that it is a base of, directly or through others
    """
    return _read(Fields(load_mapping(path), str(path)), path.stem, (*above, path))


def _base(given: str, above: tuple[Path, ...]) -> EngineProfile:
    """The profile named as a base. Raises ConfigError for a circular reference."""
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
    if found["context_exchange"] == "p2p" and found["context_cache"] == "replicated":
        fields.problems.append("context_exchange = 'p2p' leaves ranks their parts: context_cache must be 'sharded'")
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
    "shared_experts": SHARED_EXPERTS, "context_exchange": CONTEXT_EXCHANGES, "context_cache": CONTEXT_CACHES,
}  # fmt: skip
LEAST_RATE = 1e6
"""Least plausible rate in bytes per second: keeps times finite, and catches a 3 without its GB/s."""

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
