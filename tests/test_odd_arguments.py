"""Arguments of an odd type: taken as what they are, or refused in one sentence that names them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.ops import Gemm

MODEL, DEVICE = "llama-3.2-1b", "l40s"
MASKED = np.ma.array([1, 2], mask=[False, True])
NOT_PATHS = (3, b"x", ["a"], 1.5, {}, True, Ellipsis, "a\0b")
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


@pytest.mark.parametrize("targets", [5, 2.5, np.array(2), [[1]], [None], {1}], ids=repr)
def test_targets_of_a_sweep_are_names(targets: Any) -> None:
    with pytest.raises(gs.ConfigError, match="target_modules"):
        gs.sweep(MODEL, DEVICE, targets=targets)


@pytest.mark.parametrize(
    "value", [np.array(["dynamic", "merge"]), pd.Series([1]), object(), 10**400], ids=lambda v: type(v).__name__
)
def test_names_of_an_adapter_are_texts_and_messages_about_them_short(value: Any) -> None:
    for name in ("strategy", "variant", "lora_dtype"):
        with pytest.raises(gs.ConfigError, match=f"lora.{name} = .* is not known") as told:
            gs.LoraConfig(**{name: value})
        assert len(str(told.value)) < 500
        assert " at 0x" not in str(told.value)


@pytest.mark.parametrize("name", ["batch", "tp"])
def test_columns_of_a_table_are_lists_of_trainings_and_fleets(name: str) -> None:
    column = pd.Series([1, 2], index=[7, 9])
    assert gs.sweep_training(MODEL, DEVICE, seq_len=64, **{name: column})[name].tolist() == [1, 2]
    single = gs.sweep_training(MODEL, DEVICE, seq_len=64, **{name: np.array(2)})
    assert single[name].tolist() == [2]


def test_a_column_of_degrees_is_a_list_of_fleets() -> None:
    traffic = gs.Traffic.poisson(rate=4, requests=4, input_tokens=20, output_tokens=4)
    found = gs.size_fleet(MODEL, traffic, {"ttft_s": 1.0}, {"hardware": DEVICE, "tp": pd.Series([1, 2], index=[7, 9])})
    assert sorted(found["tp"]) == [1, 2]


@pytest.mark.parametrize("column", [["tpot_s"], np.array(2), {}, 10**400, "tpot"], ids=lambda v: type(v).__name__)
def test_a_front_is_of_two_columns_of_a_table(column: Any) -> None:
    table = gs.sweep(MODEL, DEVICE, batch=[1, 2])
    with pytest.raises(gs.ConfigError, match="the table has no column"):
        gs.pareto(table, column, "tpot_s")
    with pytest.raises(gs.ConfigError, match="is not a table"):
        gs.pareto(column, "ttft_s", "tpot_s")


def test_what_is_no_graph_operation_or_list_of_inputs_is_an_error() -> None:
    graph, gemm = nx.DiGraph(), Gemm(m=1, n=1, k=1)
    gs.add(graph, "up", gemm)
    lora = gs.LoraConfig()
    changes: list[Callable[[Any], Any]] = [
        lambda thing: gs.add(thing, "a", gemm),
        lambda thing: gs.rewrite(thing, lambda *_: []),
        lambda thing: gs.inject(thing, lora),
        lambda thing: gs.shard(thing, 2),
    ]
    for change in changes:
        with pytest.raises(gs.GraphError, match="graph = 5 is not a networkx.DiGraph"):
            change(5)
    for op, inputs, text in ((5, [], "has op = 5"), (gemm, "up", "has inputs = 'up'"), (gemm, 5, "has inputs = 5")):
        with pytest.raises(gs.GraphError, match=text):
            gs.add(graph, "down", op, inputs)  # type: ignore[arg-type]
    with pytest.raises(gs.ConfigError, match="lora = 5 is not a LoraConfig"):
        gs.inject(graph, 5)  # type: ignore[arg-type]
    with pytest.raises(gs.ConfigError, match="tp = .* is not allowed"):
        gs.shard(graph, gs.Parallelism(tp=2))  # type: ignore[arg-type]
