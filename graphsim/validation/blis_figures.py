"""Figures in the definitions of inference-perf's reports, and of the BLIS study that uses them.

The client counts each line of a response's stream as a token: a data line and a blank line for each of n tokens, and
two more at the end. So its time per token is the time after the first token over 2 n + 1 gaps, and every other gap of
its ITL is zero. The study divides by the number of tokens of the answer's text minus one; re-tokenised text has fewer
tokens than were generated, and the number that it counted follows from its own figures.
"""

from __future__ import annotations

import re

import numpy as np

from graphsim.validation.figures import Values
from graphsim.validation.measured_run import MeasuredRun
from graphsim.validation.run_figures import Outcome, is_run_figure, run_figure

NO_GAP = "the client's gaps are between two lines of one token"
TEXT = "tokens of the answer's text, which is not generated here"
_ITL = re.compile(r"(mean|median|p\d+)_(itl|tpot)_ms")
_LENGTH = re.compile(r"(mean|median|max|p\d+)_(prompt|output)_len")
_RATES = {
    "input_tokens_per_sec": lambda found: found.input_tokens.sum() / found.duration_s,
    "requests_per_sec": lambda found: len(found.sent_s) / found.duration_s,
    "achieved_rate": lambda found: found.sent / max(found.sending_s, 1e-9),
}  # fmt: skip


def blis_figure(found: Outcome, run: MeasuredRun, name: str, measured: float) -> tuple[float, str]:
    """A prediction and a problem, one of which is set."""
    if name in _RATES:
        return float(_RATES[name](found)), ""
    if length := _LENGTH.fullmatch(name):
        if length[2] == "output":
            return np.nan, TEXT
        return _statistic(found.prompts, length[1]), ""
    if name in ("output_tokens_per_sec", "total_tokens_per_sec"):
        return np.nan, TEXT
    if token := _ITL.fullmatch(name):
        return _per_token(found, run, token[1], token[2], measured)
    if is_run_figure(name):
        return run_figure(found, name), ""
    return np.nan, "not simulated"


def _per_token(found: Outcome, run: MeasuredRun, statistic: str, what: str, measured: float) -> tuple[float, str]:
    if not len(found.sent_s):
        return np.nan, "no request is answered"
    rest = 1e3 * (found.finished_s - found.first_s)
    gaps = 2.0 * found.output_tokens + 1.0
    if what == "tpot":
        return _statistic(rest / gaps, statistic), ""
    if statistic == "mean":
        return float(rest.mean() / _counted(run, measured, float(gaps.mean()))), ""
    if statistic == "median":
        return np.nan, NO_GAP
    if not found.whole:
        return np.nan, "gaps of a part of a run are not told apart"
    share = 2.0 * float(statistic[1:]) / 100.0 - 1.0
    return run_figure(found, f"p{100.0 * share:.6g}_itl_ms"), ""


def _counted(run: MeasuredRun, measured: float, gaps: float) -> float:
    """Number of gaps of a mean request, as counted for the report's mean ITL."""
    told = dict(run.measured)
    rest = told.get("mean_e2e_ms", np.nan) - told.get("mean_ttft_ms", np.nan)
    counted = rest / measured if measured else np.nan
    return counted if counted > 0 else gaps


def _statistic(values: Values, statistic: str) -> float:
    if not len(values):
        return float("nan")
    if statistic in ("mean", "median", "max"):
        return float(getattr(np, statistic)(values))
    return float(np.percentile(values, float(statistic[1:])))
