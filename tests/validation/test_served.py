"""Rows of served benchmarks: what they say, what is wrong with them, and how near the estimate comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphsim.errors import ConfigError
from graphsim.validation.served import summary, validate_served
from graphsim.validation.served_rows import rows_of, served_rows
from tests.paths import REFERENCE

ROW = {
    "id": "a_c4_tp4_0_ep1_0_1", "engine": "vllm", "engine_version": "0.18.0", "model": "openai/gpt-oss-20b",
    "gpu": "h100_sxm", "precision": "fp4", "input_tokens": 512, "output_tokens": 64, "batch_size": 4.0, "tp": 1.0,
    "pp": 1.0, "attention_dp": 1.0, "moe_tp": 1.0, "moe_ep": 1.0, "ttft_ms": 40.0, "tpot_ms": 3.0, "concurrency": 4.0,
    "doubt": "",
}  # fmt: skip
KEYS = ["id", "metric", "measured", "predicted", "error", "problem"]


def read(**changed: object) -> object:
    (row,) = rows_of(pd.DataFrame([ROW | changed]), "test")
    return row


def degrees(**changed: object) -> tuple[int, int, int]:
    pool = read(**changed).pool  # type: ignore[attr-defined]
    return pool.tp, pool.ep, pool.replicas


def test_degrees_that_were_multiplied_together_are_taken_apart() -> None:
    assert degrees(id="x", tp=64, moe_tp=8, moe_ep=8) == (8, 8, 1)
    assert degrees(id="x", tp=16, moe_tp=4, moe_ep=4) == (4, 4, 1)
    assert degrees(id="r1_c128_tp8_ep8_9", tp=1, attention_dp=64, moe_tp=8, moe_ep=8) == (1, 8, 8)
    assert degrees(id="m_c16_tp4_ep4_13", tp=4, attention_dp=4, moe_tp=1, moe_ep=16) == (4, 4, 1)
    assert degrees(id="x", tp=8, moe_tp=8, moe_ep=1) == (8, 1, 1)
    assert degrees(id="x", tp=4, attention_dp=np.nan, moe_tp=1, moe_ep=4) == (4, 4, 1)


@pytest.mark.parametrize(
    ("doubt", "judged"),
    [
        ("", "clean"), ("tp, dp or ep multiplied together", "clean"),
        ("weights labelled nvfp4 or fp8, checkpoint is mxfp4", "clean"),
        ("speculative decoding, unlabelled; copy of another row", "speculative"),
        ("tp, dp or ep multiplied together; copy of another row", "copy"),
        ("no warm-up, kernels built in the first wave", "cold"), ("protocol unknown", "other protocol"),
    ],
)  # fmt: skip
def test_a_doubt_says_how_a_row_is_judged(doubt: str, judged: str) -> None:
    assert read(doubt=doubt).judged == judged  # type: ignore[attr-defined]


def test_clients_are_the_batch_where_nothing_else_is_told() -> None:
    assert read(concurrency=np.nan, batch_size=9.0).clients == 9  # type: ignore[attr-defined]


def test_every_measured_value_is_a_row_and_what_cannot_be_run_says_why(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    other = {"id": "b", "model": "nobody/no-such-model"}
    pd.DataFrame([ROW, ROW | other, ROW | {"id": "c", "engine": "unheard-of"}]).to_csv(path, index=False)
    found = validate_served(path)
    assert list(found.columns[:6]) == KEYS and len(found) == 6
    assert list(found["metric"]) == ["ttft_ms", "tpot_ms"] * 3
    good, unknown, unread = (found[found["id"] == name] for name in (ROW["id"], "b", "c"))
    assert (good["problem"] == "").all() and good["predicted"].gt(0).all()
    assert np.allclose(good["error"], good["predicted"] / good["measured"] - 1)
    assert unknown["problem"].str.contains("no-such-model").all() and unknown["predicted"].isna().all()
    assert unread["problem"].str.contains("unheard-of.*allowed").all()


def test_only_times_to_the_first_token_suffer_from_a_cold_start(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pd.DataFrame([ROW | {"doubt": "no warm-up, kernels built in the first wave"}]).to_csv(path, index=False)
    assert list(validate_served(path)["judged"]) == ["cold", "clean"]


def test_another_table_says_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("model,gpu\nx,y\n")
    with pytest.raises(ConfigError, match="is missing for a table of served configurations"):
        served_rows(path)


needs_reference = pytest.mark.skipif(not (REFERENCE / "served.csv").is_file(), reason="no reference data")


@needs_reference
@pytest.mark.slow
@pytest.mark.parametrize("name", ["served.csv", "served_disaggregated.csv", "serving/inferencemax.csv"])
def test_all_rows_of_the_tables_are_understood(name: str) -> None:
    rows = served_rows(REFERENCE / name)
    assert len(rows) == len(pd.read_csv(REFERENCE / name))
    assert not [row.problem for row in rows if row.problem]
    assert all(row.pool.tp <= 8 and row.pool.replicas <= 8 for row in rows if name == "served.csv")


@needs_reference
@pytest.mark.slow
def test_clean_rows_of_few_clients_come_near(tmp_path: Path) -> None:
    frame = pd.read_csv(REFERENCE / "served.csv")
    chosen = frame[frame["doubt"].isna() & frame["concurrency"].le(16)].iloc[::12]
    chosen.to_csv(tmp_path / "rows.csv", index=False)
    found = summary(validate_served(tmp_path / "rows.csv"))
    overall = found[(found["judged"] == "clean") & (found["engine"] == "")].iloc[0]
    assert overall["tpot"] < 0.10 and overall["ttft"] < 0.22
