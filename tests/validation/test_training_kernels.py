"""Single kernels and single operations: priced as benchmarks run them, kept as autograd keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from graphsim.training.lone_kernels import lone_s
from graphsim.training.lone_losses import cross_entropy, fused_linear_cross_entropy, gated_mlp, jsd, kl_div
from graphsim.training.lone_norms import layer_norm, rms_norm, rope
from graphsim.validation.training import validate_training
from graphsim.validation.training_liger import KERNELS, liger_lines, lone_of
from graphsim.validation.training_saved import saved_lines
from tests.paths import REFERENCE

ROW: dict[str, Any] = {
    "id": "k", "hardware": "NVIDIA A100-SXM4-80GB", "kernel": "rms_norm", "provider": "liger", "mode": "full",
    "metric": "speed", "x_name": "H", "x_value": "4096", "value": "1", "unit": "ms",
    "config": json.dumps({"M": 2048, "dtype": "torch.bfloat16", "eps": 1e-6}),
}  # fmt: skip
TABLES = REFERENCE / "training"


@pytest.mark.parametrize("device", ["a100-sxm-80gb", "h100-sxm", "l40s"])
def test_one_fused_kernel_is_faster_than_a_chain_over_large_values(device: str) -> None:
    hardware = load_hardware(device)
    pairs = [
        (rms_norm(16384, 4096, 2.0, "liger"), rms_norm(16384, 4096, 2.0, "huggingface")),
        (rope(16384, 32, 8, 128, 2.0, "liger"), rope(16384, 32, 8, 128, 2.0, "huggingface")),
        (cross_entropy(16384, 65536, 4.0, "liger"), cross_entropy(16384, 65536, 4.0, "huggingface")),
        (kl_div(8192, 65536, 4.0, "liger"), kl_div(8192, 65536, 4.0, "torch")),
        (jsd(8192, 65536, 4.0, "liger"), jsd(8192, 65536, 4.0, "torch")),
    ]
    for fused, chain in pairs:
        assert lone_s(fused, "full", hardware) < lone_s(chain, "full", hardware)
        assert fused.peak_bytes["full"] <= chain.peak_bytes["full"]


def test_more_rows_never_take_less_time() -> None:
    hardware = load_hardware("a100-sxm-80gb")
    for mode in ("forward", "backward", "full"):
        times = [
            lone_s(layer_norm(rows, 4096, 4.0, "huggingface"), mode, hardware) for rows in (512, 2048, 8192, 32768)
        ]
        assert times == sorted(times) and times[0] > 0


def test_a_head_in_chunks_holds_a_part_of_the_logits() -> None:
    whole = fused_linear_cross_entropy(32768, 4096, 128256, "bf16", 2.0, "huggingface").peak_bytes["full"]
    chunks = fused_linear_cross_entropy(32768, 4096, 128256, "bf16", 2.0, "liger").peak_bytes["full"]
    assert whole - chunks > 2.0 * 32768 * 128256 * 2.0


def test_a_fused_activation_keeps_three_values_and_a_chain_four() -> None:
    held = [gated_mlp(4096, 4096, 11008, "bf16", 2.0, provider).peak_bytes["forward"] for provider in ("liger", "hf")]
    assert held[1] - held[0] == 4096 * 11008 * 2.0


def test_sizes_are_read_under_the_names_of_every_version() -> None:
    older = {"kernel": "cross_entropy", "x_name": "V", "x_value": "32768", "config": json.dumps({"B": 8, "T": 2048})}
    newer = {"kernel": "cross_entropy", "x_name": "BT", "x_value": "16384", "config": json.dumps({"vocab_size": 32768})}
    swept = {
        "kernel": "cross_entropy", "x_name": "model_config", "x_value": "some",
        "config": json.dumps({"model_configs": {"some": {"vocab_size": 32768}}, "BT": 16384}),
    }  # fmt: skip
    lines = [liger_lines(ROW | changed)["predicted"] for changed in (older, newer, swept)]
    assert lines[0] == lines[1] == lines[2] > 0


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kernel": "sparsemax"}, "has no rule"),
        ({"config": "{"}, "is not JSON"),
        ({"config": "[1]"}, "is not a mapping"),
        ({"config": json.dumps({"dtype": "torch.bfloat16"})}, "none of"),
        ({"config": json.dumps({"M": "many"})}, "is not a number"),
        ({"config": json.dumps({"M": 8, "dtype": "torch.odd"})}, "torch.odd"),
    ],
)
def test_rows_that_cannot_be_priced_say_why(changed: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        lone_of(ROW | changed)
    line = liger_lines(ROW | changed)
    assert told in line["problem"] and line["id"] == "k"


def test_units_and_modes_that_nobody_knows_say_so() -> None:
    assert "unit = 'furlongs'" in liger_lines(ROW | {"unit": "furlongs"})["problem"]
    assert "mode = 'sideways'" in liger_lines(ROW | {"mode": "sideways"})["problem"]
    assert liger_lines(ROW | {"metric": "joules"})["problem"] == "not simulated"
    assert len(KERNELS) >= 15


def test_bytes_and_flops_of_single_operations() -> None:
    shape = "b=1 s=128 h=64 f=256 r=4; single op"
    kept = {
        "linear W frozen": 0.0, "linear W trainable": 2.0 * 128 * 64, "silu(g)*u": 3.0 * 2.0 * 128 * 256,
        "PEFT LoRA linear, adapters bf16": 2.0 * 128 * (64 + 4),
    }  # fmt: skip
    for case, expected in kept.items():
        row = {"id": "s", "case": case, "shape": shape, "saved_bytes": expected, "unit": "2*s*b*h"}
        (line,) = saved_lines(row)
        assert (line["metric"], line["predicted"], line["problem"]) == ("saved_bytes", expected, "")
    row = {
        "id": "f", "case": "FLOPs: LoRA bf16, X grad", "shape": f"{shape}; base forward = 2*T*h*f", "saved_bytes": "",
        "unit": "forward 1.07813; backward 1.15625 x base forward FLOPs",
    }  # fmt: skip
    forward, backward = saved_lines(row)
    ratio = 4 * (64 + 256) / (64 * 256)
    assert forward["predicted"] == pytest.approx(1 + ratio) and backward["predicted"] == pytest.approx(1 + 2 * ratio)


@pytest.mark.slow
def test_the_table_of_liger_is_met() -> None:
    path = TABLES / "liger_kernels.csv"
    if not path.is_file():
        pytest.skip("the tables of training are not beside the checkout")
    table = validate_training(path)
    sizes = table.assign(size=table["error"].abs()).groupby("quantity")["size"].median()
    assert (table["problem"] == "").all() and sizes["time"] <= 0.12 and sizes["memory"] <= 0.05


@pytest.mark.slow
def test_what_autograd_keeps_is_exact() -> None:
    path = TABLES / "saved_activations.csv"
    if not path.is_file():
        pytest.skip("the tables of training are not beside the checkout")
    table = validate_training(path)
    known = table[(table["problem"] == "") & (table["metric"] == "saved_bytes") & (table["measured"] > 0)]
    assert (known["predicted"] == known["measured"]).mean() >= 0.9 and len(known) >= 35
