"""Whole sparse attention blocks: their graphs, and what a fit of their kernels is worth on blocks it has not seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from graphsim.calibration.held_out import held_out
from graphsim.composed import sparse
from graphsim.composed.sparse_blocks import block_graph
from graphsim.cost.families.sparse import METHODS, START
from graphsim.cost.kernels import predict_with
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from graphsim.ops import IndexScores, SparseAttention
from tests.paths import REFERENCE

PHASES = ("prefill", "decode")
MODULES = REFERENCE / "modules"
BLOCKS = {
    "deepseek-ai/DeepSeek-V3.2": ("dsa_generation_module", "dsa_context_module"),
    "zai-org/GLM-5-FP8": ("dsa_generation_module", "dsa_context_module"),
    "sgl-project/DeepSeek-V4-Flash-FP8": ("dsv4_csa_generation_module", "dsv4_hca_context_module"),
    "deepseek-ai/DeepSeek-V4-Pro": ("dsv4_hca_generation_module", "dsv4_csa_context_module"),
    "MiniMaxAI/MiniMax-M3": ("msa_generation_module", "msa_context_module"),
}
UNFITTED = {
    method: {phase: {"fp8": {part: {"constants": names} for part, names in START.items()}} for phase in PHASES}
    for method in METHODS
}
SKIPS = "dsa_generation_module:dsa_generation_module_skip_indexer"


def rows(model, op, batch=1, kv_len=4096, heads=16, **further):
    """Of one block, one for each batch or length."""
    new = np.where(np.char.find(op, "generation") >= 0, 1, kv_len)
    frame = pd.DataFrame({"batch": np.atleast_1d(batch) * np.ones_like(np.atleast_1d(kv_len)), "kv_len": kv_len})
    frame = frame.assign(seq_len=new, model=model, op=op, heads=heads, tp=8, gemm_dtype="fp8_block", kv_dtype="fp8")
    return frame.assign(dtype="bfloat16", **further)


def sparse_ops(frame):
    """Those of a block's graph."""
    ops = [op for _, op in block_graph(frame).nodes(data="op")]
    return [op for op in ops if isinstance(op, IndexScores | SparseAttention)]


@pytest.mark.parametrize(("model", "op"), [(model, op) for model, ops in BLOCKS.items() for op in ops])
def test_longer_contexts_and_larger_batches_never_take_less(model, op):
    """Within what the products' own prices waver by from one row to two."""
    device, fitted = load_hardware("h100-sxm"), {"sparse": UNFITTED}
    batches = rows(model, op, batch=2 ** np.arange(9), kv_len=np.full(9, 2048))
    lengths = rows(model, op, kv_len=2 ** np.arange(7, 17))
    for frame in (batches, lengths):
        assert (np.diff(np.log(predict_with(frame, device, parameters=fitted))) > -0.01).all()


def test_a_shared_choice_costs_no_scores():
    own, shared = (sparse_ops(rows("zai-org/GLM-5.2", op)) for op in ("dsa_generation_module", SKIPS))
    assert [type(op) for op in own] == [IndexScores, SparseAttention]
    assert [type(op) for op in shared] == [SparseAttention] and shared[0].method == "dsa_shared"


def test_a_prompt_short_enough_to_see_all_keys_is_attended_as_if_nothing_was_chosen():
    frame = rows("deepseek-ai/DeepSeek-V3.2", "dsa_context_module", kernel="sglang_dsa_dense_mha_fa3")
    assert not sparse_ops(frame)


def test_an_indexer_scores_all_keys_whatever_share_of_the_heads_a_device_holds():
    scores, attended = sparse_ops(rows("deepseek-ai/DeepSeek-V3.2", "dsa_generation_module", heads=16, kv_len=50_000))
    assert scores.heads == 64 and scores.pairs == 50_000 and attended.heads == 16 and attended.pairs == 2048


def test_compressed_attention_sees_a_window_and_entries():
    for op, seen in (("dsv4_csa_generation_module", 128 + 512), ("dsv4_hca_generation_module", 128 + 512)):
        (attended,) = (o for o in sparse_ops(rows("DeepSeek-V4-Flash", op, kv_len=65_536)) if o.value_dim)
        assert attended.pairs == seen


def test_a_model_without_such_attention_is_named():
    with pytest.raises(ConfigError, match="deepseek-v3.*dsa"):
        block_graph(rows("deepseek-ai/DeepSeek-V3", "dsa_generation_module"))


def measured(name, **chosen):
    """Rows of a table of modules with these values."""
    path = MODULES / f"{name}.parquet"
    if not path.exists():
        pytest.skip("the reference measurements are not here")
    return pd.read_parquet(path, filters=[(key, "=", value) for key, value in chosen.items()])


def errors(frame, predicted):
    """Of each row."""
    return np.abs(predicted.to_numpy() / frame["latency_us"].to_numpy() - 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "op"),
    [
        ("sparse_attention", "dsa_generation_module"),
        ("sparse_attention", "dsa_context_module"),
        ("compressed_attention", "dsv4_csa_generation_module"),
        ("minimax_attention", "msa_generation_module"),
    ],
)
def test_blocks_left_out_are_predicted(table, op):
    """Head counts that a fit has not seen, and the sibling device; every third row, for time."""
    device, sibling = load_hardware("h100-sxm"), load_hardware("h200-sxm")
    frame = measured(table, gpu="h100_sxm", framework="vllm", op=op)[::3].reset_index(drop=True)
    out = held_out(frame, ("heads", "tp"))
    parameters = {"sparse": sparse.fit(frame[~out], device)}
    assert np.median(errors(frame[~out], predict_with(frame[~out], device, parameters=parameters))) < 0.12
    assert np.median(errors(frame[out], predict_with(frame[out], device, parameters=parameters))) < 0.20
    other = measured(table, gpu="h200_sxm", framework="vllm", op=op)[::3]
    assert np.median(errors(other, predict_with(other, sibling, parameters=parameters))) < 0.35
