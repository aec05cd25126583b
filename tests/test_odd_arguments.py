"""Arguments of an odd type: taken as what they are, or refused in one sentence that names them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

import graphsim as gs

MODEL, DEVICE = "llama-3.2-1b", "l40s"
MASKED = np.ma.array([1, 2], mask=[False, True])
NOT_PATHS = (3, b"x", ["a"], 1.5, {}, True, object(), "a\0b")
NOT_SCENARIOS = ("1", 1.5, -1, 2, None, True, float("nan"), [1])
NOT_NUMBERS = (10**400, Decimal(2), 2j, True, None, b"2", {1}, np.ones((2, 2)), np.array([2j]), MASKED, [1, True], [])


@pytest.fixture(scope="module")
def estimate() -> gs.Estimate:
    return gs.simulate(MODEL, DEVICE, batch=[1, 2])


@pytest.mark.parametrize("path", NOT_PATHS, ids=repr)
def test_what_is_no_path_is_an_error_wherever_a_path_is_taken(path: Any, estimate: gs.Estimate) -> None:
    graph = gs.build_graph(MODEL)
    takers: list[Callable[[], Any]] = [
        lambda: gs.to_dot(graph, path),
        lambda: gs.to_json(graph, path),
        lambda: gs.to_trace(estimate, path),
        lambda: gs.load_model(MODEL).save(path),
        lambda: gs.Traffic.from_file(path),
        lambda: gs.create_full_prefill_model(input_sequence_length=8, data_path=path),
        lambda: gs.sweep_to_parquet(path, MODEL, DEVICE),
    ]
    for take in takers:
        with pytest.raises(gs.ConfigError, match="is not allowed; expected the path of a file or folder"):
            take()


def test_a_path_that_is_far_too_long_is_not_repeated_in_full() -> None:
    with pytest.raises(gs.ConfigError, match="cannot be written to") as told:
        gs.to_dot(gs.build_graph(MODEL), "x" * 5000)
    assert len(str(told.value)) < 300


@pytest.mark.parametrize("scenario", NOT_SCENARIOS, ids=repr)
def test_what_is_no_scenario_is_an_error(scenario: Any, estimate: gs.Estimate) -> None:
    for ask in (gs.critical_path, gs.to_dot):
        with pytest.raises(gs.ConfigError, match=r"scenario = .* is not allowed; the graph holds scenarios 0 to 1"):
            ask(estimate.decode.graph, scenario=scenario)
    with pytest.raises(gs.ConfigError, match="scenario = "):
        gs.explain(estimate, scenario=scenario)


def test_a_scenario_may_be_a_number_of_numpy(estimate: gs.Estimate) -> None:
    told = gs.explain(estimate, scenario=np.int64(1)).totals
    assert told == gs.explain(estimate, scenario=1).totals != gs.explain(estimate).totals


@pytest.mark.parametrize("name", ["batch", "tp", "pp", "rank"])
@pytest.mark.parametrize("value", NOT_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_an_error_in_a_sweep(name: str, value: Any) -> None:
    with pytest.raises(gs.ConfigError, match=f"sweep: {name}"):
        gs.sweep(MODEL, DEVICE, **{name: value})


@pytest.mark.parametrize("name", ["batch", "tp"])
def test_columns_of_a_table_are_lists_of_a_sweep(name: str) -> None:
    plain = gs.sweep(MODEL, DEVICE, **{name: [1, 2]})
    for column in (pd.Series([1, 2], index=[7, 9]), np.array([1, 2], dtype=np.uint8), (1, 2), range(1, 3)):
        assert pd.DataFrame(gs.sweep(MODEL, DEVICE, **{name: column})).equals(pd.DataFrame(plain))
    single = gs.sweep(MODEL, DEVICE, **{name: np.array(2)})
    assert single.tpot_s.tolist() == plain.tpot_s.tolist()[1:]


@pytest.mark.parametrize("zipped", [5, "batch", [None], ["batch"]], ids=repr)
def test_groups_of_a_sweep_are_lists_of_names(zipped: Any) -> None:
    with pytest.raises(gs.ConfigError, match="zipped = .* is not allowed; expected groups of names"):
        gs.sweep(MODEL, DEVICE, batch=[1, 2], zipped=zipped)


@pytest.mark.parametrize("value", [MASKED, [1, True]], ids=repr)
def test_masked_numbers_and_flags_among_numbers_are_no_numbers(value: Any) -> None:
    with pytest.raises(gs.ConfigError, match="batch = .* is not allowed"):
        gs.simulate(MODEL, DEVICE, batch=value)


@pytest.mark.parametrize("limit", [np.array([1.0, 2.0]), pd.Series([1.0]), np.array([]), pd.NA], ids=repr)
def test_a_latency_limit_is_a_single_number(limit: Any) -> None:
    traffic = gs.Traffic.poisson(rate=4, requests=4, input_tokens=20, output_tokens=4)
    with pytest.raises(gs.ConfigError, match="ttft_s = .* is not allowed"):
        gs.capacity(MODEL, DEVICE, traffic, ttft_s=limit)


@pytest.mark.parametrize("given", [10**400, [10**400], np.array([2j]), MASKED], ids=lambda value: type(value).__name__)
def test_lengths_of_traffic_are_numbers(given: Any) -> None:
    with pytest.raises(gs.ConfigError, match="input_tokens"):
        gs.Traffic.poisson(rate=1, requests=2, input_tokens=given, output_tokens=2)


def test_shares_and_ranks_of_adapters_are_lists() -> None:
    for told in ({"popularity": np.array(2)}, {"ranks": np.array(2.5)}):
        with pytest.raises(gs.ConfigError, match="popularity|rank"):
            gs.Traffic.poisson(rate=1, requests=2, input_tokens=2, output_tokens=2, adapters=2, **told)


@pytest.mark.parametrize("tokens", [float("nan"), float("inf"), [1.0, float("nan")], -1], ids=repr)
def test_a_curve_of_no_number_of_tokens_is_an_error(tokens: Any) -> None:
    with pytest.raises(gs.ConfigError, match="tokens = .* is not allowed; expected numbers from 0"):
        gs.break_even_curve(MODEL, DEVICE, tokens)


@pytest.mark.parametrize(
    "measured", [10**400, "fast", True, float("nan"), 0.0, object()], ids=lambda value: repr(value)[:9]
)
def test_a_measured_time_is_a_number_of_seconds(measured: Any) -> None:
    with pytest.raises(gs.ConfigError, match="measured: tpot_s = .* is not allowed; expected seconds above 0"):
        gs.explain(gs.simulate(MODEL, DEVICE), measured={"tpot_s": measured})


@pytest.mark.parametrize("name", ["input_sequence_length", "batch_size"])
@pytest.mark.parametrize("value", [[1, 2], "8", 2.5, pd.Series([1])], ids=repr)
def test_an_operator_table_is_of_one_scenario(name: str, value: Any, tmp_path: Any) -> None:
    for write in (gs.create_full_prefill_model, gs.create_full_decode_model):
        with pytest.raises(gs.ConfigError, match=f"{name} = .* is not allowed; expected a single whole number"):
            write(**{"input_sequence_length": 8, "data_path": tmp_path, name: value})
    assert not list(tmp_path.iterdir())
