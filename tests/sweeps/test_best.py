"""The best deployment is the best of all that were asked, within every limit, or the reason why there is none."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphsim as gs
from graphsim.cli import main
from tests.command import status_of
from tests.residual_records import device_with

MODELS, DEVICES = ["llama-3.2-1b", "gpt-2"], ["l4", "h100-sxm"]
CHOICES = {"batch": [1, 8], "output_tokens": [9], "tp": [1, 2, 3], "strategy": ["base", "dynamic", "merge"]}
PRICES = {"l4": 0.7, "h100-sxm": 2.5}


def every_deployment() -> list[dict[str, object]]:
    """Each scenario simulated alone, with devices and prices by hand."""
    found = []
    for model, device, batch, tp, strategy in itertools.product(
        MODELS, DEVICES, [1, 8], [1, 2, 3], CHOICES["strategy"]
    ):
        lora = None if strategy == "base" else gs.LoraConfig(rank=16, strategy=str(strategy))
        try:
            one = gs.simulate(
                model, device, batch, 512, 9, gs.Parallelism(tp=tp), lora, cost="roofline", engine="reference"
            )
        except gs.GraphsimError:
            continue
        row = {"model": model, "hardware": device, "batch": batch, "tp": tp, "strategy": strategy, "devices": tp}
        row |= {name: getattr(one, name) for name in ("ttft_s", "tpot_s", "latency_s", "tokens_per_s")}
        row["tokens_per_s_per_gpu"] = one.tokens_per_s / tp
        row["cost_per_token"] = tp * PRICES[device] / 3600 * one.latency_s / (batch * 9)
        found.append(row | {"fits": one.memory.fits})
    return found


@pytest.fixture(scope="module")
def every() -> pd.DataFrame:
    return pd.DataFrame(every_deployment())


GOALS = {
    "latency": ("latency_s", 1), "ttft": ("ttft_s", 1), "tpot": ("tpot_s", 1), "tokens_per_s": ("tokens_per_s", -1),
    "tokens_per_s_per_gpu": ("tokens_per_s_per_gpu", -1), "cost_per_token": ("cost_per_token", 1),
}  # fmt: skip


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.slow
def test_the_ranking_is_that_of_every_scenario_simulated_alone(goal: str, every: pd.DataFrame) -> None:
    found = gs.best(MODELS, DEVICES, goal, price_per_hour=PRICES, cost="roofline", **CHOICES, engine="reference")
    column, sign = GOALS[goal]
    assert len(found) == len(every) and list(found.index) == list(range(1, len(found) + 1))
    expected = np.sort(sign * every[column].to_numpy())
    np.testing.assert_allclose(sign * found[column].to_numpy(), expected, rtol=1e-9)
    top = every.iloc[(sign * every[column]).argmin()]
    assert [found.iloc[0][name] for name in ("model", "hardware")] == [top["model"], top["hardware"]]


@pytest.mark.parametrize(
    "limits", [{"ttft_s": 0.02}, {"tpot_s": 0.003, "devices": 1}, {"tokens_per_s": 900}, {"cost_per_token": 1e-6}]
)
def test_exactly_the_deployments_within_all_limits_are_left(limits: dict[str, float], every: pd.DataFrame) -> None:
    found = gs.best(MODELS, DEVICES, price_per_hour=PRICES, cost="roofline", **limits, **CHOICES, engine="reference")
    kept = every["fits"].to_numpy().copy()
    for name, limit in limits.items():
        kept &= every[name].to_numpy() >= limit if name == "tokens_per_s" else every[name].to_numpy() <= limit
    assert 0 < kept.sum() < len(every) and len(found) == kept.sum()
    np.testing.assert_allclose(found["latency_s"], np.sort(every["latency_s"][kept]), rtol=1e-9)


def test_what_does_not_fit_is_never_best() -> None:
    found = gs.best(
        "llama-3.1-70b", "h100-sxm", "tokens_per_s_per_gpu", tp=[1, 2, 4, 8], batch=[1, 512], engine="reference"
    )
    table = gs.sweep("llama-3.1-70b", "h100-sxm", tp=[1, 2, 4, 8], batch=[1, 512], engine="reference")
    assert len(found) == table["fits"].sum() < len(table) and 1.0 not in set(found["tp"])


def test_a_tie_goes_to_fewer_devices() -> None:
    found = gs.best("gpt-2", "l4", "tpot", dp=[4, 1, 2], batch=1, engine="reference")
    assert list(found["devices"]) == [1, 2, 4]


def test_devices_count_every_degree_and_experts_beyond_the_tensor_parallel_group_once() -> None:
    found = gs.best(
        "mixtral-8x7b",
        "h100-sxm",
        tp=[2],
        pp=[1, 2],
        ep=[1, 2, 8],
        dp=[1, 3],
        batch=48,
        output_tokens=2,
        engine="reference",
    )
    for _, row in found.iterrows():
        degrees = gs.Parallelism(tp=int(row["tp"]), pp=int(row["pp"]), ep=int(row["ep"]), dp=int(row["dp"]))
        assert row["devices"] == degrees.devices
    assert set(found["devices"]) == {2, 4, 8, 16, 6, 12, 24, 48}


def test_a_base_model_is_listed_once_however_many_adapters_are_asked() -> None:
    found = gs.best(
        "gpt-2", "l4", strategy=["base", "dynamic"], rank=[8, 64], active_adapters=[1, 4], batch=4, engine="reference"
    )
    assert (found["strategy"] == "base").sum() == 1 and len(found) == 5
    assert found.iloc[0]["strategy"] == "base"


def test_several_adapters_are_never_merged() -> None:
    found = gs.best("gpt-2", "l4", strategy=["dynamic", "merge"], active_adapters=[1, 4], batch=4, engine="reference")
    assert set(zip(found["strategy"], found["active_adapters"], strict=True)) == {
        ("dynamic", 1), ("dynamic", 4), ("merge", 1),
    }  # fmt: skip
    with pytest.raises(gs.InfeasibleError, match="merged weights serve one adapter"):
        gs.best("gpt-2", "l4", strategy="merge", active_adapters=4, engine="reference")


def test_engines_are_choices_and_change_times_and_memory() -> None:
    found = gs.best("llama-3.2-1b", "h100-sxm", strategy=["base", "dynamic"], engine=["reference", "vllm"])
    assert sorted(found["strategy"]) == ["base", "base", "dynamic", "dynamic"]
    assert set(found["engine"][found["strategy"] == "dynamic"]) == {"reference", "vllm"}
    base = found[found["strategy"] == "base"]
    assert set(base["engine"]) == {"reference", "vllm"}
    assert base["latency_s"].nunique() == 2 and base["memory_bytes"].nunique() == 2


def test_engines_that_differ_in_nothing_but_adapters_list_a_base_model_once() -> None:
    mine = gs.load_profile({"base": "reference", "title": "mine", "merge_passes": 4})
    found = gs.best("llama-3.2-1b", "h100-sxm", strategy=["base", "merge"], engine=["reference", mine])
    assert sorted(found["strategy"]) == ["base", "merge", "merge"]


def test_one_price_holds_for_every_device() -> None:
    found = gs.best("gpt-2", DEVICES, "cost_per_token", price_per_hour=1, engine="reference")
    np.testing.assert_allclose(found["cost_per_token"], found["devices"] / 3600 / found["tokens_per_s"])


def test_the_error_names_the_limit_that_excludes_most_first_and_the_nearest_scenario() -> None:
    with pytest.raises(gs.InfeasibleError) as caught:
        gs.best(
            "llama-3.1-70b",
            ["h100-sxm", "l4"],
            tp=[1, 2, 3],
            batch=[1, 8],
            tpot_s=0.021,
            ttft_s=0.1,
            cost="roofline",
            engine="reference",
        )
    text = str(caught.value)
    assert "none of 12 scenarios" in text and "4 cannot be run" in text
    assert text.index("tpot_s <= 21 ms excludes 8") < text.index("the memory of one device excludes 6")
    assert "nearest is llama-3.1-70b on h100-sxm, batch 1, tp 2: tpot_s = 22.45 ms" in text and "% too much" in text


def test_the_error_says_why_where_nothing_can_be_run() -> None:
    with pytest.raises(gs.InfeasibleError, match="none of 2 scenarios can be run.*does not divide"):
        gs.best("llama-3.2-1b", "h100-sxm", tp=[3, 5], engine="reference")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"goal": "speed"}, "goal = 'speed' is not known"),
        ({"goal": ["latency"]}, "is not known"),
        ({"precision": "fp7"}, "precision = 'fp7' is not known"),
        ({"goal": "cost_per_token"}, "needs price_per_hour"),
        ({"cost_per_token": 1.0}, "needs price_per_hour"),
        ({"ttft_s": -1}, "ttft_s = -1 is not allowed"),
        ({"tpot_s": "fast"}, "tpot_s = 'fast' is not allowed"),
        ({"price_per_hour": {"h100-smx": 2}}, "did you mean 'h100-sxm'"),
        ({"price_per_hour": {"h100": 2, "H100 SXM": 3, "l4": 1}}, "names one device twice"),
        ({"price_per_hour": {"l4": 2}}, "no price for h100-sxm"),
        ({"price_per_hour": 0}, "price_per_hour of 'l4' = 0"),
        ({"batches": [1]}, "did you mean 'batch'"),
    ],
)
def test_a_mistake_is_one_readable_sentence(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(gs.ConfigError, match=text):
        gs.best("gpt-2", DEVICES, **arguments, engine="reference")  # type: ignore[arg-type]


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30)


@given(POINTS)
def test_the_front_is_what_no_other_row_beats(points: list[tuple[int, int]]) -> None:
    frame = pd.DataFrame(points, columns=["latency_s", "tokens_per_s"], dtype=float)
    front = gs.pareto(frame, "latency_s", "tokens_per_s")
    beaten = {(x, y) for x, y in points for a, b in points if (a <= x and b >= y) and (a, b) != (x, y)}
    assert list(map(tuple, front.to_numpy())) == sorted(set(points) - beaten)


def test_the_front_leaves_out_what_has_no_numbers_or_does_not_fit() -> None:
    table = gs.sweep("llama-3.1-70b", "h100-sxm", tp=[1, 2, 3, 4], batch=[1, 64], output_tokens=2, engine="reference")
    front = gs.pareto(table, "latency_s", "tokens_per_s")
    assert front["fits"].all() and len(front) and front["latency_s"].is_monotonic_increasing


@pytest.mark.parametrize(("column", "text"), [("latency", "did you mean 'latency_s'"), ("model", "not hold numbers")])
def test_the_front_needs_columns_of_numbers(column: str, text: str) -> None:
    with pytest.raises(gs.ConfigError, match=text):
        gs.pareto(gs.sweep("gpt-2", "l4", engine="reference"), column, "tokens_per_s")


def test_the_command_prints_what_best_returns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = [
        "best",
        "gpt-2",
        "--hardware",
        "l4",
        "h100-sxm",
        "--batch",
        "1,8",
        "--goal",
        "cost_per_token",
        "--price",
        "l4=0.7,h100-sxm=2.5",
        "--engine",
        "reference",
    ]
    pytest.importorskip("matplotlib")
    assert main([*command, "--json", "--plot", str(tmp_path / "front.svg")]) == 0
    document = json.loads(capsys.readouterr().out)
    expected = gs.best("gpt-2", DEVICES, "cost_per_token", price_per_hour=PRICES, batch=[1, 8], engine="reference")
    assert document["meet_the_limits"] == len(expected) == len(document["best"])
    assert [row["cost_per_token"] for row in document["best"]] == list(expected["cost_per_token"])
    assert "</svg>" in (tmp_path / "front.svg").read_text()
    assert main([*command, "--pareto", "--tpot", "0.5"]) == 0
    text = capsys.readouterr().out
    front = gs.pareto(expected, "latency_s", "tokens_per_s_per_gpu")
    assert "cost per M tokens" in text and len(text.splitlines()) == 4 + len(front)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("--tpot 0.000001", "none of 1 scenarios meets the limits"),
        ("--price cheap", "--price: 'cheap' is not a price; expected a number"),
        ("--plot x.gif", "allowed: .png, .svg, .pdf"),
    ],
)
def test_the_command_explains_mistakes_in_one_line(more: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of([*["best", "gpt-2", "--hardware", "l4"], *more.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and text in err and err.count("\n") == 1


def test_rows_that_errors_may_swap_are_tied(tmp_path):
    path = device_with(tmp_path, 0.05)
    choices = {"batch": 8, "tp": [1, 2, 4], "goal": "tpot"}
    found = gs.best("llama-3.1-8b", path, **choices)
    assert found["tied"].tolist() == [True, False, False]
    two = gs.best("llama-3.1-8b", path, batch=8, pp=[1, 2], goal="tpot")
    assert two["tied"].tolist() == [True, True] and two["tpot_s"].iloc[1] / two["tpot_s"].iloc[0] < 1.05


def test_nobody_knows_of_ties_where_nobody_knows_of_errors():
    found = gs.best("llama-3.1-8b", "h100-sxm", batch=[1, 2], cost="roofline")
    assert found["tied"].tolist() == [None, None]
