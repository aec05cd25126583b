"""Tables of prefill and decode workers on one node: what is read of them, and what is predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graphsim.validation.serving import validate_serving
from graphsim.validation.serving_pd_ratio import COLUMNS, _known_prompts, lengths_by_chance


def row(name: str, at: str, **changed: Any) -> dict[str, Any]:
    found = {
        "id": name, "source": f"somewhere results.csv <- {name}_{at}.json", "hardware": "H200 SXM (8 in one node)",
        "framework": "sglang", "model": "openai/gpt-oss-20b", "precision": "mxfp4 checkpoint", "tp": 1,
        "prefill_workers": 1, "decode_workers": 1, "kv_transfer": "NIXL", "max_concurrency": 4, "num_prompts": 12,
        "completed": 12, "input_tokens": 512, "output_tokens_max": 32, "total_input_tokens": 12 * 512,
        "total_output_tokens": 12 * 20, "mean_ttft_ms": 100.0, "mean_tpot_ms": 5.0, "duration": 1.0,
    }  # fmt: skip
    return found | changed


@pytest.mark.parametrize("mean", [8.0, 20.0, 400.0, 900.0, 1020.0])
def test_answers_end_by_chance_or_at_the_most(mean: float) -> None:
    lengths = lengths_by_chance(mean, 1024, 2000)
    assert lengths.min() >= 1 and lengths.max() <= 1024
    assert lengths.mean() == pytest.approx(mean, rel=0.12)
    assert (np.sort(lengths_by_chance(1024.0, 1024, 50))[5:] == 1024).all()


def test_a_run_finds_the_prompts_of_an_earlier_one_of_the_same_servers() -> None:
    rows = [
        row("second", "20250915_060000"),
        row("first", "20250915_050000"),
        row("others", "20250915_040000", prefill_workers=2),
        row("next-day", "20250916_070000"),
        row("longer", "20250915_063000", input_tokens=32784, total_input_tokens=10**9),
        row("pushed-out", "20250915_070000"),
    ]
    found = _known_prompts(rows)
    assert found == {"second": 1, "first": 0, "others": 0, "next-day": 0, "longer": 0, "pushed-out": 0}


@pytest.mark.slow
def test_every_figure_is_a_line_and_known_prompts_come_sooner(tmp_path: Path) -> None:
    rows = [
        row("a", "20250915_050000", input_tokens=8192, total_input_tokens=12 * 8192),
        row("b", "20250915_060000", input_tokens=8192, total_input_tokens=12 * 8192),
        row("c", "20250915_070000", completed=10),
        row("d", "20250915_080000", hardware="a toaster"),
    ]
    assert set(rows[0]) >= COLUMNS
    path = tmp_path / "ratios.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    table = validate_serving([str(path)])
    assert {"id", "metric", "measured", "predicted", "error", "problem"} <= set(table.columns)
    ttft = table[table["metric"] == "mean_ttft_ms"].set_index("id")
    assert ttft.loc["b", "predicted"] < ttft.loc["a", "predicted"]
    assert ttft.loc["c", "problem"] == "not simulated: 2 of 12 requests failed"
    assert "toaster" in ttft.loc["d", "problem"] and ttft["predicted"].notna().tolist() == [True, True, False, False]
    assert len(validate_serving([str(path)], rows=2)["id"].unique()) == 2
