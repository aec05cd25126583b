"""A measured run and a simulated one of the same traffic, and what can be asked of the two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphsim.traffic.table import Floats

CLOSE = 0.10
"""Up to here figures count as alike: about what two runs of one server differ by in TTFT."""

QUEUED = 0.03
"""The same for steps where requests queue, as a queue multiplies what a step is off by."""

_WORDS = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2E latency"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """Columns of single requests; nan where nothing is known."""

    start_s: Floats
    input_tokens: Floats
    ttft_s: Floats
    e2e_s: Floats

    def beginning(self) -> tuple[int, float, float] | None:
        """How many requests the first tenth holds, and the mean TTFT of these and of the others; None for too few."""
        known = np.isfinite(self.ttft_s) & np.isfinite(self.start_s)
        ttft = self.ttft_s[known][np.argsort(self.start_s[known], kind="stable")]
        count = max(8, len(ttft) // 10)
        if len(ttft) < 3 * count or not ttft[count:].mean() > 0:
            return None
        return count, float(ttft[:count].mean()), float(ttft[count:].mean())

    def line(self) -> tuple[float, float] | None:
        """Milliseconds of a first token for a request, and for 1,000 tokens of its prompt.

        Least squares over the faster nine tenths; None for too few requests, or prompts that are too alike.
        """
        known = np.isfinite(self.ttft_s) & np.isfinite(self.input_tokens)
        tokens, ttft = self.input_tokens[known], self.ttft_s[known] * 1e3
        if len(ttft) < 20:
            return None
        kept = ttft <= np.percentile(ttft, 90)
        tokens, ttft = tokens[kept], ttft[kept]
        if tokens.std() < 0.1 * tokens.mean() or not tokens.std() > 0:
            return None
        slope, start = np.polyfit(tokens / 1e3, ttft, 1)
        return float(start), float(slope)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunPair:
    """Figures of two runs as in `vllm bench serve`'s result file, and what the client was told.

    request_rate: that was offered per second, inf for all at once or a closed loop
    there, here: single requests of the
    measured and of the simulated run, where they are known
    """

    measured: Mapping[str, float]
    predicted: Mapping[str, float]
    request_rate: float = math.inf
    there: Requests | None = None
    here: Requests | None = None

    def error(self, name: str) -> float:
        """predicted / measured - 1; nan where one of them is missing or 0 was measured."""
        there, here = self.measured.get(name, math.nan), self.predicted.get(name, math.nan)
        return here / there - 1.0 if there else math.nan

    def knows(self, name: str) -> bool:
        """Whether both have a figure."""
        return not math.isnan(self.error(name))

    def parts(self, name: str, limit: float = CLOSE) -> bool:
        """Whether a figure is off by more than is usual."""
        return abs(self.error(name)) > limit

    def both(self, name: str) -> str:
        """`median TTFT 48.9 ms measured, 16.5 ms predicted (-66%)`."""
        there, here = (_value(name, figures[name]) for figures in (self.measured, self.predicted))
        return f"{_spoken(name)} {there} measured, {here} predicted ({self.error(name):+.0%})"

    @property
    def is_lumpy(self) -> bool:
        """Whether the measured client's gaps are longer than its time per token: several tokens came at once."""
        gap, token = self.measured.get("mean_itl_ms", math.nan), self.measured.get("mean_tpot_ms", math.nan)
        return gap > 1.25 * token

    @property
    def step(self) -> str:
        """The figure that tells most of a step: the median gap, or TPOT where tokens came in lumps."""
        names = ("median_itl_ms", "median_tpot_ms", "mean_itl_ms")[self.is_lumpy :]
        return next((name for name in names if self.knows(name)), "mean_tpot_ms")

    @property
    def steps_part(self) -> bool:
        """Whether the runs' steps differ by enough to matter."""
        queued = has_queue(self.measured) or has_queue(self.predicted)
        return self.parts(self.step, QUEUED if queued else CLOSE)

    @property
    def order(self) -> float:
        """Correlation of both runs' end-to-end latencies, request by request; nan where these are not the same ones."""
        if self.there is None or self.here is None or len(self.there.start_s) != len(self.here.start_s):
            return math.nan
        rows = [np.lexsort((own.input_tokens, own.start_s)) for own in (self.there, self.here)]
        if not np.array_equal(self.there.input_tokens[rows[0]], self.here.input_tokens[rows[1]]):
            return math.nan
        there, here = self.there.e2e_s[rows[0]], self.here.e2e_s[rows[1]]
        both = np.isfinite(there) & np.isfinite(here)
        if both.sum() < 20 or not there[both].std() > 0 or not here[both].std() > 0:
            return math.nan
        return float(np.corrcoef(there[both], here[both])[0, 1])

    def kept_up(self, figures: Mapping[str, float]) -> float:
        """How fast a run's requests were answered as a share of how fast they came; nan where no rate was offered.

        The time in which the last one that came is generated, a quarter longer than the mean answer, does not count.
        """
        completed, duration = figures.get("completed", math.nan), figures.get("duration", math.nan)
        if math.isinf(self.request_rate):
            return math.nan
        sent_s = completed / self.request_rate
        answer_ms = figures.get("mean_e2el_ms", math.nan) - figures.get("mean_ttft_ms", math.nan)
        if math.isnan(answer_ms):
            tokens = figures.get("total_output_tokens", 0.0) / completed if completed else math.nan
            answer_ms = figures.get("mean_tpot_ms", math.nan) * tokens
        taken_s = duration - 1.25e-3 * answer_ms
        return sent_s / max(sent_s, taken_s) if sent_s > 0 and not math.isnan(taken_s) else math.nan


def has_queue(figures: Mapping[str, float]) -> bool:
    """Whether requests waited for each other.

    The mean first token, or the slowest, is far beyond the median; or the median takes as long as dozens of steps, and
    longer than a prompt of 100 tokens for each of them would.
    """
    median, mean = figures.get("median_ttft_ms", math.nan), figures.get("mean_ttft_ms", math.nan)
    prompt = figures.get("total_input_tokens", 0.0) / (figures.get("completed") or math.nan)
    step = figures.get("mean_tpot_ms", math.nan)
    usual = mean if math.isnan(median) else median
    return (
        mean > 2.0 * median or figures.get("p99_ttft_ms", 0.0) > 10.0 * median or usual > step * max(50, prompt / 100)
    )


def _spoken(name: str) -> str:
    if not name.endswith("_ms"):
        return name.replace("_", " ")
    statistic, latency, _ = name.split("_")
    return f"{statistic} {_WORDS[latency]}"


def _value(name: str, value: float) -> str:
    if not name.endswith("_ms"):
        return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{value / 1e3:.3g} s" if value >= 1e3 else f"{value:.3g} ms"
