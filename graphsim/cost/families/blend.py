"""Fits of several reference devices combined, for a generation without any measured device.

    t = exp(½ · mean of surfaces) · (s_1 · s_2 · … · s_n)^(1/n)

with one skeleton s from each reference device that has a fit for the kernel. Geometric means of times have smaller
errors than any single reference device and preserve every ordering on which all of them agree; each device's constants
are multiples of its own datasheet numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from graphsim.cost.surfaces.folding import folded
from graphsim.cost.surfaces.surface import Surface, as_surface
from graphsim.units import Num

BORROWED_SURFACE = 0.5
"""Share of the correction surfaces that is applied on another generation, if several are averaged: with half of it,
devices left out one by one err less than with all or none (`graphsim validate kernels --datasheet` on six devices). A
single reference device's surface is too specific to its kernels, and is left out."""

KernelFit = Mapping[str, Any]
"""The fit of one kernel: `constants`, or in a blend the constants of `each` reference device; a `surface` where it has
one, and further fields of its family."""

Key = tuple[str, ...]


class Blend(dict[str, Any]):
    """The parameters of several reference devices; as a mapping, the geometric means of their constants."""

    def __init__(self, members: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(mean_constants(members))
        self.members = list(members)
        self._entries: dict[tuple[Any, ...], KernelFit] = {}

    def serving(self, key: Key) -> list[Mapping[str, Any]]:
        """The members that have a fit for a kernel, else for the most similar one, else all."""
        for length in range(len(key), 0, -1):
            found = [member for member in self.members if _holds(member, key[:length])]
            if found:
                return found
        return self.members

    def entry(self, key: Key, pick: Callable[[Mapping[str, Any]], KernelFit]) -> KernelFit:
        """The fit of a kernel, blended from the entries that `pick` selects in each serving member.

        Blends are identified by their constants, which the members hold; the selected entries may be temporary objects.
        """
        picked = [pick(member) for member in self.serving(key)]
        which = tuple([(id(entry["constants"]), "surface" in entry) for entry in picked])
        if which not in self._entries:
            self._entries[which] = blended(picked)
        return self._entries[which]


def measured_here(parameters: Mapping[str, Any], name: str) -> bool:
    """Whether a kernel was measured on the device or on one of its generation.

    A blend comes from other generations, which may have a matrix unit that the device lacks.
    """
    return name in parameters and not isinstance(parameters, Blend)


def entry_of(parameters: Mapping[str, Any], key: Key, pick: Callable[[Mapping[str, Any]], KernelFit]) -> KernelFit:
    """The fit of a kernel in a family's parameters, those of one device or a blend.

    key: what a member of a blend must have
    pick: finds the fit in the parameters of one device
    """
    return parameters.entry(key, pick) if isinstance(parameters, Blend) else pick(parameters)


def fitted_s(
    entry: KernelFit, skeleton: Callable[[Mapping[str, float]], Num], coordinates: Callable[[], Mapping[str, Num]]
) -> Num:
    """Seconds of a kernel: its skeleton under the fitted constants, times exp of the surface at the coordinates."""
    each = [skeleton(constants) for constants in (entry["each"] if "each" in entry else (entry["constants"],))]
    time = reduce(np.multiply, each) ** (1.0 / len(each)) if len(each) > 1 else each[0]
    if "surface" in entry:
        time = time * np.exp(as_surface(entry["surface"])(coordinates()))
    return time


def blended(entries: Sequence[KernelFit]) -> KernelFit:
    """One fit of several: their constants side by side, a share of the mean of surfaces, and the further fields common
    to all.
    """
    found: dict[str, Any] = {"each": [entry["constants"] for entry in entries]}
    surfaces = [as_surface(entry["surface"]) for entry in entries if "surface" in entry]
    if len(entries) > 1 and surfaces:
        found["surface"] = _sum(surfaces, BORROWED_SURFACE / len(entries))
    for name in entries[0]:
        if name not in ("constants", "surface") and all(name in entry for entry in entries):
            found[name] = blended([entry[name] for entry in entries])
    return found


def _sum(surfaces: Sequence[Surface], share: float) -> Surface:
    """The sum of the surfaces, each multiplied by a share."""
    terms = [replace(term, values=share * term.values) for surface in surfaces for term in surface.terms]
    return Surface(terms=tuple(folded(terms, {}, {name: name for term in terms for name in term.axes})))


def mean_constants(parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Geometric means of the numbers at the same position; surfaces are left out."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in parameters for key in one):
        values = [one[key] for one in parameters if key in one]
        if isinstance(values[0], Mapping):
            found[key] = mean_constants(values)
        elif isinstance(values[0], int | float) and not isinstance(values[0], bool):
            found[key] = float(np.exp(np.mean(np.log(np.maximum(values, 1e-30)))))
    return found


def _holds(parameters: Any, key: Key) -> bool:
    for name in key:
        if not isinstance(parameters, Mapping) or name not in parameters:
            return False
        parameters = parameters[name]
    return True
