"""What a device can do, read from `hardware/*.yaml`: rates, sizes and links with their sources.

A number in such a file is plain SI, a text with a unit (`3.35 TB/s`), or a mapping
`{value: 3.35 TB/s, source: ...}`. A source that begins with a name from the file's
`references` stands for that document. Shipped files give a source for every number;
`hardware/h100-sxm.yaml` explains every key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.brief import figures_text, range_text
from graphsim.errors import ConfigError, HardwareError, choices_text
from graphsim.files.catalog import find_file, held, is_path, list_names, named
from graphsim.files.reading import REQUIRED, Fields, load_mapping
from graphsim.units import Num, amount_text, scaled, short

if TYPE_CHECKING:
    from graphsim.files.device_names import Described

COMPUTE_FORMATS = ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp6", "fp4", "int8", "int4")
"""Number formats for which a device may state a dense matrix peak."""

ARCHITECTURES = (
    "volta", "turing", "ampere", "ada", "hopper", "blackwell", "blackwell-workstation", "battlemage",
    "cdna2", "cdna3", "cdna4", "tpu", "gaudi", "trainium", "apple", "x86", "other",
)  # fmt: skip
"""Architecture generations; a device without a calibration borrows its generation's constants."""

TOPOLOGIES = ("switch", "full-mesh", "torus-2d", "torus-3d", "pairs", "host", "rails")
"""How a level of the interconnect joins its devices.

switch: any group at the full rate (NVSwitch); full-mesh: a link of its own to each other device, so that a group of g
uses g - 1 of them; torus-2d, torus-3d: rings in two or three dimensions; pairs: bridges between two cards; host: PCIe
through the host's root complex; rails: a network with one NIC per device, all of which a node's group uses at once
"""

LEAST_RATE = 1e6
"""Least plausible rate or memory size in a file, in SI units: 80 without its GiB is a slip, not a size."""

MOST_LATENCY_S = 1.0
"""Greatest plausible latency in a file: 2 without its us is a slip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One level of the interconnect.

    devices: how many devices one group at this level can hold
    bytes_per_s: per device, one direction
    latency_s: of one hop
    topology: how the level joins its devices, a name of TOPOLOGIES
    peer_access: whether a device reads and writes another one's memory; drivers of GeForce cards deny it
    """

    name: str
    devices: Num
    bytes_per_s: Num
    latency_s: Num
    topology: str = "switch"
    peer_access: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A device and its interconnect. All rates are dense peaks in SI units.

    name, title: name in the catalog, and full name
    architecture: family of the device, such as `hopper`
    flops_per_s: peak of the matrix units in flop/s, by number format; a multiply-add counts as 2 flops
    vector_flops_per_s: peak of the ordinary (vector) units in flop/s
    memory_bytes, memory_bytes_per_s: size and bandwidth of the device memory
    cache_bytes: size of the last-level cache on the device
    cores: number of streaming multiprocessors, compute units or CPU cores
    clock_hz: their clock rate
    links: levels of the interconnect, nearest first
    host_link: the link between device memory and host memory
    launch_s, eager_launch_s: seconds to start a kernel in a captured graph, and from the host
    power_w: power limit in watts
    usable_share: share of the memory that the driver leaves to programs
    path: the file it was read from
    sources: the source of each number, by its path in the file (`memory.bandwidth`)
    """

    name: str
    title: str
    architecture: str
    flops_per_s: Mapping[str, Num]
    vector_flops_per_s: Num
    memory_bytes: Num
    memory_bytes_per_s: Num
    cache_bytes: Num
    cores: Num
    clock_hz: Num
    links: tuple[Link, ...] = ()
    host_link: Link
    launch_s: Num
    eager_launch_s: Num
    power_w: Num = 0.0
    usable_share: Num = 1.0
    path: Path | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        peaks = ", ".join(
            f"{name} {range_text(rate, lambda value: scaled(value, 'FLOP/s'))}"
            for name, rate in [*self.flops_per_s.items()][-3:]
        )
        speed = f"at {range_text(self.memory_bytes_per_s, lambda value: scaled(value, 'B/s'))}"
        figures = {"memory_bytes": self.memory_bytes}
        return figures_text("Hardware", figures, speed, peaks, self.title, self.architecture, of=self.name)

    @property
    def usable_bytes(self) -> Num:
        """Bytes of memory that the driver leaves to programs."""
        return self.memory_bytes * self.usable_share

    def peak(self, number_format: str) -> Num:
        """Dense matrix peak in flop/s for a number format. Raises HardwareError if none is stated."""
        try:
            return self.flops_per_s[number_format]
        except KeyError:
            raise HardwareError(
                f"hardware '{self.name}' states no peak for '{number_format}'; "
                f"{choices_text(number_format, self.flops_per_s)} (or add flops_per_s.{number_format} to its file)"
            ) from None


def list_hardware() -> list[str]:
    """Names of all devices in the catalog and in the user's own folders, sorted."""
    return list_names("hardware")


def load_hardware(ref: str | Path | Mapping[str, Any] | Hardware) -> Hardware:
    """The device that `ref` names: a catalog name, a YAML path or a mapping of that shape, or a `Hardware` itself.

    A name may be a common one, such as `H100` or `NVIDIA A100-SXM4-80GB`: `hardware/names.json` says which device it
    means, and the result's `name` says which one was chosen. Raises ConfigError naming file, field, value and what is
    allowed.
    """
    if isinstance(ref, Hardware):
        return ref
    if isinstance(ref, Mapping):
        return _read(Fields(ref, "hardware mapping"), str(ref.get("name", "custom")), None)
    path = _find(ref)
    return _from_file(path, path.stat().st_mtime_ns)


def device_described(text: str) -> Described | None:
    """The device of which a table's or a log's text speaks: `16x NVIDIA H100-SXM5-80GB` is 16 of `h100-sxm`.

    None where it names no device of the catalog, or several.
    """
    from graphsim.files.device_names import described_device

    return described_device(text, _has_memory)


def _find(ref: str | Path) -> Path:
    text = str(ref)
    path = None if is_path(ref) else named("hardware", text)
    if path is None and not is_path(ref):
        from graphsim.files.device_names import nearest_devices, typed_device

        name = typed_device(text, _has_memory)
        path = held("hardware", name) if name else None
        if path is None and (near := nearest_devices(text)):
            raise ConfigError(
                f"hardware {short(text)} is not known: the catalog has no file of such a device; nearest: "
                f"{', '.join(near)} (or copy one of their files, change what differs and give its path)"
            )
    return path or find_file("hardware", ref)


def _has_memory(name: str, size_gb: float) -> bool:
    """Whether a device is sold as one of this many GB: up to a twelfth of it is not for programs (ECC, reserves)."""
    path = held("hardware", name)
    if path is None:
        return False
    capacity = float(load_hardware(path).memory_bytes) / 2**30
    return 11 / 12 * size_gb <= capacity <= 1.05 * size_gb


@lru_cache(maxsize=256)
def _from_file(path: Path, _modified: int) -> Hardware:
    return _read(Fields(load_mapping(path), str(path)), path.stem, path)


def _read(fields: Fields, name: str, path: Path | None) -> Hardware:
    sources: dict[str, str] = {}
    memory = fields.mapping("memory", required=True)
    launch = fields.mapping("launch")
    fields.text("name", None)
    fields.text("notes", None)
    hardware = Hardware(
        name=name,
        title=fields.text("title", name),
        architecture=fields.text("architecture", "other", ARCHITECTURES),
        flops_per_s=_peaks(fields, sources),
        vector_flops_per_s=_number(fields, "vector_flops_per_s", "flop/s", sources, least=LEAST_RATE),
        memory_bytes=_number(memory, "capacity", "bytes", sources, least=LEAST_RATE),
        memory_bytes_per_s=_number(memory, "bandwidth", "bytes/s", sources, least=LEAST_RATE),
        cache_bytes=_number(memory, "cache", "bytes", sources, default=0.0),
        cores=_number(fields, "cores", "", sources, least=1.0),
        clock_hz=_number(fields, "clock", "Hz", sources, least=LEAST_RATE),
        links=_links(fields, sources),
        host_link=_link(fields.mapping("host_link", required=True), sources, devices=1.0),
        launch_s=_number(launch, "graph", "s", sources, default=2e-6, most=MOST_LATENCY_S),
        eager_launch_s=_number(launch, "eager", "s", sources, default=5e-6, most=MOST_LATENCY_S),
        power_w=_number(fields, "power", "W", sources, default=0.0),
        usable_share=_usable_share(memory, sources),
        path=path,
        sources=_full_sources(sources, _references(fields)),
    )
    fields.finish()
    return hardware


def _usable_share(memory: Fields, sources: dict[str, str]) -> float:
    """`usable` over `capacity`; all of it where the file does not say."""
    if "usable" not in memory:
        memory.raw("usable")
        return 1.0
    usable, capacity = (_number(memory, key, "bytes", sources, least=LEAST_RATE) for key in ("usable", "capacity"))
    if usable > capacity:
        memory.problem("usable", "is not allowed; expected no more than the capacity")
    return usable / capacity


def _peaks(fields: Fields, sources: dict[str, str]) -> dict[str, Num]:
    rates = fields.mapping("flops_per_s", required=True)
    for key in rates.data:
        if key not in COMPUTE_FORMATS:
            rates.problem(key, f"is not a number format; {choices_text(key, COMPUTE_FORMATS)}")
            rates.raw(key)
    peaks: dict[str, Num] = {
        name: _number(rates, name, "flop/s", sources, least=LEAST_RATE) for name in COMPUTE_FORMATS if name in rates
    }
    if not peaks and not fields.problems:
        fields.problems.append(f"flops_per_s is empty; give at least one of {', '.join(COMPUTE_FORMATS)}")
    return peaks


def _references(fields: Fields) -> dict[str, str]:
    names = fields.mapping("references")
    return {key: names.text(key) or "" for key in names.data}


def _full_sources(sources: Mapping[str, str], references: Mapping[str, str]) -> dict[str, str]:
    full = {}
    for key, source in sources.items():
        name = re.split("[,;]", source, maxsplit=1)[0].strip()
        full[key] = f"{references[name]}{source[len(name) :]}" if name in references else source
    return full


def _number(
    fields: Fields,
    key: str,
    kind: str,
    sources: dict[str, str],
    default: Any = REQUIRED,
    least: float = 0.0,
    most: float = math.inf,
) -> float:
    if isinstance(fields.data.get(key), Mapping):
        pair = fields.mapping(key)
        sources[fields.name(key)] = pair.text("source", "")
        value = pair.number("value", kind=kind, least=least, most=most)
    else:
        value = fields.number(key, default, kind=kind, least=least, most=most)
    return float(value)


def _links(fields: Fields, sources: dict[str, str]) -> tuple[Link, ...]:
    entries = fields.sequence("links", most=8)
    links = tuple(_link(fields.child(entry, f"links[{i}]"), sources) for i, entry in enumerate(entries))
    for inner, outer in zip(links, links[1:], strict=False):
        if outer.devices <= inner.devices:
            fields.problems.append(
                f"links: '{outer.name}' reaches {amount_text(outer.devices)} devices, expected more than the "
                f"{amount_text(inner.devices)} of '{inner.name}' before it"
            )
    return links


def _link(fields: Fields, sources: dict[str, str], devices: float | None = None) -> Link:
    link = Link(
        name=fields.text("name", "host link" if devices else REQUIRED),
        devices=devices or _number(fields, "devices", "", sources, least=2.0),
        bytes_per_s=_number(fields, "bandwidth", "bytes/s", sources, least=LEAST_RATE),
        latency_s=_number(fields, "latency", "s", sources, most=MOST_LATENCY_S),
        topology="host" if devices else fields.text("topology", "switch", TOPOLOGIES),
        peer_access=True if devices else fields.flag("peer_access", True),
    )
    if link.topology == "pairs" and link.devices != 2.0:
        fields.problem("devices", "is not allowed with topology = pairs; expected 2, since a bridge joins two cards")
    return link


def require_link(hardware: Hardware) -> None:
    """Raise HardwareError if the device has no interconnect at all."""
    if not hardware.links:
        raise HardwareError(
            f"hardware '{hardware.name}' states no interconnect; add links to its file to use more than one device"
        )
