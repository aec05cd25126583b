"""The fitted parameters that price a device: its own, its generation's, or a blend of several others'.

A device without a calibration borrows that of its architecture generation (`hardware/generations.json`): the constants
are multiples of datasheet numbers, so they scale with the device. A generation without measurements takes the mean of
several others, with half of their correction surfaces (`cost/families/blend.py`). Collectives are borrowed from a
device with the same wiring. An engine's own kernels take precedence over the base (`engines.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.cost.families.blend import Blend
from graphsim.cost.families.gemm import CAPTURED
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.interconnect import node_link
from graphsim.cost.parameters.engines import BASE, BASE_KERNELS, KernelTable, in_order, layered
from graphsim.cost.parameters.store import calibration_path, load_calibration, shipped_path
from graphsim.cost.residuals import RESIDUALS, with_captured
from graphsim.errors import ConfigError
from graphsim.files.catalog import folders
from graphsim.files.reading import load_mapping
from graphsim.hardware import Hardware, load_hardware
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The source of an estimate: `calibrated`, `scaled from h100-sxm (hopper)` (or several) or `roofline`.

    parameters: fitted parameters of the family, the device's own or its reference device's; None for the bare roofline
    """

    origin: str
    parameters: Mapping[str, Any] | None = None


def basis(hardware: Hardware, family: str, table: KernelTable = BASE, *, own: bool = True, kin: bool = True) -> Basis:
    """The fitted parameters of a family on a device under an engine.

    own: False ignores the device's own calibration, to evaluate it as an unmeasured device
    kin: False also ignores those of other devices of its generation
    """
    base = _with_captured(hardware, family, _base(hardware, family, own=own, kin=kin), own=own, kin=kin)
    base = _with_borrowed(hardware, family, base, own=own, kin=kin)
    name = _engine_reference(hardware, family, table.engine, own=own, kin=kin) if table.engine else ""
    if not name:
        return base
    own_fits = {
        kernel: _carried(fits, family, hardware, name)
        for kernel, fits in (_family_of(name, family, table.engine) or {}).items()
    }
    kernels: dict[str, Any] = dict(own_fits)
    if base.parameters and not isinstance(base.parameters, Blend):
        kernels[BASE_KERNELS] = base.parameters
    origin = "calibrated" if name == hardware.name else _scaled_from(name, hardware, family)
    found = layered(in_order(kernels, table, family))
    return Basis(origin=origin, parameters={**found, **_of_same_speed(found, own_fits, table.engine, family)})


SHARED = {("gemm", CAPTURED): ("sglang", "sglang_deepgemm_gemm_nt_f8f8bf16", "fp8_block")}
"""Fits of the base that are taken from another engine's measurements of the same library's kernel: engine, kernel,
name.
"""


def _with_captured(hardware: Hardware, family: str, base: Basis, *, own: bool, kin: bool) -> Basis:
    """The base, with the fits taken from another engine's measurements."""
    further: dict[str, Any] = {}
    for (of, name), (engine, kernel, theirs) in SHARED.items():
        reference = _engine_reference(hardware, family, engine, own=own, kin=kin) if of == family else ""
        fits = (_family_of(reference, family, engine) or {}).get(kernel, {}) if reference else {}
        if theirs in fits:
            further[name] = fits[theirs]
            if base.parameters and RESIDUALS in base.parameters and RESIDUALS in fits:
                further[RESIDUALS] = with_captured(base.parameters[RESIDUALS], fits[RESIDUALS])
    if not further or base.parameters is None or isinstance(base.parameters, Blend):
        return base
    return Basis(origin=base.origin, parameters={**base.parameters, **further})


SAME_SPEED = {("sglang", "moe"): ("sglang_fused_moe_triton", "fp8_block", "fp8")}
"""An engine's kernels that run one more format as fast as one that was measured: the kernel, that format and the other.
Experts in Triton take as long with scales for tensors as for blocks (vLLM's on the L40S: 7 %, biased by -1 %)."""


def _of_same_speed(
    found: Mapping[str, Any], own_fits: Mapping[str, Any], engine: str, family: str
) -> dict[str, dict[str, Any]]:
    """The fits of a format that an engine's first kernel for another one serves, in front of those of the base."""
    if (engine, family) not in SAME_SPEED:
        return {}
    kernel, measured, further = SAME_SPEED[engine, family]
    if next(iter(found.get(measured, ())), "") != kernel or any(further in fits for fits in own_fits.values()):
        return {}
    return {further: {kernel: found[measured][kernel], **found.get(further, {})}}


SAME_KERNELS = {"moe": {"int4_wo": ("sglang", "sglang_marlin_moe")}}
"""Of a family, formats in which the base was not measured on every device, and another engine's kernels that are the
same: SGLang's Marlin experts are vLLM's, 6 to 10 % apart where both were measured (H100, RTX PRO 6000, L40S). They say
nothing about other generations: with the A100's, an L40S without its own would be 24 % off, and 10 % without."""


STAND_INS = {"mla": ("sglang", "trtllm"), "batched_gemm": ("sglang", "trtllm")}
"""Families with few or no rows of the base, and the engines whose kernels are used instead, best first: vLLM
runs the same libraries' kernels (FlashInfer's of TensorRT-LLM, FlashAttention 3, Triton's). See a family's
`borrowed`."""


def _with_borrowed(hardware: Hardware, family: str, base: Basis, *, own: bool, kin: bool) -> Basis:
    """The base, completed by other engines' measurements of the device or its generation, then of those that
    `hardware/generations.json` names for the family.
    """
    sources = [
        (name, _engine_reference(hardware, family, name, own=own, kin=kin)) for name in STAND_INS.get(family, ())
    ]
    if sources:
        sources += [
            (engine, _nearest(hardware, generation, family, engine))
            for generation in _neighbours(hardware.architecture).get(family, ()) for engine in STAND_INS[family]
        ]  # fmt: skip
    sources = [(engine, reference) for engine, reference in sources if reference]
    if not sources:
        return base
    fits = [fit for engine, name in sources for fit in (_family_of(name, family, engine) or {}).values()]
    borrowed = FAMILIES[family].module.borrowed(fits)
    if base.parameters and not isinstance(base.parameters, Blend):
        return Basis(origin=base.origin, parameters=layered([base.parameters, *borrowed]))
    names = [name for _, name in sources]
    architecture = load_hardware(names[0]).architecture
    origin = "calibrated" if hardware.name in names else f"scaled from {names[0]} ({architecture})"
    return Basis(origin=origin, parameters=layered(borrowed))


def _engine_reference(hardware: Hardware, family: str, engine: str, *, own: bool, kin: bool) -> str:
    """The device whose measurements of an engine's kernels are used; "" if none of its generation was measured."""
    if own and calibration_path(hardware, engine) is not None and _family_of(hardware.name, family, engine):
        return hardware.name
    wired = _wired_alike(hardware, family, engine, kin=kin)
    return wired or (_nearest(hardware, hardware.architecture, family, engine) if kin else "")


def _scaled_from(name: str, hardware: Hardware, family: str) -> str:
    """The origin of fits of another device: of the same generation, or with the same wiring."""
    wired = family == "collectives" and bool(hardware.links) and node_link(hardware).topology in _alike_by_topology()
    return f"scaled from {name} ({node_link(hardware).topology if wired else hardware.architecture})"


def _base(hardware: Hardware, family: str, *, own: bool, kin: bool) -> Basis:
    path = calibration_path(hardware)
    if own and path is not None:
        calibration = load_calibration(path)
        if family in calibration.families:
            fits = _completed(hardware.name, family, calibration.families[family])
            return Basis(origin="calibrated", parameters=fits)
    wired = _wired_alike(hardware, family, kin=kin)
    if wired:
        return Basis(origin=_scaled_from(wired, hardware, family), parameters=_family_of(wired, family))
    name = _nearest(hardware, hardware.architecture, family) if kin else ""
    if name:
        fits = _carried(_completed(name, family, _family_of(name, family) or {}), family, hardware, name)
        return Basis(origin=_scaled_from(name, hardware, family), parameters=fits)
    return _from_others(hardware, family)


def _carried(fits: Mapping[str, Any], family: str, hardware: Hardware, name: str) -> Mapping[str, Any]:
    """The fits of a reference device, by its name, as they hold for a device of its generation."""
    if family != "moe" or name == hardware.name:
        return fits
    from graphsim.cost.families.carried import carried

    return carried(fits, hardware, load_hardware(name))


def _wired_alike(hardware: Hardware, family: str, engine: str = "", *, kin: bool) -> str:
    """The reference device for collectives on a device with such links; "" if its generation's will do.

    Their speed depends on the wiring and on the library, which chooses algorithms and protocols by it, not on the chip:
    the first device of the list stands for all others.
    """
    if family != "collectives" or not hardware.links:
        return ""
    alike = _alike_by_topology().get(node_link(hardware).topology, {})
    own = alike.get(hardware.architecture, ()) if kin else ()
    found = (name for name in (*own, *alike.get("", ())) if name != hardware.name)
    return next((name for name in found if _family_of(name, family, engine)), "")


def _from_others(hardware: Hardware, family: str) -> Basis:
    """The nearest device of each reference generation, blended."""
    reference_devices = _borrowed(hardware, family)
    if not reference_devices:
        return Basis(origin="roofline")
    return Basis(
        origin=f"scaled from {', '.join(reference_devices)}", parameters=Blend(list(reference_devices.values()))
    )


def _borrowed(hardware: Hardware, family: str) -> dict[str, dict[str, Any]]:
    """A family's parameters from each reference generation; keys name the device and its generation."""
    rules = _neighbours(hardware.architecture)
    usual = rules.get(family, rules.get("", ()))
    special = {key.partition(".")[2]: names for key, names in rules.items() if key.startswith(f"{family}.")}
    found: dict[str, dict[str, Any]] = {}
    for one in dict.fromkeys([*usual, *(name for names in special.values() for name in names)]):
        name = _nearest(hardware, one, family)
        parameters = _family_of(name, family) or {}
        found[f"{name} ({one})"] = {key: part for key, part in parameters.items() if one in special.get(key, usual)}
    return {name: parameters for name, parameters in found.items() if parameters}


def _nearest(hardware: Hardware, architecture: str, family: str, engine: str = "") -> str:
    """The measured device of a generation that is most similar to another one; "" if there is none."""
    found = [name for name in _devices(architecture) if name != hardware.name and _family_of(name, family, engine)]
    return min(found, key=lambda name: _distance(hardware, load_hardware(name)), default="")


def _distance(one: Hardware, other: Hardware) -> float:
    """The dissimilarity of two devices: the sum of the logarithms of the ratios of their main rates.

    Raises ConfigError for arrays of numbers, whose entries may be closest to different devices.
    """
    own = [*_driving(one), *one.flops_per_s.values()]
    if any(isinstance(number, np.ndarray) for number in own):
        raise ConfigError(
            f"hardware '{one.name}' has rates as arrays, and whose kernels stand in for missing measurements "
            "depends on them; give one device after the other, or cost='roofline'"
        )
    pairs = [
        *zip(_driving(one), _driving(other), strict=True),
        (max(one.flops_per_s.values()), max(other.flops_per_s.values())),
    ]
    return sum(abs(math.log(float(a) / float(b))) for a, b in pairs)


def _driving(device: Hardware) -> tuple[Num, ...]:
    return device.memory_bytes_per_s, device.cores, device.clock_hz, device.host_link.bytes_per_s


def _family_of(name: str, family: str, engine: str = "") -> Mapping[str, Any] | None:
    path = shipped_path(name, engine)
    return load_calibration(path).families.get(family) if path else None


def _completed(name: str, family: str, base: Mapping[str, Any]) -> Mapping[str, Any]:
    """The base's fits of a device, with those of the same kernels under another engine for formats that it lacks."""
    further: dict[str, Any] = {}
    for number_format, (engine, kernel) in SAME_KERNELS.get(family, {}).items():
        fits = (_family_of(name, family, engine) or {}).get(kernel, {})
        if number_format in fits and number_format not in base:
            further[number_format] = fits[number_format]
    return {**base, **further} if further else base


Generations = dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]]


def _generations() -> Generations:
    found = _generations_path()
    return _read_generations(found) if found else {}


def _alike_by_topology() -> dict[str, dict[str, tuple[str, ...]]]:
    """For each topology of a node, and a generation or "", the measured devices whose collectives are used for others
    wired the same way, best first.
    """
    found = _generations_path()
    return _read_wiring(found) if found else {}


def _generations_path() -> Path | None:
    paths = (folder / "generations.json" for folder in folders("hardware"))
    return next((path for path in paths if path.is_file()), None)


@lru_cache(maxsize=8)
def _read_wiring(path: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    try:
        return {
            str(topology): {str(generation): tuple(names) for generation, names in alike.items()}
            for topology, alike in load_mapping(path).get("wiring", {}).items()
        }
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: 'wiring' names devices for each topology and generation ({error})") from None


@lru_cache(maxsize=8)
def _read_generations(path: Path) -> Generations:
    try:
        return {
            str(name): (
                tuple(entry["devices"]),
                {key: tuple(names) for key, names in entry["reference_devices"].items()},
            )
            for name, entry in load_mapping(path)["generations"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: every generation needs 'devices' and 'reference_devices' ({error})") from None


def _devices(architecture: str) -> tuple[str, ...]:
    return _generations().get(architecture, ((), {}))[0]


def _neighbours(architecture: str) -> dict[str, tuple[str, ...]]:
    return _generations().get(architecture, ((), {}))[1]
