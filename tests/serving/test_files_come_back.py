"""What graphsim writes of a run is read back as the run it was: as a trace, and as a measured run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphsim.serving.bench_files import BenchRun, read_bench
from graphsim.serving.measured import compare_measured, where_they_part
from graphsim.traffic.formats.read import read_trace

from .hand_made import hand_made


@pytest.fixture(params=["json", "jsonl"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    service, path = hand_made(), tmp_path / f"run.{request.param}"
    return service.to_json(path) if request.param == "json" else service.to_jsonl(path)


def test_figures_come_back(written: Path) -> None:
    service = hand_made()
    table = compare_measured(service, written).set_index("metric")
    latencies = table[table.index.str.endswith("_ms")]
    whole = latencies[~latencies.index.str.contains("itl")]
    assert len(latencies) == 24 and whole["error"].abs().max() < 1e-6
    assert latencies["error"].abs().max() < 0.04  # gaps of answers that broke off are in the run's, not in its records
    assert table.loc["completed", "error"] == 0.0
    told = where_they_part(service, written)
    assert told and not any(line.startswith(("Engine", "Queueing", "First", "Only")) for line in told)


def test_requests_come_back(written: Path) -> None:
    service = hand_made()
    done = service.requests[np.isfinite(service.requests["e2e_s"])]
    found = read_trace(written).table
    assert sorted(found.input_tokens) == sorted(done["input_tokens"])
    assert sorted(found.output_tokens) == sorted(done["output_tokens"])
    run: BenchRun = read_bench(written)
    assert run.answered is not None
    ttft = run.answered.ttft_s[np.isfinite(run.answered.ttft_s)]
    assert np.sort(ttft) == pytest.approx(np.sort(done["ttft_s"].to_numpy()), abs=1e-6)


def test_aggregates_alone_come_back(tmp_path: Path) -> None:
    service = hand_made()
    path = service.to_json(tmp_path / "lean.json", details=False)
    assert compare_measured(service, path)["error"].abs().max() < 1e-12
