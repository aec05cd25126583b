"""The precision of a model: the format of its weights, its activations and its cache, module by module.

A precision names the format of the weights of the blocks' linear layers; embeddings, norms, router and
output head stay in the activation format, as quantised checkpoints usually keep them. Modules that a checkpoint
keeps otherwise have a format of their own, by their path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from graphsim.errors import ConfigError, as_allowed, choices_text
from graphsim.ops.formats import FORMATS, Format, format_of
from graphsim.units import short


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFormat:
    """The weights of the modules at one path are in a format of their own.

    path: `{}` standing for the layer's index
    layers: indices of those that it holds for; none stand for all
    """

    path: str
    format: Format
    layers: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The text of this entry: `model.layers.{0-2|7}.mlp.down_proj=bf16`."""
        return f"{self.path.replace('{}', '{' + _ranges(self.layers) + '}')}={self.format.name}"


@dataclass(frozen=True, slots=True)
class ModuleFormats:
    """Formats of single modules; the first entry that holds for a module decides."""

    entries: tuple[ModuleFormat, ...] = ()
    _by_path: dict[str, tuple[ModuleFormat, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found: dict[str, tuple[ModuleFormat, ...]] = {}
        for entry in self.entries:
            found[entry.path] = (*found.get(entry.path, ()), entry)
        object.__setattr__(self, "_by_path", found)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __iter__(self) -> Iterator[ModuleFormat]:
        return iter(self.entries)

    def of(self, path: str, layer: int) -> Format | None:
        """The module's own format; None where it has none."""
        for entry in self._by_path.get(path, ()):
            if not entry.layers or layer in entry.layers:
                return entry.format
        return None

    def of_layer(self, prefix: str, layer: int) -> tuple[tuple[str, Format], ...]:
        """What distinguishes a layer's modules from those of other layers; `prefix` of their paths."""
        paths = (path for path in self._by_path if path.startswith(prefix))
        return tuple((path, own) for path in paths if (own := self.of(path, layer)) is not None)


ALIKE = ModuleFormats()
"""No module has a format of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The number formats in which a model runs.

    weights: format of the weights of linear layers inside the blocks
    activations: format of activations, and of embeddings, norms and the output head
    kv: format of the KV cache
    experts, attention: formats of the weights of experts and of attention projections, where they differ from `weights`
    modules: formats of single modules, which override the others
    """

    weights: Format
    activations: Format
    kv: Format
    experts: Format | None = None
    attention: Format | None = None
    modules: ModuleFormats = ALIKE

    def __repr__(self) -> str:
        return f"<Precision {self.name}: activations {self.activations.name}, KV cache {self.kv.name}>"

    @property
    def name(self) -> str:
        """The precision as a user writes it: `fp8`, `bf16,experts=mxfp4`, or `fp8,kv=fp8` where the cache differs."""
        parts = [f"{part}={own.name}" for part in ("experts", "attention") if (own := getattr(self, part)) is not None]
        cache = [] if self.kv == self.activations else [f"kv={self.kv.name}"]
        return ",".join([self.weights.name, *parts, *(entry.name for entry in self.modules), *cache])

    @property
    def of_weights(self) -> tuple[Format, ...]:
        """All formats used for weights of the blocks' linear layers."""
        several = (self.weights, self.experts, self.attention, *(entry.format for entry in self.modules))
        return tuple(dict.fromkeys(own for own in several if own is not None))

    @property
    def of_experts(self) -> Format:
        """The format of the experts' weights, except for modules with their own."""
        return self.experts or self.weights

    @property
    def compute(self) -> str:
        """The format whose matrix peak limits the blocks' linear layers."""
        return self.weights.compute or self.activations.compute


_PARTS = ("experts", "attention", "kv")
_PATH = re.compile(r"[^\s={}]+(?:\{[\d|-]*\}[^\s={}]*)?")
WIDE = ("fp32", "bf16", "fp16")
"""Weight formats that are also formats of activations."""


def load_precision(ref: str | Precision, kv: str | None = None) -> Precision:
    """The precision that a name describes: `bf16`, `fp8`, `nvfp4,kv=fp8`, or any form that `Precision.name` returns.

    ref: a format, followed by any of `experts=`, `attention=`, `kv=` and module paths, each with a format:
        `int4,attention=fp8,model.layers.{0-2}.mlp.down_proj=bf16`; `{}` means every layer, `{0-2|7}` some of them
    kv: format of the KV cache, where the name states none
    Raises ConfigError listing the known formats.
    """
    if isinstance(ref, Precision):
        return ref if kv is None else replace(ref, kv=_format(kv, "kv precision"))
    if not isinstance(ref, str):
        raise ConfigError(f"precision = {short(ref)} is not a name; {choices_text('', FORMATS)}")
    return _read(ref, kv)


@lru_cache(maxsize=256)
def _read(ref: str, kv: str | None) -> Precision:
    name, *parts = [part.strip() for part in ref.split(",")]
    weights = _format(name, "precision")
    activations = weights if weights.name in WIDE else FORMATS["bf16"]
    named: dict[str, Format] = {}
    modules: list[ModuleFormat] = []
    for part in parts:
        key, equals, value = (word.strip() for word in part.partition("="))
        key = as_allowed(key, _PARTS)
        if not equals or not _PATH.fullmatch(key) or (key not in _PARTS and not re.search(r"[._]", key)):
            raise ConfigError(f"precision = {short(ref)} is not understood; write a format such as bf16, or fp8,kv=fp8")
        if key in named:
            raise ConfigError(f"precision = {short(ref)} names {key} twice")
        if key in _PARTS:
            named[key] = _format(value, f"{key} precision")
        else:
            modules.append(_module(key, _format(value, f"precision of {key}")))
    cache = named.get("kv", activations) if kv is None else _format(kv, "kv precision")
    return Precision(
        weights=weights, activations=activations, kv=cache, experts=named.get("experts"),
        attention=named.get("attention"), modules=ModuleFormats(tuple(modules)) if modules else ALIKE,
    )  # fmt: skip


def _module(path: str, own: Format) -> ModuleFormat:
    """The entry that a path with its layers in braces stands for."""
    before, opened, rest = path.partition("{")
    listed, _, after = rest.partition("}")
    layers: list[int] = []
    for part in listed.split("|") if listed else ():
        first, _, last = part.partition("-")
        ends = [int(end) for end in (first, last or first) if end.isdecimal() and len(end) < 5]
        if len(ends) != 2 or ends[0] > ends[1]:
            raise ConfigError(
                f"precision of {path}: {{{listed}}} is not a list of layers; write {{}}, {{3}} or {{0-2|7}}"
            )
        layers += range(ends[0], ends[1] + 1)
    return ModuleFormat(path=f"{before}{{}}{after}" if opened else path, format=own, layers=tuple(sorted(set(layers))))


def _ranges(layers: Iterable[int]) -> str:
    """0, 1, 2, 7 as `0-2|7`."""
    ends: list[list[int]] = []
    for layer in layers:
        if ends and layer == ends[-1][1] + 1:
            ends[-1][1] = layer
        else:
            ends.append([layer, layer])
    return "|".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ends)


def _format(name: str, what: str) -> Format:
    known = format_of(name)
    if known is None:
        raise ConfigError(f"{what} = {short(name)} is not known; {choices_text(name, FORMATS)}")
    return known
