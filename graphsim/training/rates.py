"""Sustained rates of training's kernels relative to measured ones, by device: `rates.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphsim.files.reading import Fields, load_mapping
from graphsim.hardware import Hardware

PATH = Path(__file__).with_name("rates.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Shares of calibrated speed, and multiples of the forward pass; the file documents each one.

    spread: standard deviation of log(measured / estimated) of whole steps beyond their kernels' own errors
    source: the source of the rates
    """

    fprop: float = 1.0
    dgrad: float = 1.0
    wgrad: float = 1.0
    fp8_fprop: float = 1.0
    fp8_dgrad: float = 1.0
    fp8_wgrad: float = 1.0
    of_peak: float = 0.0
    attention: float = 1.0
    attention_backward: float = 2.5
    unfused_attention: float = 1.0
    spread: float = 0.0
    source: str = ""

    def of_product(self, direction: str, narrow: bool) -> float:
        """The share of their speed that GEMMs sustain. direction: `fprop`, `dgrad` or `wgrad`; narrow: in fp8 or fewer
        bits.
        """
        share: float = getattr(self, f"fp8_{direction}" if narrow else direction)
        return share


def rates_of(hardware: Hardware) -> Rates:
    """The rates of a device: its own, or its architecture's, or the default ones."""
    return _read(PATH, hardware.architecture, hardware.name)


@lru_cache(maxsize=256)
def _read(path: Path, architecture: str, name: str) -> Rates:
    """Raises ConfigError, naming the file and the field, for a file that is not understood."""
    document = Fields(load_mapping(path), str(path))
    sources = document.mapping("sources")
    texts = {key: sources.text(key) or "" for key in sources.keys()}  # noqa: SIM118 - Fields is not a mapping
    found = _over(Rates(), document.mapping("default", required=True))
    for group, key in (("architectures", architecture), ("devices", name)):
        entries = document.mapping(group)
        read = {entry: _over(found, entries.mapping(entry)) for entry in entries.keys()}  # noqa: SIM118
        found = read.get(key, found)
    document.finish()
    named = [texts.get(part.strip(), part.strip()) for part in found.source.split(";")]
    return replace(found, source="; ".join(named))


def _over(kept: Rates, given: Fields) -> Rates:
    values: dict[str, Any] = {
        field.name: given.number(field.name, getattr(kept, field.name), least=0.0, most=10.0)
        for field in fields(Rates)
        if field.name != "source"
    }
    return Rates(**values, source=given.text("source", kept.source))
