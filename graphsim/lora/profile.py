"""Engine profiles: how a serving engine turns an adapter into kernels, slots and copies. One YAML each.

A profile is data: which modules get slots, at what rank, which kernels run per packed linear, over what grid. The
passes turn the three logical nodes of an adapter into these kernels; `reference` leaves the three nodes as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files.reading import Fields, load_mapping
from graphsim.lora.calls import ModuleCall, read_calls
from graphsim.lora.limits import Limits, read_limits
from graphsim.lora.memory import EngineMemory, read_memory
from graphsim.lora.schemes import SCHEMES

MODULES = ("targets", "every_linear")
RANKS = ("true", "padded")
KERNELS = ("separate", "eager_modules", "fused")
GRIDS = ("slots", "active", "chunks", "tokens")
EXPERT_KERNELS = ("separate", "blocks")
EXPERT_GRIDS = ("slots", "active", "pairs")
INTERMEDIATES = ("fp32", "model")
LAUNCHES = ("graph", "eager")
FACTORS = ("given", "fp32")
EXPERT_LAYOUTS = ("parameter", "projections", "fused")
DISPATCHES = ("experts", "ranks", "all")
DISPATCH_FORMATS = ("model", "fp8")
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """The tiles of a kernel from a number of tokens on: rows of tokens, columns of results, ways to split k.

    depth: of k that a tile takes in one step; 0 where tiles count as a whole
    clocks: of one core that a tile with tokens takes; the profile's `tile_clocks` by default
    held: tokens from which on its price grows no further, up to those of the next tiling
    """

    tokens: float = 0.0
    rows: float
    columns: float
    split_k: float = 1.0
    depth: float = 0.0
    clocks: float | None = None
    held: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """How an engine runs adapters.

    modules: which linears have adapter buffers and run its kernels: the adapter's `targets`, or `every_linear`
    rank: kernels at the adapter's `true` rank, or `padded` to max_lora_rank; storage: the same of the buffers
    embedding_families: models whose embedding and output head have slots too, by the first word of their names
    expert_layout: what adapters hold of experts' fused gate and up: as PEFT of one `parameter` both factors twice as
        wide as the rank; of the two `projections` a pair each; one `fused` pair, whose B has both outputs. With slots
        for `every_linear`, experts have slots too unless it is `parameter`
    fused_expert_families: models with one fused pair, whatever the layout of others, by the first word of their names
    extra_vocab_rows: rows of full width that a slot reserves for added tokens in embedding and head
    kernels: `separate` GEMM_LORA_A, GEMM_LORA_B, ADD per projection; `eager_modules` the same and a scaling, once per
        adapter; `fused` a shrink and an expand per packed linear, the expand adding in place
    factors: the factors' format: as `given`, or `fp32` where they are given in 16 bits
    packs_projections: whether q, k, v and gate, up that lie apart in a checkpoint are run as one product each
    packed: whether the slices of a packed linear share kernels; fill: whether one clears the intermediate first
    grid: what kernels are launched over: all `slots`, `active` adapters, `chunks` of tokens alike, or `tokens`
    extra_slots: places of a grid over slots beside those of adapters, such as the one for tokens without any
    shrink, expand: tiles, the last one whose `tokens` are reached; expand_one: where there is a single slice
    tile_clocks, empty_tile_clocks: cores' clocks that a tile with tokens takes, and one without
    expert_kernels: `separate` nodes for experts, or kernels over `blocks` of rows of one adapter and expert
    expert_grid: what their blocks are launched for: each of the `slots`, each `active` adapter, or `pairs` of an
        adapter and an expert, up to the most that the routed rows may need
    expert_shrink, expert_expand: their tiles; expert_sorts: kernels that sort rows into blocks, once for all products
    expert_fills: kernels that clear the intermediate and the result, per product
    expert_one_shot_rank: reserved rank up to which one kernel does both products, unless adapters are fully sharded
    expert_row_blocks: each row is a block where rows times this do not exceed slots times experts; 0 for never
    block_start_clocks, block_step_clocks: clocks until a block of experts' kernels works, and of each step of k
    blocks_per_core: of these kernels, at a time
    side_stream: whether shrinks, and what experts' pairs before the activation give, run beside the base's kernels
    side_waits: starts of kernels that it takes the base's kernels to wait for what ran beside them
    intermediate: format of what goes from shrink to expand
    memory: what it does with the device's memory, with sources of its own
    fused_4bit_tokens: rows up to which a product reads 4-bit weights itself; with more it widens them first
    nested_scales: whether doubly quantised scales are widened in every product, not once at load
    launch: kernels from a captured `graph`, or `eager` from the host
    module_calls: kernels and calls of an operation by its kind, where modules run one by one; one kernel for all others
    call_s: host time of a call from Python, of a module or of an operation, beside the start of its kernel
    idle_kernels: whether a captured step without any adapted token runs the kernels of adapters all the same
    captured_tokens: the largest step that is a captured graph; eager_lora_launch_s: what starting a kernel of adapters
        takes the host in larger ones, beyond what runs on the device meanwhile
    dispatch: what tokens are sent to experts on other ranks as: a copy for each of a token's `experts`, one for each
        of the `ranks` that hold some of them, or `all` tokens to all ranks
    dispatch_format: in which they travel there: the `model`'s activations, or `fp8` to experts that compute in it
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
    expert_layout: str = "parameter"
    fused_expert_families: tuple[str, ...] = ()
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
    expert_kernels: str = "separate"
    expert_grid: str = "slots"
    expert_shrink: tuple[Tiling, ...] = ()
    expert_expand: tuple[Tiling, ...] = ()
    expert_sorts: float = 1.0
    expert_fills: float = 0.0
    expert_one_shot_rank: float = 0.0
    expert_row_blocks: float = 0.0
    block_start_clocks: float = 0.0
    block_step_clocks: float = 0.0
    blocks_per_core: float = 1.0
    side_stream: bool = False
    side_waits: float = 0.0
    intermediate: str = "model"
    memory: EngineMemory = EngineMemory()
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

    def has_embedding_slots(self, model: str) -> bool:
        """Whether a model's embedding and output head have slots.

        Engines decide by the class that they run a model with; of it, a model's description has only the name.
        """
        return _is_one_of(model, self.embedding_families)

    def expert_layout_of(self, model: str) -> str:
        """What adapters hold of the experts of a model, by its name."""
        return "fused" if _is_one_of(model, self.fused_expert_families) else self.expert_layout

    @property
    def stored(self) -> EngineProfile:
        """The same engine as its buffers are: kernels at the rank that is stored."""
        return self if self.storage == self.rank else replace(self, rank=self.storage)


def _is_one_of(model: str, families: tuple[str, ...]) -> bool:
    """Whether a model's name starts with the word of a family, in any spelling: `gpt-oss-20b`, `gpt_oss`."""
    named = f"{_plain(model)}-"
    return any(named.startswith(f"{_plain(family)}-") for family in families)


def _plain(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower().replace("_", "-").replace(".", "-")


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
    if path.suffix not in SUFFIXES:
        path = _folder() / f"{ref}.yaml"
        if not path.is_file():
            raise ConfigError(f"engine = {str(ref)!r} is not known; {choices_text(str(ref), list_engines())}")
    if not path.is_file():
        raise ConfigError(f"engine = {str(ref)!r}: there is no such file")
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
    for key in ("embedding_families", "fused_expert_families"):
        found[key] = _names(fields, key, kept)
    for key in ("shrink", "expand", "expand_one", "expert_shrink", "expert_expand"):
        found[key] = _tilings(fields, key, kept)
    found["sources"] = {**(_inherited_sources(base, fields) if base else {}), **_sources(fields)}
    found["memory"] = _memory(fields, base)
    if found["kernels"] == "fused" and found["grid"] != "tokens" and not (found["shrink"] and found["expand"]):
        fields.problems.append("kernels = 'fused' needs the tiles of shrink and expand")
    if found["expert_kernels"] == "blocks" and not (found["expert_shrink"] and found["expert_expand"]):
        fields.problems.append("expert_kernels = 'blocks' needs the tiles of expert_shrink and expert_expand")
    fields.finish()
    return EngineProfile(**found)


_CHOICES = {
    "modules": MODULES, "rank": RANKS, "storage": RANKS, "kernels": KERNELS, "grid": GRIDS,
    "intermediate": INTERMEDIATES, "factors": FACTORS, "launch": LAUNCHES, "tensor_parallel": tuple(SCHEMES),
    "expert_layout": EXPERT_LAYOUTS, "expert_kernels": EXPERT_KERNELS, "expert_grid": EXPERT_GRIDS,
    "dispatch": DISPATCHES, "dispatch_format": DISPATCH_FORMATS,
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
    "fused_4bit_tokens": ("", 0.0, 1e9), "call_s": ("s", 0.0, 1.0),
    "expert_sorts": ("", 0.0, 100.0), "expert_fills": ("", 0.0, 100.0), "expert_one_shot_rank": ("", 0.0, 1e6),
    "expert_row_blocks": ("", 0.0, 1e6), "block_start_clocks": ("", 0.0, 1e9), "block_step_clocks": ("", 0.0, 1e9),
    "blocks_per_core": ("", 1.0, 1e3), "side_waits": ("", 0.0, 100.0),
}  # fmt: skip
_DEFAULTS = {key: EngineProfile.__dataclass_fields__[key].default for key in (*_CHOICES, *_NUMBERS)}


def _names(fields: Fields, key: str, kept: Mapping[str, Any]) -> tuple[str, ...]:
    if key not in fields:
        fields.raw(key)
        return tuple(kept.get(key, ()))
    entries = fields.sequence(key, most=1000)
    if not all(isinstance(entry, str) and entry for entry in entries):
        fields.problem(key, "is not allowed; expected a list of names")
    return tuple(str(entry) for entry in entries)


def _tilings(fields: Fields, key: str, kept: Mapping[str, Any]) -> tuple[Tiling, ...]:
    if key not in fields:
        fields.raw(key)
        return tuple(kept.get(key, ()))
    found = []
    for i, entry in enumerate(fields.sequence(key, most=32)):
        tile = fields.child(entry, f"{key}[{i}]")
        found.append(
            Tiling(
                tokens=float(tile.integer("tokens", 0, least=0)),
                rows=float(tile.integer("rows", most=65536)),
                columns=float(tile.integer("columns", most=65536)),
                split_k=float(tile.integer("split_k", 1, most=65536)),
                depth=float(tile.integer("depth", 0, least=0, most=65536)),
                clocks=tile.number("clocks", None, most=1e9),
                held=tile.number("held", math.inf, least=1.0),
            )
        )
    starts = sorted(tiling.tokens for tiling in found)
    if starts and starts[0] > 0:
        fields.problem(key, f"starts at tokens {starts[0]:g}; expected a first entry at tokens 0")
    if len(set(starts)) < len(starts):
        fields.problem(key, "has two entries with the same tokens; expected one for each number of tokens")
    return tuple(sorted(found, key=lambda tiling: tiling.tokens))


def _memory(fields: Fields, base: EngineProfile | None) -> EngineMemory:
    """The group `memory` of a profile's file, over that of its base."""
    kept = base.memory if base else EngineMemory()
    inherited = _inherited(kept.sources, base.name) if base else {}
    memory = read_memory(fields.mapping("memory"), kept, inherited)
    references = _references(fields)
    own = {
        key: text if text.startswith(_INHERITED) else _full(text, references) for key, text in memory.sources.items()
    }
    return replace(memory, sources=own)


def _inherited_sources(base: EngineProfile, fields: Fields) -> dict[str, str]:
    """The sources of the fields that a profile keeps from its base; one that it changes has its own source or none."""
    return _inherited({key: text for key, text in base.sources.items() if key not in fields}, base.name)


def _inherited(sources: Mapping[str, str], base: str) -> dict[str, str]:
    return {
        key: text if text.startswith(_INHERITED) else f"{_INHERITED}{base}: {text}" for key, text in sources.items()
    }


_INHERITED = "inherited from "


def _sources(fields: Fields) -> dict[str, str]:
    sources, references = fields.mapping("sources"), _references(fields)
    found = {}
    for key in sources.keys():  # noqa: SIM118
        if key not in EngineProfile.__dataclass_fields__:
            sources.problem(key, f"is the source of no field; {choices_text(key, EngineProfile.__dataclass_fields__)}")
        found[key] = _full(sources.text(key, "") or "", references)
    return found


def _references(fields: Fields) -> dict[str, str]:
    references = fields.mapping("references")
    return {key: references.text(key, "") or "" for key in references.keys()}  # noqa: SIM118 - Fields is no mapping


def _full(text: str, references: Mapping[str, str]) -> str:
    """A source with the document that its first words stand for."""
    name, separator, rest = text.partition(",")
    return f"{references.get(name.strip(), name.strip())}{separator}{rest}"
