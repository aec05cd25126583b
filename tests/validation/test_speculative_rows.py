"""Rows of served benchmarks whose tokens are drafted: read, run with one acceptance for each drafter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.validation.drafters import DRAFTERS, MTP_ACCEPTANCE
from graphsim.validation.exchanges import exchange_s
from graphsim.validation.loops import answers_of
from graphsim.validation.served_rows import Pool, ServedRow, rows_of, served_rows
from tests.paths import REFERENCE

ROW: dict[str, Any] = {
    "id": "one", "hardware": "MI355X", "framework": "sglang-disagg", "image": "rocm/sgl-dev:sglang-0.5.6.post1",
    "model": "deepseek-ai/DeepSeek-R1", "precision": "fp8", "spec_decoding": "mtp", "disagg": True, "tp": np.nan,
    "concurrency": 16, "input_tokens": 256, "output_tokens": 128, "length_range_ratio": 0.8,
    "prefill_ep": 8, "prefill_dp_attention": False, "prefill_num_workers": 1, "num_prefill_gpu": 8,
    "decode_ep": 8, "decode_dp_attention": False, "decode_num_workers": 2, "num_decode_gpu": 16,
    "mean_tpot_ms": 10.0, "mean_itl_ms": 19.0,
}  # fmt: skip


def read(**changes: Any) -> ServedRow:
    (row,) = rows_of(pd.DataFrame([ROW | changes]), "table")
    return row


def test_rows_say_who_drafts() -> None:
    drafted, plain = read(), read(spec_decoding="none")
    assert drafted.speculation is DRAFTERS["mtp"] and drafted.judged == "speculative"
    assert plain.speculation is None and plain.judged == "clean"
    unknown = read(spec_decoding="psychic")
    assert unknown.problem == "spec_decoding = 'psychic' is not known; allowed: mtp"
    assert unknown.measured == {"mean_tpot_ms": 10.0, "mean_itl_ms": 19.0}


def test_there_is_one_acceptance_for_each_drafter() -> None:
    for name, speculation in DRAFTERS.items():
        assert np.ndim(speculation.acceptance) == 0, name
    assert 0.85 <= MTP_ACCEPTANCE <= 0.9  # as DeepSeek's report has it


@pytest.mark.slow
def test_a_row_with_drafts_is_faster_by_less_than_its_tokens_a_step() -> None:
    drafted, plain = answers_of(read()), answers_of(read(spec_decoding="none"))
    ratio = float(plain.tpot_s.mean() / drafted.tpot_s.mean())
    assert 1.2 < ratio < 1 + MTP_ACCEPTANCE
    assert (drafted.gap_s @ drafted.gap_tokens) / drafted.gap_tokens.sum() > plain.tpot_s.mean()


@pytest.mark.slow
def test_drafts_are_run_where_one_server_does_all() -> None:
    one = {"disagg": False, "tp": 8, "ep": 1, "hardware": "H200", "framework": "sglang", "image": "sglang:v0.5.6"}
    drafted, plain = (answers_of(read(**one, spec_decoding=name)) for name in ("mtp", "none"))
    assert drafted.tpot_s.mean() < plain.tpot_s.mean()


def test_only_sglangs_mori_takes_longer_than_its_exchange_is_priced() -> None:
    """58 layers of DeepSeek-V3 have experts."""
    spread = gs.Deployment("deepseek-v3", "mi355x", parallelism=gs.Parallelism(ep=8), engine="sglang")
    row, pool = read(), Pool(tp=1, ep=8, replicas=8)
    assert 0.02 < exchange_s(row, pool, spread) < 0.04
    assert exchange_s(row, Pool(tp=8, ep=8), replace(spread, parallelism=gs.Parallelism(tp=8, ep=8))) == 58 * 0.048e-3
    assert exchange_s(row, Pool(tp=8, ep=1), replace(spread, parallelism=gs.Parallelism(tp=8))) == 0.0
    assert exchange_s(replace(row, engine="vllm"), pool, spread) == 0.0
    assert exchange_s(row, pool, replace(spread, hardware=gs.load_hardware("h200-sxm"))) == 0.0


@pytest.mark.slow
def test_published_rows_are_met_at_the_published_acceptance() -> None:
    """Those of 1,024 tokens each way and up to 512 clients; all 21 are on the handbook's page."""
    path = REFERENCE / "serving" / "inferencemax.csv"
    if not path.exists():
        pytest.skip("the reference data is not at hand")
    rows = [row for row in served_rows(path) if row.speculation is not None and row.clients <= 512]
    errors = []
    for row in rows:
        if row.input_tokens == row.output_tokens == 1024:
            predicted = 1e3 * float(answers_of(row).tpot_s.mean())
            errors.append(abs(predicted / row.measured["mean_tpot_ms"] - 1.0))
    assert len(errors) == 5
    assert np.median(errors) <= 0.12
