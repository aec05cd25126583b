"""Decode steps of few tokens wait for memory, whatever the device's matrix units are capable of."""

from dataclasses import replace

import numpy as np
import pytest

import graphsim as gs
from graphsim.cost.families import gemm, moe
from graphsim.cost.families.formats import GEMM
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.families.moe_work import MoeShape
from graphsim.cost.parameters.basis import basis
from graphsim.cost.parameters.engines import KernelTable
from graphsim.hardware import Hardware, load_hardware

PRICED = [name for name in gs.list_hardware() if basis(load_hardware(name), "gemm").parameters is not None]
ROWS = np.array([1.0, 4.0, 16.0])


def product_s(hardware: Hardware, m: float | np.ndarray, dtype: str = "bfloat16") -> np.ndarray:
    shape = GemmShape(m=m, n=65536.0, k=8192.0, dtype=dtype)
    return np.asarray(gemm.latency_s(basis(hardware, "gemm").parameters or {}, hardware, shape))


def experts_s(hardware: Hardware, dtype: str, engine: str = "") -> np.ndarray:
    fits = basis(hardware, "moe", KernelTable(engine=engine)).parameters
    shape = MoeShape(m=ROWS, hidden=4096, inter=1536, topk=8, experts=128, dtype=dtype, distribution="uniform")
    return np.asarray(moe.latency_s(fits or {}, hardware, shape))


@pytest.mark.parametrize("dtype", ["bfloat16", "int4_wo"])
@pytest.mark.parametrize("name", PRICED)
def test_the_weights_of_a_few_rows_come_at_nearly_half_the_memory_bandwidth_at_least(name: str, dtype: str) -> None:
    hardware = load_hardware(name)
    streamed_s = GEMM[dtype].weights.bytes * 65536.0 * 8192.0 / hardware.memory_bytes_per_s
    assert (product_s(hardware, ROWS, dtype) < 2.2 * streamed_s).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
@pytest.mark.parametrize("name", ["h200-sxm", "rtx-pro-6000", "a100-sxm-80gb", "l40s"])
def test_matrix_units_of_a_quarter_of_the_speed_slow_down_many_rows_and_hardly_a_few(name: str, dtype: str) -> None:
    hardware = load_hardware(name)
    slow = replace(hardware, flops_per_s={form: peak / 4.0 for form, peak in hardware.flops_per_s.items()})
    few, many = (product_s(slow, m, dtype) / product_s(hardware, m, dtype) for m in (ROWS, 4096.0))
    assert (few < 1.15).all()
    assert many > 3.0


def test_an_h20_decodes_no_slower_than_an_h100_which_has_less_bandwidth() -> None:
    h20, h100 = (product_s(load_hardware(name), ROWS) for name in ("h20", "h100-sxm"))
    assert (h20 < h100).all()


@pytest.mark.parametrize("m", [1.0, 15.0, 16.0, 17.0, 48.0, 63.0, 64.0, 65.0, 128.0])
def test_rows_alone_and_among_others_take_the_same_time(m: float) -> None:
    hardware = load_hardware("h20")
    among = product_s(hardware, np.array([3.0, m, 5000.0]))[1]
    assert float(product_s(hardware, m)) == pytest.approx(among, rel=1e-12)
    assert float(product_s(hardware, m)) <= float(product_s(hardware, m + 1.0)) * 1.03


@pytest.mark.parametrize("engine", ["", "sglang", "trtllm"])
@pytest.mark.parametrize("name", PRICED)
def test_experts_of_four_bits_answer_a_few_tokens_faster_than_those_of_sixteen(name: str, engine: str) -> None:
    hardware = load_hardware(name)
    wide = experts_s(hardware, "bfloat16", engine)
    for dtype in ("int4_wo", "w4a16_mxfp4") if not engine else ("int4_wo",):
        assert (experts_s(hardware, dtype, engine) < 1.01 * wide).all(), dtype


@pytest.mark.parametrize("name", ["h100-sxm", "h200-sxm"])
def test_experts_in_triton_run_fp8_alike_whatever_its_scales(name: str) -> None:
    hardware = load_hardware(name)
    assert experts_s(hardware, "fp8", "sglang") == pytest.approx(experts_s(hardware, "fp8_block", "sglang"), rel=0.15)
    assert (experts_s(hardware, "fp8", "sglang") < experts_s(hardware, "bfloat16", "sglang")).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "int4_wo", "w4a16_mxfp4"])
@pytest.mark.parametrize("name", ["h100-sxm", "h200-sxm", "rtx-pro-6000", "l40s"])
def test_experts_of_a_few_tokens_hardly_wait_for_matrix_units_of_a_quarter_of_the_speed(name: str, dtype: str) -> None:
    hardware = load_hardware(name)
    alike = replace(hardware, name="alike", path=None)
    slow = replace(alike, flops_per_s={form: peak / 4.0 for form, peak in hardware.flops_per_s.items()})
    assert (experts_s(slow, dtype) < 1.5 * experts_s(alike, dtype)).all()
