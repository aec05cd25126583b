"""The scheduler of an engine's profile: read, inherited, checked."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphsim as gs
from graphsim.lora.profile import load_profile

SERVING = ("vllm-0.8", "vllm-0.11", "vllm-0.15", "vllm", "sglang", "sglang-0.5.9", "sglang-0.4", "trtllm")


@pytest.mark.parametrize("name", SERVING)
def test_an_engine_that_serves_says_by_which_rules(name: str) -> None:
    scheduler = load_profile(name).scheduler
    assert scheduler.flags
    assert scheduler.captured_sizes == tuple(sorted(set(scheduler.captured_sizes)))
    for field in ("admission", "shortage", "policy", "prefix_cache", "max_loras", "skips", "eviction"):
        assert scheduler.sources[field], field


def test_versions_differ_where_their_rules_do() -> None:
    old, new = load_profile("vllm-0.8").scheduler, load_profile("vllm").scheduler
    assert (old.admission, new.admission) == ("blocks", "whole_prompt")
    assert 264 in old.captured_sizes and 264 not in new.captured_sizes
    assert old.sources["policy"].startswith("inherited from vllm: ")


def test_sizes_are_numbers_and_ranges(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: vllm\nscheduler: {captured_sizes: [1, 2-3, 8-24/8], max_loras: 4}\n")
    scheduler = load_profile(path).scheduler
    assert scheduler.captured_sizes == (1, 2, 3, 8, 16, 24)
    assert scheduler.max_loras == 4 and scheduler.admission == "whole_prompt"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scheduler: {admission: soon}", "scheduler.admission = 'soon'"),
        ("scheduler: {admissions: blocks}", "scheduler.admissions is not a known key"),
        ("scheduler: {watermark: 2}", "scheduler.watermark = 2"),
        ("scheduler: {captured_sizes: [8-]}", "scheduler.captured_sizes"),
        ("scheduler: {captured_sizes: [9-8]}", "scheduler.captured_sizes"),
        ("scheduler: {captured_sizes: [0]}", "scheduler.captured_sizes"),
        ("scheduler: {skips: maybe}", "scheduler.skips"),
    ],
)
def test_a_wrong_value_is_told_by_file_and_field(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: vllm\n{text}\n")
    with pytest.raises(gs.ConfigError, match="mine.yaml") as raised:
        load_profile(path)
    assert told in str(raised.value)
