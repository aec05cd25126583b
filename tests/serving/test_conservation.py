"""Whatever a report shows adds up: requests in are requests out, and tokens in are tokens out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import graphsim as gs
from graphsim.serving.run_log import STATUSES, UNFINISHED
from graphsim.serving.service import Service

LORA = gs.LoraConfig(rank=8, max_loras=2)
TRAFFIC = gs.Traffic.poisson(
    rate=60, requests=80, input_tokens=(20, 90), output_tokens=(1, 40), adapters=5, popularity="zipf:1", base_share=0.2
)


def served(engine: str, strategy: str, client: gs.Client | None = None, **limits: int) -> Service:
    traffic = TRAFFIC if client is None else replace(TRAFFIC, client=client)
    return gs.serve(
        "gpt-2", "l4", traffic, lora=LORA, engine=engine, strategy=strategy, limits=gs.EngineLimits(**limits)
    )


def check_reports_add_up(service: Service) -> None:
    found, requests, table = service.summary(), service.requests, service.table
    unfinished = int((service.log.status == STATUSES.index(UNFINISHED)).sum())
    assert found["completed"] + found["failed"] + unfinished == found["num_prompts"] == len(requests) == len(table)
    answered = requests["finished_s"].notna()
    assert found["completed"] == answered.sum()
    for name in ("input_tokens", "output_tokens"):
        assert found[f"total_{name}"] == requests[name][answered].sum()
    for rows in (service.adapters, service.groups):
        assert (
            rows["requests"].sum() == requests["sent_s"].notna().sum() and rows["completed"].sum() == found["completed"]
        )
    assert service.adapters["output_tokens"].sum() == found["total_output_tokens"]
    assert service.adapters["loads"].sum() == len(service.log.loads)
    most = 1 if service.rules.drafted is None else 1 + service.rules.drafted.tokens  # tokens of a gap
    assert most * sum(count for _, count in service.log.gaps) >= found["total_output_tokens"] - found["completed"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "vllm-0.8", "sglang", "trtllm"])
@pytest.mark.parametrize("strategy", ["dynamic", "merged", "merged:credits", "mixed", "paged"])
def test_reports_add_up_and_every_token_had_a_step(engine: str, strategy: str) -> None:
    service = served(engine, strategy)
    check_reports_add_up(service)
    steps, table, log = service.steps, service.table, service.log
    assert service.summary()["completed"] == len(table)
    if not log.preemptions.any():
        generated = (service.over_time.columns["batch"] * service.over_time.columns["steps"]).sum()
        assert generated == table.output_tokens.sum() - len(table)  # the first one comes with the prompt
        assert service.over_time.columns["prompt_tokens"].sum() == table.input_tokens.sum() - log.cached_tokens.sum()
    assert len(steps) == len(service.over_time.columns["steps"])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dynamic", "merged", "mixed", "paged"])
def test_what_is_given_up_cut_off_or_preempted_is_accounted_for(strategy: str) -> None:
    for client in (gs.Client(timeout_s=0.15), gs.Client(cutoff_s=0.7), gs.Client(connections=3, refuses=True)):
        check_reports_add_up(served("vllm", strategy, client))
    crowded = served("vllm", strategy, kv_tokens=320, max_num_seqs=16)
    check_reports_add_up(crowded)


DRAFTED = gs.Speculation(draft="ngram", tokens=3, acceptance=0.5, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "vllm-0.7", "sglang", "trtllm", "slora"])
@pytest.mark.parametrize("more", [{}, {"speculation": DRAFTED}, {"strategy": "paged"}, {"limits": {"kv_tokens": 640}}])
def test_what_a_server_holds_is_within_its_bounds_and_given_back(engine: str, more: dict[str, Any]) -> None:
    if engine == "slora" and "speculation" in more:
        pytest.skip("it does not draft")
    given = {**more, "limits": gs.EngineLimits(**more.get("limits", {}))}
    service = gs.serve("gpt-2", "l4", TRAFFIC, lora=replace(LORA, max_loras=3), engine=engine, **given)
    check_reports_add_up(service)
    steps, rules = service.steps, service.rules
    assert steps["kv_blocks"].max() <= rules.kv_blocks
    assert steps["kv_blocks"].iloc[-1] == 0  # nobody runs; what prompts have left for others counts as free
    assert steps["adapters"].max() <= rules.adapters.max_loras
    assert steps["batch"].max() <= rules.max_num_seqs
    width = 1 + (0 if rules.drafted is None else rules.drafted.tokens)
    assert (steps["prompt_tokens"] + width * steps["batch"]).max() <= rules.max_num_batched_tokens
    starts, seconds = (service.over_time.columns[name] for name in ("start_s", "seconds"))
    assert (starts[1:] >= (starts + seconds)[:-1] - 1e-9).all()  # one run of steps at a time
    requests = service.requests
    for earlier, later in (("sent_s", "admitted_s"), ("admitted_s", "first_token_s"), ("first_token_s", "finished_s")):
        assert (requests[earlier] <= requests[later]).all()


@pytest.mark.slow
@pytest.mark.parametrize("router", ["round-robin", "least-loaded", "adapter-affinity"])
def test_replicas_add_up_to_their_fleet(router: str) -> None:
    fleet = gs.serve("gpt-2", "l4", TRAFFIC, lora=LORA, replicas=3, router=router)
    found, replicas = fleet.summary(), fleet.replicas
    assert replicas["requests"].sum() == len(fleet.requests) == found["num_prompts"]
    assert sum(engine.summary()["completed"] for engine in fleet.engines) == found["completed"]
    for name in ("total_input_tokens", "total_output_tokens"):
        assert sum(engine.summary()[name] for engine in fleet.engines) == found[name]
    assert sum(len(engine.log.loads) for engine in fleet.engines) == replicas["loads"].sum()
    rows = [row for number in range(3) for row in fleet.rows_of(number)]
    assert sorted(rows) == list(range(len(fleet.requests)))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_a_fleet_of_one_is_the_server_and_attention_replicas_lose_nothing(engine: str) -> None:
    traffic = gs.Traffic.poisson(rate=200, requests=60, input_tokens=(20, 90), output_tokens=(1, 40), seed=4)
    spread = gs.Deployment("qwen3-30b-a3b", "h200-sxm", engine=engine, parallelism=gs.Parallelism(ep=4))
    alone, fleet = gs.serve(spread, traffic), gs.serve(spread, traffic, replicas=1)
    assert (alone.log.finished_s == fleet.log.finished_s).all()
    check_reports_add_up(alone)
    steps = alone.over_time.columns
    assert steps["prompt_tokens"].sum() == alone.table.input_tokens.sum()
    assert (steps["batch"] * steps["steps"]).sum() == alone.table.output_tokens.sum() - len(alone.table)
