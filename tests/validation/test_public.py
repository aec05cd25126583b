"""Single public figures: their settings are understood, each is a row, and capacity is the footprint's."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.validation.public import engine_of, summary, validate_public
from tests.paths import REFERENCE

ROW = {
    "grade": "A", "source": "somebody's benchmark (vLLM 0.30)", "model": "llama-3.2-1b", "hw": "h100-sxm", "tp": 1,
    "precision": "bf16", "batch": 1, "input": 512, "output": 32, "metric": "ttft_ms", "measured": 20.0, "note": "",
}  # fmt: skip
FILE = REFERENCE / "measured_public.csv"


def judged(tmp_path: Path, *rows: dict[str, object]) -> pd.DataFrame:
    path = tmp_path / "public.csv"
    pd.DataFrame([ROW | row for row in rows]).to_csv(path, index=False)
    return validate_public(path)


def test_every_figure_is_a_row_and_what_is_not_simulated_says_so(tmp_path: Path) -> None:
    found = judged(tmp_path, {}, {"metric": "tpot_ms"}, {"metric": "dollars"}, {"model": "no-such-model"})
    assert list(found.columns[:6]) == ["id", "metric", "measured", "predicted", "error", "problem"]
    assert list(found["id"]) == ["1", "2", "3", "4"] and found["predicted"].notna().tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert found["problem"][2] == "not simulated" and "no-such-model" in found["problem"][3]
    assert set(summary(found)["figure"]) == {"ttft_ms", "tpot_ms"}


def test_a_static_batch_is_one_estimate_and_a_server_a_closed_loop(tmp_path: Path) -> None:
    rows = ({"metric": "tok/s/gpu", "batch": 8, "note": note} for note in ("static batch", "a server"))
    static, served = judged(tmp_path, *rows)["predicted"]
    alike = gs.simulate("llama-3.2-1b", "h100-sxm", 8, 512, 32, engine="vllm")
    assert static == pytest.approx(float(alike.tokens_per_s))
    assert served != static and served == pytest.approx(static, rel=0.2)


@pytest.mark.parametrize(
    ("source", "note", "engine"),
    [
        ("NVIDIA NIM 1.8 benchmarking page", "TRT-LLM engine", "trtllm-engine"), ("SGLang PR 1 (0.5.13)", "", "sglang"),
        ("an issue (A100, vLLM)", "", "vllm"), ("ms-swift (vLLM beside it)", "engine=peft", "peft"),
        ("TRT-LLM docs/source/performance.md v0.6.1", "", "trtllm-engine"),
    ],
)  # fmt: skip
def test_the_engine_is_in_the_source_or_in_the_note(source: str, note: str, engine: str) -> None:
    assert engine_of({"source": source, "note": note}) == engine


def test_no_engine_is_a_problem_of_the_row() -> None:
    with pytest.raises(ConfigError, match="names no engine; known: "):
        engine_of({"source": "a friend", "note": ""})


@pytest.mark.slow
@pytest.mark.skipif(not FILE.is_file(), reason="no reference data")
def test_the_public_figures_are_all_predicted() -> None:
    found = validate_public(FILE)
    assert len(found) == len(pd.read_csv(FILE)) and (found["problem"] == "").all()
    medians = summary(found).set_index(["grade", "figure"])["median"]
    assert medians["A", "kv_tokens"] < 0.05 and medians["A", "tok/s/gpu"] < 0.15
