"""What a simulation returns: numbers, and the graphs behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.brief import figures_text
from graphsim.deployment.basis import Basis, basis_of, interval_share_text, trust_text
from graphsim.deployment.energy import Energy
from graphsim.deployment.engine_time import EngineTime
from graphsim.deployment.memory import Memory
from graphsim.errors import ConfigError
from graphsim.graph.critical import CriticalPath, path_of, schedule
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from graphsim.deployment.inference import Inference
    from graphsim.deployment.intervals import Uncertainty


COVERAGE = 0.8
"""Default coverage of intervals."""


@dataclass(frozen=True, slots=True)
class Given:
    """Answers every call with a known value; in a pickle, it replaces a function that another process lacks."""

    value: Any

    def __call__(self, *_: Any) -> Any:
        """The value."""
        return self.value


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseEstimate:
    """One step of the model: the prompt, or one token at the mean context of the generation.

    name: `prefill` or `decode`
    build: builds the annotated graph when it is first needed
    """

    name: str
    build: Callable[[], nx.DiGraph]

    @cached_property
    def graph(self) -> nx.DiGraph:
        """The annotated and scheduled graph: cost, latency, bound, start, finish, slack, critical on every node."""
        return schedule(self.build())

    def __repr__(self) -> str:
        return figures_text(
            "PhaseEstimate", {"latency_s": self.latency_s}, f"graph of {len(self.graph)} nodes", of=self.name
        )

    @property
    def latency_s(self) -> Num:
        """Seconds from the first launch to the last result."""
        latency: Num = self.graph.graph["latency_s"]
        return latency

    @property
    def critical_path(self) -> CriticalPath:
        """Names of the nodes that determine the latency, in order."""
        return path_of(self.graph)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from graphsim.display.notebook import phase_html

        return phase_html(self)

    def plot(self, *, scenario: int = 0) -> Figure:
        """Its operations under the device's roofline, and where its time goes (extra `plot`)."""
        from graphsim.display.panels import plot_phase

        return plot_phase(self, scenario=scenario)

    def to_frame(self) -> pd.DataFrame:
        """One row per node: name, op, dimensions, flops, bytes, latency_s, bound, critical."""
        from graphsim.display.operators import frame_of

        return frame_of(self.graph)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Speculated:
    """What speculation makes of a generation, at its mean over the growing context.

    tokens_per_step: mean tokens that a step yields
    draft_s, verify_s: of a step, plain_s of one without speculation
    draft_prompt_s: in which the draft reads the prompts: part of the time to the first token, or before the second one,
        by when the engine sends a step's tokens (`graphsim.lora.scheduler.EngineScheduler`)
    speedup: tokens per second of its steps, in parts of those without speculation
    """

    tokens_per_step: Num
    draft_s: Num
    verify_s: Num
    plain_s: Num
    draft_prompt_s: Num
    speedup: Num

    def __repr__(self) -> str:
        return figures_text("Speculated", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """Latency, throughput and memory of a batch of requests. Numbers are arrays where inputs were.

    model, hardware: names
    settings: the other arguments, as plain values
    cost_model: the source of the times: `calibrated`, `scaled from …`, `roofline` or a function's name
    ttft_s: seconds to the first token, including the engine's own work
    tpot_s: mean seconds per further token (of the first one, if there is no other)
    latency_s: seconds for the whole batch
    tokens_per_s: generated tokens of the whole batch per second
    one_time_s: seconds of work done once before serving (merging adapters), never part of the other figures
    prefill, decode: the prompt step, and a decode step at the mean context
    notes: what was omitted, assumed or not measured
    caution: the note on the reliability of the times, or ""
    inference: what was simulated, which can be simulated again with changes
    speculation: times of drafting and verifying, and the tokens they yield; None without a draft
    """

    model: str
    hardware: str
    settings: dict[str, Any]
    cost_model: str
    ttft_s: Num
    tpot_s: Num
    latency_s: Num
    tokens_per_s: Num
    one_time_s: Num
    prefill: PhaseEstimate
    decode: PhaseEstimate
    measure_memory: Callable[[], Memory]
    measure_engine: Callable[[nx.DiGraph], EngineTime]
    measure_energy: Callable[[], Energy]
    notes: tuple[str, ...] = ()
    caution: str = ""
    inference: Inference | None = None
    speculation: Speculated | None = None

    def __repr__(self) -> str:
        from graphsim.display.texts import estimate_text

        return estimate_text(self, self.basis, self.settings)

    def __getstate__(self) -> dict[str, Any]:
        """The fields for a copy or a pickle, with memory, engine time and energy computed."""
        computed = {"memory": self.memory, "engine": self.engine_time, "energy": self.energy}
        state = {own.name: getattr(self, own.name) for own in fields(self)}
        return state | {f"measure_{name}": Given(value) for name, value in computed.items()}

    @cached_property
    def basis(self) -> Basis:
        """Model, device, engine, precision, and how far to trust the times."""
        if self.inference is None:
            return Basis(
                model=self.model, hardware=self.hardware, engine=f"engine {self.engine}",
                precision=self.settings["precision"], trust=trust_text(self.cost_model, self.hardware),
            )  # fmt: skip
        sure = ""
        if np.size(self.tpot_s) <= 1 and not self.uncertainty.missing:
            sure = interval_share_text("TPOT", self.tpot_s, self.interval("tpot_s"), COVERAGE)
        return basis_of(self.inference.deployment, interval=sure)

    @property
    def engine(self) -> str:
        """Name of the engine whose kernels, host times and memory rules apply."""
        return str(self.settings["engine"])

    @cached_property
    def memory(self) -> Memory:
        """Bytes per device, and whether they fit."""
        return self.measure_memory()

    @cached_property
    def engine_time(self) -> EngineTime:
        """The engine's own part of `ttft_s`, which is no part of `prefill`."""
        return self.measure_engine(self.prefill.graph)

    @cached_property
    def energy(self) -> Energy:
        """Joules and watts, where the device states its power."""
        return self.measure_energy()

    @property
    def watts(self) -> Num:
        """Mean power of one device over the whole batch in watts; NaN if it is not known."""
        return self.energy.watts

    @property
    def energy_per_token_j(self) -> Num:
        """Joules of all devices per generated token, prompts included; NaN if the power is not known."""
        return self.energy.per_token_j

    def interval(self, name: str, coverage: float = COVERAGE) -> tuple[Num, Num]:
        """The range in which a figure is expected to be measured: low and high, arrays where the figure is one.

        name: `ttft_s`, `tpot_s`, `latency_s`, `tokens_per_s` or `one_time_s`
        coverage: share of cases that should lie within the range, at most 0.98, the limit of the recorded residuals
        Computed by propagating residuals of kernels on held-out shapes, by family, kind, size and distance from the
        measured range (for unmeasured devices: of measured devices treated as unmeasured), through the schedule, and
        from served benchmarks where the engine has any. The range need not be symmetric around the figure.
        Raises ConfigError for an unknown name or coverage, and without residuals: for the roofline, for custom cost
        functions, and for steps of which more than a tenth was not measured.
        """
        return self.uncertainty.interval(name, coverage)

    def intervals(self, coverage: float = COVERAGE) -> dict[str, tuple[Num, Num]]:
        """The interval of every time and of the throughput, by name; none where `interval` would say why not."""
        if self.inference is None or self.uncertainty.missing:
            return {}
        return {name: self.interval(name, coverage) for name in ("ttft_s", "tpot_s", "latency_s", "tokens_per_s")}

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """What intervals are made from. Raises ConfigError for an estimate that holds no inference."""
        from graphsim.deployment.intervals import Uncertainty

        if self.inference is None:
            raise ConfigError("interval: the estimate does not say what was simulated")
        return Uncertainty(
            inference=self.inference, prefill=lambda: self.prefill.graph, decode=lambda: self.decode.graph,
            ttft_s=self.ttft_s, tpot_s=self.tpot_s, one_time_s=self.one_time_s,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from graphsim.display.notebook import estimate_html

        return estimate_html(self)

    def plot(self, *, scenario: int = 0) -> Figure:
        """Where the time of both steps goes, the roofline, and the memory of a device (extra `plot`)."""
        from graphsim.display.panels import plot_estimate

        return plot_estimate(self, scenario=scenario)

    def to_dict(self) -> dict[str, Any]:
        """The whole estimate as plain JSON values."""
        values = {
            "model": self.model,
            "hardware": self.hardware,
            "settings": self.settings,
            "cost_model": self.cost_model,
            "basis": self.basis.to_dict(),
            "ttft_s": self.ttft_s,
            "tpot_s": self.tpot_s,
            "latency_s": self.latency_s,
            "tokens_per_s": self.tokens_per_s,
            "one_time_s": self.one_time_s,
            "engine_time": self.engine_time.to_dict(),
            "watts": self.watts,
            "energy_per_token_j": self.energy_per_token_j,
            "energy": self.energy.to_dict(),
            "intervals": {"coverage": COVERAGE, **self.intervals(COVERAGE)},
            "memory": self.memory.to_dict(),
            "notes": list(self.notes),
        }
        if self.speculation is not None:
            values["speculation"] = self.speculation.to_dict()
        return plain(values)  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """Numbers, lists and mappings as JSON knows them."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
