"""Servers are as their scripts start them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphsim.hardware import load_hardware
from graphsim.models.loading import load_model
from graphsim.validation.served_rows import Pool, ServedRow
from graphsim.validation.servers import Server, server_of

ROW = ServedRow(
    id="1", model="meta-llama/Llama-3.1-70B", gpu="b200-sxm", engine="vllm", version="", precision="fp8",
    pool=Pool(tp=4, ep=1), clients=8, input_tokens=1024, output_tokens=1024,
)  # fmt: skip


def server(model: str = "llama-3.1-70b", device: str = "b200-sxm", **asked: object) -> Server:
    return server_of(replace(ROW, **asked), load_model(model), load_hardware(device))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "label", "precision"),
    [
        ("llama-3.1-70b", "fp8", "fp8,kv=fp8"), ("llama-3.1-70b", "fp4", "nvfp4,attention=nvfp4,kv=fp8"),
        ("deepseek-v3", "fp8", "fp8_block"), ("deepseek-v3", "fp4", "nvfp4,attention=bf16"),
        ("kimi-k2.5", "int4", "bf16,experts=int4_g32_sym"), ("gpt-oss-120b", "fp4", "bf16,experts=mxfp4"),
        ("gpt-oss-120b", "fp8", "bf16,experts=mxfp4"), ("qwen3-235b-a22b", "fp8", "fp8_block"),
        ("minimax-m2.5", "fp8", "fp8_block"), ("llama-3.1-70b", "bf16", "bf16"),
    ],
)  # fmt: skip
def test_a_label_stands_for_the_checkpoint_of_that_width(model: str, label: str, precision: str) -> None:
    assert server(model, precision=label).precision.name == precision


def test_narrow_projections_of_delta_nets_are_in_no_blocks() -> None:
    found = server("qwen3.5-397b-a17b", precision="fp8").precision
    assert {entry.format.name for entry in found.modules} == {"bf16"} and found.weights.name == "fp8_block"


def test_a_precision_as_graphsim_writes_it_is_taken_as_it_is() -> None:
    assert server(precision="fp8_block,kv=bf16", as_written=True).precision.name == "fp8_block"
    assert server("gpt-oss-120b", precision="checkpoint", as_written=True).precision.name == "bf16,experts=mxfp4"


def test_scripts_say_how_often_new_requests_are_looked_at_and_how_long_prompts_are_held_back() -> None:
    assert server("deepseek-v3", engine="sglang", clients=8).settings == {"receive_steps": 10}
    assert server("deepseek-v3", engine="sglang", clients=64).settings == {"receive_steps": 30}
    assert server("deepseek-v3", "h200-sxm", engine="sglang").settings == {}
    assert server(engine="trtllm").settings["batch_wait_steps"] == 20
    assert server(engine="trtllm", input_tokens=8192).settings == {}
    assert server(engine="trtllm", pool=Pool(tp=8, ep=1)).settings == {}


def test_steps_of_engines_that_cut_no_prompts_hold_the_longest() -> None:
    assert server(engine="trtllm", input_tokens=32768).chunk_tokens >= 32768


@pytest.mark.parametrize(
    ("version", "name"), [("", "vllm"), ("0.11.2", "vllm-0.11"), ("0.15.1", "vllm-0.15"), ("0.30", "vllm")]
)
def test_a_version_has_its_profile(version: str, name: str) -> None:
    assert server(version=version).engine == name
