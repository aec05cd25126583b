"""Submissions to MLPerf Inference: which rows are predicted, of how many devices, and how near they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphsim.validation import serving_mlperf
from graphsim.validation.serving_mlperf import mlperf_lines

ROW: dict[str, Any] = {
    "id": "mlperf60-900", "hardware": "NVIDIA B300-SXM-270GB", "accelerators": 8, "model": "llama2-70b-99",
    "scenario": "Server", "metric": "tokens_per_s", "value": 108_000, "unit": "tokens/s",
}  # fmt: skip


def lines(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return list(mlperf_lines([ROW | change for change in changes], None))


def test_one_device_stands_for_all_of_a_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def capacity(*given: Any) -> tuple[float, str]:
        asked.append(given)
        return 1000.0, "as told"

    monkeypatch.setattr(serving_mlperf, "_capacity", capacity)
    one, many, fast = lines({}, {"hardware": "AMD Instinct MI355X 288GB HBM3e (x87)", "accelerators": 87},
                            {"scenario": "Interactive"})  # fmt: skip
    assert one["predicted"] == 8000.0 and one["error"] == pytest.approx(8000 / 108_000 - 1) and not one["problem"]
    assert many["predicted"] == 87_000.0 and many["configuration"] == "as told"
    assert fast["metric"] == "tokens_per_s"
    assert asked == [
        ("llama-2-70b", 294.45, "b300-sxm", 2.0, 0.2), ("llama-2-70b", 294.45, "mi355x", 2.0, 0.2),
        ("llama-2-70b", 294.45, "b300-sxm", 0.45, 0.04),
    ]  # fmt: skip


def test_rows_that_say_too_little_say_so() -> None:
    found = lines({"scenario": "Offline"}, {"model": "deepseek-r1"}, {"hardware": "a large computer"})
    assert [line["problem"] for line in found] == [
        "scenario Offline has no limits that a server keeps", "lengths of the requests of deepseek-r1 are not known",
        "device a large computer is not known",
    ]  # fmt: skip
    assert all(np.isnan(line["predicted"]) for line in found)


@pytest.mark.slow
def test_a_submission_on_blackwell_is_met_from_below() -> None:
    """13,549 tokens/s of each B300, the median of the six systems of MLPerf Inference 6.0; asked: 50 to 110 %."""
    (line,) = lines({"value": 8 * 13_549})
    assert -0.5 <= line["error"] <= 0.1
    assert "nvfp4" in line["configuration"] and "one b300-sxm" in line["configuration"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hardware", "scenario", "each", "precision"),
    [
        ("AMD Instinct MI300X 192GB HBM3", "Server", 3_120, "fp8"),
        ("AMD Instinct MI355X 288GB HBM3e", "Server", 12_198, "mxfp4_w4a4"),
        ("AMD Instinct MI355X 288GB HBM3e", "Interactive", 8_962, "mxfp4_w4a4"),
    ],
)
def test_a_submission_on_cdna_is_met_from_below(hardware: str, scenario: str, each: float, precision: str) -> None:
    """The medians of MLPerf Inference 6.0 for each device, in tokens/s; asked: 50 to 110 %."""
    (line,) = lines({"hardware": hardware, "scenario": scenario, "value": 8 * each})
    assert -0.5 <= line["error"] <= 0.1
    assert f", {precision}, " in line["configuration"]
