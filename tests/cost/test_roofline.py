"""The roofline against arithmetic by hand on datasheet figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphsim as gs
from graphsim.cost.roofline import matrix_peak, roofline
from graphsim.hardware import load_hardware
from graphsim.ops import AllReduce, Collective, Gemm, Launch, LoraGemm, Norm, Op, SendReceive
from graphsim.ops.formats import FORMATS

H100 = load_hardware("h100-sxm")
PEAK, BANDWIDTH, LINK, NIC = 989.4e12, 3.35e12, 450e9, 50e9


def test_a_large_product_runs_at_the_matrix_peak() -> None:
    cost = roofline(Gemm(m=8192.0, n=8192.0, k=8192.0), H100)
    assert cost.busy_s == pytest.approx(2 * 8192**3 / PEAK, rel=1e-12) and cost.bound == "compute"
    assert cost.latency_s == cost.busy_s + H100.launch_s


def test_a_thin_product_runs_at_the_bandwidth_of_its_weights() -> None:
    cost = roofline(Gemm(m=1.0, n=4096.0, k=4096.0), H100)
    assert cost.busy_s == pytest.approx(2 * (4096 * 4096 + 4096 + 4096) / BANDWIDTH, rel=1e-12)
    assert cost.bound == "memory"


def test_a_tiny_kernel_is_bound_by_its_launch() -> None:
    assert roofline(Norm(rows=1.0, width=64.0), H100).bound == "launch"


def test_quantised_weights_are_smaller_and_multiply_at_their_own_peak() -> None:
    big = {"m": 8192.0, "n": 8192.0, "k": 8192.0}
    assert roofline(Gemm(**big, weights=FORMATS["fp8"]), H100).compute_s == pytest.approx(2 * 8192**3 / 1978.9e12)
    weight_only = roofline(Gemm(**big, weights=FORMATS["int4"]), H100)
    assert weight_only.compute_s == pytest.approx(2 * 8192**3 / PEAK), "widened to the activations' format first"
    thin = Gemm(m=1.0, n=8192.0, k=8192.0, weights=FORMATS["int4"]).work()
    assert thin.weight_bytes == 8192**2 * (0.5 + 2.5 / 128)


def test_a_ring_all_reduce_sends_twice_what_the_others_hold() -> None:
    """2 (g-1)/g of the payload over one device's link, and 2 (g-1) hops."""
    cost = roofline(AllReduce(elems=1e8, group=8.0), H100)
    assert cost.network_s == pytest.approx(2 * 7 / 8 * 2e8 / LINK + 14 * 0.6e-6, rel=1e-12)
    assert cost.bound == "network"


def test_groups_beyond_the_node_use_the_network_between_nodes() -> None:
    """Rings visit all devices of a node before the next one, a ring for each NIC: 16 devices send over 8 NICs."""
    payload = 2e6
    found = roofline(AllReduce(elems=payload / 2, group=np.array([1.0, 2.0, 8.0, 10.0, 64.0])), H100)
    expected = [
        0.0,
        2 * 1 / 2 * payload / LINK + 2 * 0.6e-6,
        2 * 7 / 8 * payload / LINK + 14 * 0.6e-6,
        2 * 9 / 10 * payload / (5 * NIC) + 8 * 0.6e-6 + 2 * 2.7e-6,  # two nodes of five
        2 * 63 / 64 * payload / (8 * NIC) + 14 * 0.6e-6 + 14 * 2.7e-6,  # eight nodes of eight
    ]
    np.testing.assert_allclose(found.network_s, expected, rtol=1e-12)
    assert found.latency_s[0] == 0.0, "a group of one does nothing"


def test_a_hand_over_takes_the_slowest_link_of_its_reach() -> None:
    near, far = (roofline(SendReceive(elems=1e6, group=reach), H100).network_s for reach in (8.0, 16.0))
    assert near == pytest.approx(2e6 / LINK + 0.6e-6) and far == pytest.approx(2e6 / 50e9 + 2.7e-6)


def test_what_a_device_cannot_do_is_an_error_never_a_zero() -> None:
    with pytest.raises(gs.HardwareError, match="connects at most 1,024 devices, asked for 2,048"):
        roofline(AllReduce(elems=1e6, group=2048.0), H100)
    with pytest.raises(gs.HardwareError, match="states no interconnect"):
        roofline(AllReduce(elems=1e6, group=2.0), replace(H100, links=()))
    with pytest.raises(gs.HardwareError, match="no peak for 'fp4'.*allowed: bf16"):
        matrix_peak(Gemm(m=1.0, n=1.0, k=1.0, weights=FORMATS["nvfp4"]), replace(H100, architecture="gaudi"))
    assert roofline(AllReduce(elems=1e6, group=1.0), replace(H100, links=())).latency_s == 0.0


def test_formats_of_one_width_stand_in_for_each_other() -> None:
    only_fp16 = replace(H100, flops_per_s={"fp16": 7e14})
    assert matrix_peak(Gemm(m=1.0, n=1.0, k=1.0), only_fp16) == 7e14


def test_a_host_launch_takes_the_hosts_time() -> None:
    assert roofline(Launch(), H100).latency_s == H100.eager_launch_s


def test_every_adapter_in_the_batch_brings_its_own_weights_but_no_more_than_rows() -> None:
    few, many, most = (LoraGemm(m=16.0, n=16.0, k=4096.0, adapters=a).work() for a in (1.0, 4.0, 99.0))
    assert many.weight_bytes == 4 * few.weight_bytes and most.weight_bytes == 16 * few.weight_bytes
    assert few.flops == many.flops == most.flops


def test_annotated_nodes_carry_cost_latency_and_bound() -> None:
    graph = gs.annotate(gs.build_graph("gpt-2", expand=True), "h100-sxm", "roofline")
    for _, data in graph.nodes(data=True):
        assert data["latency_s"] == data["cost"].latency_s and data["bound"] == data["cost"].bound
    assert {data["bound"] for _, data in graph.nodes(data=True)} >= {"none", "memory", "launch"}


def test_a_cost_model_of_ones_own_is_a_function() -> None:
    from graphsim.cost.base import Cost

    def a_second_each(op: Op, hardware: gs.Hardware) -> Cost:
        return Cost(busy_s=float(not isinstance(op, Collective)))

    estimate = gs.simulate("gpt-2", "l4", output_tokens=3, cost=a_second_each, engine="reference")
    kernels = [op for _, op in gs.build_graph("gpt-2", expand=True).nodes(data="op") if not isinstance(op, Collective)]
    assert estimate.ttft_s == len(kernels) and estimate.tpot_s == len(kernels) - 1  # a decode step picks no rows
    assert estimate.cost_model == "a_second_each"
