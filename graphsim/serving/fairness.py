"""How evenly adapters are served: the share of each one's demand that was served, its longest wait, and Jain's
index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.serving.run_log import FINISHED, STATUSES, RunLog
from graphsim.traffic.table import RequestTable

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fairness:
    """Of each adapter that was asked for (BASE among them), in the order of their numbers.

    served_share: of the tokens, prompt and output, that were asked of it, those of requests answered by the time at
        which the last request was sent (or half of all were answered, where that is later, as in a burst): later
        service goes to the remaining requests
    longest_wait_s: from sending to the first step, or to the end of the run for a request that never ran
    """

    adapters: Ints
    served_share: Floats
    longest_wait_s: Floats

    @property
    def jain_index(self) -> float:
        """Jain's index of the shares served: 1 if all are equal, 1/n if one of n gets everything."""
        return jain_index(self.served_share)


def jain_index(values: Any) -> float:
    """(sum x)² / (n sum x²), of Jain, Chiu and Hawe (1984, DEC-TR-301); 1 where there is nothing to share."""
    shares = np.asarray(values, dtype=float)
    squares = float(shares.size * (shares**2).sum())
    return float(shares.sum() ** 2) / squares if squares > 0.0 else 1.0


def fairness(table: RequestTable, log: RunLog) -> Fairness:
    """How evenly the adapters of a run were served; requests that were never sent count for no adapter."""
    sent = np.isfinite(log.sent_s)
    adapters, number = np.unique(table.adapter[sent], return_inverse=True)
    tokens = (table.input_tokens + table.output_tokens)[sent].astype(float)
    finished = (log.status == STATUSES.index(FINISHED))[sent]
    ends = np.where(finished, log.finished_s[sent], np.inf)
    horizon = max(log.sent_s[sent].max(), np.quantile(ends, 0.5, method="lower")) if sent.any() else 0.0
    in_time = finished & (ends <= horizon)
    asked = np.bincount(number, weights=tokens, minlength=len(adapters))
    served = np.bincount(number, weights=tokens * in_time, minlength=len(adapters))
    until = np.where(np.isfinite(log.admitted_s[sent]), log.admitted_s[sent], log.end_s)
    longest = np.zeros(len(adapters))
    np.maximum.at(longest, number, until - log.sent_s[sent])
    return Fairness(adapters=adapters, served_share=served / np.maximum(asked, 1.0), longest_wait_s=longest)
