"""An explanation's parts add up to what they explain, cause by cause."""

from __future__ import annotations

import itertools
import json
import math
import re

import numpy as np
import pytest

import graphsim as gs
from graphsim.analysis.explanation import CAUSES
from graphsim.cli import main

CASE = ("llama-2-7b", "a100-sxm-80gb")
"""Published estimates of this case differ by half: 93 to 135 ms to the first token, 6.8 to 16.6 ms for the others."""


@pytest.fixture(scope="module")
def estimate() -> gs.Estimate:
    return gs.simulate(*CASE, input_tokens=2048, engine="reference")


def sums(found: gs.Explanation) -> dict[str, float]:
    return {
        name: math.fsum(part.total_s for part in found.parts if part.quantity == name) for name in ("ttft_s", "tpot_s")
    }


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"cost": "roofline"},
        {"output_tokens": 1},
        {"parallelism": gs.Parallelism(tp=2)},
        {"parallelism": gs.Parallelism(tp=2, pp=2), "batch": 6},
        {"lora": gs.LoraConfig(rank=16)},
        {"lora": gs.LoraConfig(rank=16, strategy="merge")},
        {"lora": gs.LoraConfig(rank=16), "engine": "vllm"},
        {"lora": gs.LoraConfig(rank=16), "engine": "peft"},
    ],
)
def test_parts_add_up_to_the_latency(asked: dict[str, object]) -> None:
    found = gs.simulate(*CASE, **{"engine": "reference", **asked})  # type: ignore[arg-type]
    parts = sums(gs.explain(found))
    assert parts["ttft_s"] == pytest.approx(found.ttft_s, rel=1e-11)
    assert parts["tpot_s"] == pytest.approx(found.tpot_s, rel=1e-11)


@pytest.mark.parametrize("model", ["mixtral-8x7b", "gemma-2-9b", "qwen3-30b-a3b"])
def test_parts_add_up_for_other_families(model: str) -> None:
    found = gs.simulate(model, "h100-sxm", parallelism=gs.Parallelism(tp=4), batch=3, engine="reference")
    parts = sums(gs.explain(found))
    assert parts["ttft_s"] == pytest.approx(found.ttft_s, rel=1e-11)
    assert parts["tpot_s"] == pytest.approx(found.tpot_s, rel=1e-11)


def test_the_datasheet_part_of_a_prompt_is_flops_over_peak(estimate: gs.Estimate) -> None:
    frame = gs.explain(estimate).to_frame()
    gemms = frame[(frame["quantity"] == "ttft_s") & (frame["op_type"] == "GEMM") & (frame["compute_s"] > 0)]
    hidden, inter, tokens = 4096, 11008, 2048
    flops = 32 * 2.0 * tokens * (4 * hidden**2 + 3 * hidden * inter)
    assert gemms["flops"].sum() == pytest.approx(flops, rel=1e-12)
    assert gemms["compute_s"].sum() == pytest.approx(flops / 312e12, rel=1e-9)


def test_the_datasheet_part_of_a_token_is_weights_and_cache_over_bandwidth(estimate: gs.Estimate) -> None:
    memory_s = gs.explain(estimate).causes("tpot_s")["memory_s"]
    context = 2048 + 126 / 2
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 4096 * 32000
    least_s = 2 * (weights + 32 * 2 * context * 4096) / 2.039e12
    assert least_s < memory_s < 1.01 * least_s


def test_the_published_spread_is_told_by_its_causes(estimate: gs.Estimate) -> None:
    low = gs.explain(estimate, measured={"ttft_s": 0.093, "tpot_s": 0.0068})
    high = gs.explain(estimate, measured={"ttft_s": 0.135, "tpot_s": 0.0166})
    assert "datasheet's rates alone" in str(low), "below what the datasheet allows in bf16"
    assert "waits" in str(high)
    for found, ttft_s in ((low, 0.093), (high, 0.135)):
        assert sums(found)["ttft_s"] == pytest.approx(ttft_s, rel=1e-12)
        gap = next(part for part in found.parts if part.part == "not explained")
        assert gap.total_s == pytest.approx(ttft_s - estimate.ttft_s, rel=1e-9)


def test_one_measured_time_is_enough(estimate: gs.Estimate) -> None:
    assert list(gs.explain(estimate, measured={"tpot_s": 0.02}).totals) == ["tpot_s"]


def test_a_difference_adds_up_and_is_the_negative_of_its_reverse(estimate: gs.Estimate) -> None:
    bare = gs.simulate(*CASE, input_tokens=2048, cost="roofline", engine="reference")
    there, back = gs.explain(bare, estimate), gs.explain(estimate, bare)
    for name in ("ttft_s", "tpot_s"):
        expected = getattr(estimate, name) - getattr(bare, name)
        assert sums(there)[name] == pytest.approx(expected, rel=1e-9)
        assert there.totals[name] == expected == -back.totals[name]
    assert there.causes("ttft_s")["compute_s"] == 0, "the work is the same"
    assert there.causes("ttft_s")["shortfall_s"] > 0, "kernels reach less than the datasheet"


def test_an_adapter_shows_as_parts_of_its_own() -> None:
    base = gs.simulate(*CASE, engine="reference")
    adapted = gs.simulate(*CASE, lora=gs.LoraConfig(rank=16), engine="reference")
    parts = {part.op_type: part for part in gs.explain(base, adapted).parts if part.part == "LoRA"}
    assert {"GEMM_LORA_A", "GEMM_LORA_B", "ADD"} <= set(parts)
    assert all(part.total_s > 0 for part in parts.values())


def test_each_scenario_has_its_own_explanation() -> None:
    many = gs.simulate(*CASE, batch=np.array([1.0, 8.0]), engine="reference")
    for scenario, batch in enumerate((1, 8)):
        found, alone = (
            gs.explain(many, scenario=scenario),
            gs.explain(gs.simulate(*CASE, batch=batch, engine="reference")),
        )
        assert found.totals["ttft_s"] == pytest.approx(alone.totals["ttft_s"], rel=1e-9)
        assert found.causes("tpot_s") == pytest.approx(alone.causes("tpot_s"), rel=1e-6, abs=1e-9)


def test_mistakes_are_told(estimate: gs.Estimate) -> None:
    with pytest.raises(gs.ConfigError, match="empty"):
        gs.explain(estimate, measured={})
    with pytest.raises(gs.ConfigError, match="ttft"):
        gs.explain(estimate, measured={"ttft": 1.0})
    with pytest.raises(gs.ConfigError, match="above 0"):
        gs.explain(estimate, measured={"ttft_s": -1.0})
    with pytest.raises(gs.ConfigError, match="not both"):
        gs.explain(estimate, estimate, measured={"ttft_s": 1.0})
    with pytest.raises(gs.ConfigError, match="Estimate"):
        gs.explain("llama")  # type: ignore[arg-type]
    with pytest.raises(gs.ConfigError, match="not explained"):
        gs.explain(estimate).causes("latency_s")


COMMAND = ["explain", CASE[0], "--hardware", CASE[1], "--input", "2048"]


@pytest.mark.parametrize("more", [[], ["--measured", "ttft=135ms,tpot=0.0166"], ["--against", "cost=roofline"]])
def test_the_command_prints_json_whose_parts_add_up(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name, total in found["totals"].items():
        parts = [part for part in found["parts"] if part["quantity"] == name]
        assert math.fsum(part[cause] for part in parts for cause in CAUSES) == pytest.approx(total, rel=1e-9)


def test_the_engine_may_be_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--lora", "rank=16", "--engine", "vllm", "--against", "engine=reference"]
    assert main([*COMMAND, *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert any(part["op_type"] == "GEMM_LORA_A" and part["total_s"] < 0 for part in found["parts"])


def test_a_difference_names_the_settings_that_differ() -> None:
    one = gs.simulate(*CASE, batch=[1, 2], lora=gs.LoraConfig(rank=8))
    other = gs.simulate(*CASE, batch=[4, 2], parallelism=gs.Parallelism(tp=2), precision="fp8", cost="roofline")
    found = gs.explain(one, other, scenario=1)
    assert found.changes == {
        "cost": ("calibrated", "roofline"), "precision": ("bf16", "fp8"), "parallelism.tp": ("1", "2"),
        "lora": ("lora rank 8 dynamic", "none"),
    }  # fmt: skip
    assert gs.explain(one, other).changes["batch"] == ("1", "4")
    assert gs.explain(one, gs.simulate(*CASE, batch=2, lora=gs.LoraConfig(rank=16)), scenario=0).changes == {
        "batch": ("1", "2"), "lora.rank": ("8", "16"),
    }  # fmt: skip
    steps = [gs.train("gpt-2", "l4", seq_len=64, method=method) for method in ("lora", "full")]
    assert gs.explain(*steps).changes["method"] == ("lora", "full")


def test_what_does_not_differ_is_no_part_of_a_difference() -> None:
    """Nor is what rounding leaves, some 1e-19 s."""
    bare = gs.simulate(*CASE)
    found = gs.explain(bare, gs.simulate(*CASE, lora=gs.LoraConfig(rank=8)))
    assert {part.part for part in found.parts} == {"LoRA", "engine"}
    assert all(abs(part.total_s) > 1e-12 for part in found.parts)
    assert not gs.explain(bare, bare).parts and not gs.explain(bare, bare).changes


TIME = re.compile(r"-?[0-9.,]+ (?:ns|µs|ms|s)")


@pytest.mark.parametrize("against", ["lora=off", "batch=2", "precision=fp8", "hardware=h100-sxm", "cost=roofline"])
def test_the_table_of_a_difference_is_easy_to_read(against: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What differs comes first; no row is empty; a column has one unit and as many decimals in each of its cells."""
    assert main([*COMMAND, "--lora", "rank=16", "--against", against]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("what differs: ") and against.partition("=")[0] in lines[1]
    heads = [at for at, line in enumerate(lines) if line.startswith("part ")]
    assert len(heads) == 2
    for head in heads:
        widths = [len(dashes) for dashes in lines[head + 1].split("  ")]
        rows = itertools.takewhile(bool, lines[head + 2 :])
        columns = list(zip(*(_cells(row, widths)[2:] for row in rows), strict=True))
        for column in columns:
            numbers = [cell for cell in column if cell != "-"]
            assert numbers, "a column of nothing"
            assert len({(cell.partition(" ")[2], len(cell.split()[0].partition(".")[2])) for cell in numbers}) == 1
            assert all(TIME.fullmatch(cell) or not cell.endswith("s") for cell in numbers)
            assert not any("e-" in cell for cell in numbers)
        assert all(any(cell != "-" for cell in row) for row in zip(*columns, strict=True))


def _cells(row: str, widths: list[int]) -> list[str]:
    ends = list(itertools.accumulate(width + 2 for width in widths))
    return [row[start:end].strip() for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def test_the_command_prints_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--measured", "tpot=16.6ms", "--top", "3"]) == 0
    text = capsys.readouterr().out
    for expected in ("tpot: 16.6 ms", "others", "together", "shortfall", "the measured time needs"):
        assert expected in text


@pytest.mark.parametrize(
    "more",
    [
        ["--measured", "ttft"],
        ["--measured", "ttft=soon"],
        ["--measured", "speed=1"],
        ["--against", "hardwear=l4"],
        ["--against", "lora=on"],
        ["--against", "tp=two"],
        ["--against", "tp=2", "--measured", "ttft=1"],
    ],
)
def test_the_command_tells_mistakes(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, *more]) == 2
    assert capsys.readouterr().err.startswith("graphsim: ")
