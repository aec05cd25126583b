"""Keys of the trainers' files that no reader uses: known to have no effect, known but not simulated, or unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphsim.files.reading import Fields, load_mapping
from graphsim.training.config_files.config_values import Source
from graphsim.units import short

SHAPING = frozenset((
    "accumulation", "activation", "adapter", "attention", "attn", "autocast", "batch", "bit", "bits",
    "checkpointing", "chunk", "chunked", "compile", "context", "cp", "cpu", "dora", "double", "dtype", "ep",
    "expert", "experts", "fa2", "flash", "fp16", "fp4", "fp8", "freeze", "frozen", "fsdp", "fuse", "fused", "fusion",
    "galore", "hidden", "kernel", "kernels", "layers", "len", "length", "liger", "lora", "memory", "micro", "mixed",
    "nf4", "nvme", "offload", "offloading", "optim", "optimizer", "overlap", "packed", "packing", "parallel",
    "pipeline", "pp", "precision", "quant", "quantization", "quantize", "quantized", "rank", "recompute",
    "rematerialize", "replicas", "reshard", "seq", "seqlen", "sequence", "shard", "sharded", "sharding", "stages",
    "tensor", "tp", "trainable", "unfrozen", "vocab", "zero",
))  # fmt: skip
"""Words of keys whose values are likely to shape memory or time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKeys:
    """The known keys of one format.

    neutral: keys by the reason why they have no effect
    noted: left-out keys
    """

    neutral: dict[str, str] = field(default_factory=dict)
    noted: dict[str, str] = field(default_factory=dict)


def known_keys(*formats: str) -> KnownKeys:
    """The keys of some formats together."""
    found = [_read(*_version())[name] for name in formats]
    neutral = {key: why for each in found for key, why in each.neutral.items()}
    noted = {key: what for each in found for key, what in each.noted.items() if key not in neutral}
    return KnownKeys(neutral=neutral, noted=noted)


def left_over(source: Source, formats: Collection[str], ignore: Collection[str]) -> None:
    """Note or refuse the keys of a mapping that no reader used.

    ignore: keys to skip; `all` for every key
    """
    known, fields = known_keys(*formats), source.fields
    for key in fields.keys():  # noqa: SIM118 - Fields is not a mapping
        if fields.asked(key) or key in known.neutral or (key not in known.noted and key not in fields):
            continue
        value = fields.data.get(key)
        if key in known.noted:
            if says_something(value):
                source.note(key, f"not simulated: {known.noted[key]}")
        elif key in ignore or "all" in ignore:
            source.note(key, "ignored, as requested")
            source.told.unknown.append(fields.name(key))
        else:
            _unknown(source, key, value, {*known.neutral, *known.noted})


def _unknown(source: Source, key: str, value: Any, known: Collection[str]) -> None:
    """An unknown key: refused if its name suggests that it affects memory or time, else noted."""
    near = difflib.get_close_matches(key, sorted({*known, *source.fields.asked_for}), n=1, cutoff=0.75)
    text = f"did you mean '{near[0]}'?" if near else ""
    source.told.unknown.append(source.fields.name(key))
    if shapes(key) and says_something(value):
        hint = f"{text} " if text else ""
        source.told.problems.append(
            f"{source.place(key)} = {short(value)} is not a known key, and its name suggests that it affects memory or "
            f"time; {hint}leave it out, or skip it with ignore"
        )
    else:
        source.note(key, f"not a known key, ignored; {text}" if text else "not a known key, ignored")


def shapes(key: str) -> bool:
    """Whether a key's name suggests that it affects memory or time."""
    return not SHAPING.isdisjoint(re.findall(r"[a-z]+\d*", key.lower()))


def says_something(value: Any) -> bool:
    """Whether a value has any effect: not off, not empty, not left to the trainer."""
    return value not in (None, False, 0, "", "auto", "none", "no", "NO", "None", [], {}, ())


def _version() -> tuple[Path, int]:
    path = Path(__file__).with_name("keys.yaml")
    return path, path.stat().st_mtime_ns


@lru_cache(maxsize=4)
def _read(path: Path, _modified: int) -> dict[str, KnownKeys]:
    """Raises ConfigError for an invalid file."""
    document = Fields(load_mapping(path), str(path))
    given = document.mapping("reasons")
    reasons = {name: given.text(name) for name in given.keys()}  # noqa: SIM118 - Fields is not a mapping
    found = {}
    for name in document.keys():  # noqa: SIM118
        if name == "reasons":
            continue
        entry = document.mapping(name)
        noted = entry.mapping("noted")
        found[name] = KnownKeys(
            neutral={str(key): why for word, why in reasons.items() for key in entry.sequence(word)},
            noted={key: noted.text(key) for key in noted.keys()},  # noqa: SIM118
        )
    document.finish()
    return found
