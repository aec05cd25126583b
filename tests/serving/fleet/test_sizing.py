"""The cheapest fleet that keeps its limits, and why the others are not."""

from __future__ import annotations

import json
import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.serving.fleet.size_bounds import least_replicas, why_never
from graphsim.serving.serve import serving_of
from tests.command import status_of

LIMITS = {"ttft_s": 0.15, "tpot_s": 0.006}
CHOICES = {"hardware": ["l4", "l40s"], "max_num_seqs": [4, 8], "router": ["least-loaded", "round-robin"]}
PRICES = {"l4": 1.0, "l40s": 3.0}


def traffic(rate: float = 160.0, requests: int = 300, **more: Any) -> gs.Traffic:
    return gs.Traffic.poisson(rate=rate, requests=requests, input_tokens=200, output_tokens=60, **more)


def sized(**changes: Any) -> pd.DataFrame:
    given = {"slo": LIMITS, "choices": CHOICES, "price_per_hour": PRICES, "attainment": 0.95} | changes
    return gs.size_fleet("gpt-2", traffic(), given.pop("slo"), given.pop("choices"), **given)


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return sized()


def alike(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=False, rtol=1e-12)


@pytest.mark.slow
def test_every_choice_has_a_row_and_the_cheapest_is_first(found: pd.DataFrame) -> None:
    assert len(found) == 8 and found.index.tolist() == list(range(1, 9))
    kept = found[found["kept"]]
    assert kept.index.tolist() == list(range(1, len(kept) + 1))
    assert kept["cost_per_hour"].is_monotonic_increasing
    assert (kept["cost_per_hour"] == kept["replicas"] * kept["hardware"].map(PRICES)).all()
    per_token = kept["cost_per_hour"] / 3600.0 / kept["output_throughput"]
    assert kept["cost_per_token"].to_numpy() == pytest.approx(per_token.to_numpy())
    assert found["reason"].iloc[0] == "" and found["reason"].iloc[1:].str.len().gt(0).all()


@pytest.mark.slow
def test_the_winner_keeps_the_limits_and_one_replica_less_does_not(found: pd.DataFrame) -> None:
    first = found.iloc[0]
    for replicas, keeps in ((int(first["replicas"]), True), (int(first["replicas"]) - 1, False)):
        if not replicas:
            continue
        service = gs.serve(
            "gpt-2", first["hardware"], traffic(), replicas=replicas, router=first["router"],
            limits=gs.EngineLimits(max_num_seqs=int(first["max_num_seqs"])),
        )  # fmt: skip
        share = service.goodput(**LIMITS).share
        assert (share >= 0.95) == keeps
        if keeps:
            assert share == first["attainment"]


@pytest.mark.slow
def test_nothing_that_was_left_out_is_cheaper(found: pd.DataFrame) -> None:
    """Against all choices worked out to their end."""
    whole = sized(runners_up=8)
    assert whole["kept"].sum() >= found["kept"].sum()
    columns = ["hardware", "max_num_seqs", "router", "replicas", "cost_per_hour"]
    shown = min(6, int(found["kept"].sum()))
    assert whole.head(shown)["cost_per_hour"].tolist() == found.head(shown)["cost_per_hour"].tolist()
    assert whole.iloc[0][columns].tolist() == found.iloc[0][columns].tolist()


class Counts(Executor):
    """Does everything at once, here. calls: choices that it was given"""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, function: Any, /, *args: Any, **named: Any) -> Future[Any]:
        self.calls += len(args[0])
        future = Future[Any]()
        future.set_result(function(*args, **named))
        return future


class Breaks(Counts):
    """Gives up after some pieces of work."""

    def submit(self, function: Any, /, *args: Any, **named: Any) -> Future[Any]:
        if self.calls >= 3:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return super().submit(function, *args, **named)


@pytest.mark.slow
def test_whoever_works_the_answer_is_the_same(found: pd.DataFrame) -> None:
    executor = Counts()
    alike(sized(executor=executor), found)
    assert executor.calls >= 8
    alike(sized(executor=Breaks()), found)
    alike(sized(executor=Breaks), found)


def _dies(_: Any) -> None:
    os._exit(3)


@pytest.mark.slow
def test_killed_workers_lose_nothing(found: pd.DataFrame) -> None:
    def pools() -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(1)
        if not made:
            pool.submit(_dies, None)
        made.append(pool)
        return pool

    made: list[ProcessPoolExecutor] = []
    alike(sized(executor=pools), found)
    assert len(made) > 1


@pytest.mark.slow
def test_a_break_loses_nothing(found: pd.DataFrame, tmp_path: Path) -> None:
    """From half of the lines and a torn one, the search goes on."""
    file = tmp_path / "found.jsonl"
    alike(sized(resume=file), found)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:20])
    again = Counts()
    alike(sized(resume=file, executor=again), found)
    assert again.calls < len(lines) - 1 and file.read_text().count("\n") == len(lines)
    nothing = Counts()
    alike(sized(resume=file, executor=nothing), found)
    assert nothing.calls == 0


def test_results_of_another_question_are_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    file.write_text('{"size_fleet": "another", "choices": 8}\n')
    with pytest.raises(gs.ConfigError, match="does not hold results of this question"):
        sized(resume=file)
    assert file.read_text() == '{"size_fleet": "another", "choices": 8}\n'


@pytest.mark.slow
@pytest.mark.parametrize("rate", [20.0, 200.0])
def test_bounds_exclude_nothing_that_runs_allow(rate: float) -> None:
    """The bound lies at or below the fewest replicas that keep the limits."""
    asked = traffic(rate=rate)
    limits = gs.EngineLimits(max_num_seqs=4)
    serving = serving_of("gpt-2", "l4", asked, limits=limits)
    assert why_never(serving, LIMITS, 0.95) == ""
    least = least_replicas(serving, LIMITS, 0.95)
    keeps = next(
        n for n in range(1, 40)
        if gs.serve("gpt-2", "l4", asked, limits=limits, replicas=n).goodput(**LIMITS).share >= 0.95
    )  # fmt: skip
    assert 1 <= least <= keeps <= 4 * least


def test_hopeless_limits_are_told_without_a_run() -> None:
    serving = serving_of("gpt-2", "l4", traffic())
    assert "a token takes" in why_never(serving, {"tpot_s": 1e-5}, 0.95)
    assert "a prompt of 200 tokens takes" in why_never(serving, {"ttft_s": 1e-5}, 0.95)
    with pytest.raises(gs.InfeasibleError, match=r"none of 8 choices keeps TPOT 10 µs .*a token takes"):
        sized(slo={"tpot_s": 1e-5})


def test_what_comes_nearest_is_told_where_nothing_keeps_the_limits() -> None:
    with pytest.raises(gs.InfeasibleError, match=r"nearest is hardware l4, .*% of the requests keep TTFT"):
        sized(choices={"hardware": "l4", "max_num_seqs": 4, "replicas": [1]}, price_per_hour=None)


@pytest.mark.slow
def test_a_choice_that_cannot_be_run_says_why(found: pd.DataFrame) -> None:
    table = sized(choices={"hardware": ["l4"], "max_num_seqs": [4], "kv_tokens": [64, 100_000]}, price_per_hour=1.0)
    assert table["kept"].tolist() == [True, False] and "longer than a replica takes" in table["reason"].iloc[1]


@pytest.mark.slow
def test_without_prices_fewest_devices_win() -> None:
    table = sized(price_per_hour=None)
    assert "cost_per_hour" not in table and table["devices"].iloc[0] == table[table["kept"]]["devices"].min()


@pytest.mark.slow
def test_adapters_slots_and_classes_are_taken() -> None:
    asked = traffic(rate=20.0, adapters=8, classes=[gs.RequestClass(name="chat", share=1.0, ttft_s=1.0, tpot_s=0.02)])
    table = gs.size_fleet(
        "gpt-2", asked, {}, {"hardware": "l4", "slots": [2, 8], "router": ["placed"]}, attainment=0.9,
        lora=gs.LoraConfig(rank=8),
    )  # fmt: skip
    assert set(table["max_loras"]) == {2, 8} and table["kept"].iloc[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"choices": {}}, "choices = .* is not allowed; expected a mapping"),
        ({"choices": {"tp": [1]}}, "choices.hardware is missing"),
        ({"choices": {"hardware": []}}, "choices.hardware is an empty list"),
        ({"choices": {"hardware": ["l4"], "tpp": 1}}, "choices.tpp is not known; did you mean 'tp'"),
        ({"choices": {"hardware": ["l4"], "replicas": [0]}}, "choices.replicas = 0 is not allowed"),
        ({"choices": {"hardware": ["l4"], "router": ["luck"]}}, "router = 'luck' is not known"),
        ({"choices": {"hardware": ["l4", "l4"]}}, "choices.hardware = 'l4' is named twice"),
        ({"choices": {"hardware": ["l4"], "prefill_replicas": [-1]}}, "choices.prefill_replicas = -1 is not allowed"),
        ({"choices": {"hardware": ["l4"], "prefill_tp": [2]}}, "choices.prefill_tp needs choices.prefill_replicas"),
        ({"choices": {"hardware": ["l4"], "speculation": ["mtp"]}}, "speculation = 'mtp' is not a Speculation"),
        ({"choices": {"hardware": ["l4"], "slots": 1, "max_loras": 2}}, "another name for max_loras"),
        ({"replicas": 3}, "replicas is the value to be found"),
        ({"router": "llm-d"}, "router and choices.router are both given"),
        ({"parallelism": gs.Parallelism(tp=2), "choices": {"hardware": "l4", "tp": 1}}, "parallelism and choices.tp"),
        ({"lorra": None}, "lorra is not known; did you mean 'lora'"),
        ({"slo": {}}, "slo has no limit to keep"),
        ({"slo": {"speed": 1}}, "slo.speed is not known"),
        ({"slo": {"ttft_s": "soon"}}, "slo.ttft_s = 'soon' is not allowed"),
        ({"slo": {"ttft_s": -1}}, "-1"),
        ({"slo": 3}, "slo = 3 is not allowed; expected a mapping"),
        ({"attainment": 2}, "attainment = 2 is not allowed"),
        ({"runners_up": 0}, "runners_up = 0 is not allowed"),
        ({"price_per_hour": {"l4": 1.0}}, "price_per_hour has no price for l40s"),
        ({"price_per_hour": 0}, "is not allowed; expected a number above 0"),
    ],
)
def test_mistakes_are_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(gs.ConfigError, match=words) as caught:
        sized(**changes)
    assert "\n" not in str(caught.value)


FLEET = [
    "fleet", "gpt-2", "--hardware", "l4", "l40s", "--rate", "160", "--requests", "200", "--input", "200",
    "--output", "60", "--slo", "ttft=0.15,tpot=0.006", "--attainment", "0.95", "--price", "l4=1,l40s=3",
]  # fmt: skip


@pytest.mark.slow
def test_the_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*FLEET, "--choose", "max_num_seqs=4,8", "--top", "3"]) == 0
    out = capsys.readouterr().out
    assert "choices keep the limits; the cheapest first" in out and "… and 1 more" in out and "max_num_seqs" in out
    assert main([*FLEET, "--replicas", "1-4", "--json", "--resume", str(tmp_path / "kept.jsonl")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["choices"] == 2 and told["fleets"][0]["kept"] and told["fleets"][0]["reason"] == ""
    assert np.isfinite(told["fleets"][0]["cost_per_token"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--tp", "two"], "--tp: 'two' is not a whole number or a range; write 8, 1,2,4, 1-64"),
        (["--replicas", "4-2"], "--replicas: '4-2' runs from 4 down to 2; put the smaller number first"),
        (["--choose", "max_num_seqs"], "--choose max_num_seqs: expected FLAG=VALUE"),
        (["--router", "luck"], "router = 'luck' is not known"),
        (["--slots", "0"], "--slots: '0' is not allowed"),
    ],
)
def test_mistakes_of_the_command_are_one_sentence(
    capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert status_of([*FLEET, *more]) == 2
    told = capsys.readouterr()
    assert words in told.err and told.err.count("\n") == 1 and not told.out
