"""The hardware catalog: every number has a source, and independent arithmetic agrees with it."""

from __future__ import annotations

import math

import pytest
import yaml

from graphsim.errors import ConfigError, HardwareError
from graphsim.hardware import COMPUTE_FORMATS, Hardware, list_hardware, load_hardware, require_link
from tests.paths import REFERENCE, ROOT

FILES = sorted((ROOT / "hardware").glob("*.yaml"))
NAMES = [path.stem for path in FILES]

REQUESTED = [
    "a100-sxm-80gb", "a100-sxm-40gb", "a100-pcie-80gb", "h100-sxm", "h100-pcie", "h200-sxm",
    "b200-sxm", "b300-sxm", "gb200", "gb300", "l4", "l40s",
    "a10g", "rtx-4090", "rtx-pro-6000", "arc-pro-b60", "mi300x", "tpu-v5e",
    "tpu-v5p", "gaudi-3", "xeon-6980p", "epyc-9965", "h100-64gb",
]  # fmt: skip

# Multiply-adds count twice. Per core and clock: NVIDIA and AMD from their architecture whitepapers, MXU 128 x 128,
# Gaudi's 8 MMEs of 256 x 256 spread over its 64 TPCs, AMX 1024, two AVX-512 pipes of 32 bf16 products.
BF16_FLOPS_PER_CORE_AND_CLOCK = {
    "a100-sxm-80gb": 2048, "a100-sxm-40gb": 2048, "a100-pcie-80gb": 2048, "a10g": 512,
    "l4": 1024, "l40s": 1024, "rtx-4090": 512, "rtx-pro-6000": 1024,
    "h100-sxm": 4096, "h100-pcie": 4096, "h200-sxm": 4096, "h100-64gb": 4096,
    "b200-sxm": 8192, "b300-sxm": 8192, "gb200": 8192, "gb300": 8192,
    "arc-pro-b60": 2048, "mi300x": 2048, "tpu-v5e": 4 * 128 * 128 * 2, "tpu-v5p": 4 * 128 * 128 * 2,
    "gaudi-3": 8 * 256 * 256 * 2 / 64, "xeon-6980p": 1024, "epyc-9965": 128,
}  # fmt: skip
FP32_LANES_PER_CORE = {
    "a100-sxm-80gb": 64, "a100-sxm-40gb": 64, "a100-pcie-80gb": 64, "arc-pro-b60": 128, "mi300x": 128,
    "xeon-6980p": 32, "epyc-9965": 32,
} | dict.fromkeys(
    ["a10g", "l4", "l40s", "rtx-4090", "rtx-pro-6000", "b200-sxm", "b300-sxm", "gb200", "gb300"], 128
)  # fmt: skip
MEMORY_BITS_AND_GBIT_PER_PIN = {
    "a100-sxm-80gb": (5120, 2 * 1.593), "a100-sxm-40gb": (5120, 2 * 1.215), "a100-pcie-80gb": (5120, 2 * 1.512),
    "h100-sxm": (5120, 2 * 2.619), "h100-pcie": (5120, 2 * 1.593), "h200-sxm": (6144, 6.25), "h100-64gb": (4096, 3.186),
    "b200-sxm": (7680, 2 * 3.996), "b300-sxm": (7680, 2 * 3.996),
    "gb200": (8192, 2 * 3.996), "gb300": (8192, 2 * 3.996),
    "l4": (192, 12.5), "l40s": (384, 18), "a10g": (384, 12.5), "rtx-4090": (384, 21), "rtx-pro-6000": (512, 24.95),
    "arc-pro-b60": (192, 19), "mi300x": (8192, 5.2), "gaudi-3": (8192, 3.6),
    "xeon-6980p": (12 * 64, 8.8), "epyc-9965": (12 * 64, 6.4),
}  # fmt: skip


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
    return [path] if not isinstance(data, str) or data[:1].isdigit() else []


def test_every_requested_device_is_shipped_and_listed():
    assert set(REQUESTED) <= set(NAMES)
    assert set(NAMES) <= set(list_hardware())
    assert set(BF16_FLOPS_PER_CORE_AND_CLOCK) >= set(REQUESTED)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_shipped_file_has_a_source(name):
    data = yaml.safe_load((ROOT / "hardware" / f"{name}.yaml").read_text())
    unsourced = numbers(data)
    assert not unsourced, f"{name}: no source for {', '.join(unsourced)}; write {{value: …, source: …}}"
    hardware = shipped(name)
    wanted = {"launch.graph", "launch.eager", "power", "memory.cache", "links[0].latency"} - set(hardware.sources)
    assert not wanted, f"{name} does not state {', '.join(sorted(wanted))}"
    assert len(hardware.sources) >= 17 and all(text.strip() for text in hardware.sources.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_reference_of_a_shipped_file_is_used_and_spelled_out(name):
    references = yaml.safe_load((ROOT / "hardware" / f"{name}.yaml").read_text())["references"]
    told = shipped(name).sources.values()
    for key, title in references.items():
        assert any(text.startswith(title) for text in told), key
        assert not any(text == key or text.startswith((f"{key},", f"{key};")) for text in told), key


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_shipped_files_are_short_and_in_the_same_order(path):
    text = path.read_text()
    keys = [line.split(":")[0] for line in text.splitlines() if line[:1].isalpha()]
    order = [
        "title", "architecture", "references", "flops_per_s", "vector_flops_per_s", "cores", "clock", "power",
        "memory", "links", "host_link", "launch",
    ]  # fmt: skip
    assert keys == order, f"{path.name} has {', '.join(keys)}; every device states {', '.join(order)}, in this order"
    assert len(text.splitlines()) <= 80 and max(map(len, text.splitlines())) <= 160


def per_core_and_clock(name: str, flops_per_s: float) -> float:
    hardware = shipped(name)
    return float(flops_per_s / (hardware.cores * hardware.clock_hz))


@pytest.mark.parametrize("name", NAMES)
def test_matrix_and_vector_units_are_a_power_of_two_wide(name):
    """Cores, clock and peak agree; vendors state some vector peaks at a higher clock than the matrix units'."""
    device = shipped(name)
    peaks = {"flops_per_s.bf16": (device.peak("bf16"), 0.1), "vector_flops_per_s": (device.vector_flops_per_s, 0.25)}
    for what, (peak, tolerance) in peaks.items():
        width = per_core_and_clock(name, peak)
        power = 2.0 ** round(math.log2(width))
        assert width == pytest.approx(power, rel=tolerance), (
            f"{name}: {what} is {width:.0f} per core and clock, which is no power of two: check cores, clock and {what}"
        )


@pytest.mark.parametrize("name", BF16_FLOPS_PER_CORE_AND_CLOCK)
def test_bf16_peak_is_cores_times_clock_times_the_width_of_the_whitepaper(name):
    width = per_core_and_clock(name, shipped(name).peak("bf16"))
    assert width == pytest.approx(BF16_FLOPS_PER_CORE_AND_CLOCK[name], rel=0.015)


@pytest.mark.parametrize("name", FP32_LANES_PER_CORE)
def test_vector_peak_is_cores_times_clock_times_lanes(name):
    lanes = per_core_and_clock(name, shipped(name).vector_flops_per_s) / 2
    higher_clock = name.startswith("b")  # data-centre Blackwell runs fp32 at a higher clock than its tensor cores
    assert lanes == pytest.approx(FP32_LANES_PER_CORE[name], rel=0.07 if higher_clock else 0.03)


@pytest.mark.parametrize("name", MEMORY_BITS_AND_GBIT_PER_PIN)
def test_memory_bandwidth_is_bus_width_times_data_rate(name):
    bits, gbit_per_s = MEMORY_BITS_AND_GBIT_PER_PIN[name]
    assert shipped(name).memory_bytes_per_s == pytest.approx(bits * gbit_per_s * 1e9 / 8, rel=0.025)


@pytest.mark.parametrize("name", NAMES)
def test_narrower_formats_are_never_slower_and_at_most_four_times_faster(name):
    peaks = shipped(name).flops_per_s
    if "gb300" in name or "b300" in name:  # Blackwell Ultra gave int8 and fp64 up for fp4
        assert peaks["int8"] < peaks["bf16"] and peaks["fp4"] == pytest.approx(6 * peaks["bf16"])
        peaks = {key: value for key, value in peaks.items() if key not in ("int8", "fp4", "fp64")}
    ladder = [[f for f in chain if f in peaks] for chain in (COMPUTE_FORMATS[1:8], ("fp16", "int8", "int4"))]
    for chain in ladder:
        for wide, narrow in zip(chain, chain[1:], strict=False):
            assert peaks[narrow] >= peaks[wide], f"{name}: {narrow} is slower than {wide}"
    assert peaks.get("fp16", peaks["bf16"]) <= peaks["bf16"]


@pytest.mark.parametrize("name", [n for n in NAMES if shipped(n).architecture in ("hopper", "ada", "blackwell")])
def test_nvidia_doubles_the_rate_for_half_the_bits(name):
    hardware = shipped(name)
    assert hardware.peak("fp8") == pytest.approx(2 * hardware.peak("bf16"), rel=0.02)
    assert hardware.peak("bf16") == pytest.approx(2 * hardware.peak("tf32"), rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_interconnect_levels_reach_further_and_get_slower(name):
    links = shipped(name).links
    assert len(links) >= 2, f"{name}: links has to state a level within the server and one between servers"
    for inner, outer in zip(links, links[1:], strict=False):
        assert outer.devices > inner.devices
        assert outer.latency_s >= inner.latency_s
        assert outer.bytes_per_s < inner.bytes_per_s or name == "rtx-pro-6000"


@pytest.mark.parametrize("name", NAMES)
def test_pcie_rates_follow_from_lanes_and_generation(name):
    rates = {"3.0": 8 * 128 / 130, "4.0": 16 * 128 / 130, "5.0": 32 * 128 / 130, "6.0": 64 * 242 / 256}
    hardware = shipped(name)
    for link in (*hardware.links, hardware.host_link):
        if link.name.startswith("PCIe "):
            _, generation, lanes = link.name.split()
            assert link.bytes_per_s == pytest.approx(int(lanes[1:]) * rates[generation] * 1e9 / 8, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_orders_of_magnitude_are_those_of_a_machine(name):
    hardware = shipped(name)
    assert 1e-6 <= hardware.launch_s <= hardware.eager_launch_s <= 20e-6
    assert 15 * 2**30 <= hardware.memory_bytes <= 1024 * 2**30
    assert 2**22 <= hardware.cache_bytes <= 2**30
    assert 50 <= hardware.power_w <= 1500
    assert 1e9 < hardware.clock_hz < 4e9


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
            assert least * hardware.peak(number_format) < best <= 1.005 * hardware.peak(number_format), dtype


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
