"""Laws of serving with prefill and decode workers: what may not depend on the engine, and what may not get better."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from graphsim.serving.disaggregated.hand_off import HAND_OFFS
from graphsim.serving.disaggregated.pool_tables import stage_seconds
from graphsim.serving.disaggregated.run import Pool, run_pools
from graphsim.serving.loop import run
from graphsim.serving.run_log import FINISHED, STATUSES, TIMED_OUT, TOO_LONG, UNFINISHED
from graphsim.traffic.client import Client
from tests.serving.disaggregated.pools import PRICE, requests, rules_of, second_queue, served, way

ENGINES = tuple(HAND_OFFS)


def mean_ttft(log: object) -> float:
    return float(np.mean(log.first_token_s - log.sent_s))  # type: ignore[attr-defined]


def test_free_transfers_make_two_queues_in_a_row() -> None:
    table = requests()
    rules = rules_of("trtllm")
    prompts = run(replace(table, output_tokens=np.ones_like(table.output_tokens)), rules, PRICE)
    found = served("trtllm", table).whole
    assert np.allclose(found.finished_s, second_queue(table, prompts.first_token_s), rtol=1e-9)


def test_free_transfers_make_two_queues_of_each_pair_of_workers() -> None:
    table = requests(seed=3)
    rules = rules_of("trtllm")
    logs = served("trtllm", table, prefill=2, decode=2, router="round-robin")
    assert set(logs.prefill_worker) == set(logs.decode_worker) == {0, 1}
    computed = np.full(len(table), np.nan)
    for worker in (0, 1):
        own = np.flatnonzero(logs.prefill_worker == worker)
        part = replace(
            table, arrival_s=np.where(np.isin(np.arange(len(table)), own), table.arrival_s, 1e6),
            output_tokens=np.ones_like(table.output_tokens),
        )  # fmt: skip
        order = np.argsort(part.arrival_s, kind="stable")
        alone = replace(
            part, **{name: getattr(part, name)[order] for name in ("arrival_s", "input_tokens", "output_tokens")}
        )
        computed[own] = run(alone, rules, PRICE).first_token_s[: len(own)]
    assert np.allclose(logs.prefilled_s, computed, rtol=1e-9)
    for worker in (0, 1):
        own = logs.decode_worker == worker
        late = np.where(own, computed, 1e6 + np.arange(len(table)) * 1e3)
        assert np.allclose(logs.whole.finished_s[own], second_queue(table, late)[own], rtol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("blocks", [40_000, 400])
def test_every_token_had_a_step_of_its_pool(engine: str, blocks: int) -> None:
    table = requests()
    logs = served(
        engine, table, 2e9, prefill=2, decode=2, prefill_rules={"kv_blocks": blocks}, decode_rules={"kv_blocks": blocks}
    )
    whole = logs.whole
    assert (whole.status == STATUSES.index(FINISHED)).all() and len(logs.links.sent) == len(table)
    columns = np.concatenate([np.asarray(log.runs) for log in logs.prefill])
    assert columns[:, 5].sum() == table.input_tokens.sum() and not columns[:, 3].any()
    generated, again = (
        sum(float((np.asarray(log.runs)[:, i] * np.asarray(log.runs)[:, 2]).sum()) for log in logs.decode)
        for i in (3, 5)
    )
    if not whole.preemptions.any():
        repeated = len(table) if HAND_OFFS[engine].repeats_last else 0
        assert (generated, again) == (table.output_tokens.sum() - len(table), repeated)
    assert sum(count for _, count in whole.gaps) >= table.output_tokens.sum() - len(table)
    assert all(log.runs[-1][7] == 0 for log in logs.decode)  # no block is held when all is over


@pytest.mark.parametrize("engine", ENGINES)
def test_a_slower_link_is_never_faster(engine: str) -> None:
    table = requests()
    found = [served(engine, table, rate).whole for rate in (inf, 1e10, 1e9, 3e8, 1e8)]
    times = [mean_ttft(log) for log in found]
    assert times == sorted(times) and times[-1] > 2 * times[0]
    ends = [float(np.mean(log.finished_s)) for log in found]
    assert ends == sorted(ends)


@pytest.mark.parametrize("engine", ENGINES)
def test_prompts_elsewhere_leave_the_time_per_token_alone(engine: str) -> None:
    table = requests(120, 8.0)
    rules = rules_of(engine)
    together, apart = run(table, rules, PRICE), served(engine, table).whole
    many = table.output_tokens > 1
    tpot = [
        np.mean((log.finished_s - log.first_token_s)[many] / (table.output_tokens[many] - 1))
        for log in (apart, together)
    ]
    assert tpot[0] < tpot[1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rate", [inf, 5e8])
def test_the_parts_of_the_way_make_up_the_time_to_the_first_token(engine: str, rate: float) -> None:
    logs = served(engine, requests(), rate, decode_rules={"kv_blocks": 600})
    parts = stage_seconds(logs)
    assert np.allclose(sum(parts.values()), logs.whole.first_token_s - logs.whole.sent_s)
    assert all((seconds > -1e-9).all() for seconds in parts.values())
    first = logs.prefill[0].admitted_s if HAND_OFFS[engine].decoder_first else logs.arrived_s
    assert (logs.reserved_s <= first + 1e-9).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_and_values_take_memory_until_they_are_gone(engine: str) -> None:
    """A prefill worker with room for a few prompts is held up by a slow link."""
    table = requests(30, 1.0)
    small = {"kv_blocks": 100}
    free, slow = (served(engine, table, rate, prefill_rules=small) for rate in (inf, 2e8))
    roomy = served(engine, table, 2e8)
    peak = [max(row[7] for row in logs.prefill[0].runs) for logs in (slow, roomy)]
    assert peak[0] <= 100
    assert np.nanmax(slow.prefilled_s) > 2 * np.nanmax(free.prefilled_s)
    if not HAND_OFFS[engine].decoder_first:
        assert peak[1] > 100 and np.nanmax(roomy.prefilled_s) < np.nanmax(slow.prefilled_s)


@pytest.mark.parametrize("engine", ENGINES)
def test_more_workers_are_not_slower(engine: str) -> None:
    table = requests(80, 2.0)
    times = [mean_ttft(served(engine, table, 1e9, prefill=n, decode=n).whole) for n in (1, 2, 4)]
    assert times[0] > times[1] > times[2]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_closed_loop_keeps_so_many_in_flight(engine: str) -> None:
    table = replace(requests(40), arrival_s=np.full(40, np.nan))
    whole = served(engine, table, 1e9, concurrency=4).whole
    at = np.sort(np.concatenate([whole.sent_s, whole.finished_s]))
    in_flight = [int(((whole.sent_s <= t) & (whole.finished_s > t)).sum()) for t in at]
    assert max(in_flight) == 4 and (whole.status == STATUSES.index(FINISHED)).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_who_gives_up_leaves_nothing_behind(engine: str) -> None:
    table = requests(80, 2.0)
    rules = rules_of(engine, kv_blocks=400)
    pool = Pool(rules=rules, price=PRICE)
    logs = run_pools(table, pool, pool, way(HAND_OFFS[engine], 3e8), client=Client(timeout_s=3.0))
    status, whole = logs.whole.status, logs.whole
    done, given_up = (int((status == STATUSES.index(name)).sum()) for name in (FINISHED, TIMED_OUT))
    assert done + given_up == len(table) and done > 0 and given_up > 0
    assert np.nanmax(whole.finished_s - whole.sent_s) <= 3.0
    assert np.isnan(whole.finished_s[status != STATUSES.index(FINISHED)]).all()


def test_too_long_ones_are_turned_away_and_a_cut_off_ends_it_all() -> None:
    table = requests(40)
    longest = int(np.sort(table.input_tokens + table.output_tokens)[-5])
    logs = served("vllm", table, decode_rules={"max_model_len": float(longest)})
    status = logs.whole.status
    assert (status == STATUSES.index(TOO_LONG)).sum() == 4 and (status == STATUSES.index(FINISHED)).sum() == 36
    cut = served("vllm", table, client=Client(cutoff_s=5.0)).whole
    assert 0 < (cut.status == STATUSES.index(UNFINISHED)).sum() < 40 and np.nanmax(cut.finished_s) <= 5.0
