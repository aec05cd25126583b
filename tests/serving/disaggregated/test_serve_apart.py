"""`gs.serve` with prefill workers: its arguments, its tables and its reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.serving.disaggregated.service import DisaggregatedService
from graphsim.serving.disaggregated.splits import compare_splits
from graphsim.serving.disaggregated.transfer import FREE, Transfer
from graphsim.serving.serve import serving_of

LORA = gs.LoraConfig(rank=8, max_loras=2)


def traffic(count: int = 40, rate: float = 40.0, **given: Any) -> gs.Traffic:
    return gs.Traffic.poisson(rate=rate, requests=count, input_tokens=(100, 600), output_tokens=(1, 40), **given)


def apart(**given: Any) -> DisaggregatedService:
    found = gs.serve("gpt-2", "l4", given.pop("traffic", traffic()), **{"prefill_replicas": 1, **given})
    assert isinstance(found, DisaggregatedService)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_reports_tell_both_pools_and_the_way_apart(engine: str) -> None:
    service = apart(prefill_replicas=2, replicas=3, engine=engine, router="round-robin")
    found, requests = service.summary(), service.requests
    assert found["completed"] == 40 and set(requests["replica"]) == {0, 1, 2}
    assert list(service.pools["pool"]) == ["prefill"] * 2 + ["decode"] * 3
    assert service.pools["requests"].sum() == 80 and service.pools["busy"].between(0, 1).all()
    assert set(requests["prefill_replica"]) == {0, 1}
    assert (requests["kv_arrived_s"] >= requests["prefilled_s"]).all()
    transfers = service.transfers
    assert (
        len(transfers) == 40
        and (transfers["tokens"] == requests["input_tokens"]).sum() == 40
        or (transfers.set_index("request")["tokens"].sort_index() == requests["input_tokens"]).all()
    )
    steps = service.steps
    assert set(zip(steps["pool"], steps["worker"], strict=True)) == {
        ("prefill", 0), ("prefill", 1), ("decode", 0), ("decode", 1), ("decode", 2)
    }  # fmt: skip
    assert np.allclose(sum(service.stages.values()), requests["ttft_s"])
    labels = [label for label, _ in service.more_rows]
    assert labels == ["prefill workers", "transfer", "decode workers", "mean way to the first token"]
    told = service.to_dict()
    assert len(told["pools"]) == 5 and told["hand_off"]["transferred_bytes"] == pytest.approx(transfers["bytes"].sum())


@pytest.mark.slow
def test_adapters_take_turns_in_the_slots_of_both_pools() -> None:
    asked = traffic(adapters=5, popularity="zipf:1", base_share=0.2)
    service = apart(traffic=asked, lora=LORA, replicas=2)
    assert service.summary()["completed"] == 40
    assert all(log.loads for log in service.logs.prefill + service.logs.decode)
    assert service.adapters["loads"].sum() == len(service.log.loads)
    assert all(max(row[6] for row in log.runs) <= 2 for log in service.logs.decode)  # adapters of a step
    bare = apart(traffic=traffic(), replicas=2)
    assert service.latencies.ttft_s.mean() > bare.latencies.ttft_s.mean()


@pytest.mark.slow
def test_workers_may_differ_in_device_degree_and_limits() -> None:
    prefill = gs.Deployment("gpt-2", "h100-sxm", parallelism=gs.Parallelism(tp=2))
    fast = apart(prefill=prefill, prefill_limits=gs.EngineLimits(max_num_batched_tokens=512), transfer=FREE)
    slow = apart(transfer=FREE)
    assert fast.stages["prefill_s"].mean() < slow.stages["prefill_s"].mean()
    assert fast.prefill_rules.max_num_batched_tokens == 512 and fast.rules.max_num_batched_tokens > 512
    assert dict(fast.settings)["prefill_hardware"] == "h100-sxm" and dict(fast.settings)["prefill_tp"] == 2


@pytest.mark.slow
def test_a_free_transfer_to_a_worker_of_its_own_is_no_slower_per_token() -> None:
    asked = gs.Traffic.poisson(rate=30, requests=120, input_tokens=800, output_tokens=40)
    together = gs.serve("gpt-2", "l4", asked)
    for engine in ("vllm", "sglang", "trtllm"):
        assert apart(traffic=asked, transfer=FREE, engine=engine).summary()["mean_tpot_ms"] <= gs.serve(
            "gpt-2", "l4", asked, engine=engine
        ).summary()["mean_tpot_ms"] * (1 + 1e-9)
    assert together.summary()["completed"] == 120


@pytest.mark.slow
def test_a_search_and_an_interval_work_as_with_one_engine() -> None:
    serving = serving_of("gpt-2", "l4", traffic(), prefill_replicas=1)
    assert serving.faster(2.0).run().summary()["mean_ttft_ms"] >= serving.run().summary()["mean_ttft_ms"]
    low, high = serving.run().interval("mean_tpot_ms")  # type: ignore[attr-defined]
    assert low < serving.run().summary()["mean_tpot_ms"] < high


@pytest.mark.slow
def test_splits_hold_all_ways_to_use_the_workers() -> None:
    frame = compare_splits(serving_of("gpt-2", "l4", traffic()), 3, {"ttft_s": 1.0})
    assert list(frame.index) == ["3 aggregated", "1 prefill + 2 decode", "2 prefill + 1 decode"]
    assert (frame["prefill"] + frame["decode"] == 3).all() and frame["attainment"].between(0, 1).all()
    with pytest.raises(gs.ConfigError, match="workers = 50 is more than the 40 requests"):
        compare_splits(serving_of("gpt-2", "l4", traffic()), 50)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prefill": "l4"}, "prefill = 'l4' is not a Deployment"),
        ({"prefill_replicas": 0, "transfer": FREE}, "transfer is given, but prefill_replicas = 0"),
        ({"transfer": "fast"}, "transfer = 'fast' is not a Transfer"),
        ({"prefill_limits": {"max_num_seqs": 3}}, "prefill_limits = {'max_num_seqs': 3} is not an EngineLimits"),
        (
            {"prefill": gs.Deployment("gpt-2-medium", "l4")},
            "prefill: model = 'gpt-2-medium' is not the decode workers'",
        ),
        ({"prefill": gs.Deployment("gpt-2", "l4", precision="bf16,kv=fp8")}, "both sides must use one format"),
        ({"prefill": gs.Deployment("gpt-2")}, "prefill has no hardware"),
        ({"replicas": 0}, "replicas = 0 is not allowed"),
        ({"router": "luck"}, "router = 'luck' is not known"),
        ({"transfer": Transfer(link="string")}, "link = 'string' is not a level of 'l4'"),
        ({"traffic": traffic(adapters=2), "strategy": "merged"}, "is not simulated with prefill workers"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(given: dict[str, Any], words: str) -> None:
    with pytest.raises(gs.ConfigError) as caught:
        apart(**given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


SERVE = ["serve", "gpt-2", "--hardware", "l4", "--rate", "40", "--requests", "30", "--no-advice"]


@pytest.mark.slow
def test_the_command_says_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    asked = ["--prefill-replicas", "2", "--replicas", "1", "--prefill-hardware", "h100-sxm", "--prefill-tp", "2"]
    assert main([*SERVE, *asked, "--transfer", "bandwidth=1 GB/s", "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "2 x h100-sxm, tp 2" in shown and "a link of the given rate" in shown
    assert "prefill workers" in page.read_text(encoding="utf-8")
    assert main([*SERVE, *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["pool"] for row in found["pools"]] == ["prefill", "prefill", "decode"]
    assert main([*SERVE, "--splits", "2"]) == 0
    assert "1 prefill + 1 decode" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prefill-tp", "2"], "--prefill-tp needs --prefill-replicas"),
        (["--transfer", "overlap=layers"], "--transfer needs --prefill-replicas"),
        (["--splits", "2", "--prefill-replicas", "1"], "--prefill-replicas and --splits exclude each other"),
        (["--splits", "2", "--vary", "max_num_seqs=1,2"], "exclude each other; ask one question at a time"),
        (["--prefill-replicas", "1", "--prefill-hardware", "h1000"], "h1000"),
    ],
)
def test_options_that_say_nothing_are_one_sentence(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SERVE, *options]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
