"""Which modules an adapter reaches: whole names, never substrings.

The LoRA document's words (`attn`, `qkv`, `up+gate`, …) name what an operation is for; everything else follows
PEFT's rules (`check_target_module_exists`, PEFT 0.21): a list entry matches a module path exactly or as a suffix
behind a dot, a string is `all-linear` or a regular expression for the whole path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import networkx as nx

from graphsim.errors import ConfigError, choices_text
from graphsim.lora.config import LoraConfig
from graphsim.lora.matching import Matching
from graphsim.ops import Gemm, Repeat
from graphsim.units import Num

WORDS = ("attn", "ffn", "qkv", "out proj", "query", "key", "value", "up+gate", "down", "up", "gate", "w1", "w2", "w3")
"""Targets of the LoRA document: module types, then operation names."""

USUAL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names that adapter files list for any family; one that a model lacks is passed over while others match."""

_LAYER_INDEX = re.compile(r".*?\.[^.]*\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Targets:
    """The matching rules of one LoraConfig, compiled."""

    lora: LoraConfig

    def key(self, op: Gemm, path: str) -> int | None:
        """None where the module is not reached; else which rank applies: -1 the common one, i the i-th pattern's."""
        if not op.module or not self._reached(op, path):
            return None
        for i, pattern in enumerate(self.lora.rank_pattern):
            if _search(rf"(.*\.)?({pattern})$", path, "rank_pattern"):
                return i
        return -1

    def rank(self, key: int) -> Num:
        """The rank behind a key."""
        return self.lora.rank if key < 0 else list(self.lora.rank_pattern.values())[key]

    def _reached(self, op: Gemm, path: str) -> bool:
        lora = self.lora
        if _excluded(lora.exclude_modules, path):
            return False
        names = lora.target_modules
        if isinstance(names, str):
            if names.lower() == "all-linear":
                return op.linear and self._in_layers(path)
            if lora.matching is Matching.PEFT or names not in WORDS:
                return _fullmatch(names, path, "target_modules")
            names = (names,)
        return any(self._entry_matches(entry, op, path) for entry in names)

    def _entry_matches(self, entry: str, op: Gemm, path: str) -> bool:
        if self.lora.matching is Matching.NAMES and entry in WORDS:
            return entry in op.tags and self._in_layers(path)
        if self.lora.matching is Matching.NAMES and entry.lower() == "all-linear":
            return op.linear and self._in_layers(path)
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
            tried = (_match(rf"(?:^|.*?\.){p}\.(\d+)\.", path, "layers_pattern") for p in listed)
            found = next(filter(None, tried), None)
        return found is not None and int(found.group(1)) in (wanted if isinstance(wanted, tuple | list) else (wanted,))


def _excluded(names: Iterable[str] | str, path: str) -> bool:
    if isinstance(names, str):
        return _fullmatch(names, path, "exclude_modules")
    return any(path == name or path.endswith(f".{name}") for name in names)


def _fullmatch(pattern: str, path: str, field: str) -> bool:
    return _match(pattern, path, field, re.fullmatch) is not None


def _search(pattern: str, path: str, field: str) -> bool:
    return _match(pattern, path, field) is not None


def _match(
    pattern: str, path: str, field: str, how: Callable[[str, str], re.Match[str] | None] = re.match
) -> re.Match[str] | None:
    try:
        return how(pattern, path)
    except re.error as error:
        raise ConfigError(f"lora.{field}: '{pattern}' is not a regular expression ({error})") from None


def fail_if_unmatched(lora: LoraConfig, graph: nx.DiGraph, reached: bool) -> None:
    """Raise ConfigError if the adapter, or one of its listed targets, matches no module of the graph.

    Under PEFT's own rules one match is enough, as it is for names that adapters list for any family.
    """
    names = lora.target_modules
    if reached and (isinstance(names, str) or lora.matching is Matching.PEFT):
        return
    if not reached:
        raise ConfigError(
            f"lora.target_modules = {names!r} matches no module of the model; {_could_match(graph, names)}"
        )
    modules = modules_of(graph)
    for entry in names:
        if entry.lower() == "all-linear" or entry in USUAL:
            continue
        word = entry in WORDS
        hit = any(entry in op.tags if word else path == entry or path.endswith(f".{entry}") for op, path in modules)
        if not hit:
            raise ConfigError(
                f"lora.target_modules: '{entry}' matches no module of the model; {_could_match(graph, entry)}"
            )


def modules_of(graph: nx.DiGraph) -> list[tuple[Gemm, str]]:
    """Every module that an adapter could go on, with its path; layer by layer."""
    return list(_modules(graph, range(1)))


def _modules(graph: nx.DiGraph, firsts: range) -> Iterator[tuple[Gemm, str]]:
    for _, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            yield from _modules(op.body, range(op.first_layer, op.first_layer + op.times * op.layers, op.layers))
        elif isinstance(op, Gemm) and op.module:
            yield from ((op, op.module.replace("{}", str(first + op.layer))) for first in firsts)


def _could_match(graph: nx.DiGraph, found: object) -> str:
    modules = modules_of(graph)
    names = {path.rsplit(".", 1)[-1] for _, path in modules}
    words = {tag for op, _ in modules for tag in op.tags}
    return choices_text(found, names | words | {"all-linear"})
