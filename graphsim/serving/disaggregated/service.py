"""A run with prefill and decode workers: the figures of any run, and the time spent between the workers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.result import plain
from graphsim.serving.disaggregated.pool_tables import STAGES, pool_frame, stage_seconds, step_frames, transfer_frame
from graphsim.serving.disaggregated.run_logs import PoolLogs
from graphsim.serving.figures import Floats
from graphsim.serving.rules import Rules
from graphsim.serving.service import Service
from graphsim.units import scaled, seconds_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DisaggregatedService(Service):
    """As `Service`; `log.runs`, `utilisation` and the plots over time show the busiest decode worker.

    logs: of both pools and of the transfers
    prefill_rules: of a prefill worker, `rules` are of a decode worker
    prefill_name, decode_name: devices and degrees, for reports
    """

    logs: PoolLogs
    prefill_rules: Rules
    prefill_name: str = ""
    decode_name: str = ""

    @cached_property
    def stages(self) -> dict[str, Floats]:
        """Seconds of each request in each part of its way, by the names of STAGES; nan for a part that it did not
        reach.
        """
        return stage_seconds(self.logs)

    @cached_property
    def pools(self) -> pd.DataFrame:
        """One row per worker: its pool, requests, share of time busy, mean and peak use of its KV cache, batch,
        tokens/s.

        kept_s: seconds for which it kept the keys and values of computed prompts, or had blocks that waited for them
        """
        return pool_frame(self.logs, self.prefill_rules, self.rules, self.duration_s, self.table)

    @cached_property
    def transfers(self) -> pd.DataFrame:
        """One row per transfer: request, workers, tokens, bytes, when it could begin, began and ended, in seconds."""
        return transfer_frame(self.logs.links.sent)

    @property
    def steps(self) -> pd.DataFrame:
        """One row per run of identical engine steps, of all workers: as in `Service`, with `pool` and `worker`."""
        return step_frames(self.logs, self.prefill_rules.kv_blocks, self.rules.kv_blocks)

    def request_rows(self, rows: slice) -> pd.DataFrame:
        """Some rows of `requests`: `replica` is the decode worker; with the prefill worker and the times in between."""
        found, logs = super().request_rows(rows), self.logs
        found["replica"] = logs.decode_worker[rows].astype(np.int32)
        found["prefill_replica"] = logs.prefill_worker[rows].astype(np.int32)
        found["prefilled_s"], found["kv_arrived_s"] = logs.prefilled_s[rows], logs.arrived_s[rows]
        return found

    def hand_off(self) -> dict[str, float]:
        """Means in milliseconds of the stages up to the first token, and of the transfers."""
        found = {f"mean_{name}_ms": 1e3 * _mean(self.stages[name]) for name in STAGES}
        sent = self.logs.links.sent
        found["transferred_bytes"] = float(sum(each.bytes for each in sent))
        found["mean_transferred_tokens"] = _mean(np.array([float(each.tokens) for each in sent]))
        return found

    def to_dict(self) -> dict[str, Any]:
        """As in `Service`, with both pools and the transfers between them."""
        own: dict[str, Any] = plain({"hand_off": self.hand_off(), "pools": self.pools.to_dict("records")})
        return super().to_dict() | own

    @property
    def more_rows(self) -> list[tuple[str, str]]:
        """Labels and figures that distinguish prefill workers, transfer and decode workers."""
        means = {name: _mean(self.stages[name]) for name in STAGES}
        pools, found = self.pools, self.hand_off()
        rows = []
        for pool, name in (("prefill", self.prefill_name), ("decode", self.decode_name)):
            own = pools[pools["pool"] == pool]
            rows.append(
                (
                    f"{pool} workers",
                    f"{len(own)} x {name}: busy {own['busy'].mean():.0%}, KV cache {own['kv'].mean():.0%} "
                    f"(at most {own['kv_peak'].max():.0%})",
                )
            )
        sent = len(self.logs.links.sent)
        each = scaled(found["transferred_bytes"] / sent, "B") if sent else "0 B"
        rows.insert(1, ("transfer", f"{self.logs.links.way.link}: {each} a request, {_text(means['transfer_s'])}"))
        way = ", ".join(f"{label} {_text(means[name])}" for name, label in STAGES.items())
        rows.append(("mean way to the first token", way))
        return rows + super().more_rows


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _text(value: float) -> str:
    return "–" if value != value else seconds_text(value)
