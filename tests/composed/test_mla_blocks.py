import numpy as np
import pytest

import graphsim as gs
from graphsim.composed import mla
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.parameters.basis import basis
from graphsim.ops import HeadGemm, MlaAttention
from tests.paths import REFERENCE

pandas = pytest.importorskip("pandas")

ROW = {
    "op": "mla_generation_module", "framework": "vllm", "kernel": "FLASH_ATTN_MLA", "model": "deepseek-ai/DeepSeek-V3",
    "gemm_dtype": "bfloat16", "kv_dtype": "bfloat16", "dtype": "bfloat16", "heads": 16, "batch": 8, "seq_len": 1,
    "kv_len": 1025,
}  # fmt: skip
PROMPT = ROW | {"op": "mla_context_module", "kernel": "FLASH_ATTN", "seq_len": 2048, "kv_len": 2048}


def ops(**changed):
    graph = mla.block_graph(pandas.DataFrame([changed]))
    return dict(graph.nodes(data="op"))


def kernels(found, kind):
    return [op for op in found.values() if isinstance(op, kind)]


def test_a_decode_block_attends_latents_between_two_batched_products_and_a_prompt_keys_of_every_head():
    step, prompt = ops(**ROW), ops(**PROMPT)
    assert kernels(step, MlaAttention)[0].absorbed and len(kernels(step, HeadGemm)) == 2
    assert not kernels(prompt, MlaAttention)[0].absorbed and not kernels(prompt, HeadGemm)
    assert kernels(prompt, MlaAttention)[0].heads == 16
    assert float(kernels(step, MlaAttention)[0].kv_tokens[0]) == 8 * 1025


def test_the_two_projections_of_the_hidden_state_are_one_product():
    product = next(op for name, op in ops(**ROW).items() if "qkv_a_proj" in name)
    assert product.n == 1536 + 512 + 64 and product.k == 7168


def test_a_short_prompt_under_a_decode_kernel_takes_the_absorbed_form():
    short = ops(**PROMPT | {"kernel": "FLASH_ATTN_MLA", "seq_len": 64, "kv_len": 64})
    attention = kernels(short, MlaAttention)[0]
    assert attention.absorbed and not attention.decode


@pytest.mark.parametrize("row", [ROW, PROMPT], ids=["decode", "prefill"])
def test_blocks_are_priced_row_by_row_and_more_work_takes_longer(row):
    rows = pandas.DataFrame([row | {"batch": batch} for batch in (4, 16, 64)] + [row | {"heads": 64, "batch": 64}])
    times = gs.predict_kernels(rows, "h100-sxm").to_numpy()
    assert (np.diff(times) > 0).all()
    alone = gs.predict_kernels(rows.iloc[[1]], "h100-sxm")
    assert float(alone.iloc[0]) == pytest.approx(times[1])


def test_a_model_without_latent_attention_is_refused():
    with pytest.raises(gs.ConfigError, match="has no latent attention"):
        gs.predict_kernels(pandas.DataFrame([ROW | {"model": "llama-3.1-8b"}]), "h100-sxm")


@pytest.mark.slow
def test_head_layouts_left_out_err_less_than_twelve_percent():
    path = REFERENCE / "modules" / "mla_module.parquet"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    frame = pandas.read_parquet(path)
    frame = frame[(frame.gpu == "h100_sxm") & (frame.framework == "vllm") & (frame.kv_dtype == "bfloat16")]
    hardware, out = gs.load_hardware("h100-sxm"), frame.heads == 8
    parameters = {name: basis(hardware, name).parameters or {} for name in FAMILIES}
    parameters["mla_block"] = mla.fit(frame[~out], hardware, parameters)
    groups = frame[out].groupby(["op", "kernel", "gemm_dtype"], sort=True)
    errors = [1e6 * mla.block_s(rows, hardware, parameters) / rows["latency_us"] - 1.0 for _, rows in groups]
    assert np.median(np.abs(np.concatenate(errors))) < 0.12
