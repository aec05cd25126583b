"""Intervals of an estimate's numbers: draws of its kernels' residuals, propagated through its schedule.

On a measured device, errors of kernels of different shapes are independent (the sum of four GEMMs that no fit has seen
varies accordingly), while a shape has the same error wherever a step runs it. On an unmeasured device, a family's
kernels share a part of their errors as well (`common` in its record). So each kernel has one sequence of normal scores,
and each family one that its kernels share; an operation takes the quantiles of its own kernel at these
(`cost/drawn.py`). The scores are a Latin hypercube (McKay, Beckman, Conover 1979), the same one every time.

A step's schedule runs under all DRAWS sets of errors at once, so that hidden operations stay hidden; the ends of an
interval are quantiles of the results. Where an engine was measured, what its server adds to its kernels
(`cost/served.py`) is drawn in addition to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import networkx as nx
import numpy as np

from graphsim.cost.base import Cost, annotate
from graphsim.cost.calibrated import Prices
from graphsim.cost.drawn import Residual, residual_of
from graphsim.cost.residuals import coverage_of, score_of
from graphsim.cost.served import ServedEngine, served_engine
from graphsim.cost.surfaces.tables import Array
from graphsim.deployment.inference import Inference, Latencies
from graphsim.errors import ConfigError, choices_text
from graphsim.graph.schedule import makespan_s
from graphsim.hardware import Hardware
from graphsim.ops import HOST, Op, Repeat
from graphsim.units import Num, checked_scenario, short

DRAWS = 512
"""Number of sets of errors, which determines the ends of an interval to a fiftieth of its width."""

MOST_UNJUDGED = 0.1
"""The part of a step's time without residuals up to which an interval is given."""

NAMES = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "one_time_s")
"""Names of the numbers that have intervals."""

SERVER = "server"
"""The name of the server's own error, among those of families."""

Scores = Mapping[Any, Array]
"""Normal scores of all draws, by family (what its kernels share) and by kernel; none where there are no errors."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timed:
    """An operation's estimate by scenario, and its possible error; None if unknown."""

    op: Op
    latency_s: Array
    residual: Residual | None

    @property
    def judged(self) -> bool:
        """Whether it takes no device time, or its possible error is known."""
        return self.residual is not None or self.op.stream == HOST or not self.latency_s.any()

    def drawn_s(self, scores: Scores) -> Array:
        """Its time at every draw; as estimated where its kernel has no scores."""
        told = self.residual
        if told is None or told.key not in scores:
            return self.latency_s[None, :]
        common = told.common
        mixed = np.sqrt(common) * scores[told.family] + np.sqrt(1.0 - common) * scores[told.key]
        return self.latency_s * told.factors(mixed)


class Step:
    """An annotated step whose operations may take other times than were estimated.

    residual: how far an operation's price may be off
    """

    def __init__(
        self,
        graph: nx.DiGraph,
        prices: Prices,
        hardware: Hardware,
        residual: Callable[[Prices, Op], Residual | None] = residual_of,
    ) -> None:
        self._graph, self._hardware, self._residual = graph, hardware, residual
        self._timed: dict[int, Timed] = {}
        self._once: list[tuple[float, Timed]] = []
        self._collect(graph, prices, 1.0)
        self.latency_s = np.atleast_1d(np.asarray(makespan_s(graph)))

    def _collect(self, graph: nx.DiGraph, prices: Prices, times: float) -> None:
        for _, node in graph.nodes(data=True):
            op = node["op"]
            if isinstance(op, Repeat):
                self._collect(op.body, prices, times * op.times)
                continue
            if id(op) not in self._timed:
                latency_s = np.atleast_1d(np.asarray(node["latency_s"], dtype=float))
                residual = self._residual(prices, op) if latency_s.any() and op.stream != HOST else None
                self._timed[id(op)] = Timed(op=op, latency_s=latency_s, residual=residual)
            if op.once:
                self._once.append((times, self._timed[id(op)]))

    @property
    def kernels(self) -> dict[tuple[Any, ...], str]:
        """The kernels that run, and the family of each."""
        told = [timed.residual for timed in self._timed.values()]
        return {residual.key: residual.family for residual in told if residual is not None}

    def relative(self, scores: Scores) -> Array:
        """Its time at every draw, by scenario, as a multiple of the estimate."""
        return np.asarray(self._run(lambda timed: timed.drawn_s(scores)) / self.latency_s)

    def unjudged(self) -> tuple[float, str]:
        """The largest part of any scenario's time without residuals, and the operations' types."""
        unknown = {timed.op.op_type.name: None for timed in self._timed.values() if not timed.judged}
        if not unknown:
            return 0.0, ""
        without_s = self._run(lambda timed: timed.latency_s[None, :] * timed.judged)
        return float(np.max(1.0 - without_s / self.latency_s)), ", ".join(unknown)

    def relative_once(self, scores: Scores) -> Array | None:
        """The one-time work at every draw as a multiple of its estimate; None where unknown."""
        if not all(timed.judged for _, timed in self._once):
            return None
        drawn_s, plain_s = np.zeros((1, 1)), np.zeros((1, 1))
        for times, timed in self._once:
            drawn_s, plain_s = drawn_s + times * timed.drawn_s(scores), plain_s + times * timed.latency_s
        return np.asarray(drawn_s / np.where(plain_s > 0.0, plain_s, 1.0))

    def _run(self, seconds: Callable[[Timed], Array]) -> Array:
        def price(op: Op, hardware: Hardware) -> Cost:
            return Cost(busy_s=seconds(self._timed[id(op)]))

        return np.atleast_2d(np.asarray(makespan_s(annotate(self._graph, self._hardware, price))))


@dataclass(frozen=True, kw_only=True, eq=False)
class Uncertainty:
    """The uncertainty of an estimate's numbers.

    inference: what was simulated
    prefill, decode: give the annotated graphs of its steps
    ttft_s, tpot_s, one_time_s: the estimate's own
    """

    inference: Inference
    prefill: Callable[[], nx.DiGraph]
    decode: Callable[[], nx.DiGraph]
    ttft_s: Num
    tpot_s: Num
    one_time_s: Num

    def interval(self, name: str, coverage: float = 0.8) -> tuple[Num, Num]:
        """The low and the high end. Raises ConfigError as `Estimate.interval` does."""
        if name not in NAMES:
            raise ConfigError(f"interval of {short(name)} is not known; {choices_text(str(name), NAMES)}")
        share = coverage_of(coverage)
        if self.missing:
            raise ConfigError(f"interval of {name}: {self.missing}")
        low, high = middle_of(self.drawn(name), share)
        return (low, high) if np.ndim(self.ttft_s) else (float(low[0]), float(high[0]))

    def widths(self, name: str, coverage: float = 0.8, scenario: int = 0) -> dict[str, float]:
        """How wide the interval of `ttft_s` or `tpot_s` is with the errors of one family alone, the widest first.

        In parts of the estimate; SERVER stands for what an engine's server adds. Empty where there is no interval.
        """
        if self.missing:
            return {}
        step = self._steps[name]
        alone = {}
        for family in dict.fromkeys(step.kernels.values()):
            own = {family, *(key for key, whose in step.kernels.items() if whose == family)}
            alone[family] = step.relative({which: self._scores[which] for which in own})
        if self._engine is not None:
            alone[SERVER] = self._server(name, self._scores)
        found = {which: width_of(values, coverage_of(coverage), scenario) for which, values in alone.items()}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def kernel_width(self, name: str, coverage: float = 0.8) -> float:
        """Width, log(high / low), of the interval that kernel errors alone give for `ttft_s` or `tpot_s`."""
        low, high = middle_of(self._kernel_times[name][:, 0], coverage_of(coverage))
        return float(np.log(high / low))

    @cached_property
    def missing(self) -> str:
        """Why there is no interval; "" where there is one."""
        prices = self.inference.price
        if not isinstance(prices, Prices):
            return f"no residuals are recorded for times of the cost model '{self.inference.deployment.cost_model}'"
        if not prices.has_records:
            return f"the calibration behind {self.inference.hardware.name} holds no residuals; calibrate it again"
        for name, step in self._steps.items():
            part, kinds = step.unjudged()
            if part > MOST_UNJUDGED:
                return f"{part:.0%} of {name} are operations without measurements ({kinds})"
        return ""

    @cached_property
    def _steps(self) -> dict[str, Step]:
        """The steps that the times are of."""
        prices, hardware = self.inference.price, self.inference.hardware
        if not isinstance(prices, Prices):
            raise ConfigError(self.missing)
        return {
            name: Step(build(), prices, hardware) for name, build in (("ttft_s", self.prefill), ("tpot_s", self.decode))
        }

    @cached_property
    def _names(self) -> dict[Any, Any]:
        """The sources of error, by owner: a device's kernels and families, an engine's server."""
        kernels = {key: family for step in self._steps.values() for key, family in step.kernels.items()}
        device, engine = self.inference.hardware.name, self.inference.deployment.engine_name
        names: list[Any] = [*dict.fromkeys(kernels.values()), *kernels]
        served = [f"{SERVER} {name}" for name in self._steps]
        return {name: (device, name) for name in names} | {name: (engine, name) for name in served}

    @cached_property
    def _scores(self) -> dict[Any, Array]:
        return _shared_scores(self)[0]

    @property
    def _engine(self) -> ServedEngine | None:
        return served_engine(self.inference.deployment.engine_name)

    def _server(self, name: str, scores: Scores) -> Array:
        """The factor of the engine's server on a time, at each draw; 1 if the engine was not measured."""
        if self._engine is None:
            return np.ones((1, 1))
        clients = np.atleast_1d(np.asarray(self.inference.requests.batch))
        return self._engine.factors(name, clients, scores[f"{SERVER} {name}"])

    @cached_property
    def _kernel_times(self) -> dict[str, Array]:
        """The times of both steps at each draw, as multiples of their estimates."""
        return {name: step.relative(self._scores) for name, step in self._steps.items()}

    def drawn(self, name: str, scores: Scores | None = None) -> Array:
        """A number at each draw, by scenario.

        scores: other draws than its own
        """
        if name == "one_time_s":
            return self._drawn_once()
        if scores is None:
            return np.asarray(getattr(self._own, name))
        relative = {key: step.relative(scores) for key, step in self._steps.items()}
        return np.asarray(getattr(self._drawn(scores, relative), name))

    @cached_property
    def _own(self) -> Latencies:
        """The latencies at each of its own draws."""
        return self._drawn(self._scores, self._kernel_times)

    def _drawn(self, scores: Scores, relative: Mapping[str, Array]) -> Latencies:
        """The latencies at each draw, from the times of both steps as multiples of their estimates."""
        times = {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s}
        drawn = {key: np.atleast_1d(time) * relative[key] * self._server(key, scores) for key, time in times.items()}
        return self._latencies(drawn["ttft_s"], drawn["tpot_s"])

    def relative(self, name: str, scores: Scores) -> Array:
        """A number at each draw as a multiple of the estimate."""
        estimate = np.atleast_1d(getattr(self._latencies(self.ttft_s, self.tpot_s), name))
        return np.asarray(self.drawn(name, scores) / estimate)

    def _latencies(self, ttft_s: Num, tpot_s: Num) -> Latencies:
        requests = self.inference.requests
        generation_s = tpot_s * np.maximum(requests.output_tokens - 1.0, 1.0)
        return Latencies(
            ttft_s=ttft_s, generation_s=generation_s, batch=requests.batch, output_tokens=requests.output_tokens
        )

    def _drawn_once(self) -> Array:
        relative = self._steps["ttft_s"].relative_once(self._scores)
        if relative is None:
            raise ConfigError("interval of one_time_s: the kernels of one-time work were not measured")
        return np.atleast_1d(self.one_time_s) * relative


def ratio_interval(one: Uncertainty, other: Uncertainty, name: str, coverage: float) -> tuple[float, float]:
    """The interval of the ratio of two estimates' errors (measured over estimated), other to one.

    A kernel that runs in both, on the same device, has the same error in both, as has the server of the same engine.
    """
    relative = [
        which.relative(name, scores) for which, scores in zip((one, other), _shared_scores(one, other), strict=True)
    ]
    low, high = middle_of(relative[1][:, 0] / relative[0][:, 0], coverage)
    return float(low), float(high)


def _shared_scores(*estimates: Uncertainty) -> list[dict[Any, Array]]:
    """For each estimate the scores of all its error sources; estimates that share a source share its scores."""
    whose = list(dict.fromkeys(owner for estimate in estimates for owner in estimate._names.values()))
    scores = dict(zip(whose, latin_hypercube(len(whose)), strict=True))
    return [{name: scores[owner] for name, owner in estimate._names.items()} for estimate in estimates]


def middle_of(draws: Array, coverage: float) -> tuple[Array, Array]:
    """The quantiles that enclose such a share of the draws, per row.

    As `np.quantile` has them, whose first call imports `numpy.ma`: a tenth of what a command takes to start.
    """
    last = len(draws) - 1
    places = [last * ((1.0 - coverage) / 2.0), last * ((1.0 + coverage) / 2.0)]
    pairs = [(int(place), min(int(place) + 1, last)) for place in places]
    ordered = np.partition(draws, sorted({row for pair in pairs for row in pair}), axis=0)
    low, high = (
        _between(ordered[one], ordered[other], place - one) for place, (one, other) in zip(places, pairs, strict=True)
    )
    return low, high


def _between(low: Array, high: Array, share: float) -> Array:
    """Rounded towards the nearer end, as numpy does it."""
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1.0 - share)


@lru_cache(maxsize=64)
def latin_hypercube(directions: int) -> Array:
    """Normal scores, one row per direction: the middles of DRAWS parts of equal probability, each time in another
    order.
    """
    middles = score_of((np.arange(DRAWS) + 0.5) / DRAWS)
    generator = np.random.default_rng(0)
    return np.stack([generator.permutation(middles) for _ in range(directions)])


def width_of(values: Array, coverage: float, scenario: int) -> float:
    """Width of the interval that the draws, one row each, give for one scenario."""
    held = values.shape[1]
    column = values[:, checked_scenario(scenario, held) if held > 1 else 0]
    low, high = middle_of(column, coverage)
    return float(high - low)
