"""Recorded requests as traffic: as they came, at another rate, or in a closed loop as their client ran."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from graphsim.cli.traffic import add_traffic, traffic_of
from graphsim.errors import ConfigError
from graphsim.traffic.traffic import Traffic
from tests.traffic.formats import files


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(files.VLLM | {"max_concurrency": 2}))
    return path


def described(options: str) -> Traffic:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lora")
    add_traffic(parser)
    return traffic_of(parser.parse_args(options.split()))


def test_a_trace_comes_as_it_was_recorded(bench: Path) -> None:
    for traffic in (Traffic.from_file(bench), described(f"--trace {bench}")):
        assert traffic.table().arrival_s.tolist() == [0.0, 0.25, 0.75] and traffic.concurrency is None


def test_a_trace_is_stretched_to_a_rate(bench: Path) -> None:
    for traffic in (Traffic.from_file(bench, rate=1.0), described(f"--trace {bench} --rate 1")):
        assert traffic.table().arrival_s.tolist() == pytest.approx([0.0, 1.0, 3.0])


def test_a_trace_runs_in_a_closed_loop_as_its_client_did(bench: Path) -> None:
    for traffic in (Traffic.from_file(bench, concurrency=2), described(f"--trace {bench} --concurrency 2")):
        assert traffic.concurrency == 2 and np.isnan(traffic.table().arrival_s[2:]).all()
        assert traffic.table().input_tokens.tolist() == [120, 80, 160]


def test_stages_are_no_rate_of_a_trace(bench: Path) -> None:
    with pytest.raises(ConfigError, match="a trace is scaled to one rate"):
        described(f"--trace {bench} --rate 1:10,2:10")
