"""Stacks fitted to served rows: what is put in is found again, and models left out of the fit are predicted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphsim.calibration.stacks import errors, fit_stack, left_out_errors, main, stack_rows, stacks_of
from graphsim.cost.stack import Stack, read_stacks
from graphsim.errors import ConfigError
from tests.paths import REFERENCE

TABLE = REFERENCE / "serving" / "inferencemax.csv"
ROW = {
    "hardware": "MI300X", "framework": "sglang", "model": "Qwen/Qwen3-8B", "precision": "bf16", "spec_decoding": "none",
    "disagg": False, "dp_attention": False, "tp": 1, "ep": 1, "concurrency": 4, "input_tokens": 1024,
    "output_tokens": 1024, "mean_tpot_ms": 10.0, "median_ttft_ms": 100.0,
}  # fmt: skip


def test_constants_that_made_the_times_are_found_again() -> None:
    frame = pd.DataFrame(
        [
            ROW | {"concurrency": c, "input_tokens": i, "tp": tp}
            for c in (1, 8, 64)
            for i in (512, 8192)
            for tp in (1, 4)
        ]
    )
    true = Stack(memory=0.7, compute=0.27, kernel_s=8e-6)
    rows = [replace(row, measured_s=row.predicted_s(true)) for row in stack_rows(frame)]
    found = fit_stack(rows)
    assert (found.memory, found.compute) == (true.memory, true.compute)
    assert found.kernel_s == pytest.approx(true.kernel_s, rel=1e-6)


def test_only_rows_of_one_plain_server_count() -> None:
    others = [{"disagg": True}, {"spec_decoding": "mtp"}, {"dp_attention": True}, {"hardware": "H100"},
              {"concurrency": 1024}, {"model": "nobody/Nothing-1B"}]  # fmt: skip
    assert len(stack_rows(pd.DataFrame([ROW, *(ROW | other for other in others)]))) == 1
    with pytest.raises(ConfigError, match="served rows"):
        fit_stack([])


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.is_file(), reason="the reference data are not here")
def test_models_left_out_of_the_reference(tmp_path: Path) -> None:
    frame = pd.read_csv(TABLE)
    frame = frame[frame["hardware"].str.startswith("MI")].iloc[::2]
    for device, engines in stacks_of(stack_rows(frame)).items():
        for own in engines.values():
            tpot = [row for row in own if row.metric == "tpot"]
            assert np.median(np.abs(errors(tpot, fit_stack(own)))) < 0.08
            for out in (left_out_errors(own) or {}).values():
                assert np.median(np.abs(out)) < 0.15, device
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert list(main([str(tmp_path / "rows.csv"), str(tmp_path / "served.json")]))
    assert set(read_stacks(tmp_path / "served.json")) == {"mi300x", "mi355x"}
