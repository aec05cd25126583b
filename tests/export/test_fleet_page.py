"""A fleet's page and timeline show each replica's own part, and all of it together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.export.serving_series import series_of
from graphsim.export.serving_trace import PROCESSES, serving_trace
from graphsim.serving.fleet.fleet_service import FleetService

from .test_serving_html import figures
from .test_serving_trace import check_rules
from .test_trace import slices

TRAFFIC = gs.Traffic.poisson(rate=60, requests=90, input_tokens=100, output_tokens=20, adapters=6)


@pytest.fixture(scope="module")
def fleet() -> FleetService:
    return gs.serve("gpt-2", "l4", TRAFFIC, replicas=3, lora=gs.LoraConfig(rank=8, max_loras=2))  # type: ignore[return-value]


def test_series_of_a_fleet_add_up(fleet: FleetService) -> None:
    found = series_of(fleet)
    assert len(found.engines) == 3
    for name in ("waiting", "running", "adapters"):
        assert getattr(found, name) == pytest.approx(sum(getattr(each, name) for each in found.engines))
    assert found.kv == pytest.approx(sum(each.kv for each in found.engines) / 3)
    busy = [each.running * found.width_s for each in found.engines]
    whole = [fleet.of_replica(n).over_time.columns for n in range(3)]
    for seen, columns in zip(busy, whole, strict=True):
        assert 0.0 < seen.sum() <= (columns["seconds"] * (columns["batch"] + columns["prompts"])).sum() * 1.01


def test_the_timeline_has_processes_for_each_replica(fleet: FleetService) -> None:
    document = serving_trace(fleet)
    check_rules(document)
    names = {e["args"]["name"]: e["pid"] for e in document["traceEvents"] if e["name"] == "process_name"}
    assert [names[f"replica {n}: engine"] for n in range(3)] == [1, 1 + PROCESSES, 1 + 2 * PROCESSES]
    rows = fleet.requests
    for number in range(3):
        own = [e for e in slices(document, pid=names[f"replica {number}: requests"]) if e["cat"] == "request"]
        told = {int(e["name"].removeprefix("request ")): e["ts"] / 1e6 for e in own}
        expected = rows[rows["replica"] == number]["sent_s"]
        assert told.keys() == set(expected.index)
        assert [told[i] for i in expected.index] == pytest.approx(expected.tolist(), abs=1e-9)
        steps = slices(document, pid=names[f"replica {number}: engine"], tid=1)
        assert len(steps) == len(fleet.of_replica(number).steps)


def test_the_page_has_a_row_and_lines_for_each_replica(fleet: FleetService, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = gs.to_html(fleet, tmp_path / "fleet.html")
    assert "<h2>Replicas</h2>" in page and "Router least-loaded" in page
    drawn = figures(page)["chart-clock"]
    lines = [trace["name"] for trace in drawn["data"] if trace["name"].startswith("replica ")]
    assert sorted(lines) == sorted(["replica 0", "replica 1", "replica 2"] * 4)
    titles = " ".join(note["text"] for note in drawn["layout"]["annotations"])
    assert "queue of each replica" in titles and "adapters in the batch of each replica" in titles
    for row in fleet.replicas.to_dict("records"):
        assert f"<td>{row['requests']}</td>" in page and np.isfinite(row["mean_ttft_s"])


@pytest.mark.slow
def test_the_command_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    page, line = tmp_path / "page.html", tmp_path / "line.json"
    given = ["serve", "gpt-2", "--hardware", "l4", "--rate", "20", "--requests", "40", "--input", "50", "--output", "9"]
    assert main([*given, "--replicas", "2", "--html", str(page), "--timeline", str(line)]) == 0
    assert "Replicas" in page.read_text() and "replica 1: engine" in line.read_text()
    capsys.readouterr()
