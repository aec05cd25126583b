"""Which modules an adapter targets: whole names, never substrings.

The LoRA document's words (`attn`, `qkv`, `up+gate`, …) name the purpose of an operation; everything else follows PEFT's
rules (`check_target_module_exists`, PEFT 0.21): a list entry matches a module path exactly or as a suffix after a dot,
a string is `all-linear` or a regular expression for the whole path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx

from graphsim.errors import ConfigError, choices_text
from graphsim.lora.config import LoraConfig
from graphsim.lora.matching import Matching, matched
from graphsim.ops import Embedding, ExpertGemm, Gemm, Repeat
from graphsim.symbolic.substitute import with_fields
from graphsim.units import Num

WORDS = ("attn", "ffn", "qkv", "out proj", "query", "key", "value", "up+gate", "down", "up", "gate", "w1", "w2", "w3")
"""Targets of the LoRA document: module types, then operation names."""

USUAL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names that adapter files list for any family; one that a model lacks is ignored if others match."""

_LAYER_INDEX = re.compile(r".*?\.[^.]*\.(\d+)\.")

TIED = ("embed_tokens", "lm_head")
"""Names by which PEFT knows an embedding and a head (`utils/constants.py`, EMBEDDING_LAYER_NAMES)."""

_COMMON, _PARAMETER = -1, -2
"""Keys of modules, and of bare parameters, with the common rank."""

Module = Gemm | Embedding
"""Operations that an adapter can target."""


def rank_factor(op: Module) -> int:
    """The multiple of an adapter's rank that a weight gets if it fuses several targets."""
    return op.rank_factor if isinstance(op, ExpertGemm) and not op.separate else 1


@dataclass(frozen=True, slots=True)
class Targets:
    """The matching rules of one LoraConfig, compiled.

    tied: whether the model's head shares the embedding's weights
    """

    lora: LoraConfig
    tied: bool = False

    def key(self, op: Any, path: str) -> int | None:
        """None without an adapter; else the index of the pattern whose rank applies, below 0 for the common rank."""
        if not op.module or not (self._on_experts or not self._is_stack(op)):
            return None
        parameter = self._is_parameter(op, path)
        if not parameter and not self._ties(op) and not self._reached(op, path):
            return None
        for i, pattern in enumerate(self.lora.rank_pattern):
            if matched(rf"(.*\.)?({pattern})$", path, "rank_pattern"):
                return i
        return _PARAMETER if parameter else _COMMON

    @property
    def tells_layers(self) -> bool:
        """Whether modules may be reached, trained in full or given a rank of their own in some layers only.

        Neither names without a number as a part nor patterns that are plain names tell layers.
        """
        lora = self.lora
        rows = lora.trainable_token_indices
        held = [lora.exclude_modules, lora.target_parameters, rows if isinstance(rows, Mapping) else ()]
        if str(lora.target_modules).lower() != "all-linear":
            held.append(lora.target_modules or ())
        if lora.layers_to_transform is not None or any(isinstance(names, str) for names in held):
            return True
        plain = all(pattern.isidentifier() for pattern in (*lora.rank_pattern, *lora.modules_to_save))
        return not plain or any(part.isdigit() for names in held for name in names for part in name.split("."))

    def _is_stack(self, op: Any) -> bool:
        """Whether the weights are a parameter of a block of experts; PEFT treats its router's weights as one as
        well.
        """
        both = self.lora.matching is Matching.PEFT or not self.lora.kind.experts
        return isinstance(op, ExpertGemm) or (both and getattr(op, "bare", False))

    @property
    def _on_experts(self) -> bool:
        """Whether names of experts' weights become parameters, which PEFT does for LoRA itself only."""
        kind = self.lora.kind
        return kind.experts and (self.lora.matching is not Matching.PEFT or kind.peft_type == "LORA")

    def _ties(self, op: Any) -> bool:
        """Whether an adapter on the embedding or on a head that shares its weights is applied to both.

        PEFT 0.21, `tuners/tuners_utils.py`, _check_tied_modules: names count, whether or not they match a module.
        """
        lora = self.lora
        head = isinstance(op, Gemm) and op.head
        table = isinstance(op, Embedding) and not op.whole
        if not (lora.ensure_weight_tying and self.tied and (head or table)) or lora.target_modules is None:
            return False
        names = lora.target_modules
        if any(name.rpartition(".")[2] in TIED for name in lora.modules_to_save):
            return False
        if isinstance(names, str):
            return any(matched(names, name, "target_modules", re.fullmatch) for name in TIED)
        return any(name.rpartition(".")[2] in TIED for name in names)

    def rank(self, key: int, op: Module) -> Num:
        """The rank for a key; a weight that fuses two targets gets twice the common rank, as in PEFT."""
        if key >= 0:
            return list(self.lora.rank_pattern.values())[key]
        return self.lora.rank * rank_factor(op) if key == _COMMON else self.lora.rank

    def slice_rank(self, key: int) -> Num:
        """The rank for a key of each slice of a fused weight, if each has its own pair."""
        return list(self.lora.rank_pattern.values())[key] if key >= 0 else self.lora.rank

    def _is_parameter(self, op: Any, path: str) -> bool:
        name = path if isinstance(op, ExpertGemm) else f"{path}.weight"
        return any(name == entry or name.endswith(f".{entry}") for entry in self.lora.target_parameters)

    def _reached(self, op: Any, path: str) -> bool:
        lora = self.lora
        if lora.matching is Matching.PEFT and isinstance(op, ExpertGemm):
            return self._stack(op, path)
        if self._left_out(path):
            return False
        names = self._named
        if isinstance(names, str):
            if names.lower() == "all-linear":
                return getattr(op, "linear", False) and self._in_layers(path)
            if lora.matching is Matching.PEFT or names not in WORDS:
                return matched(names, path, "target_modules", re.fullmatch) is not None
            names = (names,)
        if isinstance(op, ExpertGemm) and self._names_all(names, op):
            return self._in_layers(path)
        return any(self._entry_matches(entry, op, path) for entry in names)

    @property
    def _named(self) -> tuple[str, ...] | list[str] | str:
        """The targets. Raises ConfigError if they are the model's defaults, which have not been looked up yet."""
        if self.lora.target_modules is None:
            raise ConfigError(
                "lora.target_modules = None stands for what PEFT takes by default for a model; expected names here, "
                "or a deployment, which looks them up by the model_type of a config.json"
            )
        return self.lora.target_modules

    def _left_out(self, path: str) -> bool:
        saved = self.lora.modules_to_save
        return _excluded(self.lora.exclude_modules, path) or any(
            matched(rf"(^|.*\.){name}($|\..*)", path, "modules_to_save") for name in saved
        )

    def _stack(self, op: ExpertGemm, path: str) -> bool:
        """Whether a stack is targeted: PEFT turns targets that mean each expert's weights into parameters, ignoring
        lists of layers and exclusions.

        PEFT 0.21, `utils/transformers_weight_conversion.py`.
        """
        names = self._named
        if not isinstance(names, str):
            return self._names_all(names, op)
        if names.lower() == "all-linear":
            return op.linear
        own = path.rpartition(".")[0]
        paths = [f"{own}.{part}" for part in op.fuses]
        hit = all(matched(names, part, "target_modules", re.fullmatch) and not self._left_out(part) for part in paths)
        return bool(paths) and hit

    def _names_all(self, names: Iterable[str], op: ExpertGemm) -> bool:
        """Whether targets name the weights of a stack. Raises ConfigError if they name a part of it."""
        hit = [part for part in op.fuses if any(name == part or name.endswith(f".{part}") for name in names)]
        if hit and len(hit) < len(op.fuses):
            missing = ", ".join(sorted({*op.fuses} - {*hit}))
            raise ConfigError(
                f"lora.target_modules: '{hit[0]}' of the experts is one weight with '{missing}'; name both, or neither"
            )
        return bool(hit)

    def _entry_matches(self, entry: str, op: Any, path: str) -> bool:
        if self.lora.matching is Matching.NAMES and entry in WORDS:
            return entry in getattr(op, "tags", ()) and self._in_layers(path)
        if self.lora.matching is Matching.NAMES and entry.lower() == "all-linear":
            return getattr(op, "linear", False) and self._in_layers(path)
        return path == entry or (path.endswith(f".{entry}") and self._in_layers(path))

    def _in_layers(self, path: str) -> bool:
        wanted = self.lora.layers_to_transform
        if wanted is None:
            return True
        patterns = self.lora.layers_pattern
        if not patterns:
            found = _LAYER_INDEX.match(path)
        else:
            listed = [patterns] if isinstance(patterns, str) else patterns
            tried = (matched(rf"(?:^|.*?\.){p}\.(\d+)\.", path, "layers_pattern") for p in listed)
            found = next(filter(None, tried), None)
        return found is not None and int(found.group(1)) in (wanted if isinstance(wanted, tuple | list) else (wanted,))


def _excluded(names: Iterable[str] | str, path: str) -> bool:
    if isinstance(names, str):
        return matched(names, path, "exclude_modules", re.fullmatch) is not None
    return any(path == name or path.endswith(f".{name}") for name in names)


def fail_if_unmatched(lora: LoraConfig, graph: nx.DiGraph, reached: bool) -> None:
    """Raise ConfigError if the adapter, or one of its listed targets, matches no module of the graph.

    Under PEFT's own rules one match is enough, as it is for names that adapters list for any family.
    """
    names = lora.target_modules or ()
    if reached and (isinstance(names, str) or lora.matching is Matching.PEFT):
        return
    modules = modules_of(graph, every=lora.kind.copies)
    if not reached:
        raise ConfigError(
            f"lora.target_modules = {_listed(names)} matches no module of the model{_left(lora)}"
            f"{_why(lora, modules, names)}; "
            f"{_could_match(lora, modules, names if isinstance(names, str) else (*names, '')[0])}"
        )
    for entry in names:
        if entry.lower() == "all-linear" or entry in USUAL:
            continue
        word = entry in WORDS
        hit = any(
            (entry in getattr(op, "tags", ()) if word else path == entry or path.endswith(f".{entry}"))
            or (isinstance(op, ExpertGemm) and lora.kind.experts and entry in op.fuses)
            for op, path in modules
        )
        if not hit:
            raise ConfigError(
                f"lora.target_modules: '{entry}' matches no module of the model{_why(lora, modules, entry)}; "
                f"{_could_match(lora, modules, entry)}"
            )


def _left(lora: LoraConfig) -> str:
    """A further possible reason if modules are excluded."""
    reasons = [name for name in ("exclude_modules", "modules_to_save", "layers_to_transform") if getattr(lora, name)]
    return f" that {' and '.join(reasons)} left in" if reasons else ""


def modules_of(graph: nx.DiGraph, *, every: bool = False, layers: bool = True) -> list[tuple[Any, str]]:
    """Every module that an adapter could target, with its path, layer by layer.

    every: include modules that only a variant with whole copies can target, such as norms
    layers: list the modules of all layers, or only of the first of identical ones
    """
    return list(_modules(graph, range(1), every, layers))


def _modules(graph: nx.DiGraph, firsts: range, every: bool, layers: bool) -> Iterator[tuple[Any, str]]:
    for _, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            turns = op.times if layers else 1
            inner = range(op.first_layer, op.first_layer + turns * op.layers, op.layers)
            yield from _modules(op.body, inner, every, layers)
            continue
        path = str(getattr(op, "module", ""))
        if path and (every or isinstance(op, Module)):
            yield from ((op, path.replace("{}", str(first + op.layer))) for first in firsts)


def _listed(names: Iterable[str] | str) -> str:
    return repr(names if isinstance(names, str) else list(names))


def _could_match(lora: LoraConfig, modules: list[tuple[Any, str]], found: str) -> str:
    """Names that would match, by the adapter's own rules and in its layers."""
    names = {path.rsplit(".", 1)[-1] for _, path in modules}
    longer = {name for _, path in modules if (name := _longer(path)).rsplit(".", 1)[-1] in WORDS}
    words = {tag for op, _ in modules for tag in getattr(op, "tags", ())}
    usable = [name for name in names | longer | words | {"all-linear"} if _matches(lora, modules, name)]
    return choices_text(found, usable)


def _matches(lora: LoraConfig, modules: list[tuple[Any, str]], name: str) -> bool:
    """Whether a target by itself matches a module."""
    alone = name if name == "all-linear" else (name,)
    try:
        targets = Targets(with_fields(lora, {"target_modules": alone, "target_parameters": ()}))
        return any(targets.key(op, path) is not None for op, path in modules)
    except ConfigError:
        return False


def _why(lora: LoraConfig, modules: list[tuple[Any, str]], names: Iterable[str] | str) -> str:
    """Why known names match nothing."""
    if lora.matching is Matching.PEFT:
        return ""
    for name in (names,) if isinstance(names, str) else names:
        if name in WORDS and not any(name in getattr(op, "tags", ()) for op, _ in modules):
            path = next((path for _, path in modules if path.endswith(f".{name}")), None)
            module = f"; the module of that name is reached as '{_longer(path)}'" if path else ""
            return f" ('{name}' is a word for an operation that the model does not have by itself{module})"
    return ""


def _longer(path: str) -> str:
    """The last two parts of a path, which cannot be confused with a word of the targeting table."""
    return ".".join(path.rsplit(".", 2)[-2:])
