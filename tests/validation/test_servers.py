import pandas as pd
import pytest

from graphsim.hardware import load_hardware
from graphsim.validation.servers import FIRST_USE_S, PREFILL_LAYER_S, Server, server_of
from graphsim.validation.serving import validate_serving


def test_a_step_longer_than_the_captured_graphs_takes_no_less_than_its_launches():
    server = Server(captured_tokens=512.0)
    assert server.prefill_s(1e-3, layers=80, tokens=512) == pytest.approx(1e-3)
    assert server.prefill_s(1e-3, layers=80, tokens=513) == pytest.approx(80 * PREFILL_LAYER_S, rel=1e-3)
    assert server.prefill_s(1.0, layers=80, tokens=513) == pytest.approx(1.0, rel=1e-3)


def test_the_first_use_of_kernels_delays_the_first_round_of_requests_alone():
    row = {"hardware": "b200_sxm", "model": "meta-llama/Llama-3.1-70B", "precision": "fp8", "concurrency": 1,
           "input_tokens": 1024, "output_tokens": 64, "ttft_ms": 50.0, "tpot_ms": 8.0}  # fmt: skip
    few, many = validate_serving(pd.DataFrame([row | {"requests_per_client": n} for n in (2, 10)]))["ttft_predicted_ms"]
    assert few - many == pytest.approx(1e3 * FIRST_USE_S * (1 / 2 - 1 / 10))


def test_fused_kernels_take_no_step_time_of_their_own():
    seconds = {"ADD": 1e-4, "NORM": 2e-4, "GEMM": 5e-3}
    assert Server().step_s(6e-3, seconds, devices=8) == pytest.approx(5.9e-3)
    fused = Server(norms_in_all_reduce=True)
    assert fused.step_s(6e-3, seconds, devices=8) == pytest.approx(5.7e-3)
    assert fused.step_s(6e-3, seconds, devices=1) == pytest.approx(5.9e-3), "no all-reduce to run them in"


def test_servers_are_as_their_scripts_start_them():
    hopper, blackwell = load_hardware("h100-sxm"), load_hardware("b200-sxm")
    assert server_of("llama-3.1-70b", hopper).kv == server_of("llama-3.1-70b", blackwell).kv == "fp8"
    assert server_of("llama-3.1-70b", blackwell).captured_tokens == 0.0
    assert server_of("llama-3.1-70b", hopper).first_use_s == 0.0
    assert server_of("gpt-oss-120b", hopper).experts == "int4"
    assert not server_of("minimax-m2.5", hopper).data_parallel
    assert server_of("llama-3.1-8b", hopper) == Server()
