"""The measured kernels that price a deployment's operations: an engine's profile on one device."""

from __future__ import annotations

from functools import lru_cache

from graphsim.cost.parameters.engines import BASE, KernelTable
from graphsim.files.frameworks import ANY
from graphsim.hardware import Hardware
from graphsim.lora.prices import EnginePrices
from graphsim.lora.profile import EngineProfile


def table_of(profile: EngineProfile | None, hardware: Hardware) -> KernelTable:
    """The measured kernels of a profile on a device, always the same object; the base's without a profile."""
    return BASE if profile is None else _table(profile.prices, hardware.architecture)


@lru_cache(maxsize=256)
def _table(prices: EnginePrices, architecture: str) -> KernelTable:
    """One object for each, since prices are cached by identity."""
    orders = [
        (family, number_format, names)
        for family in dict.fromkeys(each.family for each in prices.kernels)
        for number_format in (ANY, *prices.formats(family, architecture))
        if (names := prices.order(family, architecture, number_format))
    ]
    return KernelTable(engine="" if prices.table == "base" else prices.table, orders=tuple(orders))
