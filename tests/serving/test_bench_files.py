"""Every client's result becomes the same figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.serving.bench_files import FIGURES, read_bench
from tests.traffic.formats import files


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def reading(text: str, name: str = "bench.json", **options: Any) -> Any:
        path = tmp_path / name
        path.write_text(text)
        return read_bench(path, **options)

    return reading


TTFT, TPOT, GAPS = [0.1, 0.2, 0.3], [0.025, 0.03], [0.02, 0.03, 0.02, 0.02, 0.05]
"""Of the three requests that all clients' small files hold: seconds, of which one answer has a single token."""


def expected() -> dict[str, float]:
    e2e = [0.15, 0.2, 0.39]
    found = {"completed": 3.0, "total_input_tokens": 360.0, "total_output_tokens": 8.0}
    for name, seconds in (("ttft", TTFT), ("tpot", TPOT), ("itl", GAPS), ("e2el", e2e)):
        found |= {
            f"mean_{name}_ms": 1e3 * float(np.mean(seconds)),
            f"median_{name}_ms": 1e3 * float(np.median(seconds)),
            f"p99_{name}_ms": 1e3 * float(np.percentile(seconds, 99)),
        }
    return found


def without(record: dict[str, Any], *words: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if not key.endswith(words)}


@pytest.mark.parametrize(
    "text, failed",
    [
        (json.dumps(without(files.VLLM, "_ms")), 1),
        (files.lines(without(files.SGLANG, "_ms")), 0),
        (files.AIPERF, 1),
    ],
    ids=["vllm", "sglang", "aiperf"],
)
def test_the_same_requests_give_the_same_figures_whoever_measured_them(read: Any, text: str, failed: int) -> None:
    found = read(text)
    assert {name: found.figures[name] for name in expected()} == pytest.approx(expected())
    assert found.answered is not None and found.answered.failed == failed
    assert found.figures.get("failed", 0.0) == failed


def test_aiperf_s_run_lasts_from_first_request_to_last_answer(read: Any) -> None:
    figures = read(files.AIPERF).figures
    assert figures["duration"] == pytest.approx(0.75 + 0.39)
    assert figures["output_throughput"] == pytest.approx(8 / 1.14)


@pytest.mark.parametrize("text", [json.dumps(files.VLLM), files.lines(files.SGLANG)], ids=["vllm", "sglang"])
def test_what_a_client_states_goes_ahead_of_what_its_requests_give(read: Any, text: str) -> None:
    figures = read(text).figures
    assert figures["p99_ttft_ms"] == 298.0 and figures["p99_itl_ms"] == 49.2
    assert figures["total_token_throughput"] == 184.0 and figures["duration"] == 2.0
    assert figures["mean_e2el_ms"] == pytest.approx(246.0, abs=1.0)


def test_aggregates_alone_are_enough(read: Any) -> None:
    found = read(json.dumps({key: value for key, value in files.VLLM.items() if key not in files.DETAILS}, indent=4))
    assert found.answered is None and found.figures["median_tpot_ms"] == 27.5
    assert found.request_rate == 4.0 and found.max_concurrency is None
    closed = read(json.dumps(without(files.VLLM, *files.DETAILS) | {"request_rate": "inf", "max_concurrency": 16}))
    assert math.isinf(closed.request_rate) and closed.max_concurrency == 16


def test_aiperf_s_inter_token_latency_is_tpot(read: Any) -> None:
    found = read(json.dumps(files.AIPERF_AGGREGATE))
    assert found.figures["mean_tpot_ms"] == 35.2 and "mean_itl_ms" not in found.figures
    assert found.figures["median_ttft_ms"] == 175.05 and found.figures["p99_e2el_ms"] == 2439.45
    assert found.figures["duration"] == 12.14 and found.figures["completed"] == 10
    assert found.figures["output_throughput"] == 52.69 and found.figures["total_input_tokens"] == 2560
    chunks = files.AIPERF_AGGREGATE | {"inter_chunk_latency": {"unit": "us", "avg": 25000.0, "p50": 24000.0}}
    assert read(json.dumps(chunks)).figures["mean_itl_ms"] == pytest.approx(25.0)


def test_early_releases_of_aiperf_wrote_ttft(read: Any) -> None:
    early = files.AIPERF.replace("time_to_first_token", "ttft")
    assert read(early).figures["mean_ttft_ms"] == pytest.approx(200.0)
    renamed = {"ttft" if key == "time_to_first_token" else key: value for key, value in files.AIPERF_AGGREGATE.items()}
    assert read(json.dumps(renamed)).figures["mean_ttft_ms"] == 195.84


def test_inferencemax_s_seconds_become_milliseconds(read: Any) -> None:
    found = read(json.dumps({"hw": "h200", "conc": 64, "mean_ttft": 0.31, "median_tpot": 0.0125, "p99_itl": 0.05}))
    assert found.figures == pytest.approx({"mean_ttft_ms": 310.0, "median_tpot_ms": 12.5, "p99_itl_ms": 50.0})


def test_a_table_with_measured_times(read: Any) -> None:
    found = read(files.MEASURED, "runs.csv")
    assert found.figures["mean_ttft_ms"] == pytest.approx(1e3 * (0.6913 + 0.4262) / 2)
    assert found.figures["mean_tpot_ms"] == pytest.approx(
        1e3 * np.mean([(17.5722 - 0.6913) / 530, (25.3559 - 0.4262) / 768])
    )
    assert found.figures["duration"] == pytest.approx(25.621)


def test_zeros_that_stand_for_nothing_are_no_figures(read: Any) -> None:
    """SGLang writes 0 for what answers that were not streamed have no value of."""
    found = read(json.dumps(without(files.SGLANG, *files.DETAILS) | {"mean_itl_ms": 0.0, "median_itl_ms": 0.0}))
    assert "mean_itl_ms" not in found.figures and "mean_ttft_ms" in found.figures


def test_of_several_runs_one_is_taken(read: Any) -> None:
    text = files.lines(files.SGLANG, files.SGLANG | {"mean_ttft_ms": 1.0})
    assert read(text).figures["mean_ttft_ms"] == 1.0 and "2 runs" in read(text).notes[0]
    assert read(text, run=1).figures["mean_ttft_ms"] == 200.0


def test_figures_come_in_their_order(read: Any) -> None:
    names = list(read(json.dumps(files.VLLM)).figures)
    assert names == [name for name in FIGURES if name in names]


@pytest.mark.parametrize(
    "text, words",
    [
        ("{}", "hold no latencies; expected a result of vllm bench serve"),
        ('{"mean_ttft_ms": "fast"}', "line 1: mean_ttft_ms = 'fast' is not allowed; expected a number"),
        ('{"mean_ttft_ms": -1}', "mean_ttft_ms = -1 is not allowed"),
        ('{"mean_ttft": NaN}', "mean_ttft = nan is not allowed"),
        ('{"time_to_first_token": {"avg": 3, "unit": "days"}}', "unit = 'days' is not allowed; expected one of"),
        ("a,b\n1,2\n", "columns 'a, b' hold no measured times"),
        ("", "the file is empty"),
        (files.lines(files.failed_record(0.0)), "no request of it was answered"),
    ],
)
def test_what_is_no_result_is_said(read: Any, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(text)
