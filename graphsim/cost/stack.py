"""Prices of a software stack for which only whole served models were measured, not single kernels.

    t = kernels · start + max(compute / c, memory / m, network)

The roofline's parts, each at the stack's average share of the datasheet's rate: m of the bandwidth,
c of the matrix peak in 16 bits, and `start` for every kernel, inside a captured graph, which decides a decode step.
Links are taken as the datasheet states them. `hardware/served.json` holds the three constants for each device and
engine that `graphsim.calibration.stacks` fitted to served rows. They describe the time of a step, not of any single
kernel.

The rows are of MoE models, whose kernels take as long in fp8 as in fp4 and are far below the matrix peak, so c is a
share of the 16-bit peak whatever the format. Large GEMMs of dense layers are different: for formats whose kernels were
timed individually, `gemms` is the share of their own peak that they reach (`Stack.gemms`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path
from typing import ClassVar

import numpy as np

from graphsim.cost.base import Cost, Trusted
from graphsim.cost.roofline import roofline, uncaptured_s
from graphsim.errors import ConfigError
from graphsim.files.catalog import folders
from graphsim.files.reading import Fields, load_mapping
from graphsim.hardware import Hardware, load_hardware
from graphsim.ops import Attention, ExpertActivation, ExpertGemm, Gemm, Launch, Op, OpType, Permute, Route
from graphsim.units import Num

FILE = "served.json"
BASE_ENGINE = "base"
"""The entry for every engine without its own constants on a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack(Trusted):
    """The cost model of one engine on one device.

    memory: share of the bandwidth, compute: of the matrix peak in 16 bits that its kernels reach
    kernel_s: launch time of each of them
    gemms: of GEMMs of dense layers, the share of the peak of their own format that they reach at least, by the
        `dtype` under which kernels know the weights (`Format.gemm`)
    """

    of_rates: ClassVar[bool] = True

    memory: float
    compute: float
    kernel_s: float
    gemms: tuple[tuple[str, float], ...] = ()

    def __call__(self, op: Op, device: Hardware) -> Cost:
        """The price of an operation."""
        base = roofline(op, device)
        if isinstance(op, Launch):
            return base
        compute_s = np.maximum(base.compute_s, self._products_s(op, device, base.compute_s))
        memory_s = base.memory_s / self.memory
        busy_s = reduce(np.maximum, (compute_s, memory_s, base.network_s, base.busy_s))
        starts_s = np.where(np.greater(base.launch_s, 0.0), self.kernel_s * starts(op) + uncaptured_s(op), 0.0)[()]
        return Cost(busy_s=busy_s, compute_s=compute_s, memory_s=memory_s, network_s=base.network_s, launch_s=starts_s)

    def _products_s(self, op: Op, device: Hardware, at_peak_s: Num) -> Num:
        """Narrow formats at the 16-bit rate, which experts in fp8 and fp4 hardly exceed; wider ones proportionally
        slower.
        """
        wide = wide_s(op, device)
        slowest_s = np.maximum(wide, at_peak_s) if isinstance(op, Gemm | Attention | ExpertGemm) else wide
        share = gemm_share(op, self.gemms)
        return np.minimum(slowest_s / self.compute, at_peak_s / share) if share else slowest_s / self.compute


def wide_s(op: Op, device: Hardware) -> Num:
    """Seconds of an operation's GEMMs at the peak of 16 bits; 0 if the device states none."""
    peak = next((device.flops_per_s[name] for name in ("bf16", "fp16") if name in device.flops_per_s), np.inf)
    return op.work().flops / peak


def gemm_share(op: Op, gemms: Sequence[tuple[str, float]]) -> float:
    """The share of the peak of its own format that a dense layer's GEMM reaches; 0 for formats that `gemms` does not
    name.
    """
    if not isinstance(op, Gemm) or isinstance(op, ExpertGemm) or op.adapter:
        return 0.0
    return dict(gemms).get(op.weights.gemm, 0.0)


def starts(op: Op) -> Num:
    """Kernels launched for an operation, after the partial fusion of every serving engine.

    Residuals are added within the norm that follows; dispatching, gating and summing rows is part of the experts'
    kernels.
    """
    fused = isinstance(op, _IN_EXPERTS) or (op.op_type is OpType.ADD and not op.adapter)
    return 0.0 if fused else op.launches


_IN_EXPERTS = (Route, Permute, ExpertActivation)


def stack_of(hardware: Hardware, engine: str = "") -> tuple[Stack, str] | None:
    """The prices of an engine on a device, and their origin; None if nothing comparable was served.

    A device that was not served has those of the device of its generation with the nearest bandwidth. Raises
    ConfigError for a file that cannot be read.
    """
    path = next((folder / FILE for folder in folders("hardware") if (folder / FILE).is_file()), None)
    stacks = {} if path is None else read_stacks(path, path.stat().st_mtime_ns)
    name = hardware.name if hardware.name in stacks else _nearest(hardware, stacks)
    if not name:
        return None
    engines = stacks[name]
    chosen = engine if engine in engines else BASE_ENGINE
    whose = "" if chosen == BASE_ENGINE else f" under {chosen}"
    return engines[chosen], f"fitted on served rows of {name}{whose} ({hardware.architecture})"


def _nearest(hardware: Hardware, stacks: Mapping[str, object]) -> str:
    kin = [load_hardware(name) for name in stacks]
    kin = [device for device in kin if device.architecture == hardware.architecture]
    rate = float(np.mean(hardware.memory_bytes_per_s))
    return min(kin, key=lambda device: abs(np.log(device.memory_bytes_per_s / rate))).name if kin else ""


@lru_cache(maxsize=8)
def read_stacks(path: Path, _changed_ns: int = 0) -> dict[str, dict[str, Stack]]:
    """The constants in a file, by device and engine. Raises ConfigError naming file, field and value."""
    fields = Fields(load_mapping(path), str(path))
    for name in ("about", "provenance"):
        fields.raw(name)
    devices, gemms = fields.mapping("devices", required=True), fields.mapping("gemms")
    shares = {device: _shares(gemms.mapping(device)) for device in gemms.data}
    found: dict[str, dict[str, Stack]] = {}
    for device in devices.data:
        engines, own = devices.mapping(device), shares.get(device, ())
        found[device] = {str(engine): _stack(engines.mapping(engine), own) for engine in engines.data}
        if BASE_ENGINE not in found[device]:
            raise ConfigError(f"{path}: devices.{device} lacks '{BASE_ENGINE}', which stands for all other engines")
    fields.finish()
    return found


def _stack(fields: Fields, gemms: tuple[tuple[str, float], ...]) -> Stack:
    memory, compute = (fields.number(name, least=1e-3, most=2.0) for name in ("memory", "compute"))
    kernel_s = fields.number("kernel_s", least=0.0, most=1e-3)
    return Stack(memory=memory, compute=compute, kernel_s=kernel_s, gemms=gemms)


def _shares(fields: Fields) -> tuple[tuple[str, float], ...]:
    return tuple((name, fields.number(name, least=1e-3, most=1.0)) for name in sorted(fields.data))
