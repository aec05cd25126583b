"""Exchanges of tokens with their experts: limits, order, nodes, and errors on what was left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from graphsim.cost.families.exchange_work import LIKE, devices_reached
from graphsim.cost.families.expert_exchange import ExchangeShape, copies, latency_s, roofline_s, shape_of
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from tests.cost.families.fitted import fitted, left_out_error, lent_error, measured

TOKENS = 2.0 ** np.arange(0.0, 17.0)


def shape(**given):
    sizes = {"tokens": 128.0, "hidden": 7168.0, "topk": 8.0, "experts": 256.0, "ep": 8.0}
    return ExchangeShape(**(sizes | given))


@pytest.mark.parametrize("backend", LIKE)
@pytest.mark.parametrize("device", ["h100-sxm", "gb200", "l40s"])
def test_no_exchange_is_faster_than_its_links_and_one_device_exchanges_nothing(backend, device):
    hardware = load_hardware(device)
    devices = np.array([2.0, 4.0, 8.0, 32.0, 96.0])[:, None]
    every = shape(tokens=TOKENS, ep=devices, backend=backend)
    assert (latency_s({}, hardware, every) >= roofline_s(hardware, every) * (1 - 1e-12)).all()
    assert float(latency_s({}, hardware, shape(ep=1.0))) == 0.0 == float(latency_s({}, hardware, shape(tokens=0.0)))


def test_copies_are_one_for_each_expert_or_for_each_device_that_holds_some():
    assert float(copies(shape(backend="low_latency"))) == 8.0
    drawn = np.random.default_rng(0).integers(0, 8, (20_000, 8))
    reached = np.mean([len(set(devices)) for devices in drawn])
    assert float(devices_reached(8.0, 8.0)) == pytest.approx(reached, rel=0.01)
    assert float(copies(shape())) == pytest.approx(reached, rel=0.01)
    assert float(copies(shape(balanced=True))) == 8.0 and float(copies(shape(balanced=True, ep=4.0))) == 4.0


@pytest.mark.slow
@pytest.mark.parametrize(("device", "framework", "backend"), [
    ("h100_sxm", "sglang", "low_latency"), ("h100_sxm", "sglang", "normal"), ("b200_sxm", "sglang", "normal"),
    ("gb200", "trtllm", "two_sided"),
])  # fmt: skip
def test_more_tokens_wider_rows_and_more_experts_of_each_take_longer(device, framework, backend):
    parameters, hardware = fitted("expert_exchange", device, framework)
    grown = ({"tokens": TOKENS}, {"hidden": 2.0 ** np.arange(10.0, 15.0)}, {"topk": np.arange(1.0, 17.0)})
    for more in grown:
        for tokens in (1.0, 64.0, 4096.0):
            time = latency_s(parameters, hardware, shape(**({"tokens": tokens, "backend": backend} | more)))
            assert (time >= 0.97 * np.maximum.accumulate(time)).all()


def test_more_cores_copy_faster_until_the_links_are_full():
    parameters, hardware = fitted("expert_exchange", "h100_sxm", "sglang")
    four, eight, twenty = (
        float(latency_s(parameters, hardware, shape(tokens=16384.0, cores=n))) for n in (4.0, 8.0, 20.0)
    )
    assert 1.7 < four / eight < 2.1 and 1.5 < eight / twenty < 2.5


@pytest.mark.slow
def test_nvlink_lists_are_made_ahead_of_the_rows():
    parameters, hardware = fitted("expert_exchange", "gb200", "trtllm")
    each = {phase: float(latency_s(parameters, hardware, shape(backend="two_sided", phase=phase, dtype="nvfp4")))
            for phase in ("prepare", "dispatch", "combine", "both")}  # fmt: skip
    assert each["both"] == pytest.approx(each["prepare"] + each["dispatch"] + each["combine"])


def test_one_way_is_its_bytes_share_where_both_were_measured_together():
    parameters, hardware = fitted("expert_exchange", "h100_sxm", "sglang")
    both, there, back = (
        float(latency_s(parameters, hardware, shape(backend="low_latency", phase=phase, dtype=dtype)))
        for phase, dtype in (("both", "unstated"), ("dispatch", "fp8"), ("combine", "bfloat16"))
    )
    assert there + back == pytest.approx(both) and there < back


DEEPEP_US = {8: 77 + 114, 16: 118 + 195, 32: 155 + 273, 64: 173 + 314, 128: 192 + 369, 256: 194 + 360}
"""Low latency of 128 tokens, dispatch and combine, by devices: github.com/deepseek-ai/DeepEP, docs/legacy.md."""


@pytest.mark.parametrize("devices", DEEPEP_US)
def test_among_nodes_of_h800_the_fit_of_one_node_of_h100_gives_what_deepep_states(devices):
    parameters, _ = fitted("expert_exchange", "h100_sxm", "sglang")
    found = latency_s(parameters, load_hardware("h800-sxm"), shape(ep=float(devices), backend="low_latency"))
    assert 1e6 * float(found) == pytest.approx(DEEPEP_US[devices], rel=0.16)


def test_rows_of_one_op_state_nanoseconds():
    """Else a combine for one token would take as long as a whole prompt."""
    rows = measured("expert_exchange", "h100_sxm", "trtllm", comm_backend="trtllm_deepep_ll", phase="combine")
    least, most = rows["latency_us"].min(), rows["latency_us"].max()
    assert 2e4 < least < most < 1e6 and shape_of(rows[rows["dtype"] == "fp8"]).stated == 1e3


def test_other_kernels_are_refused_by_name():
    row = {"op": "moe_a2a:moe_a2a", "kernel": "deepep", "comm_backend": "deepep_hl", "phase": "dispatch"}
    frame = pd.DataFrame([row | {"dtype": "fp8", "tokens": 1, "hidden": 1, "topk": 1, "experts": 1}])
    with pytest.raises(ConfigError, match="comm_backend 'deepep_hl' of op 'moe_a2a:moe_a2a' is not known"):
        shape_of(frame)
    with pytest.raises(ConfigError, match="phase 'gather' of an expert exchange is not known"):
        shape_of(frame.assign(comm_backend="deepep_ll", phase="gather"))


@pytest.mark.slow
@pytest.mark.parametrize(("device", "framework", "op"), [
    *((device, "sglang", op) for device in ("h100_sxm", "h200_sxm", "b200_sxm", "gb200")
      for op in ("wideep_deepep_ll", "wideep_deepep_normal")),
    *(("gb200", "trtllm", f"trtllm_alltoall:alltoall_{part}") for part in ("prepare", "dispatch", "combine")),
    *((device, "trtllm", "moe_a2a:moe_a2a") for device in ("h100_sxm", "h200_sxm", "b200_sxm", "gb200")),
    *((device, "vllm", "moe_a2a:moe_a2a") for device in ("h200_sxm", "b200_sxm", "gb200")),
])  # fmt: skip
def test_layouts_left_out_err_by_twelve_percent_at_most(device, framework, op):
    """vLLM's rows on H100 jitter by more than that among themselves: repeats of one exchange differ twofold."""
    assert left_out_error("expert_exchange", device, framework, op=op) < 0.12


@pytest.mark.slow
@pytest.mark.parametrize("op", ["wideep_deepep_ll", "wideep_deepep_normal"])
@pytest.mark.parametrize(("device", "sibling"), [("h100_sxm", "h200_sxm"), ("h200_sxm", "h100_sxm"),
                                                 ("gb200", "b200_sxm"), ("b200_sxm", "gb200")])  # fmt: skip
def test_a_device_left_out_errs_by_twenty_two_percent_at_most(device, sibling, op):
    assert lent_error("expert_exchange", device, sibling, "sglang", op=op) < 0.22
