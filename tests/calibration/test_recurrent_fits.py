"""What fits of recurrent kernels are worth on head layouts that they have not seen, and that they keep their order."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from graphsim.calibration.held_out import predicted_unseen
from graphsim.cost.families import recurrent
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.parameters.coding import decoded
from graphsim.hardware import load_hardware
from tests.paths import REFERENCE

MODULES = REFERENCE / "modules"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODULES.is_dir(), reason="no reference measurements"),
]


def rows_of(table: str, gpu: str, framework: str) -> pd.DataFrame:
    rows = pd.read_parquet(MODULES / f"{table}.parquet")
    return rows[(rows["gpu"] == gpu) & (rows["framework"] == framework)].reset_index(drop=True)


@pytest.mark.parametrize(
    ("table", "gpu", "device", "framework", "most"),
    [
        ("linear_attention", "b200_sxm", "b200-sxm", "vllm", 0.10),
        ("linear_attention", "l40s", "l40s", "trtllm", 0.10),
        ("linear_attention", "h100_sxm", "h100-sxm", "sglang", 0.10),
        ("kda", "h200_sxm", "h200-sxm", "vllm", 0.12),
        ("kda", "rtx_pro_6000_server", "rtx-pro-6000", "sglang", 0.12),
    ],
)
def test_layouts_that_were_not_seen_are_met(table, gpu, device, framework, most):
    rows = rows_of(table, gpu, framework)
    found = predicted_unseen(rows, FAMILIES["recurrent"], load_hardware(device))
    known = np.isfinite(found)
    assert known.mean() > 0.9
    assert np.median(np.abs(found / rows["latency_us"] - 1.0)[known]) < most


@pytest.mark.parametrize(("gpu", "device", "framework"), [("b200_sxm", "b200-sxm", "sglang"), ("l40s", "l40s", "vllm")])
def test_four_times_the_work_is_not_faster_and_fits_pass_through_files(gpu, device, framework):
    hardware = load_hardware(device)
    rows = pd.concat([rows_of(table, gpu, framework) for table in ("linear_attention", "kda")], ignore_index=True)
    fits = recurrent.fit(rows, hardware)
    assert decoded({"recurrent": fits}, "fits")["recurrent"].keys() == fits.keys()
    sizes = 2.0 ** np.arange(0, 11)
    for (phase, known), batch, heads in itertools.product(fits.items(), (1.0, 24.0, 300.0), (2.0, 12.0, 64.0)):
        for name in known:
            mechanism, _, step = name.partition(" ")
            grown = []
            for which in ("batch", "seq_len", "heads"):
                usual = {"batch": batch, "seq_len": {"context": 700.0, "verify": 2.0}.get(phase, 1.0), "heads": heads}
                if which == "seq_len" and phase != "context":
                    continue
                usual[which] = sizes
                shape = recurrent.RecurrentShape(
                    step=step, phase=phase, mechanism=mechanism, **usual, key_heads=usual["heads"],
                    channels=384.0 * usual["heads"],
                )  # fmt: skip
                grown.append(np.broadcast_to(recurrent.latency_s(fits, hardware, shape), sizes.shape))
            assert all((times[2:] >= 0.9 * times[:-2]).all() for times in grown), (phase, name)
