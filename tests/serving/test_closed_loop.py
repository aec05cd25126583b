"""Laws of a server under a closed loop: nobody is forgotten, nobody is served sooner for waiting longer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphsim.serving.closed_loop import Answers, ClosedLoad, Scheduling, closed_loop, uniform_lengths
from graphsim.serving.prompt_pool import PromptPool


class Linear:
    """Steps that take a second for each thousand tokens of prompts and ten milliseconds for generation."""

    def generation_s(self, sequences: int, context: float) -> float:
        return 0.010 + 1e-4 * sequences

    def prompts_s(self, tokens: float, pairs: float, prompts: int, sequences: int, context: float) -> float:
        return 1e-3 * tokens + 1e-4 * sequences


def served(clients: int, scheduling: Scheduling | None = None, per_client: int = 10, **load: float) -> Answers:
    inputs, outputs = uniform_lengths(clients, per_client, 100, 50, 0.8)
    asked = ClosedLoad(clients=clients, input_tokens=inputs, output_tokens=outputs, **load)
    return closed_loop(Linear(), asked, scheduling or Scheduling())


SCHEDULES = {
    "mixed": Scheduling(),
    "prompts first": Scheduling(mixes=False),
    "whole prompts": Scheduling(cuts_prompts=False, chunk_tokens=150),
    "small chunks": Scheduling(chunk_tokens=64),
    "looks seldom": Scheduling(mixes=False, receive_steps=10),
    "held back": Scheduling(hold_steps=20, hold_share=0.9, chunk_tokens=500),
    "planned ahead": Scheduling(ahead=True),
    "two places": Scheduling(places=2),
    "a small cache": Scheduling(cache_tokens=400),
}


@pytest.mark.parametrize("scheduling", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("clients", [1, 7])
def test_every_request_is_answered_and_every_token_has_its_gap(scheduling: Scheduling, clients: int) -> None:
    found = served(clients, scheduling)
    assert (found.first_s > found.sent_s).all() and (found.finished_s >= found.first_s).all()
    assert found.gap_tokens.sum() == pytest.approx((found.output_tokens - 1).sum(), abs=clients)
    at_once = [((found.sent_s <= t) & (found.finished_s > t)).sum() for t in np.linspace(0, found.duration_s, 50)]
    assert max(at_once) <= clients


def test_a_single_client_waits_for_nobody() -> None:
    found = served(1, request_s=0.02, token_s=1e-4)
    assert found.ttft_s == pytest.approx(0.02 + (1e-4 + 1e-3) * found.input_tokens)
    assert found.tpot_s == pytest.approx(0.0101)


def test_more_clients_wait_longer_and_get_more_done() -> None:
    few, many = served(2), served(16)
    assert many.ttft_s.mean() > few.ttft_s.mean() and many.tpot_s.mean() > few.tpot_s.mean()
    assert many.output_tokens.sum() / many.duration_s > few.output_tokens.sum() / few.duration_s


@pytest.mark.parametrize("slower", ["looks seldom", "held back", "planned ahead", "two places"])
def test_what_makes_requests_wait_lengthens_the_time_to_the_first_token(slower: str) -> None:
    scheduling = SCHEDULES[slower]
    prompt = replace(scheduling, receive_steps=1, hold_steps=0, ahead=False, places=float("inf"))
    assert served(7, scheduling).ttft_s.mean() > served(7, prompt).ttft_s.mean()


def test_prompts_that_run_alone_stall_the_others_for_their_step() -> None:
    found = served(4, Scheduling(mixes=False))
    assert found.gap_s.max() >= 0.080 + 0.010
    assert np.average(found.gap_s, weights=found.gap_tokens) == pytest.approx(found.tpot_s.mean(), rel=0.05)


def test_prompts_on_servers_of_their_own_stall_nobody_and_wait_for_each_other() -> None:
    inputs, outputs = uniform_lengths(8, 10, 100, 50, 0.8)
    load = ClosedLoad(clients=8, input_tokens=inputs, output_tokens=outputs)
    few, many = (closed_loop(Linear(), load, Scheduling(), PromptPool(n, lambda tokens: 1e-3 * tokens)) for n in (1, 8))
    assert many.ttft_s == pytest.approx(1e-3 * inputs) and few.ttft_s.mean() > many.ttft_s.mean()
    assert many.gap_s.max() <= 0.010 + 1e-4 * 8 and many.gap_tokens.sum() == (outputs - 1).sum()


def test_lengths_lie_between_their_ends_and_repeat() -> None:
    inputs, outputs = uniform_lengths(8, 100, 1000, 10, 0.8)
    assert inputs.min() >= 800 and inputs.max() == 1000 and outputs.min() >= 8
    assert (uniform_lengths(8, 100, 1000, 10, 0.8)[0] == inputs).all()
