"""Sweeps: every scenario of the product is a row, equal to simulating it alone, or says why it cannot be."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.cost.base import Cost
from graphsim.cost.roofline import roofline
from tests.command import status_of

CHOICES = {
    "batch": [1, 8],
    "input_tokens": [64, 1000],
    "output_tokens": [1, 33],
    "tp": [1, 2, 3],
    "rank": [0, 16],
    "strategy": ["base", "dynamic", "merge"],
}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return gs.sweep(["llama-3.2-1b", "gpt-2"], ["l4", "h100-sxm"], cost="roofline", **CHOICES, engine="reference")


def test_there_is_one_row_per_scenario_of_the_product_in_order(table: pd.DataFrame) -> None:
    assert len(table) == 2 * 2 * 2 * 2 * 2 * 3 * 2 * 3
    assert not table.duplicated([*CHOICES, "model", "hardware"]).any()
    assert list(dict.fromkeys(table["model"])) == ["llama-3.2-1b", "gpt-2"]


def test_rows_equal_single_simulations(table: pd.DataFrame) -> None:
    for _, row in table[table["reason"] == ""].sample(40, random_state=0).iterrows():
        lora = None if row["strategy"] == "base" else gs.LoraConfig(rank=row["rank"], strategy=row["strategy"])
        estimate = gs.simulate(
            row["model"],
            row["hardware"],
            row["batch"],
            row["input_tokens"],
            row["output_tokens"],
            parallelism=gs.Parallelism(tp=row["tp"]),
            lora=lora,
            cost="roofline",
            engine="reference",
        )
        for name in ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "one_time_s"):
            assert row[name] == pytest.approx(getattr(estimate, name), rel=1e-9)
        assert row["memory_bytes"] == pytest.approx(estimate.memory.total_bytes, rel=1e-12)


def test_calibrated_rows_are_within_one_in_ten_thousand() -> None:
    table = gs.sweep(
        "llama-3.2-1b", "h100-sxm", batch=[1, 16], output_tokens=[200], input_tokens=[100, 3000], engine="reference"
    )
    for _, row in table.iterrows():
        single = gs.simulate(
            "llama-3.2-1b", "h100-sxm", row["batch"], row["input_tokens"], row["output_tokens"], engine="reference"
        )
        assert row["latency_s"] == pytest.approx(single.latency_s, rel=1e-4)


def test_what_cannot_be_cut_is_a_row_with_a_reason(table: pd.DataFrame) -> None:
    cannot = table[(table["tp"] == 3) & (table["model"] == "llama-3.2-1b")]
    assert cannot["latency_s"].isna().all() and cannot["reason"].str.contains("does not divide").all()
    assert table[(table["tp"] == 3) & (table["model"] == "gpt-2")]["latency_s"].notna().all()


def test_what_does_not_fit_keeps_its_numbers_and_says_so() -> None:
    table = gs.sweep("llama-3.1-70b", "l4", batch=[1], engine="reference")
    assert not table["fits"].any() and table["latency_s"].notna().all()
    assert table["reason"].str.contains("does not fit").all()


def test_an_executor_gives_the_same_table(table: pd.DataFrame) -> None:
    with ThreadPoolExecutor(2) as pool:
        again = gs.sweep(
            ["llama-3.2-1b", "gpt-2"], ["l4", "h100-sxm"], cost="roofline", executor=pool, **CHOICES, engine="reference"
        )
    pd.testing.assert_frame_equal(table, again)


def test_progress_ends_at_the_number_of_rows() -> None:
    seen: list[tuple[int, int]] = []
    table = gs.sweep(
        "gpt-2",
        "l4",
        batch=[1, 2],
        tp=[1, 2],
        progress=lambda done, total: seen.append((done, total)),
        engine="reference",
    )
    assert seen[-1] == (len(table), len(table)) and np.all(np.diff([done for done, _ in seen]) > 0)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"bach": [1]}, "did you mean 'batch'"),
        ({"batch": []}, "batch is empty"),
        ({"batch": ["many"]}, "numbers"),
        ({"strategy": ["mergers"]}, "strategy"),
    ],
)
def test_a_wrong_choice_is_one_sentence(choices: dict, said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        gs.sweep("gpt-2", "l4", **choices, engine="reference")


ASKED = ["sweep", "gpt-2", "--hardware", "l4", "--batch", "1,2", "--rank", "8", "--engine", "reference"]


def test_the_command_writes_the_table_that_the_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    assert main([*ASKED, "--to", str(path)]) == 0
    table = gs.sweep("gpt-2", "l4", batch=[1, 2], rank=[8], engine="reference")
    written = pd.read_csv(path, keep_default_na=False, float_precision="round_trip")
    assert list(written) == list(table) and len(written) == 2
    for name in ("batch", "rank", "ttft_s", "tpot_s", "memory_bytes"):
        assert written[name].tolist() == table[name].tolist(), name


def test_the_command_prints_every_row_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ASKED, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    table = gs.sweep("gpt-2", "l4", batch=[1, 2], rank=[8], engine="reference")
    assert [list(row) for row in printed] == [list(table)] * 2
    assert [row["tpot_s"] for row in printed] == table["tpot_s"].tolist()


def test_the_command_prints_a_table_with_units_in_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "gpt-2", "--hardware", "l4"]) == 0
    about, head, _, row, *_ = capsys.readouterr().out.splitlines()
    assert about.startswith("gpt-2 on l4, engine vllm")
    assert "TTFT ms" in head and "GiB" in head and row.startswith("gpt-2")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--batch", "1,x"], "--batch: 'x' is not a whole number"),
        (["--to", "x.xls"], "its suffix is '.xls'; allowed: .csv, .parquet"),
    ],
)
def test_the_command_says_what_it_cannot_take(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of([*ASKED, *more]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"cost": "guess"}, "cost = 'guess' is not known"),
        ({"cost": lambda op, hardware: None}, "is not a name; use simulate"),
        ({"precision": ["bf16", "fp7"]}, "did you mean 'fp8'"),
        ({"pp": ["two"]}, r"pp = \[.two.\] is not allowed; expected a number or a list of numbers"),
        ({"pp": "two"}, "pp: 'two' is not a whole number or a range; write 8, 1,2,4"),
    ],
)
def test_names_and_numbers_that_no_scenario_could_have_are_errors(choices: dict[str, object], text: str) -> None:
    with pytest.raises(gs.ConfigError, match=text):
        gs.sweep("gpt-2", "l4", **choices, engine="reference")


def test_a_precision_in_a_sweep_appears_by_its_name() -> None:
    assert list(
        gs.sweep("gpt-2", "l4", precision=[gs.load_precision("fp8"), "fp8"], engine="reference")["precision"]
    ) == ["fp8", "fp8"]


def of_no_module() -> gs.Deployment:
    """A deployment with a cost function and a pass that another process cannot import."""

    def slower(op: Any, hardware: Any) -> Cost:
        cost = roofline(op, hardware)
        return replace(cost, busy_s=2.0 * cost.busy_s)

    @dataclass(frozen=True, slots=True)
    class Unchanged(gs.Pass):
        def rule(self, graph: Any) -> Any:
            return lambda name, op, inputs: iter([(name, op, inputs)])

    return gs.Deployment("gpt-2", "l4", cost=slower, passes=[Unchanged()], engine="reference")


def test_without_an_executor_a_cost_function_may_be_of_no_module(tmp_path: Path) -> None:
    deployment = of_no_module()
    table = gs.sweep(deployment, batch=[1, 8])
    for batch, tpot_s in zip([1, 8], table["tpot_s"], strict=True):
        assert tpot_s == pytest.approx(gs.simulate(deployment, batch=batch).tpot_s, rel=1e-4)
    pytest.importorskip("pyarrow")
    written = pd.read_parquet(gs.sweep_to_parquet(tmp_path / "rows", deployment, batch=[1, 8]))
    assert written["tpot_s"].tolist() == table["tpot_s"].tolist()


def test_what_goes_to_another_process_must_be_of_a_module(tmp_path: Path) -> None:
    deployment = of_no_module()
    with ThreadPoolExecutor(1) as pool:
        for ask in (
            lambda: gs.sweep(deployment, batch=[1, 8], executor=pool),
            lambda: pickle.dumps(gs.compile_step(deployment)),
        ):
            with pytest.raises(gs.ConfigError, match="must be importable from a module"):
                ask()
        pytest.importorskip("pyarrow")
        with pytest.raises(gs.ConfigError, match="must be importable from a module"):
            gs.sweep_to_parquet(tmp_path / "rows", deployment, batch=[1, 8], executor=pool)


@pytest.mark.parametrize("executor", [3, "threads", ThreadPoolExecutor])
def test_what_is_no_executor_is_told(executor: Any) -> None:
    with pytest.raises(gs.ConfigError, match=r"executor = .* is not a concurrent\.futures\.Executor"):
        gs.sweep("gpt-2", "l4", batch=[1, 8], executor=executor, engine="reference")
