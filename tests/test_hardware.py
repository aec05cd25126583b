"""The hardware catalog: every number has a source, and independent arithmetic agrees with it."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
import yaml

import graphsim as gs
from graphsim.errors import ConfigError, HardwareError
from graphsim.hardware import COMPUTE_FORMATS, TOPOLOGIES, Hardware, list_hardware, load_hardware, require_link
from tests.paths import REFERENCE, ROOT

FILES = sorted((ROOT / "hardware").glob("*.yaml"))
NAMES = [path.stem for path in FILES]

REQUESTED = [
    "a100-sxm-80gb", "a100-sxm-40gb", "a100-pcie-80gb", "h100-sxm", "h100-pcie", "h200-sxm",
    "b200-sxm", "b300-sxm", "gb200", "gb300", "l4", "l40s",
    "a10g", "rtx-4090", "rtx-pro-6000", "arc-pro-b60", "mi300x", "tpu-v5e",
    "tpu-v5p", "gaudi-3", "xeon-6980p", "epyc-9965", "h100-64gb", "rtx-3090",
    "rtx-4080", "rtx-5090", "a10", "rtx-a5000", "a30", "a40",
    "rtx-a6000", "rtx-6000-ada", "t4", "v100-sxm2-16gb", "v100-sxm2-32gb", "v100-pcie-16gb",
    "v100-pcie-32gb", "h800-sxm", "h20", "h200-nvl", "l20", "gh200",
    "mi250x", "mi325x", "mi350x", "mi355x", "arc-pro-b50", "gb10",
    "gaudi-2", "tpu-v6e", "tpu-v7", "trainium-2", "m2-ultra", "m3-ultra",
    "rtx-pro-4500",
]  # fmt: skip


class Sheet(NamedTuple):
    """What is known of a device apart from its file, of which arithmetic makes the file's rates.

    bf16: dense 16-bit matrix flops per core and clock; a multiply-add is 2
    lanes: multiply-adds of the vector units per core and clock
    bits, gbit_per_s: width of the memory bus, and the data rate of one of its pins
    """

    bf16: float
    lanes: float
    bits: float
    gbit_per_s: float


# Widths of cores: NVIDIA and AMD from their architecture whitepapers, MXU 128 x 128, Gaudi's MMEs of 256 x 256 spread
# over its TPCs, each 2048 bits wide, AMX 1024, two AVX-512 pipes. Vector units of TPUs have 8 x 128 x 4 ALUs that
# only add. Google states no bus: 819.2, 2764.8, 1638.4 and 7372.8 GB/s are 2 and 6 HBM2E, 2 HBM3 and 8 HBM3E stacks at
# rates that there are; nor does it state clocks since v6e: at 1.75 GHz, two MXUs of 256 x 256 do 2 and 2.5 passes.
# AWS: 128 x 128 cells, 1 TFLOP/s in fp32; four HBM3 stacks. Apple: 128 ALUs a core, 1,024 bit of LPDDR5-6400.
TPU_BF16, TPU_LANES = 4 * 128 * 128 * 2, 8 * 128 * 4 / 2
V6E_BF16, V7_BF16 = 2 * 2 * 256 * 256 * 2, 2.5 * 2 * 256 * 256 * 2
SHEETS = {
    "a100-sxm-80gb": Sheet(2048, 64, 5120, 2 * 1.593),
    "a100-sxm-40gb": Sheet(2048, 64, 5120, 2 * 1.215),
    "a100-pcie-80gb": Sheet(2048, 64, 5120, 2 * 1.512),
    "a10g": Sheet(512, 128, 384, 12.5),
    "l4": Sheet(1024, 128, 192, 12.5),
    "l40s": Sheet(1024, 128, 384, 18),
    "rtx-4090": Sheet(512, 128, 384, 21),
    "rtx-pro-6000": Sheet(1024, 128, 512, 24.95),
    "h100-sxm": Sheet(4096, 128, 5120, 2 * 2.619),
    "h100-pcie": Sheet(4096, 128, 5120, 2 * 1.593),
    "h100-64gb": Sheet(4096, 128, 4096, 2 * 1.593),
    "h200-sxm": Sheet(4096, 128, 6144, 6.25),
    "b200-sxm": Sheet(8192, 128, 7680, 2 * 3.996),
    "b300-sxm": Sheet(8192, 128, 7680, 2 * 3.996),
    "gb200": Sheet(8192, 128, 8192, 2 * 3.996),
    "gb300": Sheet(8192, 128, 8192, 2 * 3.996),
    "arc-pro-b60": Sheet(2048, 128, 192, 19),
    "mi300x": Sheet(2048, 128, 8192, 5.2),
    "tpu-v5e": Sheet(TPU_BF16, TPU_LANES, 2 * 1024, 3.2),
    "tpu-v5p": Sheet(TPU_BF16, TPU_LANES, 6 * 1024, 3.6),
    "gaudi-3": Sheet(8 * 256 * 256 * 2 / 64, 2048 / 16, 8192, 3.6),
    "rtx-3090": Sheet(512, 128, 384, 19.5),
    "rtx-4080": Sheet(512, 128, 256, 22.4),
    "rtx-5090": Sheet(512, 128, 512, 28),
    "rtx-pro-4500": Sheet(1024, 128, 256, 28),
    "gb10": Sheet(1024, 128, 256, 8.533),
    "a10": Sheet(1024, 128, 384, 12.5),
    "rtx-a5000": Sheet(1024, 128, 384, 16),
    "a30": Sheet(2048, 64, 3072, 2 * 1.215),
    "a40": Sheet(1024, 128, 384, 14.5),
    "rtx-a6000": Sheet(1024, 128, 384, 16),
    "rtx-6000-ada": Sheet(1024, 128, 384, 20),
    "l20": Sheet(512, 128, 384, 18),
    "t4": Sheet(1024, 64, 256, 10),
    "v100-sxm2-16gb": Sheet(1024, 64, 4096, 2 * 0.877),
    "v100-sxm2-32gb": Sheet(1024, 64, 4096, 2 * 0.877),
    "v100-pcie-16gb": Sheet(1024, 64, 4096, 2 * 0.877),
    "v100-pcie-32gb": Sheet(1024, 64, 4096, 2 * 0.877),
    "h800-sxm": Sheet(4096, 128, 5120, 2 * 2.619),
    "h20": Sheet(1024, 128, 6144, 2 * 2.619),
    "h200-nvl": Sheet(4096, 128, 6144, 6.25),
    "gh200": Sheet(4096, 128, 6144, 2 * 2.619),
    "mi250x": Sheet(1024, 64, 4096, 3.2),
    "mi325x": Sheet(2048, 128, 8192, 6),
    "mi350x": Sheet(4096, 128, 8192, 8),
    "mi355x": Sheet(4096, 128, 8192, 8),
    "arc-pro-b50": Sheet(2048, 128, 128, 14),
    "gaudi-2": Sheet(2 * 256 * 256 * 2 / 24, 2048 / 16, 6144, 3.2),
    "tpu-v6e": Sheet(V6E_BF16, TPU_LANES, 2 * 1024, 6.4),
    "tpu-v7": Sheet(V7_BF16, TPU_LANES, 8 * 1024, 7.2),
    "trainium-2": Sheet(128 * 128 * 2, 1e12 / 2.545e9 / 2, 4 * 1024, 5.66),
    "m2-ultra": Sheet(2 * 128, 128, 1024, 6.4),
    "m3-ultra": Sheet(2 * 128, 128, 1024, 6.4),
    "xeon-6980p": Sheet(1024, 32, 12 * 64, 8.8),
    "epyc-9965": Sheet(128, 32, 12 * 64, 6.4),
}
SHIPPED_SHEETS = [name for name in NAMES if name in SHEETS]

BF16_OF_ARCHITECTURE = {
    "volta": {1024}, "turing": {1024}, "ampere": {512, 1024, 2048}, "ada": {512, 1024}, "hopper": {1024, 4096},
    "blackwell": {8192}, "blackwell-workstation": {512, 1024}, "battlemage": {2048}, "cdna2": {1024}, "cdna3": {2048},
    "cdna4": {4096}, "tpu": {TPU_BF16, V6E_BF16, V7_BF16}, "gaudi": {16384, 2 * 256 * 256 * 2 / 24},
    "trainium": {32768}, "apple": {256}, "x86": {128, 1024},
}  # fmt: skip
"""The same widths by architecture, so that a wrong peak fails also where a row above was made of it."""

MOST_GBIT_PER_PIN = {"HBM": 10.0, "GDDR or DDR": 32.0}
"""Data rates of memory that is made: HBM3E and GDDR7."""


def shipped(name: str) -> Hardware:
    return load_hardware(ROOT / "hardware" / f"{name}.yaml")


def numbers(data: object, path: str = "") -> list[str]:
    """Paths of all numbers in a file that give no source of their own."""
    if isinstance(data, dict):
        if "value" in data:
            return [] if str(data.get("source", "")).strip() else [path]
        return [found for key, value in data.items() for found in numbers(value, f"{path}.{key}")]
    if isinstance(data, list):
        return [found for i, value in enumerate(data) for found in numbers(value, f"{path}[{i}]")]
    return [path] if not isinstance(data, str | bool) or str(data)[:1].isdigit() else []


def test_every_requested_device_is_shipped_and_listed():
    assert set(REQUESTED) <= set(NAMES), f"hardware/ has no file of {', '.join(sorted(set(REQUESTED) - set(NAMES)))}"
    assert set(NAMES) <= set(list_hardware())


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_shipped_file_has_a_source(name):
    data = yaml.safe_load((ROOT / "hardware" / f"{name}.yaml").read_text())
    unsourced = numbers(data)
    assert not unsourced, f"{name}: no source for {', '.join(unsourced)}; write {{value: …, source: …}}"
    hardware = shipped(name)
    wanted = {"launch.graph", "launch.eager", "power", "memory.cache", "links[0].latency"} - set(hardware.sources)
    assert not wanted, f"{name} does not state {', '.join(sorted(wanted))}"
    assert len(hardware.sources) >= 17, f"{name}: {len(hardware.sources)} sourced numbers, expected at least 17"
    assert all(text.strip() for text in hardware.sources.values()), f"{name}: a source is blank"


@pytest.mark.parametrize("name", NAMES)
def test_every_reference_of_a_shipped_file_is_used_and_spelled_out(name):
    references = yaml.safe_load((ROOT / "hardware" / f"{name}.yaml").read_text())["references"]
    told = shipped(name).sources.values()
    for key, title in references.items():
        assert any(text.startswith(title) for text in told), f"{name}: no source names references.{key}; leave it out"
        bare = any(text == key or text.startswith((f"{key},", f"{key};")) for text in told)
        assert not bare, f"{name}: a source says '{key}' and is not read as references.{key}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_shipped_files_are_short_and_in_the_same_order(path):
    text = path.read_text()
    keys = [line.split(":")[0] for line in text.splitlines() if line[:1].isalpha()]
    order = [
        "title", "architecture", "references", "flops_per_s", "vector_flops_per_s", "cores", "clock", "power",
        "memory", "links", "host_link", "launch",
    ]  # fmt: skip
    assert keys == order, f"{path.name} has {', '.join(keys)}; every device states {', '.join(order)}, in this order"
    longest = max(map(len, text.splitlines()))
    assert len(text.splitlines()) <= 80, f"{path.name} has {len(text.splitlines())} lines, expected at most 80"
    assert longest <= 160, f"{path.name} has a line of {longest} characters, expected at most 160"


def sixteen_bit(name: str) -> float:
    """The matrix peak of bf16, or of fp16 on devices older than bf16."""
    peaks = shipped(name).flops_per_s
    return float(peaks.get("bf16", peaks.get("fp16", 0.0)))


def per_core_and_clock(name: str, flops_per_s: float) -> float:
    hardware = shipped(name)
    return float(flops_per_s / (hardware.cores * hardware.clock_hz))


def test_every_device_has_a_sheet_and_every_sheet_a_device():
    bare, lost = sorted(set(NAMES) - set(SHEETS)), sorted(set(SHEETS) - set(NAMES))
    assert not bare, (
        f"{', '.join(bare)}: add to SHEETS in tests/test_hardware.py its dense bf16 flops and vector lanes per core "
        "and clock, from the architecture's whitepaper, and bits and Gbit/s of its memory bus, from the datasheet"
    )
    assert not lost, f"SHEETS has {', '.join(lost)}, of which hardware/ has no file"


@pytest.mark.parametrize("name", SHIPPED_SHEETS)
def test_bf16_peak_is_cores_times_clock_times_the_width_of_the_whitepaper(name):
    width, wanted = per_core_and_clock(name, sixteen_bit(name)), SHEETS[name].bf16
    assert width == pytest.approx(wanted, rel=0.015), (
        f"{name}: flops_per_s.bf16 is {width:.0f} per core and clock, expected {wanted:.0f}; twice as much is the "
        "sparse peak, and anything else a slip in cores, clock or the peak"
    )


@pytest.mark.parametrize("name", NAMES)
def test_bf16_peak_is_one_that_cores_of_its_architecture_reach(name):
    architecture, width = shipped(name).architecture, per_core_and_clock(name, sixteen_bit(name))
    widths = BF16_OF_ARCHITECTURE.get(architecture, set())
    assert any(width == pytest.approx(each, rel=0.015) for each in widths), (
        f"{name}: flops_per_s.bf16 is {width:.0f} per core and clock, and cores of {architecture} reach "
        f"{' or '.join(map(str, sorted(widths))) or 'nothing that is known here'}: is it the sparse peak? A chip that "
        "really differs goes into BF16_OF_ARCHITECTURE with its whitepaper"
    )


@pytest.mark.parametrize("name", SHIPPED_SHEETS)
def test_vector_peak_is_cores_times_clock_times_lanes(name):
    lanes, wanted = per_core_and_clock(name, shipped(name).vector_flops_per_s) / 2, SHEETS[name].lanes
    higher_clock = shipped(name).architecture in ("hopper", "blackwell")  # fp32 runs faster than the tensor cores
    slack = 0.16 if name == "h200-nvl" else 0.09 if higher_clock else 0.03
    assert lanes == pytest.approx(wanted, rel=slack), (
        f"{name}: vector_flops_per_s is {lanes:.1f} multiply-adds per core and clock, expected {wanted:.0f}: check "
        "cores, clock and vector_flops_per_s"
    )


@pytest.mark.parametrize("name", SHIPPED_SHEETS)
def test_memory_bandwidth_is_bus_width_times_data_rate(name):
    found, wanted = shipped(name).memory_bytes_per_s, SHEETS[name].bits * SHEETS[name].gbit_per_s * 1e9 / 8
    assert found == pytest.approx(wanted, rel=0.025), (
        f"{name}: memory.bandwidth = {found / 1e9:g} GB/s, expected {wanted / 1e9:.0f} GB/s of a bus of "
        f"{SHEETS[name].bits:g} bits at {SHEETS[name].gbit_per_s:g} Gbit/s"
    )


@pytest.mark.parametrize("name", [n for n in NAMES if shipped(n).architecture == "hopper" and n != "h100-64gb"])
def test_a_stack_of_memory_on_hopper_comes_with_10_mib_of_cache(name):
    """GH100 in full has six stacks and 60 MB, the H100 five and 50 (whitepaper, table 2); of the H100 64 GB nothing
    is published, and CUDA reports 60 MB of an H200 and a GH200."""
    stacks = SHEETS[name].bits / 1024
    assert shipped(name).cache_bytes == stacks * 10 * 2**20, f"{name}: {stacks:g} stacks of memory"


@pytest.mark.parametrize("name", SHIPPED_SHEETS)
def test_a_memory_bus_is_one_that_is_built(name):
    bits, rate = SHEETS[name].bits, SHEETS[name].gbit_per_s
    kind = "HBM" if bits >= 2048 else "GDDR or DDR"
    assert bits % 32 == 0 and bits <= 8192, f"{name}: no memory bus has {bits:g} bits; see its Sheet"
    assert 1.0 <= rate <= MOST_GBIT_PER_PIN[kind], (
        f"{name}: a pin of {rate:g} Gbit/s, and {kind} has at most {MOST_GBIT_PER_PIN[kind]:g}; see its Sheet"
    )


@pytest.mark.parametrize("name", NAMES)
def test_narrower_formats_are_never_slower_and_at_most_twice_as_fast(name):
    peaks = shipped(name).flops_per_s
    if "gb300" in name or "b300" in name:  # Blackwell Ultra gave int8 and fp64 up for fp4
        assert peaks["int8"] < peaks["bf16"], f"{name}: int8 is as fast as bf16, and it was given up for fp4"
        assert peaks["fp4"] == pytest.approx(6 * peaks["bf16"]), f"{name}: fp4 is not six times as fast as bf16"
        peaks = {key: value for key, value in peaks.items() if key not in ("int8", "fp4", "fp64")}
    ladder = [[f for f in chain if f in peaks] for chain in (COMPUTE_FORMATS[1:8], ("fp16", "int8", "int4"))]
    for chain in ladder:
        for wide, narrow in zip(chain, chain[1:], strict=False):
            assert peaks[narrow] >= peaks[wide], f"{name}: {narrow} is slower than {wide}"
    for chain in (("bf16", "fp8", "fp6", "fp4"), ("bf16", "int8", "int4")):
        stated = [key for key in chain if key in peaks]
        for wide, narrow in zip(stated, stated[1:], strict=False):
            times = peaks[narrow] / peaks[wide]
            halved = name.startswith("rtx-") and name[4:].isdigit()  # GeForce: what accumulates in fp32
            assert times <= (4.05 if halved and wide in ("bf16", "fp6") else 2.05), (
                f"{name}: {narrow} is {times:.1f} times as fast as {wide}: is it the sparse peak?"
            )
    assert peaks.get("fp16", 0.0) <= peaks.get("bf16", peaks.get("fp16", 0.0)), f"{name}: fp16 is faster than bf16"


@pytest.mark.parametrize("name", [n for n in NAMES if shipped(n).architecture in ("hopper", "ada", "blackwell")])
def test_nvidia_doubles_the_rate_for_half_the_bits(name):
    hardware = shipped(name)
    fp8, bf16, tf32 = (hardware.peak(key) / 1e12 for key in ("fp8", "bf16", "tf32"))
    assert fp8 == pytest.approx(2 * bf16, rel=0.02), f"{name}: fp8 {fp8:g} TFLOP/s is not twice the {bf16:g} of bf16"
    assert bf16 == pytest.approx(2 * tf32, rel=0.03), f"{name}: bf16 {bf16:g} TFLOP/s is not twice the {tf32:g} of tf32"


@pytest.mark.parametrize("name", NAMES)
def test_interconnect_levels_reach_further_and_get_slower(name):
    links = shipped(name).links
    assert len(links) >= 2, f"{name}: links has to state a level within the server and one between servers"
    for inner, outer in zip(links, links[1:], strict=False):
        where = f"{name}: links, '{outer.name}' behind '{inner.name}'"
        assert outer.devices > inner.devices, (
            f"{where}: {outer.devices:g} devices, expected more than {inner.devices:g}"
        )
        assert outer.latency_s >= inner.latency_s, (
            f"{where}: {outer.latency_s:g} s, expected {inner.latency_s:g} or more"
        )
        slower = outer.bytes_per_s < inner.bytes_per_s or name == "rtx-pro-6000"
        assert slower, f"{where}: {outer.bytes_per_s:g} bytes/s, expected less than {inner.bytes_per_s:g}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_level_of_a_shipped_file_states_its_topology(path):
    levels = yaml.safe_load(path.read_text())["links"]
    unsaid = [level["name"] for level in levels if "topology" not in level]
    assert not unsaid, f"{path.stem}: {', '.join(unsaid)} states no topology; allowed: {', '.join(TOPOLOGIES)}"
    *_, far = levels
    assert far["topology"] == "rails", f"{path.stem}: '{far['name']}' joins nodes, expected topology: rails"
    for level in levels:
        joined = level["topology"] == "host"
        assert joined == level["name"].startswith("PCIe"), f"{path.stem}: PCIe, and only PCIe, goes through the host"


def test_a_bridge_joins_two_cards_and_a_topology_is_one_of_a_list():
    def card(**level: object) -> dict[str, object]:
        data: dict[str, object] = yaml.safe_load((ROOT / "hardware" / "h100-pcie.yaml").read_text())
        data["links"] = [{"name": "bridge", "devices": 2, "bandwidth": "300 GB/s", "latency": "0.6 us"} | level]
        return data

    assert load_hardware(card(topology="pairs")).links[0].topology == "pairs"
    with pytest.raises(ConfigError, match="links\\[0\\].devices = 4 is not allowed with topology = pairs; expected 2"):
        load_hardware(card(topology="pairs", devices=4))
    with pytest.raises(ConfigError, match="topology = 'mesh'.*full-mesh"):
        load_hardware(card(topology="mesh"))


@pytest.mark.parametrize("name", NAMES)
def test_cards_of_geforce_reach_each_other_only_over_a_bridge(name):
    """NVIDIA/nccl-tests issue 287: GeForce cards do not support P2P; bridged RTX 3090 do (accelerate issue 2328)."""
    geforce = re.fullmatch(r"rtx-\d+", name) is not None
    for link in shipped(name).links:
        denied = geforce and link.topology == "host"
        assert link.peer_access != denied, f"{name}: '{link.name}' has peer_access: {link.peer_access}"


NVLINK = {"2": (6, 25.0), "3": (12, 25.0), "4": (18, 25.0), "5": (18, 50.0)}
"""Most links of a GPU, and GB/s of a link in one direction (V100, A100, H100 and Blackwell whitepapers)."""


@pytest.mark.parametrize("name", NAMES)
def test_nvlink_rates_are_a_whole_number_of_links(name):
    for link in shipped(name).links:
        if found := re.match(r"NVLink (\d)", link.name):
            most, rate = NVLINK[found[1]]
            ga102 = SHEETS[name].lanes == 128 and found[1] == "3"  # four links of 14.0625 GB/s, by its whitepaper
            links = link.bytes_per_s / 1e9 / (14.0625 if ga102 else rate)
            assert links == int(links) and 1 <= links <= (4 if ga102 else most), (
                f"{name}: '{link.name}' has {link.bytes_per_s / 1e9:g} GB/s in one direction, or {links:.2f} links"
            )


@pytest.mark.parametrize("name", NAMES)
def test_pcie_rates_follow_from_lanes_and_generation(name):
    rates = {"3.0": 8 * 128 / 130, "4.0": 16 * 128 / 130, "5.0": 32 * 128 / 130, "6.0": 64 * 242 / 256}
    hardware = shipped(name)
    for link in (*hardware.links, hardware.host_link):
        if link.name.startswith("PCIe "):
            match = re.fullmatch(r"PCIe (\S+) x(\d+)", link.name)
            assert match and match[1] in rates, f"{name}: a link is named '{link.name}', expected 'PCIe 5.0 x16'"
            found, wanted = link.bytes_per_s / 1e9, int(match[2]) * rates[match[1]] / 8
            assert found == pytest.approx(wanted, rel=0.01), (
                f"{name}: '{link.name}' has {found:g} GB/s, expected {wanted:.1f} in one direction"
            )


@pytest.mark.parametrize("name", NAMES)
def test_orders_of_magnitude_are_those_of_a_machine(name):
    device = shipped(name)
    found = [
        ("launch.graph", device.launch_s, "s", 1e-6, device.eager_launch_s),
        ("launch.eager", device.eager_launch_s, "s", 1e-6, 20e-6),
        ("memory.capacity", device.memory_bytes / 2**30, "GiB", 15, 1024),
        ("memory.usable", device.usable_share * 100, "% of the capacity", 97, 100),
        ("memory.bandwidth", device.memory_bytes_per_s / 1e9, "GB/s", 200, 10_000),
        ("memory.cache", device.cache_bytes / 2**20, "MiB", 4, 1024),
        ("power", device.power_w, "W", 50, 1500),
        ("clock", device.clock_hz / 1e9, "GHz", 1, 4),
    ]
    for link in (*device.links, device.host_link):
        found.append((f"bandwidth of '{link.name}'", link.bytes_per_s / 1e9, "GB/s", 1, 1000))
        found.append((f"latency of '{link.name}'", link.latency_s, "s", 0, 20e-6))
    wrong = [
        f"{field} = {value:g} {unit}, expected {least:g} to {most:g}"
        for field, value, unit, least, most in found
        if not least <= value <= most
    ]
    assert not wrong, f"{name}: {'; '.join(wrong)}: is the unit right?"


@pytest.mark.parametrize(
    "table, name",
    [
        ("a100_sxm", "a100-sxm-80gb"), ("h100_sxm", "h100-sxm"), ("b200_sxm", "b200-sxm"), ("gb200", "gb200"),
        ("rtx_pro_6000_server", "rtx-pro-6000"), ("b60", "arc-pro-b60"),
    ],
)  # fmt: skip
def test_no_measured_gemm_beats_the_dense_peak_and_the_best_come_near(table, name):
    pandas = pytest.importorskip("pandas")
    path = REFERENCE / "kernels" / f"{table}.parquet"
    if not path.exists():
        pytest.skip("reference measurements are not here")
    rows = pandas.read_parquet(path, columns=["op", "dtype", "m", "n", "k", "latency_us"])
    rows = rows[rows.op == "gemm"]
    hardware = shipped(name)
    for dtype, number_format in {"bfloat16": "bf16", "fp8": "fp8", "nvfp4": "fp4"}.items():
        some = rows[rows.dtype == dtype]
        if len(some):
            best = (2 * some.m * some.n * some.k / some.latency_us).max() * 1e6
            least = 0.84 if dtype == "bfloat16" else 0.5  # fp8 and fp4 rows contain the quantisation of activations
            part = best / hardware.peak(number_format)
            assert least < part <= 1.005, (
                f"{name}: the fastest measured {number_format} product reaches {part:.0%} of its peak, "
                f"expected {least:.0%} to 100%"
            )


def test_a_format_without_a_peak_is_an_error_that_names_the_others():
    with pytest.raises(HardwareError, match=r"'a100-sxm-80gb' states no peak for 'fp8'.*bf16.*flops_per_s\.fp8"):
        load_hardware("a100-sxm-80gb").peak("fp8")


def test_a_device_without_links_works_alone_and_says_so_when_asked_for_more():
    data = yaml.safe_load((ROOT / "hardware" / "l4.yaml").read_text())
    del data["links"]
    lonely = load_hardware(data)
    assert lonely.links == ()
    with pytest.raises(HardwareError, match="states no interconnect; add links"):
        require_link(lonely)


def test_plain_numbers_units_and_sources_mean_the_same():
    minimal = {
        "flops_per_s": {"bf16": "100 TFLOPS"},
        "vector_flops_per_s": "3.35e13",  # YAML reads an exponent without a sign as text
        "cores": 10,
        "clock": {"value": "1500 MHz"},
        "memory": {"capacity": "16 GiB", "bandwidth": {"value": 1e12, "source": "paper; table 2"}},
        "host_link": {"bandwidth": "16GB/s", "latency": "10 µs"},
        "references": {"paper": "A Paper, 2020"},
    }
    hardware = load_hardware(minimal)
    assert hardware.name == "custom" and hardware.architecture == "other"
    assert hardware.peak("bf16") == 1e14 and hardware.vector_flops_per_s == 3.35e13
    assert hardware.clock_hz == 1.5e9 and hardware.memory_bytes == 2**34
    assert hardware.host_link.bytes_per_s == 16e9 and hardware.host_link.latency_s == pytest.approx(1e-5)
    assert hardware.sources["memory.bandwidth"] == "A Paper, 2020; table 2"
    assert load_hardware(hardware) is hardware


def test_a_loader_reports_all_problems_of_a_file_at_once():
    with pytest.raises(ConfigError) as caught:
        load_hardware({"flops_per_s": {"bf61": 1e12}, "memory": {"capcity": "1 GiB"}, "cores": -1})
    text = str(caught.value)
    for part in (
        "flops_per_s.bf61",
        "did you mean 'bf16'?",
        "memory.capcity",
        "did you mean 'capacity'?",
        "cores = -1",
    ):
        assert part in text


@pytest.mark.parametrize(("name", "older"), [("t4", True), ("v100-sxm2-32gb", True), ("a100-sxm-80gb", False)])
def test_a_device_older_than_bf16_runs_a_model_in_fp16_and_says_so(name, older):
    asked, fp16 = (
        gs.simulate("gpt-2", name, 4, 64, 4, precision=precision, engine="reference") for precision in ("bf16", "fp16")
    )
    assert any("runs in fp16" in note for note in asked.notes) == older
    assert not any("runs in fp16" in note for note in fp16.notes)
    assert not older or asked.latency_s == fp16.latency_s


def test_a_device_may_say_what_its_driver_leaves_of_the_memory() -> None:
    device = load_hardware("h100-sxm")
    assert device.usable_bytes == pytest.approx(79.18 * 2**30, rel=1e-12) and device.memory_bytes == 80 * 2**30
    given = yaml.safe_load((ROOT / "hardware" / "l4.yaml").read_text(encoding="utf-8"))
    assert "usable" not in given["memory"] and load_hardware(given).usable_bytes == 22.5 * 2**30
    given["memory"]["usable"] = "23 GiB"
    with pytest.raises(ConfigError, match="memory.usable = '23 GiB' is not allowed; expected no more than the cap"):
        load_hardware(given)
