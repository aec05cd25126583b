import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.cost.families import collectives
from graphsim.cost.families.collectives import KINDS, CollectiveShape
from graphsim.cost.parameters.basis import basis
from graphsim.cost.parameters.engines import BASE, KernelTable
from graphsim.cost.parameters.store import calibration_path
from graphsim.errors import ConfigError, HardwareError
from graphsim.hardware import list_hardware, load_hardware

DEVICES = ["a100-sxm-80gb", "h100-sxm", "b200-sxm", "gb200", "rtx-pro-6000", "h200-sxm"]
messages = st.integers(6, 36).flatmap(lambda bits: st.integers(2**bits, 2 ** (bits + 1) - 1))
kinds = st.sampled_from(sorted(KINDS))


def latency(device, **dims):
    hardware = load_hardware(device)
    return collectives.latency_s(basis(hardware, "collectives").parameters, hardware, CollectiveShape(**dims))


def test_an_all_reduce_sends_what_a_reduce_scatter_and_an_all_gather_send():
    dims = {"message_bytes": 1e6, "devices": np.array([2.0, 4.0, 8.0])}
    one, two, both = (
        collectives.wire_bytes(CollectiveShape(kind=kind, **dims))
        for kind in ("reduce_scatter", "all_gather", "all_reduce")
    )
    assert np.allclose(one + two, both)
    assert np.allclose(one, [5e5, 7.5e5, 8.75e5])


@settings(max_examples=80, deadline=None)
@given(device=st.sampled_from(DEVICES), kind=kinds, size=messages, devices=st.sampled_from([2, 3, 4, 8, 16, 64]))
def test_every_collective_takes_a_positive_finite_time_never_below_its_link(device, kind, size, devices):
    hardware = load_hardware(device)
    time = float(latency(device, kind=kind, message_bytes=size, devices=devices))
    near, far = hardware.links
    assert np.isfinite(time) and time > 0
    nodes = -(-devices // near.devices)
    nics = devices / nodes if kind != "alltoall" else 1.0  # an all-to-all has another part for every device
    crossing = (nodes - 1) / nodes / nics / far.bytes_per_s
    inside = (devices / nodes - 1) / devices / near.bytes_per_s
    assert time >= KINDS[kind] * size * max(crossing, inside) * (1 - 1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_longer_message_never_arrives_earlier(device, kind):
    sizes, groups = 2.0 ** np.linspace(6.0, 36.0, 30 * 32 + 1), np.array([2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 64.0])
    time = latency(device, kind=kind, message_bytes=sizes[:, None], devices=groups)
    assert np.all(time >= 0.998 * np.maximum.accumulate(time)), "0.2 %: the surface is stored in whole thousandths"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["all_reduce", "alltoall"])
def test_beyond_the_longest_measured_message_the_bandwidth_goes_on(device, kind):
    one, two = (float(latency(device, kind=kind, message_bytes=x, devices=4)) for x in (2.0**33, 2.0**34))
    assert 1.95 < two / one < 2.05


def bus_bandwidth(device, kind, devices, message_bytes=8e9):
    """As nccl-tests counts it: bytes that a ring sends, by time."""
    time = float(latency(device, kind=kind, message_bytes=message_bytes, devices=devices))
    return KINDS[kind] * message_bytes * (devices - 1) / devices / time


def test_all_nics_of_a_node_carry_what_crosses_to_the_next_node():
    """NVIDIA on nccl-tests: 46 to 48 GB/s of a 400 Gbit/s NIC (issue 290), of which a node has eight; 248 nodes of
    eight H200 typically reach 350 GB/s (issue 283)."""
    assert 8 * 46e9 <= bus_bandwidth("h100-sxm", "all_reduce", 16) <= 8 * 48e9
    assert bus_bandwidth("h200-sxm", "all_reduce", 512) == pytest.approx(350e9, rel=0.1)


def test_half_the_nics_give_half_the_bus_bandwidth():
    """Two nodes of eight A100 with four 200 Gbit/s NICs each: 91 GB/s (nccl-tests issue 100)."""
    hardware = load_hardware("a100-sxm-80gb")
    near, far = hardware.links
    half = dataclasses.replace(hardware, links=(near, dataclasses.replace(far, bytes_per_s=12.5e9)))
    shape = CollectiveShape(kind="all_reduce", message_bytes=8e9, devices=16.0)
    time = float(collectives.latency_s(basis(hardware, "collectives").parameters, half, shape))
    assert 2 * 8e9 * 15 / 16 / time == pytest.approx(91e9, rel=0.05)


def test_an_all_to_all_over_nodes_takes_each_devices_own_nic():
    """N / (N - 1) times the NIC for N nodes (sjeaugey of NVIDIA, nccl-tests issue 130)."""
    for nodes in (2, 4, 16):
        wanted = 50e9 * collectives.NIC_SHARE * nodes / (nodes - 1) * (1 - 1 / (8 * nodes))
        assert bus_bandwidth("h100-sxm", "alltoall", 8 * nodes) == pytest.approx(wanted, rel=0.01)


def test_within_a_node_the_network_has_no_part():
    """The law that one node is priced as measured: without its network level, a device prices its groups the same."""
    groups, sizes = np.array([2.0, 3.0, 4.0, 8.0]), 2.0 ** np.arange(6.0, 34.0)[:, None]
    for device in ("h100-sxm", "b200-sxm", "a100-sxm-80gb"):
        hardware = load_hardware(device)
        alone = dataclasses.replace(hardware, links=hardware.links[:1])
        for kind in KINDS:
            shape, parameters = (
                CollectiveShape(kind=kind, message_bytes=sizes, devices=groups),
                basis(hardware, "collectives").parameters,
            )
            one, other = (collectives.latency_s(parameters, each, shape) for each in (hardware, alone))
            np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("device, ceilings", [
    ("mi300x", {2: 64e9, 4: 192e9, 8: 448e9}), ("gaudi-3", {2: 75e9, 4: 225e9, 8: 525e9}),
    ("tpu-v5e", {2: 100e9, 4: 100e9, 16: 100e9, 32: 200e9}), ("tpu-v5p", {4: 200e9, 64: 400e9, 1024: 600e9}),
    ("h100-sxm", {2: 450e9, 8: 450e9}), ("epyc-9965", {2: 256e9}),
])  # fmt: skip
def test_a_group_gets_no_more_than_the_links_that_lead_to_its_own(device, ceilings):
    """64 GB/s for each of a full mesh's links, 100 GB/s for each ring of a torus (two ports of 50 GB/s)."""
    hardware = load_hardware(device)
    for kind in ("all_reduce", "all_gather", "reduce_scatter"):
        for devices, ceiling in ceilings.items():
            shape = CollectiveShape(kind=kind, message_bytes=1e9, devices=float(devices))
            sent = KINDS[kind] * 1e9 * (devices - 1) / devices
            assert float(collectives.roofline_s(hardware, shape)) == pytest.approx(sent / ceiling, rel=1e-12)
            if (parameters := basis(hardware, "collectives").parameters) is not None:
                assert sent / float(collectives.latency_s(parameters, hardware, shape)) <= ceiling * (1 + 1e-12)


@pytest.mark.parametrize("device", ["l4", "rtx-5090", "a10g", "rtx-4090", "h100-pcie", "a100-pcie-80gb"])
def test_pcie_cards_borrow_the_collectives_of_a_card_on_pcie(device):
    """NCCL on four PCIe cards: 8 KB in 12 to 30 us (20.3 on V100, sglang-V100 pull 2); not so over NVSwitch."""
    for table in (BASE, KernelTable(engine="sglang"), KernelTable(engine="trtllm")):
        assert basis(load_hardware(device), "collectives", table).origin == "scaled from rtx-pro-6000 (host)"
    assert 12e-6 <= float(latency(device, kind="all_reduce", message_bytes=8192.0, devices=4)) <= 30e-6


@pytest.mark.parametrize("engine", ["", "sglang", "trtllm"])
@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "custom_allreduce"])
def test_cards_in_the_same_slots_take_the_same_time_and_faster_slots_less(kind, engine):
    """The wiring decides: of unmeasured cards without bridges, those of one PCIe generation are alike, and twice the
    rate makes a collective up to twice as fast."""
    times = {}
    for name in list_hardware():
        hardware = load_hardware(name)
        if calibration_path(hardware) or hardware.links[:1] == () or hardware.links[0].topology != "host":
            continue
        parameters = basis(hardware, "collectives", KernelTable(engine=engine)).parameters
        shapes = CollectiveShape(kind=kind, message_bytes=2.0 ** np.arange(12.0, 28.0, 4.0)[:, None],
                                 devices=np.array([2.0, 4.0, 8.0]))  # fmt: skip
        if hardware.architecture != "battlemage":  # of another vendor's library
            rate = float(hardware.links[0].bytes_per_s)
            times.setdefault(rate, []).append(collectives.latency_s(parameters, hardware, shapes))
    assert len(times) == 3 and min(map(len, times.values())) >= 2
    for alike in times.values():
        np.testing.assert_allclose(alike, np.broadcast_to(alike[0], np.shape(alike)), rtol=1e-12)
    slow, middle, fast = (times[rate][0] for rate in sorted(times))
    for slower, faster in ((slow, middle), (middle, fast)):
        assert (faster <= slower).all() and (slower <= 2.0 * faster * (1 + 1e-12)).all()


def test_a_card_takes_the_collectives_of_its_own_vendor_s_library():
    assert basis(load_hardware("arc-pro-b50"), "collectives").origin == "scaled from arc-pro-b60 (host)"


def test_arrays_give_what_single_numbers_give():
    size = np.array([1.0, 3e3, 5e5, 7e7, 1e11])
    together = latency("b200-sxm", kind="all_reduce", message_bytes=size, devices=4.0)
    assert np.allclose(
        together, [float(latency("b200-sxm", kind="all_reduce", message_bytes=x, devices=4.0)) for x in size]
    )


def test_one_device_or_no_bytes_take_no_time():
    assert float(latency("h100-sxm", kind="all_reduce", message_bytes=1e6, devices=1)) == 0.0
    assert float(latency("h100-sxm", kind="all_reduce", message_bytes=0.0, devices=8)) == 0.0


def test_a_captured_all_reduce_is_cheaper_than_an_eager_one_when_small():
    dims = {"message_bytes": 8192.0, "devices": 4.0}
    for device in DEVICES:
        assert float(latency(device, kind="custom_allreduce", **dims)) < 0.6 * float(
            latency(device, kind="custom_allreduce_eager", **dims)
        )


def test_unknown_collectives_and_missing_links_are_refused_by_name():
    with pytest.raises(ConfigError, match="collective 'allreduce'.*all_reduce"):
        latency("h100-sxm", kind="allreduce", message_bytes=1e6, devices=2)
    lonely = dataclasses.replace(load_hardware("h100-sxm"), links=())
    with pytest.raises(HardwareError, match="no interconnect"):
        collectives.roofline_s(lonely, CollectiveShape(kind="all_reduce", message_bytes=1e6, devices=2))
