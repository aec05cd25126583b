"""What the reference runs say of their traffic can be said here: rates and ranks per adapter, prefixes, stages."""

from __future__ import annotations

import csv
import re
from math import inf
from pathlib import Path

import numpy as np
import pytest

from graphsim.traffic.client import Client
from graphsim.traffic.sessions import Sessions
from graphsim.traffic.traffic import Traffic
from tests.paths import REFERENCE

SERVING = REFERENCE / "serving"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SERVING.is_dir(), reason="no reference folder")]


def rows_of(name: str) -> list[dict[str, str]]:
    with Path(SERVING / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def metric(name: str, wanted: str) -> dict[str, float]:
    found = {row["id"]: row["value"] for row in rows_of(name) if row["metric"] == wanted}
    return {key: float(value) for key, value in found.items() if value}


def bsc(row: dict[str, str]) -> Traffic:
    """Poisson per adapter; where it is not said how many adapters have each rate, they are dealt out in turn."""
    adapters = int(row["adapters"])
    counts = [part.split(":") for part in row["adapter_counts_per_rate"].split()]
    if counts:
        rates = [float(rate) for rate, count in counts for _ in range(int(count))]
    else:
        cycle = [float(rate) for rate in row["adapter_rates_per_s"].split()]
        rates = [cycle[number % len(cycle)] for number in range(adapters)]
    seconds = float(row["duration_s"] or 3600)
    return Traffic.poisson(
        popularity=rates, seconds=seconds, ranks=row["ranks"],
        input_tokens=f"lognormal:mean={float(row['mean_input_tokens'] or 222)},median=152",
        output_tokens=f"gamma:mean={float(row['mean_output_tokens'] or 194)},cv=0.8",
        client=Client(connections=28_232, refuses=True, cutoff_s=seconds, rescales=False),
    )  # fmt: skip


def test_adapters_with_rates_and_ranks_of_their_own() -> None:
    rows = rows_of("bsc_lora_serving_runs.csv")
    for row in rows:
        traffic = bsc(row)
        assert len(traffic.adapters) == int(row["adapters"]) and traffic.ranks is not None
        assert set(map(str, traffic.ranks)) <= set(row["ranks"].split("/"))
        if row["offered_req_s"] and row["adapter_counts_per_rate"]:
            assert traffic.pool.rates is not None
            assert traffic.pool.rates.sum() == pytest.approx(float(row["offered_req_s"]), rel=0.01)
    hours = [row for row in rows if row["duration_s"] == "3600"]
    light = min(hours, key=lambda row: float(row["offered_req_s"] or inf))
    table, rate = bsc(light).table(), float(light["offered_req_s"])
    assert len(table) == pytest.approx(rate * 3600, rel=5 * (rate * 3600) ** -0.5)
    assert table.input_tokens.mean() == pytest.approx(float(light["mean_input_tokens"]), rel=0.05)


def blis(row: dict[str, str]) -> Traffic:
    """Constant gaps in stages; each of so many prompts is sent again and again, behind its group's system prompt."""
    stages = [(float(rate), float(seconds)) for rate, seconds in re.findall(r"([\d.]+)/s for (\d+) s", row["arrival"])]
    text = r"(\d+)(?:x| prompts x )(\d+)(?: users)?, system (\d+) \+ question (\d+) in, (\d+) out"
    found = re.search(text, row["lengths"])
    assert found and stages, row["id"]
    groups, prompts, system, question, answer = map(int, found.groups())
    stage = re.fullmatch(r"stage (\d)", row["note"])
    if stage and len(stages) > 1:
        stages = [stages[int(stage.group(1))]]
    return Traffic.poisson(
        rate=stages, burstiness=inf, input_tokens=question, output_tokens=answer,
        sessions=Sessions(
            shared_prefix_tokens=system, prefix_groups=groups, prompts_per_group=prompts, popularity="round_robin"
        ),
        client=Client(timeout_s=300.0),
    )  # fmt: skip


def test_stages_of_prompts_behind_system_prompts() -> None:
    sent, prompts = metric("blis_vllm015_metrics.csv", "sent"), metric("blis_vllm015_metrics.csv", "mean_prompt_len")
    compared = 0
    for row in rows_of("blis_vllm015_runs.csv"):
        traffic = blis(row)
        table = traffic.table()
        assert table.prefixes is not None and len(np.unique(table.prefixes.segment)) > 1
        if row["id"] in sent and row["id"] in prompts:
            compared += 1
            assert len(table) == sent[row["id"]], row["id"]
            assert table.input_tokens.mean() == pytest.approx(prompts[row["id"]], rel=0.08), row["id"]
    assert compared >= 20
