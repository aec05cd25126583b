"""A training step as text and figures, for pages, tables and notebooks."""

from __future__ import annotations

import html
from typing import Any, Protocol

import networkx as nx
import numpy as np

from graphsim.brief import range_text
from graphsim.deployment.basis import Basis
from graphsim.display.nodes import number
from graphsim.display.training import DIRECTIONS, busy_s, kind_text
from graphsim.training.setup import TrainingSetup
from graphsim.units import Num, amount_text, bytes_text, count_text, seconds_text, throughput_text

FIGURES = ("step_s", "tokens_per_s", "tokens_per_s_per_gpu", "mfu", "hfu", "trainable_parameters")
"""Numbers of an estimate, one for each scenario."""


class ShownStep(Protocol):
    """The displayed parts of a step; `graphsim.training.estimate.TrainEstimate` is one."""

    @property
    def setup(self) -> TrainingSetup:
        """The step's description."""

    @property
    def basis(self) -> Basis:
        """Model, devices, recipe, precision, and how far to trust the times."""

    @property
    def step_s(self) -> Num:
        """Seconds of one optimizer step."""

    @property
    def parts_s(self) -> dict[str, Num]:
        """Seconds of the step's parts."""

    @property
    def tokens_per_s(self) -> Num:
        """Tokens per second of all devices."""

    @property
    def tokens_per_s_per_gpu(self) -> Num:
        """Tokens per second of one device."""

    @property
    def mfu(self) -> Num:
        """Model flops over the peak."""

    @property
    def hfu(self) -> Num:
        """Hardware flops over the peak."""

    @property
    def peak_format(self) -> str:
        """The format whose peak is used."""

    @property
    def flops(self) -> dict[str, Num]:
        """Flops by direction."""

    @property
    def trainable_parameters(self) -> Num:
        """Trainable parameters of the whole model."""

    @property
    def cost_model(self) -> str:
        """The source of the times."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was omitted, assumed or not measured."""

    @property
    def caution(self) -> str:
        """Caveats on the times."""

    @property
    def memory(self) -> Any:
        """The step's memory, a `TrainMemory`."""

    @property
    def graph(self) -> nx.DiGraph:
        """The annotated and scheduled graph."""


def title_of(estimate: ShownStep) -> str:
    """`llama-3.1-8b on h100-sxm, lora rank 16, recipe peft`."""
    setup = estimate.setup
    names = f"{setup.deployment.model.name} on {setup.deployment.device.name}"
    return f"{names}, {method_text(estimate)}, recipe {setup.recipe.name}"


def method_text(estimate: ShownStep) -> str:
    """`lora rank 16`; `qlora rank 16 (dora)`."""
    setup = estimate.setup
    lora = setup.deployment.adapter
    method = setup.method.name + (f" rank {amount_text(np.max(lora.rank))}" if lora is not None else "")
    if lora is not None and lora.variant not in ("lora", setup.method.name):
        method += f" ({lora.variant})"
    return method


def asked_of(estimate: ShownStep, scenario: int = 0) -> list[str]:
    """The request, in few words."""
    setup = estimate.setup
    degrees = setup.deployment.parallelism
    parts = [f"{amount_text(number(setup.batch, scenario))} x {amount_text(number(setup.seq_len, scenario))} tokens"]
    accumulate = number(setup.accumulate, scenario)
    parts += [f"{amount_text(accumulate)} micro-batches"] if accumulate > 1 else []
    for name in ("tp", "pp", "cp", "ep", "sp", "dp"):
        value = number(getattr(degrees, name, 1), scenario)
        parts += [f"{name} {amount_text(value)}"] if value > 1 else []
    parts += [setup.sharding] if number(degrees.dp, scenario) > 1 else []
    parts += [f"recomputation {setup.recompute}"] if setup.recompute != "none" else []
    parts += [f"{setup.optimizer.name}", setup.deployment.precision.name]
    parts += [f"offloaded: {', '.join(setup.offload)}"] if setup.offload else []
    return [*parts, f"cost model {estimate.cost_model}"]


def headline(estimate: ShownStep, scenario: int = 0) -> list[tuple[str, str]]:
    """Label and value of each headline figure."""
    devices = number(estimate.setup.deployment.parallelism.devices, scenario)
    tokens_per_s = number(estimate.tokens_per_s, scenario)
    rows = [
        ("time", seconds_text(number(estimate.step_s, scenario))),
        ("tokens", f"{tokens_per_s * number(estimate.step_s, scenario):,.0f}"),
        ("throughput", throughput_text(tokens_per_s)),
    ]
    if devices > 1:
        rows.append(("per device", throughput_text(number(estimate.tokens_per_s_per_gpu, scenario))))
    mfu, hfu = number(estimate.mfu, scenario), number(estimate.hfu, scenario)
    rows.append(("MFU", f"{mfu:.1%} of {estimate.peak_format}'s dense peak"))
    rows += [("HFU", f"{hfu:.1%}, with recomputation")] if hfu > 1.02 * mfu else []
    trained = number(estimate.trainable_parameters, scenario)
    whole = estimate.setup.deployment.model.num_parameters
    rows.append(("trained", f"{count_text(trained)} parameters, {trained / whole:.2%} of {count_text(whole)}"))
    return rows


def step_text(estimate: ShownStep) -> str:
    """A step in six lines; of many scenarios, from the least to the most."""

    def shares(value: float) -> str:
        return f"{value:.1%}"

    memory = estimate.memory
    fits = "fits" if np.all(memory.fits) else "does not fit" if not np.any(memory.fits) else "some do not fit"
    used, room = (range_text(size, bytes_text) for size in (memory.reserved_bytes, memory.capacity_bytes))
    several = f"; {np.size(estimate.step_s)} scenarios" if np.size(estimate.step_s) > 1 else ""
    speed = range_text(estimate.tokens_per_s, throughput_text)
    trained = range_text(estimate.trainable_parameters, count_text)
    return "\n".join(
        (
            str(estimate.basis),
            f"{method_text(estimate)}: {', '.join(asked_of(estimate)[:-1])}{several}",
            f"optimizer step     {range_text(estimate.step_s, seconds_text)}, {speed}",
            f"MFU                {range_text(estimate.mfu, shares)} of {estimate.peak_format}'s dense peak",
            f"trained            {trained} parameters of {count_text(estimate.setup.deployment.model.num_parameters)}",
            f"memory per device  {used} of {room}, {fits}",
        )
    )


def kinds_of(estimate: ShownStep, scenario: int = 0) -> dict[tuple[str, str], float]:
    """Busy seconds of the step's graph by direction and kind of operation, by their names."""
    found = busy_s(estimate.graph, scenario)
    return {(DIRECTIONS[direction], kind_text(kind)): seconds for (direction, kind), seconds in found.items()}


def notebook(estimate: ShownStep) -> str:
    """What a notebook shows: headline figures, memory and notes; of many scenarios, the first ones as a table."""
    from graphsim.display.notebook import MOST_ROWS, frame_html, framed, table

    notes = "".join(f"<div>note: {html.escape(note)}</div>" for note in dict.fromkeys(estimate.notes))
    count = np.size(estimate.step_s)
    if count > 1:
        import pandas as pd

        numbers = {name: np.broadcast_to(getattr(estimate, name), count)[:MOST_ROWS] for name in FIGURES}
        numbers["reserved_bytes"] = np.broadcast_to(estimate.memory.reserved_bytes, count)[:MOST_ROWS]
        return framed(f"{title_of(estimate)}, {count} scenarios", frame_html(pd.DataFrame(numbers)) + notes)
    memory = estimate.memory
    used, capacity = number(memory.reserved_bytes), number(memory.capacity_bytes)
    verdict = "fits" if used <= capacity else "does not fit"
    row = (
        "memory per device",
        f"{bytes_text(used)} of {bytes_text(capacity)}, {verdict}; fullest at {memory.peak_moment}",
    )
    return framed(title_of(estimate), table(["", ""], [*headline(estimate), row]) + notes)
