import itertools

import numpy as np
import pytest

from graphsim.calibration.fit import Source, calibrate
from graphsim.cost.kernels import predict_with
from graphsim.hardware import load_hardware

pandas = pytest.importorskip("pandas")

ROW = {
    "op": "mla_generation_module", "framework": "vllm", "kernel": "FLASH_ATTN_MLA", "model": "deepseek-ai/DeepSeek-V3",
    "gemm_dtype": "bfloat16", "kv_dtype": "bfloat16", "dtype": "bfloat16", "seq_len": 1,
}  # fmt: skip


def blocks(**changed):
    """Rows of many sizes whose blocks take 50 us more than the sum of their kernels."""
    sizes = itertools.product((2, 8, 32), (1, 8, 64, 512), (65, 1025, 8193))
    rows = [ROW | changed | {"heads": heads, "batch": batch, "kv_len": keys} for heads, batch, keys in sizes]
    frame = pandas.DataFrame(rows)
    bare = predict_with(frame, load_hardware("h100-sxm"), parameters={"mla_block": {}})
    return frame.assign(latency_us=bare + 50.0)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "kernel"), [("", "FLASH_ATTN_MLA"), ("trtllm", "default")])
def test_what_blocks_take_beside_their_kernels_is_found(engine, kernel):
    frame = blocks(framework=engine or "vllm", kernel=kernel)
    made = calibrate([Source(name="blocks", frame=frame)], "h100-sxm", engine=engine, blocks=True, date="2026-11-30")
    fitted = made.families["mla_block"][kernel] if engine else made.families["mla_block"]
    off = predict_with(frame, load_hardware("h100-sxm"), parameters={"mla_block": fitted}) / frame.latency_us - 1.0
    assert np.abs(off).max() < 0.08
    assert made.provenance["families"]["mla_block"]
    assert "gemm" in made.families


def test_kernels_are_no_blocks():
    frame = blocks().assign(op="gemm", m=64, n=4096, k=4096)
    made = calibrate([Source(name="kernels", frame=frame)], "h100-sxm", blocks=True)
    assert made.provenance["families"]["mla_block"]["data"] != ["kernels"]
