"""Which measured kernels give the times of an engine's operations: the `prices` group of its profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from graphsim.files.frameworks import ANY, ENGINES
from graphsim.files.reading import Fields
from graphsim.lora.sources import place

TABLES = ("base", *ENGINES)
"""Calibrations that a profile may name; `ANY` stands for every other architecture or number format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelOrder:
    """The kernels of one cost family on one architecture, the preferred one first.

    family: name of the cost family
    architecture: of devices (`Hardware.architecture`), or `any`
    number_format: the `dtype` of the measurements, or `any`
    kernels: values of their column `kernel`
    """

    family: str
    architecture: str
    number_format: str
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePrices:
    """The measured kernels that give the times of an engine's operations.

    table: the calibration with this engine's own kernels, `base` for the device's first one (vLLM, NCCL)
    kernels: the order of preference, where there are several kernels; if none is named, the order of the table
    sources: the source of each field; "inherited from NAME: …" for a field taken from another profile
    """

    table: str = "base"
    kernels: tuple[KernelOrder, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def order(self, family: str, architecture: str, number_format: str = ANY) -> tuple[str, ...]:
        """Names of the kernels for a family on a device, the preferred one first; empty without a preference.

        An entry for a number format takes precedence over one for an architecture alone, and that over one for all
        devices.
        """
        found = {
            (each.architecture, each.number_format): each.kernels for each in self.kernels if each.family == family
        }
        places = ((architecture, number_format), (ANY, number_format), (architecture, ANY), (ANY, ANY))
        return next((found[place] for place in places if place in found), ())

    def formats(self, family: str, architecture: str) -> tuple[str, ...]:
        """The number formats that have their own order of preference."""
        named = [each for each in self.kernels if each.family == family and each.architecture in (architecture, ANY)]
        return tuple(dict.fromkeys(each.number_format for each in named if each.number_format != ANY))


def read_prices(fields: Fields, base: EnginePrices, inherited: Mapping[str, str]) -> EnginePrices:
    """The `prices` group of a profile's file, based on that of its base; a field may be `{value: …, source: …}`.

    kernels: lists of names by family and architecture, below that by number format where it matters; a family that is
        named replaces that of the base
    inherited: sources of the fields inherited from the base
    Problems are noted in `fields`: an unknown table, a list of anything other than names.
    """
    sources = dict(inherited)
    at, name = place(fields, "table", sources)
    table = at.text(name, base.table, TABLES)
    at, name = (fields, "kernels")
    if isinstance(fields.data.get("kernels"), Mapping) and "value" in fields.data["kernels"]:
        at, name = place(fields, "kernels", sources)
    families = at.mapping(name)
    own = [order for family in families.keys() for order in _orders(family, families.mapping(family))]  # noqa: SIM118
    kept = [order for order in base.kernels if order.family not in families]
    return replace(base, table=table, kernels=(*kept, *own), sources=sources)


def _orders(family: str, places: Fields) -> list[KernelOrder]:
    found = []
    for architecture in places.keys():  # noqa: SIM118 - Fields is not a mapping
        if not isinstance(places.data[architecture], Mapping):
            found.append((architecture, ANY, _names(places, architecture)))
            continue
        formats = places.mapping(architecture)
        found += [(architecture, number_format, _names(formats, number_format)) for number_format in formats.keys()]  # noqa: SIM118
    return [
        KernelOrder(family=family, architecture=architecture, number_format=number_format, kernels=kernels)
        for architecture, number_format, kernels in found
    ]


def _names(fields: Fields, key: str) -> tuple[str, ...]:
    entries = fields.sequence(key, most=100)
    if not all(isinstance(entry, str) and entry for entry in entries):
        fields.problem(key, "is not allowed; expected a list of kernels' names")
    return tuple(str(entry) for entry in entries)
