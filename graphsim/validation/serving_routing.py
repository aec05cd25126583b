"""Tables that compare routers: the same adapters and requests on replicas behind different routers.

The table states neither the device (it reports 24,564 MiB, as an RTX 4090 does) nor the adapters' popularity. So
absolute figures mean little, but ratios between routers do. The popularity is assumed as a power law whose exponent is
chosen on the rates 8, 24 and 40: of 1.2 to 1.4, whose ratios of throughput are biased by -5 to +1 % there, the one
with the least bias at which the first two err by at most 15 %, since the third cannot have run as stated. It is
evaluated on 16, 32 and 48. The static map assigns adapters to replicas in turn, and arrivals are a Poisson process.

A decode step reads all weights and generates one token per running sequence. Rows with more tokens per second than the
stated number of sequences and the device's bandwidth allow cannot have run as stated, and are judged separately.
"""

from __future__ import annotations

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.errors import ConfigError
from graphsim.files.measured import Row, number, whole
from graphsim.graph import walk
from graphsim.lora.config import LoraConfig
from graphsim.serving.fleet.adapter_routers import StaticMap
from graphsim.serving.fleet.router import LeastLoaded, Router
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable, request_table
from graphsim.validation.measured_run import MeasuredRun, Served
from graphsim.validation.serving_open_loop import arrivals_at, figures_of
from graphsim.validation.stand_in_lengths import chat_lengths

COLUMNS = {"routing", "replicas", "max_running_requests_per_replica", "max_loras_per_batch", "adapters", "ranks"}
DEVICE = "rtx-4090"
EXPONENT = 1.25
"""Exponent of the popularity; S-LoRA's traffic has 1 (arXiv 2311.03285)."""
SEED = 0
JUDGED = "ratios of routers alone: the device is not told"
BEYOND = f"{JUDGED}; more tokens per second than that many sequences can get if each step reads the weights"
MIGRATION = f"{JUDGED}; requests that move between replicas are not simulated"


def routing_run(row: Row, place: int) -> MeasuredRun:
    """The run of a row. Raises ConfigError for a row that cannot be parsed."""
    name, count, rate = str(row.get("id", place)), whole(row, "completed"), number(row, "offered_rate_req_s")
    adapters, replicas = whole(row, "adapters"), whole(row, "replicas")
    means = number(row, "total_input_tokens") / count, number(row, "total_generated_tokens") / count
    ranks = ranks_of(str(row["ranks"]), adapters)
    if "24564 MiB" not in str(row["hardware"]):
        raise ConfigError(f"hardware = {row['hardware']!r} is not understood")

    def table() -> RequestTable:
        draw = np.random.default_rng(SEED)
        prompts, answers = chat_lengths(count, *means, draw)
        shares = 1.0 / np.arange(1, adapters + 1) ** EXPONENT
        which = draw.choice(adapters, size=count, p=shares / shares.sum())
        return request_table(arrivals_at(rate, count, draw), prompts, answers, adapter=which)

    slots = whole(row, "max_loras_per_batch")
    lora = LoraConfig(rank=max(ranks), mixed_ranks=ranks, max_loras=slots, active_adapters=adapters)
    deployment = {
        "model": str(row["model"]), "hardware": DEVICE, "engine": "sglang", "precision": str(row["precision"]),
        "lora": lora,
    }  # fmt: skip
    limits = {"max_num_seqs": whole(row, "max_running_requests_per_replica"), "max_loras": slots}
    served = Served(
        deployment=deployment, table=table, limits=limits, client=Client(rescales=False), loaded=True,
        replicas=replicas, router=router_of(str(row["routing"]), adapters, replicas),
    )  # fmt: skip
    return MeasuredRun(
        id=name, key=name, measured=figures_of(row), served=served,
        judged=_judged(row, most_tokens_per_s(row)),
        about={"engine": "sglang", "model": str(row["model"]), "routing": str(row["routing"]), "rate": rate},
    )  # fmt: skip


def _judged(row: Row, most: float) -> str:
    if "migration" in str(row["routing"]):
        return MIGRATION
    return BEYOND if number(row, "total_generated_tokens") / number(row, "duration") > most else JUDGED


def most_tokens_per_s(row: Row) -> float:
    """Upper bound of a row's tokens per second: one token of each running sequence per reading of the weights."""
    deployment = Deployment(str(row["model"]), DEVICE, precision=str(row["precision"]))
    weights = sum(float(op.work().weight_bytes) * times for _, op, times in walk(deployment.decode(1, 1)))
    running = whole(row, "replicas") * whole(row, "max_running_requests_per_replica")
    return running * float(deployment.device.memory_bytes_per_s) / weights


def router_of(told: str, adapters: int, replicas: int) -> Router:
    """The router of a row. Raises ConfigError for an unknown one."""
    if told.startswith("static"):
        return StaticMap({adapter: adapter % replicas for adapter in range(adapters)})
    if told.startswith("least loaded"):
        return LeastLoaded()
    raise ConfigError(f"routing = {told!r} is not understood; known are static maps and least loaded")


def ranks_of(told: str, adapters: int) -> tuple[int, ...]:
    """Ranks distributed over the adapters in turn, of `8/16/32/64, four each`. Raises ConfigError for anything else."""
    numbers = told.split(",")[0].split("/")
    if not all(each.strip().isdecimal() for each in numbers):
        raise ConfigError(f"ranks = {told!r} is not understood; expected 8/16/32/64, four each")
    return tuple(int(numbers[i % len(numbers)]) for i in range(adapters))
