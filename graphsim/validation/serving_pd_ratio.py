"""Benchmarks of prefill and decode workers on one node, a closed loop each: dstack's ratios of gpt-oss-120b on H200.

The client draws the same prompts in every run of a length (the sums of their tokens agree to one), and SGLang keeps
prompts in its prefix cache: a run after another one of the same day finds them on the prefill workers that had them,
unless longer prompts have evicted them since. The file names state when a run ended. Answers end at each token with the
same probability, up to the stated maximum, with the measured mean.

Kernels of gpt-oss are those measured under vLLM: on Hopper both run its experts with OpenAI's Triton kernels (SGLang,
python/sglang/srt/server_args.py: moe_runner_backend = triton_kernel), which SGLang's own table does not hold.

Constants of the KV transfer are chosen on one prefill and one decode worker, and evaluated on two of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import Row, number, whole
from graphsim.serving.disaggregated.hand_off import HAND_OFFS
from graphsim.serving.disaggregated.layout import layout_of
from graphsim.serving.disaggregated.run import Pool, run_pools
from graphsim.serving.disaggregated.transfer import Transfer, way_between
from graphsim.serving.engine_rules import rules_of
from graphsim.serving.front import front_of
from graphsim.serving.pricing import price_of
from graphsim.traffic.table import Prefixes, RequestTable, request_table
from graphsim.validation.judged import judged_line
from graphsim.validation.measured_run import HALVES
from graphsim.validation.run_figures import Outcome, Replayed, is_run_figure, run_figure
from graphsim.validation.run_lines import NOT_SIMULATED, Progress
from graphsim.validation.validate import hardware_name

COLUMNS = {"prefill_workers", "decode_workers", "kv_transfer", "max_concurrency", "output_tokens_max"}
"""Columns that identify such a table."""

RULES, KERNELS = "sglang-0.5.9", "vllm-0.11"
"""Profiles of September 2025: that of the scheduler, and that of the kernels."""

HAND_OVER = Transfer(bytes_per_s=4.3e9, setup_s=60e-3, descriptor_s=150e-6)
"""KV transfer by NIXL within a node. bytes_per_s: received by a device in vLLM issue 50913, 4,319 MB/s. setup_s, and
descriptor_s per layer's keys or values: chosen on one worker of each kind, where the median error of mean TTFT is 19 %;
with half or twice of either it is 21 to 32 %."""

ENDED = re.compile(r"(\d{8})_(\d{6})")


def pd_ratio_lines(rows: Sequence[Row], progress: Progress | None) -> Iterator[dict[str, Any]]:
    """A line for each measured figure."""
    known = _known_prompts(rows)
    for row in rows:
        name, figures = str(row["id"]), [str(metric) for metric in row if is_run_figure(str(metric))]
        half = HALVES[int(row["prefill_workers"] > 1)]
        if progress:
            progress(f"run {name}")
        found, problem = None, ""
        try:
            found = _outcome(row, known[name])
        except GraphsimError as error:
            problem = str(error)
        for metric in figures:
            predicted = np.nan if found is None else run_figure(found, metric)
            reason = problem or ("" if np.isfinite(predicted) else NOT_SIMULATED)
            yield judged_line(name, metric, row[metric], predicted, reason) | {"judged": "", "half": half}


def _outcome(row: Row, earlier: int) -> Outcome:
    """The requests of a row, as answered by its workers.

    earlier: number of earlier runs with the same prompts
    """
    count, done = whole(row, "num_prompts"), whole(row, "completed")
    if done < count:
        raise ConfigError(f"not simulated: {count - done} of {count} requests failed")
    table = _table(row, count)
    device, parallelism = hardware_name(str(row["hardware"]).split(" (")[0]), Parallelism(tp=whole(row, "tp"))
    deployed = {
        name: Deployment(str(row["model"]), device, parallelism=parallelism, engine=name) for name in (RULES, KERNELS)
    }
    rules, layout = rules_of(deployed[RULES]), layout_of(deployed[RULES])
    price = price_of(deployed[KERNELS], mean_prompt=float(table.input_tokens.mean()))
    workers = whole(row, "prefill_workers"), whole(row, "decode_workers")
    way = way_between(
        deployed[RULES], deployed[RULES], (layout, layout), HAND_OFFS["sglang"], HAND_OVER, workers=workers,
        block_tokens=rules.block_tokens, chunk_tokens=rules.max_num_batched_tokens,
    )  # fmt: skip
    logs = run_pools(
        table, Pool(rules=rules, price=price, workers=workers[0]),
        Pool(rules=replace(rules, prefix_cache=False), price=price, workers=workers[1]), way,
        concurrency=whole(row, "max_concurrency"), front=front_of(deployed[RULES]), router="random",
        warm=_warm(count, workers[0], earlier),
    )  # fmt: skip
    return Outcome(Replayed(table, logs.whole, inf))


def _table(row: Row, count: int) -> RequestTable:
    """Requests with prompts of equal length and different texts."""
    prompt = round(number(row, "total_input_tokens") / count)
    answers = lengths_by_chance(number(row, "total_output_tokens") / count, whole(row, "output_tokens_max"), count)
    prefixes = Prefixes(start=np.arange(count + 1), segment=np.arange(count), end=np.full(count, prompt))
    return request_table(np.full(count, np.nan), np.full(count, prompt), answers, prefixes=prefixes)


def lengths_by_chance(mean: float, most: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Lengths with the given mean that end with the same probability at each token, up to `most`.

    Quantiles of an exponential distribution of scale s, truncated at `most`: its mean is s (1 - exp(-most / s)).
    """
    scales = np.geomspace(most / 500.0, most * 500.0, 4096)
    scale = float(np.interp(min(mean, float(most)), -scales * np.expm1(-most / scales), scales))
    lengths = -scale * np.log1p(-(np.arange(count) + 0.5) / count)
    return np.random.default_rng(0).permutation(np.clip(np.round(lengths), 1, most).astype(np.int64))


def _known_prompts(rows: Sequence[Row]) -> Mapping[str, int]:
    """For each row, the number of earlier runs whose prompts are still in the servers' prefix caches."""
    capacity: dict[int, int] = {}
    found = {str(row["id"]): 0 for row in rows}
    timed = [(at, row) for row in rows if (at := ENDED.search(str(row.get("source", ""))))]
    timed.sort(key=lambda each: each[0][0])
    for place, (at, row) in enumerate(timed):
        try:
            workers, prompt = whole(row, "prefill_workers"), number(row, "input_tokens")
            passed = 0.0
            for other_at, other in reversed(timed[:place]):
                if (
                    other_at[1] != at[1]
                    or whole(other, "prefill_workers") != workers
                    or passed >= _tokens(row, capacity)
                ):
                    break
                found[str(row["id"])] += number(other, "input_tokens") == prompt
                passed += number(other, "total_input_tokens") / workers
        except ConfigError:
            continue
    return found


def _tokens(row: Row, known: dict[int, int]) -> int:
    """Tokens in the cache of one worker."""
    tp = whole(row, "tp")
    if tp not in known:
        device = hardware_name(str(row["hardware"]).split(" (")[0])
        rules = rules_of(Deployment(str(row["model"]), device, parallelism=Parallelism(tp=tp), engine=RULES))
        known[tp] = rules.kv_blocks * rules.block_tokens
    return known[tp]


def _warm(count: int, workers: int, earlier: int) -> list[list[int]]:
    """Cached prompts by worker, with each prompt of each earlier run sent to a random worker."""
    draw = np.random.default_rng(1)
    share = 1.0 - (1.0 - 1.0 / workers) ** earlier
    return [np.flatnonzero(draw.random(count) < share).tolist() for _ in range(workers)]
