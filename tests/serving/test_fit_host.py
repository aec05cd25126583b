"""Constants of a host come back from runs of a server that has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.serving.adjusted import CONSTANTS, AdjustedPrice, inner, outer
from graphsim.serving.bench_files import BenchRun
from graphsim.serving.figures import latencies_of
from graphsim.serving.fit_host import fit_host
from graphsim.serving.fit_targets import told_apart
from graphsim.serving.front import Front
from graphsim.serving.loop import run
from graphsim.serving.rules import Rules
from graphsim.serving.summary import duration_of, latency_figures, totals
from graphsim.traffic.table import request_table

from .line_price import LinePrice

HIDDEN = {"request_s": 0.021, "token_s": 1.1e-5, "step_s": 0.0016, "step_factor": 1.23}
RULES = Rules(kv_blocks=100_000)


class Server:
    """A closed loop of clients whose server has the constants that it is given."""

    def __init__(self, clients: int, prompt: float) -> None:
        self.clients, self.asked = clients, 0
        draw, count = np.random.default_rng(0), 6 * clients
        lengths = draw.uniform(0.6, 1.0, (2, count)) * [[prompt], [60]]
        self.table = request_table(np.full(count, np.nan), *lengths.astype(int))

    def __call__(self, constants: Mapping[str, float]) -> dict[str, float]:
        self.asked += 1
        steps = {name: value for name, value in constants.items() if name.startswith("step")}
        front = {name: value for name, value in constants.items() if not name.startswith("step")}
        price = AdjustedPrice(LinePrice(), **steps)
        log = run(self.table, RULES, price, concurrency=self.clients, front=Front(**front))
        latencies = latencies_of(self.table, log)
        counts = totals(self.table, log, latencies, duration_of(log))
        return counts | latency_figures(latencies, log.gaps, (90.0, 99.0))


def measured(server: Server, hidden: Mapping[str, float]) -> BenchRun:
    return BenchRun(path=Path("bench.json"), figures=server(hidden), max_concurrency=server.clients)


SERVERS = [(1, 200), (1, 6000), (16, 800)]


def fitted(hidden: Mapping[str, float], servers: list[tuple[int, float]], **options: Any) -> Any:
    made = [Server(clients, prompt) for clients, prompt in servers]
    return fit_host([(measured(server, hidden), server) for server in made], **options)


@pytest.mark.slow
def test_hidden_constants_come_back() -> None:
    found = fitted(HIDDEN, SERVERS, constants=list(HIDDEN))
    for name, value in HIDDEN.items():
        assert found.constants[name] == pytest.approx(value, rel=0.15), str(found)
    assert found.error_after < 0.01 < found.error_before


def test_one_run_tells_two_constants() -> None:
    hidden = {"request_s": 0.03, "step_factor": 0.8}
    found = fitted(hidden, [(4, 500)])
    assert set(found.constants) == {"request_s", "step_factor"}
    assert found.constants == pytest.approx(hidden, rel=0.05)
    assert not found.unknown


def test_nothing_to_correct_leaves_the_start() -> None:
    found = fitted({}, [(4, 500)])
    assert found.constants == pytest.approx({"request_s": 0.0, "step_factor": 1.0}, abs=2e-3)


def test_a_start_that_is_not_fitted_stays() -> None:
    found = fitted(HIDDEN, SERVERS, constants=["step_factor"], start=HIDDEN | {"step_factor": 1.0})
    assert found.constants == pytest.approx({"step_factor": 1.23}, rel=0.02)


def test_what_one_run_cannot_tell_is_said() -> None:
    found = fitted({"request_s": 0.03}, [(1, 500)], constants=["request_s", "token_s"])
    assert found.unknown and "do not tell" in str(found)


def test_runs_that_differ_tell_more() -> None:
    def told(*servers: tuple[int, float]) -> set[str]:
        return set(told_apart([measured(Server(clients, prompt), HIDDEN) for clients, prompt in servers]))

    assert told((1, 200)) == {"request_s", "step_factor"}
    assert told((1, 200), (1, 800)) == {"request_s", "step_factor", "token_s"}
    assert "step_s" in told((1, 200), (100, 200))


def test_the_report_names_meaning_value_and_errors() -> None:
    found = fitted({"request_s": 0.03, "step_factor": 0.8}, [(4, 500)])
    text = str(found)
    assert "request_s = 2" in text and "tokenising" in text and "before" in text
    assert set(found.to_dict()) >= {"constants", "uncertainty", "error_before", "error_after", "figures"}
    assert found.simulations < 60


@pytest.mark.parametrize(
    "options, words",
    [
        ({"constants": ["clock"]}, "constant 'clock' is not known"),
        ({"start": {"request_s": -1.0}}, "request_s = -1.0 is not allowed"),
        ({"start": {"step_factor": 0.0}}, "step_factor = 0.0 is not allowed"),
    ],
)
def test_unknown_constants_and_wrong_starts_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fitted({}, [(1, 500)], **options)


def test_no_runs_and_nothing_in_common_are_named() -> None:
    with pytest.raises(ConfigError, match="at least one measured run"):
        fit_host([])
    server = Server(1, 500)
    with pytest.raises(ConfigError, match="no figure in common"):
        fit_host([(measured(server, {}), lambda constants: {})])


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_fit_s_own_scale_is_the_constant_s(name: str) -> None:
    for value in (CONSTANTS[name].neutral, 0.25 * CONSTANTS[name].most):
        assert outer(name, inner(name, value)) == pytest.approx(value)
    assert outer(name, -1e9) == CONSTANTS[name].least and outer(name, 1e9) == CONSTANTS[name].most


def test_adjusted_prices_are_scaled_and_shifted_but_loads_stay() -> None:
    class Price:
        def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
            return 0.01, 0.001, 7

        def mixed(self, *arguments: float) -> float:
            return 0.02

        def load(self, adapter: int, from_disk: bool) -> float:
            return 0.3

    price = AdjustedPrice(Price(), step_factor=2.0, step_s=0.5)
    assert price.decode(1, 1, 0) == pytest.approx((0.52, 0.002, 7))
    assert price.mixed(1, 1.0, 1, 1, 0, 0, 0) == pytest.approx(0.54)
    assert price.load(0, True) == 0.3
