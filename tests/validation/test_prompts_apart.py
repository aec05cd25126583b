"""Laws of a closed loop whose prompts run on servers of their own."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from graphsim.serving.clients import Front
from graphsim.serving.run_log import RunLog
from graphsim.traffic.table import RequestTable, request_table
from graphsim.validation.prompts_apart import Generators, PromptServers, run_apart
from graphsim.validation.run_figures import Outcome, Replayed


class Linear:
    """A second for each thousand tokens of a prompt; ten milliseconds and more for each sequence for generation."""

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        return 0.010 + 1e-4 * batch, 0.0, 1 << 60

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        return 1e-3 * prompt_tokens

    def load(self, adapter: int, from_disk: bool) -> float:
        raise AssertionError("nobody has an adapter")


def asked(count: int = 80) -> RequestTable:
    draw = np.random.default_rng(0)
    return request_table(np.full(count, np.nan), draw.integers(80, 101, count), draw.integers(1, 51, count))


def log_of(table: RequestTable, clients: int, prompts: int = 1, servers: int = 1, **how: int) -> RunLog:
    generators = Generators(count=servers, price=Linear(), **how)
    return run_apart(table, clients, PromptServers(count=prompts, price=Linear()), generators, Front())


def served(clients: int, prompts: int = 1, servers: int = 1, **how: int) -> Outcome:
    return Outcome(Replayed(asked(), log_of(asked(), clients, prompts, servers, **how), inf))


@pytest.mark.parametrize("how", [{}, {"ahead": True}, {"receive_steps": 10}, {"servers": 3}, {"prompts": 4}])
@pytest.mark.parametrize("clients", [1, 7])
def test_every_request_is_answered_and_every_token_has_its_gap(how: dict[str, int], clients: int) -> None:
    found = served(clients, **how)
    assert len(found.sent_s) == 80 and found.gap_tokens.sum() == (found.output_tokens - 1).sum()
    assert (found.first_s > found.sent_s).all()
    one = found.output_tokens == 1
    assert one.any() and (found.finished_s[one] == found.first_s[one]).all()
    assert (found.finished_s[~one] > found.first_s[~one]).all()
    at_once = [((found.sent_s <= t) & (found.finished_s > t)).sum() for t in np.linspace(0, found.duration_s, 50)]
    assert max(at_once) <= clients


def test_four_requests_by_hand() -> None:
    """Prompts take a second, steps 10.1 ms: the second client's prompt waits for the first one's, and so on."""
    log = log_of(request_table(np.full(4, np.nan), np.full(4, 1000), np.full(4, 3)), 2)
    assert log.first_token_s == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert log.finished_s == pytest.approx([1.0202, 2.0202, 3.0202, 4.0202])
    assert log.sent_s == pytest.approx([0.0, 0.0, 1.0202, 2.0202])


def test_a_single_client_waits_for_nobody() -> None:
    table, front = asked(), Front(request_s=0.02, token_s=1e-4)
    log = run_apart(
        table, 1, PromptServers(count=1, price=Linear()), Generators(count=1, price=Linear(), ahead=True), front
    )
    found = Outcome(Replayed(table, log, inf))
    assert found.ttft_s == pytest.approx(0.02 + (1e-4 + 1e-3) * found.input_tokens)
    assert found.tpot_s == pytest.approx(0.0101)


def test_more_servers_make_requests_wait_less() -> None:
    few, many = served(8), served(8, prompts=8)
    assert many.ttft_s == pytest.approx(1e-3 * many.input_tokens) and few.ttft_s.mean() > many.ttft_s.mean()
    assert many.gap_s.max() <= 0.010 + 1e-4 * 8
    assert served(8, prompts=8, servers=4).gap_s.max() <= 0.010 + 1e-4 * 2


@pytest.mark.parametrize("how", [{"ahead": True}, {"receive_steps": 10}])
def test_servers_that_hear_of_requests_later_answer_later(how: dict[str, int]) -> None:
    assert served(7, prompts=7, **how).e2e_s.mean() > served(7, prompts=7).e2e_s.mean()
