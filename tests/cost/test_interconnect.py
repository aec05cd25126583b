"""How a group spreads over the levels of an interconnect, against counting by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphsim as gs
from graphsim.cost.calibrated import calibrated
from graphsim.cost.families.collectives import CollectiveShape, latency_s
from graphsim.cost.interconnect import legs, node_and_beyond, runs_own_all_reduce
from graphsim.cost.parameters.basis import basis
from graphsim.cost.roofline import roofline
from graphsim.hardware import Hardware, Link, list_hardware, load_hardware
from graphsim.ops import AllGather, AllReduce, AllToAll, ReduceScatter, SendReceive

NVLINK = Link(name="switch", devices=8.0, bytes_per_s=400e9, latency_s=1e-6)
BRIDGE = Link(name="bridge", devices=2.0, bytes_per_s=300e9, latency_s=1e-6, topology="pairs")
PCIE = Link(name="PCIe", devices=8.0, bytes_per_s=32e9, latency_s=1e-6, topology="host")
NETWORK = Link(name="network", devices=1024.0, bytes_per_s=50e9, latency_s=3e-6, topology="rails")
MESH = replace(NVLINK, topology="full-mesh")
TORUS = Link(name="ICI", devices=256.0, bytes_per_s=200e9, latency_s=1e-6, topology="torus-2d")
COLLECTIVES = (AllReduce, AllGather, ReduceScatter, AllToAll)


def wired(*links: Link) -> Hardware:
    return replace(load_hardware("h100-sxm"), links=links)


def network_s(op: gs.Op, *links: Link) -> float:
    return float(roofline(op, wired(*links)).network_s)


@pytest.mark.parametrize(
    "group, spread", [(1, (1, 1)), (5, (5, 1)), (8, (8, 1)), (9, (4.5, 2)), (16, (8, 2)), (20, (20 / 3, 3))]
)
def test_a_group_fills_a_node_before_it_takes_another_and_is_dealt_out_evenly(group, spread):
    near, far = legs(wired(NVLINK, NETWORK), float(group))
    assert (float(near.count), float(far.count)) == pytest.approx(spread)
    assert float(far.below) == pytest.approx(spread[0])


@pytest.mark.parametrize(
    "group, stride, spread", [(4, 8, (1, 4)), (8, 4, (2, 4)), (8, 1, (8, 1)), (4, 2, (4, 1)), (64, 2, (4, 16))]
)
def test_of_a_group_with_others_between_its_members_a_node_holds_fewer(group, stride, spread):
    near, far = legs(wired(NVLINK, NETWORK), float(group), float(stride))
    assert (float(near.count), float(far.count)) == spread and float(far.below) == spread[0]


@pytest.mark.parametrize("kind", [AllGather, ReduceScatter])
def test_a_group_with_one_member_in_each_node_has_one_nic_and_a_dense_one_all_of_them(kind):
    """Rings over nodes share what crosses among the NICs of the members that a node holds."""
    sent, dense, sparse = 2e9, kind(elems=1e9, group=32.0), kind(elems=1e9, group=4.0, stride=8.0)
    assert network_s(dense, NVLINK, NETWORK) == pytest.approx(sent * 31 / 32 / 400e9, rel=1e-2)
    assert network_s(sparse, NVLINK, NETWORK) == pytest.approx(sent * 3 / 4 / 50e9, rel=1e-2)


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_calibrated_times_of_spread_out_groups_are_those_of_their_nics(kind):
    hardware = load_hardware("h100-sxm")
    price = calibrated(hardware)[0]
    op = kind(elems=1e9, group=4.0, stride=8.0)
    wire_s = float(op.work().message_bytes) / hardware.links[1].bytes_per_s
    assert wire_s < float(price(op, hardware).latency_s) < 1.15 * wire_s


def test_weights_gathered_for_training_over_nodes_keep_up_with_what_was_measured():
    """MPT-70B on 32 H100, every weight gathered twice and its gradient scattered once in each of 16 micro-batches, ran
    at 74.3 s a step: llm-foundry, scripts/train/benchmarking. Even with nothing else to do, 3 * 16 * 129.7 GB must fit.
    """
    hardware = load_hardware("h100-sxm")
    price = calibrated(hardware)[0]
    layer = 129.7e9 / 80
    kinds = (AllGather, AllGather, ReduceScatter)
    each = [float(price(kind(elems=layer / 2, group=32.0), hardware).latency_s) for kind in kinds]
    assert sum(each) * 80 * 16 < 74.3


def test_behind_a_bridge_lies_pcie_alone():
    links = (BRIDGE, PCIE, NETWORK)
    message = {"elems": 1e9}
    two = network_s(AllReduce(group=2.0, **message), *links)
    four = network_s(AllReduce(group=4.0, **message), *links)
    assert two == pytest.approx(2 * 1 / 2 * 2e9 / 300e9 + 2e-6)
    assert four == pytest.approx(2 * 3 / 4 * 2e9 / 32e9 + 6e-6)
    node, _ = node_and_beyond(wired(*links), np.array([2.0, 4.0, 16.0]))
    assert node.count.tolist() == [2.0, 4.0, 8.0] and node.bytes_per_s.tolist() == [300e9, 32e9, 32e9]


@pytest.mark.parametrize("kind", COLLECTIVES)
@pytest.mark.parametrize("group", [2.0, 3.0, 8.0])
def test_a_leg_of_the_whole_group_is_the_whole_work(kind, group):
    op = kind(elems=1e6, group=group)
    leg, work = op.leg(1.0, group), op.work()
    assert (leg.message_bytes, leg.message_hops) == pytest.approx((work.message_bytes, work.message_hops), rel=1e-12)


@pytest.mark.parametrize("topology", ["switch", "full-mesh", "torus-2d", "torus-3d", "host"])
@pytest.mark.parametrize("kind", [*COLLECTIVES, SendReceive])
def test_topology_never_makes_a_collective_faster_than_a_switch_and_longer_messages_never_faster(topology, kind):
    groups, elems = np.arange(2.0, 65.0), 10.0 ** np.arange(2.0, 10.0)[:, None]
    near = replace(NVLINK, topology=topology)
    times = [roofline(kind(elems=elems, group=groups), wired(link, NETWORK)).network_s for link in (near, NVLINK)]
    assert np.all(times[0] >= times[1] * (1 - 1e-12))
    assert np.all(np.diff(times[0], axis=0) >= 0)


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_an_all_to_all_around_a_ring_takes_the_links_that_its_messages_pass(side):
    """Every pair's part goes the shorter way round, half of it each way where both are as long."""
    links = np.zeros((side, 2))  # from each device, clockwise and back
    part = 1.0 / side
    for source in range(side):
        for hops in range(1, side):
            ways = (
                [(hops, 1)] if hops < side / 2 else [(side - hops, -1)] if hops > side / 2 else [(hops, 1), (hops, -1)]
            )
            for length, way in ways:
                for step in range(length):
                    links[(source + way * step) % side, 0 if way > 0 else 1] += part / len(ways)
    payload = 1e9
    busiest_s = links.max() * payload / 50e9
    torus = replace(TORUS, latency_s=0.0)
    assert network_s(AllToAll(elems=payload / 2, group=float(side)), torus) == pytest.approx(busiest_s)


def test_a_hand_over_takes_one_link():
    assert network_s(SendReceive(elems=1e9, group=4.0), MESH) == pytest.approx(2e9 / (400e9 / 7) + 1e-6)
    assert network_s(SendReceive(elems=1e9, group=4.0), TORUS) == pytest.approx(2e9 / 50e9 + 1e-6)
    assert network_s(SendReceive(elems=1e9, group=16.0), NVLINK, NETWORK) == pytest.approx(2e9 / 50e9 + 3e-6)


@pytest.mark.parametrize("link, groups", [
    (NVLINK, {2, 4, 6, 8}), (MESH, {2, 4, 6, 8}), (PCIE, {2}), (TORUS, set()),
    (replace(PCIE, peer_access=False), set()),
    (replace(NVLINK, devices=72.0), {2, 4, 6, 8}), (replace(MESH, devices=4.0), {2, 4}),
])  # fmt: skip
def test_engines_run_their_own_all_reduce_where_vllm_does(link, groups):
    """World sizes 2, 4, 6 and 8 of one node; more than two only if joined by NVLink or Infinity Fabric; peer access:
    vLLM, custom_all_reduce.py, whose warning of PCIe cards is in its issue 13719."""
    hardware = wired(link, replace(NETWORK, devices=4096.0))
    assert {group for group in range(2, 65) if runs_own_all_reduce(hardware, float(group))} == groups


def test_four_cards_on_pcie_wait_for_nccl() -> None:
    """Two of them run the engine's own kernel; of four, its kernel as measured would be faster, and is not run."""
    hardware = load_hardware("rtx-pro-6000")
    price, parameters = calibrated(hardware)[0], basis(hardware, "collectives").parameters

    def kernel_s(kind: str, devices: float) -> float:
        shape = CollectiveShape(kind=kind, message_bytes=8192.0, devices=devices)
        return float(latency_s(parameters, hardware, shape))

    two, four = (float(price(AllReduce(elems=4096.0, group=group), hardware).latency_s) for group in (2.0, 4.0))
    assert two == pytest.approx(kernel_s("custom_allreduce", 2.0))
    assert four == pytest.approx(kernel_s("all_reduce", 4.0)) and four > kernel_s("custom_allreduce", 4.0)


@pytest.mark.parametrize("name", list_hardware())
@pytest.mark.parametrize("cost", ["calibrated", "roofline"])
def test_every_device_prices_groups_of_every_size_in_finite_time_that_grows_with_the_message(name, cost):
    hardware = load_hardware(name)
    price = calibrated(hardware)[0] if cost == "calibrated" else roofline
    groups = np.array([2.0, 3.0, 4.0, 8.0, 9.0, 16.0, 64.0])
    groups = groups[groups <= hardware.links[-1].devices]
    for kind in COLLECTIVES:
        times = [price(kind(elems=elems, group=groups), hardware).latency_s for elems in (1e3, 1e6, 1e9)]
        assert np.all(np.isfinite(times)) and np.all(np.diff(times, axis=0) > 0)
