"""What `gs.serve` returns: a run with its figures, tables and files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphsim.result import COVERAGE, plain
from graphsim.serving.figures import PERCENTILES
from graphsim.serving.served_run import ServedRun
from graphsim.serving.service_files import write_json, write_jsonl, write_parquet
from graphsim.serving.service_interval import interval
from graphsim.serving.service_view import service_html, service_text


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Service(ServedRun):
    """A run of one server under one traffic: tables (`requests`, `adapters`, `groups`, `steps`), figures, files.

    `gs.to_html` and `gs.to_trace` draw it, `graphsim.export.serving_plots` plots it. See `ServedRun` for the fields.
    """

    def interval(self, name: str, coverage: float = COVERAGE) -> tuple[float, float]:
        """The range in which a figure of the summary is expected to be measured, given the uncertainty of step times.

        name: a key of `summary()`
        coverage: share of cases that should lie within the range
        The run is repeated with all steps longer, and shorter, by the factors that `Estimate.interval` gives for a step
        of the base model, so queues change as well. Adapter kernels and the host have no residuals. Lengths and order
        of requests are taken as given. Raises ConfigError for an unknown name, and where there are no residuals of
        steps.
        """
        return interval(self, name, coverage)

    def to_dict(self) -> dict[str, Any]:
        """Everything a script wants, as plain JSON values."""
        found = {
            "model": self.model, "hardware": self.hardware, "engine": self.engine, "settings": dict(self.settings),
            "summary": self.summary(), "utilisation": self.utilisation.to_dict(), "fairness": self.fairness,
            "adapters": self.adapters.to_dict("records"), "groups": self.groups.to_dict("records"),
            "preemptions": int(self.log.preemptions.sum()), "loads": len(self.log.loads),
            "warnings": list(self.warnings), "notes": list(self.notes),
        }  # fmt: skip
        return plain(found)  # type: ignore[no-any-return]

    def to_json(self, path: str | Path, *, percentiles: Iterable[float] = PERCENTILES, details: bool = True) -> Path:
        """Write the result file of `vllm bench serve --save-result`, with `--save-detailed`'s lists if `details`."""
        return write_json(self, path, percentiles=percentiles, details=details)

    def to_jsonl(self, path: str | Path) -> Path:
        """Write one record per request, in the form of AIPerf's `profile_export.jsonl`."""
        return write_jsonl(self, path)

    def to_parquet(self, folder: str | Path) -> Path:
        """Write `requests.parquet`, `adapters.parquet` and `steps.parquet` into a folder (extra `parquet`)."""
        return write_parquet(self, folder)

    def __repr__(self) -> str:
        return service_text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return service_html(self)
