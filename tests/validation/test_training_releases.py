"""Settings of NVIDIA's scripts that its tables leave out, by release, model, device and format."""

from __future__ import annotations

from typing import Any

import pytest

from graphsim.validation.training_cases import case_of
from graphsim.validation.training_releases import exchange_overlaps, recipe_of_release

ROW: dict[str, Any] = {
    "model": "Qwen3_235B_a22B", "method": "pretrain", "precision": "FP8-CS", "num_devices": "256", "seq_len": "4096",
    "micro_batch": "1", "global_batch": "2048", "tp": "2", "pp": "8", "vpp": "4", "cp": "1", "ep": "32",
    "hardware": "NVIDIA DGX-H100", "framework": "Megatron-Bridge 25.11", "metric": "tokens_per_s_per_gpu",
}  # fmt: skip


@pytest.mark.parametrize(
    ("release", "recipe"),
    [("25.09", "megatron-bridge-26.04"), ("26.04.01", "megatron-bridge-26.04"), ("26.06", ""), ("26.08", "")],
)
def test_experts_kernels_are_those_of_the_release(release: str, recipe: str) -> None:
    assert recipe_of_release(f"Megatron-Bridge {release}") == recipe


def test_other_frameworks_have_no_release() -> None:
    assert recipe_of_release("NeMo 24.07") == ""
    assert not exchange_overlaps("NeMo 24.07", "Qwen3_235B_a22B", "NVIDIA DGX-H100", "FP8", "8")


def test_exchanges_overlap_only_where_a_script_says_so() -> None:
    hopper, blackwell = (case_of(ROW | {"hardware": f"NVIDIA DGX-{name}"}) for name in ("H100", "GB200"))
    assert hopper.changes["exchange_overlap"] > 0.0
    assert "exchange_overlap" not in blackwell.changes
