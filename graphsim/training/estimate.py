"""A training estimate: numbers per optimizer step, and the graph behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.brief import figures_text
from graphsim.deployment.basis import Basis, basis_of, interval_share_text
from graphsim.errors import ConfigError, choices_text
from graphsim.graph.critical import CriticalPath, path_of, schedule
from graphsim.result import COVERAGE, Given, plain
from graphsim.training.pipelined import Pipelined
from graphsim.training.setup import TrainingSetup, settings_of
from graphsim.training.slot_graph import slot_graph
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from graphsim.training.uncertain import StepUncertainty


SURE = 0.5
"""Share of a device's memory below which a step fits regardless of fragmentation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainMemory:
    """Bytes per device at the memory peak of a step; the parts add up to `total_bytes`.

    steady_bytes: bytes allocated between steps
    reserved: most bytes that the caching allocator holds, computed when
        first read
    capacity_bytes: memory of the device; peak_moment: the moment of the peak (`head`, `backward of layers`,
        `optimizer`, …)
    timeline: (moment, allocated bytes) in the order of the step
    """

    weights_bytes: Num
    gradients_bytes: Num
    optimizer_bytes: Num
    activations_bytes: Num
    adapters_bytes: Num
    logits_bytes: Num
    workspace_bytes: Num
    overhead_bytes: Num
    total_bytes: Num
    steady_bytes: Num
    reserved: Num | Callable[[], Num]
    capacity_bytes: Num
    peak_moment: Any
    timeline: tuple[tuple[str, Num], ...] = ()

    def __repr__(self) -> str:
        names = [own.name for own in fields(self) if own.name.endswith("_bytes")]
        return figures_text(
            "TrainMemory", {name: getattr(self, name) for name in names}, f"fullest at {self.peak_moment}"
        )

    def __getstate__(self) -> dict[str, Any]:
        """The fields for a copy or a pickle, with the reserved bytes computed."""
        state = {own.name: getattr(self, own.name) for own in fields(self)}
        return state | {"reserved": self.reserved_bytes, "fits": self.fits}

    @cached_property
    def reserved_bytes(self) -> Num:
        """Peak bytes reserved by PyTorch's caching allocator (`graphsim.training.reserved`)."""
        return self.reserved() if callable(self.reserved) else self.reserved

    @cached_property
    def fits(self) -> Any:
        """Whether the reserved memory fits into the device, per scenario; the allocated memory may decide this."""
        allocated = self.total_bytes / self.capacity_bytes
        if callable(self.reserved) and (np.all(allocated > 1.0) or np.all(allocated <= SURE)):
            return allocated <= 1.0
        return self.reserved_bytes <= self.capacity_bytes

    def to_dict(self) -> dict[str, Any]:
        """Everything by name, as plain JSON values."""
        names = [own.name.replace("reserved", "reserved_bytes") for own in fields(self)]
        values = {name: getattr(self, name) for name in names} | {"fits": self.fits}
        values["timeline"] = [{"moment": name, "bytes": size} for name, size in self.timeline]
        return plain(values)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainEstimate:
    """Time and memory of one optimizer step. Numbers are arrays where inputs were.

    setup: what was simulated
    step_s: seconds of one optimizer step
    parts_s: seconds of its parts, which add up to it: forward, recompute,
        backward, optimizer, exposed (collectives that nothing hides), bubble (of a pipeline)
    tokens_per_s: tokens per second of all devices
    tokens_per_s_per_gpu: of one device
    mfu, hfu: model flops and hardware flops over the device's dense peak in `peak_format`
    flops: flops of one device and step in the graph, by direction (forward, backward, recompute)
    counted_flops: flops as conventions of utilisation count them (`graphsim.training.flops`); `mfu` uses `graph`
    trainable_parameters: number of trained parameters
    cost_model: the source of the times, as in `Estimate`
    slots: when each micro-batch passes each stage of a pipeline; None without a pipeline
    notes: what was omitted, assumed or not measured
    caution: the note on the reliability of the times, or ""
    """

    setup: TrainingSetup
    step_s: Num
    parts_s: dict[str, Num]
    tokens_per_s: Num
    tokens_per_s_per_gpu: Num
    mfu: Num
    hfu: Num
    peak_format: str
    flops: dict[str, Num]
    counted_flops: dict[str, Num] = field(default_factory=dict)
    trainable_parameters: Num
    cost_model: str
    build: Callable[[], nx.DiGraph]
    measure_memory: Callable[[], TrainMemory]
    slots: Pipelined | None = None
    notes: tuple[str, ...] = ()
    caution: str = ""

    def __repr__(self) -> str:
        from graphsim.training.view import step_text

        return step_text(self)

    def __getstate__(self) -> dict[str, Any]:
        """The fields for a copy or a pickle, with the memory computed."""
        state = {own.name: getattr(self, own.name) for own in fields(self)}
        return state | {"measure_memory": Given(self.memory)}

    @property
    def basis(self) -> Basis:
        """Model, devices, recipe, precision, and how far to trust the times."""
        ends = {} if np.size(self.step_s) > 1 else self.intervals()
        sure = interval_share_text("step", self.step_s, ends["step_s"], COVERAGE) if ends else ""
        return basis_of(self.setup.deployment, self.setup.recipe.name, sure)

    @cached_property
    def pipeline(self) -> nx.DiGraph:
        """Forward and backward of every micro-batch on every stage, and the sends between stages, scheduled.

        Raises ConfigError where there is no pipeline.
        """
        if self.slots is None:
            raise ConfigError("pipeline: the step has no pipeline; train with parallelism.pp > 1")
        return schedule(slot_graph(self.slots))

    @cached_property
    def memory(self) -> TrainMemory:
        """Bytes per device at the peak, and whether they fit."""
        return self.measure_memory()

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Forward, loss, backward and update as one annotated and scheduled graph; of a pipeline, its slowest stage."""
        return schedule(self.build())

    def utilisation(self, convention: str) -> Num:
        """Model flops by a convention, over the device's dense peak.

        convention: `graph`, `palm`, `megatron` or `lora`
        Raises ConfigError for an unknown convention.
        """
        if convention not in self.counted_flops:
            known = choices_text(str(convention), self.counted_flops)
            raise ConfigError(f"convention = {convention!r} is not known; {known}")
        peak = self.setup.deployment.device.peak(self.peak_format)
        return self.counted_flops[convention] / (self.step_s * peak)

    @property
    def critical_path(self) -> CriticalPath:
        """Names of the nodes that determine the time, in order."""
        return path_of(self.graph)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.setup.deployment.model.name

    @property
    def hardware(self) -> str:
        """Name of the device."""
        return self.setup.deployment.device.name

    def interval(self, name: str = "step_s", coverage: float = COVERAGE) -> tuple[Num, Num]:
        """The range in which a figure is expected to be measured: low and high, arrays where the figure is one.

        name: `step_s`, `tokens_per_s`, `tokens_per_s_per_gpu`, `mfu` or `hfu`
        coverage: share of cases that should lie within the range; at most 0.98
        Raises ConfigError for an unknown name or coverage, and where there are no residuals.
        """
        return self.uncertainty.interval(name, coverage)

    def intervals(self, coverage: float = COVERAGE) -> dict[str, tuple[Num, Num]]:
        """The intervals of the step time and of the throughput, by name; empty where `interval` would raise."""
        if self.uncertainty.missing:
            return {}
        return {name: self.interval(name, coverage) for name in ("step_s", "tokens_per_s", "tokens_per_s_per_gpu")}

    @cached_property
    def uncertainty(self) -> StepUncertainty:
        """The uncertainty that intervals are computed from."""
        from graphsim.training.uncertain import StepUncertainty

        return StepUncertainty(self)

    def to_dict(self) -> dict[str, Any]:
        """The whole estimate as plain JSON values."""
        values = {
            "model": self.model,
            "hardware": self.hardware,
            "settings": settings_of(self.setup),
            "cost_model": self.cost_model,
            "basis": self.basis.to_dict(),
            "step_s": self.step_s,
            "parts_s": self.parts_s,
            "tokens_per_s": self.tokens_per_s,
            "tokens_per_s_per_gpu": self.tokens_per_s_per_gpu,
            "mfu": self.mfu,
            "hfu": self.hfu,
            "peak_format": self.peak_format,
            "flops": self.flops,
            "trainable_parameters": self.trainable_parameters,
            "intervals": {"coverage": COVERAGE, **self.intervals(COVERAGE)},
            "memory": self.memory.to_dict(),
            "notes": list(self.notes),
        }
        return plain(values)  # type: ignore[no-any-return]

    def to_frame(self) -> pd.DataFrame:
        """One row per node: name, op, dimensions, flops, bytes, latency_s, bound, critical."""
        from graphsim.display.operators import frame_of

        return frame_of(self.graph)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from graphsim.training.view import notebook

        return notebook(self)

    def plot(self, *, scenario: int = 0) -> Figure:
        """Where the time goes, a device's memory along the step, and its memory at the peak (extra `plot`)."""
        from graphsim.training.plots import plot_step

        return plot_step(self, scenario=scenario)
