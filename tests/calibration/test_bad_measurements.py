"""Measurements that are no kernels are refused with the file, the column and what is allowed; none is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.calibration.fit import calibrate_files


def gemms(**changed: Any) -> pd.DataFrame:
    m, n, k = (x.ravel() for x in np.meshgrid([1.0, 64.0], [256.0, 1024.0], [256.0, 1024.0]))
    frame = pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": m, "n": n, "k": k})
    frame["latency_us"] = 4.0 + 1e6 * (2.0 * m * n * k / 700e12 + 2.0 * (m * k + n * k + m * n) / 2.5e12)
    return frame.assign(**changed)


BAD = {
    "a negative size": (gemms(m=-1.0), "rows.csv: column m is -1.0 in row 0; expected a finite number above 0"),
    "a size of zero": (gemms(n=0.0), "column n is 0.0 in row 0"),
    "a missing size": (gemms(k=np.nan), "column k is nan in row 0"),
    "an endless size": (gemms(k=np.inf), "column k is inf in row 0"),
    "a size as text": (gemms(m="wide"), "column m holds a value that is not a number"),
    "no sizes": (gemms().drop(columns=["m", "k"]), "columns m, k missing; rows of family 'gemm' need dtype, m, n, k"),
    "no number format": (gemms().drop(columns="dtype"), "column dtype missing"),
    "seconds": (gemms(latency_us=gemms().latency_us / 1e6), "times the least time by the datasheet.*microseconds"),
    "attention without its shape": (
        pd.DataFrame({"op": "generation_attention", "dtype": "bfloat16", "batch": [1, 2], "latency_us": [5.0, 6.0]}),
        "columns kv_dtype, seq_len, kv_len, heads, kv_heads, head_dim missing",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_rows_that_are_no_kernels_are_refused(name: str, tmp_path: Path) -> None:
    frame, text = BAD[name]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(gs.ConfigError, match=text):
        calibrate_files([tmp_path / "rows.csv"], "h100-sxm", tmp_path / "made.calibration.json")
    assert not (tmp_path / "made.calibration.json").exists()
