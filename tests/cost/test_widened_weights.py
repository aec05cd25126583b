"""Weights in a format that a device has no matrix unit for are widened by weight-only kernels, and priced so.

vLLM runs FP8 checkpoints on Ampere through Marlin (pull request 5975: up to twice as fast where memory binds, bf16's
compute) and NVFP4 on Hopper likewise; devices without such kernels refuse.
"""

from __future__ import annotations

import numpy as np
import pytest

import graphsim as gs

FP8_CHECKPOINT = {
    "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "tie_word_embeddings": False, "quantization_config": {
        "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
}  # fmt: skip
"""Qwen3-8B-FP8."""

LACKING = [
    ("a100-sxm-80gb", "fp8"),
    ("a10g", "fp8_block"),
    ("a100-sxm-80gb", "nvfp4"),
    ("h100-sxm", "nvfp4"),
    ("l4", "nvfp4"),
    ("rtx-4090", "nvfp4"),
]
BYTES = {"fp8": 1.0, "fp8_block": 1.0 + 4 / 128**2, "nvfp4": 0.5625}


@pytest.mark.parametrize(("device", "precision"), LACKING)
@pytest.mark.parametrize("cost", ["calibrated", "roofline"])
def test_a_step_bound_by_memory_gains_and_one_bound_by_compute_does_not(device: str, precision: str, cost: str) -> None:
    wide, narrow = (
        gs.simulate("llama-3.1-8b", device, 1, 2048, 2, precision=name, cost=cost, engine="reference")
        for name in ("bf16", precision)
    )
    linears = 32 * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 14336)
    spared_s = linears * (2.0 - BYTES[precision]) / gs.load_hardware(device).memory_bytes_per_s
    assert narrow.tpot_s < wide.tpot_s - 0.5 * spared_s
    flops_s = 2 * 2048 * linears / gs.load_hardware(device).peak("bf16")
    assert narrow.ttft_s > flops_s


@pytest.mark.parametrize("precision", ["fp8", "nvfp4"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "mixtral-8x7b"])
def test_no_device_multiplies_faster_than_the_unit_that_it_has(model: str, precision: str) -> None:
    """A reference device may have a unit for formats that the device itself lacks."""
    tokens, unit = 16384, {"fp8": "fp8", "nvfp4": "fp4"}[precision]
    experts = 2 if model == "mixtral-8x7b" else 1
    active = 32 * (2 * 4096**2 + 2 * 4096 * 1024 + experts * 3 * 4096 * 14336)
    devices = [gs.load_hardware(name) for name in gs.list_hardware()]
    widening = [device for device in devices if device.architecture in ("turing", "ampere", "ada", "hopper")]
    lacking = [d for d in widening if unit not in d.flops_per_s]
    assert len(lacking) > 5
    for device in lacking:
        peak = max(device.flops_per_s.get(name, 0.0) for name in ("bf16", "fp16"))
        assert (
            gs.simulate(model, device, 8, tokens // 8, 1, precision=precision, engine="reference").ttft_s
            > 2 * tokens * active / peak
        )


@pytest.mark.parametrize(("device", "precision"), LACKING)
def test_experts_are_widened_as_products_are(device: str, precision: str) -> None:
    estimate = gs.simulate("mixtral-8x7b", device, 4, 4096, 2, precision=precision, engine="reference")
    experts = 2 * 32 * 3 * 4096 * 14336
    assert estimate.ttft_s > 2 * 4 * 4096 * experts / gs.load_hardware(device).peak("bf16")
    assert np.isfinite(estimate.tpot_s)


def test_a_published_fp8_checkpoint_runs_on_ampere_and_says_how() -> None:
    estimate = gs.simulate(FP8_CHECKPOINT, "a100-sxm-80gb", engine="reference")
    assert estimate.memory.weights_bytes / 2**30 == pytest.approx(8.79, rel=0.01)  # logged by vLLM
    assert [note for note in estimate.notes if "no matrix unit for fp8_block" in note]


def test_where_the_unit_is_there_nothing_is_said() -> None:
    assert not gs.simulate(FP8_CHECKPOINT, "h100-sxm", engine="reference").notes


@pytest.mark.parametrize(("device", "precision"), [("tpu-v5e", "fp8"), ("epyc-9965", "fp8"), ("mi300x", "nvfp4")])
def test_a_device_without_unit_and_kernels_refuses(device: str, precision: str) -> None:
    with pytest.raises(gs.HardwareError, match="states no peak for"):
        gs.simulate("llama-3.1-8b", device, precision=precision, engine="reference")
