"""Sweeps on a real local Dask cluster: identical to serial ones, also when a worker is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import graphsim as gs

distributed = pytest.importorskip("distributed")
pytest.importorskip("pyarrow")

CHOICES: dict[str, Any] = {
    "batch": list(range(1, 41)), "input_tokens": [64, 500, 1000], "output_tokens": [1, 9], "tp": [1, 3],
    "rank": [8, 16], "strategy": ["base", "dynamic"],
}  # fmt: skip
ASKED = (["llama-3.2-1b", "gpt-2"], ["l4"])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return gs.sweep(*ASKED, **CHOICES, engine="reference")


@pytest.fixture
def client() -> Iterator[Any]:
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def test_an_executor_of_dask_gives_the_same_rows() -> None:
    choices = {"batch": [1, 8, 64], "tp": [1, 3], "rank": [8, 16]}
    with distributed.Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        found = gs.sweep("gpt-2", "l4", executor=client.get_executor(), **choices, engine="reference")
    pd.testing.assert_frame_equal(found, gs.sweep("gpt-2", "l4", **choices, engine="reference"), check_exact=True)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_rows_even_if_a_worker_is_killed(
    client: Any, table: pd.DataFrame, tmp_path: Path
) -> None:
    pd.testing.assert_frame_equal(
        gs.sweep(*ASKED, executor=client.get_executor(), **CHOICES, engine="reference"), table, check_exact=True
    )
    pids, seen = list(client.run(os.getpid).values()), list[int]()

    def kill_once(done: int, _: int) -> None:
        seen.append(done)
        if len(seen) == 2:
            os.kill(pids[0], signal.SIGKILL)

    folder = tmp_path / "x.parquet"
    gs.sweep_to_parquet(
        folder,
        *ASKED,
        chunk_rows=80,
        executor=client.get_executor(),
        progress=kill_once,
        **CHOICES,
        engine="reference",
    )
    assert seen[-1] == len(table) and len(seen) > 40
    pd.testing.assert_frame_equal(
        pd.read_parquet(folder), pd.DataFrame(table), check_exact=True, check_categorical=False
    )
