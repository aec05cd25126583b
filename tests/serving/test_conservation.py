"""Whatever a report shows adds up: requests in are requests out, and tokens in are tokens out."""

from __future__ import annotations

from dataclasses import replace

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
    assert sum(count for _, count in service.log.gaps) >= found["total_output_tokens"] - found["completed"]


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
