import numpy as np
import pytest

import graphsim as gs
from graphsim.cost.calibrated import calibrated
from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.kernels import predict_kernels
from graphsim.cost.roofline import roofline
from graphsim.hardware import load_hardware
from graphsim.ops import Activation, AllReduce, Attention, Gemm, HeadGemm, LoraA, LoraB, Norm
from graphsim.ops.precision import load_precision


@pytest.fixture(scope="module")
def device():
    return load_hardware("h100-sxm")


@pytest.fixture(scope="module")
def price(device):
    return calibrated(device)[0]


def test_a_product_in_a_graph_costs_what_the_kernel_costs(device, price):
    import pandas as pd

    rows = pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": [3, 700], "n": 6144, "k": 4096})
    found = price(Gemm(m=np.array([3.0, 700.0]), n=6144.0, k=4096.0), device).latency_s
    assert found * 1e6 == pytest.approx(predict_kernels(rows, device).to_numpy(), rel=1e-12)


@pytest.mark.parametrize(
    "op",
    [
        Gemm(m=64.0, n=4096.0, k=4096.0),
        LoraA(m=64.0, n=16.0, k=4096.0, adapters=4.0),
        Norm(rows=64.0, width=4096.0),
        Activation(elems=1e7),
        AllReduce(elems=1e6, group=4.0),
        Attention(sequences=4.0, query_tokens=4.0, kv_tokens=4096.0, pairs=4096.0, heads=32.0, kv_heads=8.0,
                  head_dim=128.0, value_dim=128.0, decode=True),
    ],
)  # fmt: skip
def test_parts_stay_those_of_the_roofline_and_the_total_is_no_less(device, price, op):
    found, bare = price(op, device), roofline(op, device)
    assert (found.compute_s, found.memory_s, found.network_s) == (bare.compute_s, bare.memory_s, bare.network_s)
    assert found.latency_s >= bare.compute_s and found.busy_s >= 0 and found.launch_s > 0


def test_more_adapters_read_more_weights(device, price):
    one, many = (price(LoraA(m=64.0, n=16.0, k=8192.0, adapters=a), device).latency_s for a in (1.0, 32.0))
    assert many - one >= 31 * 16 * 8192 * 2 / device.memory_bytes_per_s


@pytest.mark.parametrize("rows", [1.0, 64.0, 4096.0])
def test_products_of_many_heads_take_no_less_than_their_flops_and_weights(device, price, rows):
    op = HeadGemm(m=rows, n=512.0, k=128.0, heads=128.0)
    found, bare = price(op, device), roofline(op, device)
    assert found.latency_s >= bare.busy_s
    assert price(HeadGemm(m=rows, n=512.0, k=128.0, heads=64.0), device).latency_s < found.latency_s


def test_a_block_diagonal_factor_costs_less_than_a_full_one(device, price):
    full, blocks = (price(LoraB(m=4096.0, n=8192.0, k=2048.0, blocks=b), device).latency_s for b in (1.0, 8.0))
    assert blocks < full / 2


def call_s(price, m, n, k, dtype="bfloat16"):
    return price.kernel_s(GemmShape(m=m, n=n, k=k, dtype=dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_calls_priced_together_cost_what_each_costs_alone(price, dtype):
    sizes = [(7.0, 4096.0, 4096.0), (7.0, 16.0, 4096.0), (0.0, 4096.0, 4096.0), (4096.0, 28672.0, 8192.0)]
    together = call_s(price, *np.array(sizes).T, dtype)
    assert together.tolist() == pytest.approx([call_s(price, *size, dtype) for size in sizes], rel=1e-12)


def test_calls_in_an_array_cost_what_each_costs_alone_to_the_last_bit(price):
    rows, moved = 2.0 ** np.linspace(0.0, 14.0, 400), 2.0 ** np.linspace(5.0, 30.0, 400)
    each = [float(call_s(price, x, 4096.0, 2048.0)) for x in rows.tolist()]
    assert call_s(price, rows, 4096.0, 2048.0).tolist() == each
    each = [float(price.kernel_s(ElementwiseShape(moved_bytes=x))) for x in moved.tolist()]
    assert price.kernel_s(ElementwiseShape(moved_bytes=moved)).tolist() == each


def test_no_rank_takes_no_time(device, price):
    assert price(LoraA(m=64.0, n=0.0, k=4096.0), device).latency_s == 0


@pytest.mark.parametrize("precision", ["bf16", "fp8", "int4"])
def test_an_estimate_says_what_its_prices_rest_on(precision):
    def estimate(hardware):
        return gs.simulate(
            "llama-3.1-8b", hardware, precision=load_precision(precision), cost="calibrated", engine="reference"
        )

    assert estimate("h100-sxm").cost_model == "calibrated"
    assert estimate("gh200").cost_model == "scaled from h100-sxm (hopper)"
    assert estimate("tpu-v5e").cost_model == "roofline" if precision == "bf16" else True


def test_many_scenarios_cost_what_each_costs_alone():
    batch = np.array([1, 7, 64])
    together = gs.simulate("llama-3.1-8b", "h100-sxm", batch=batch, cost="calibrated", engine="reference")
    alone = [
        gs.simulate("llama-3.1-8b", "h100-sxm", batch=int(b), cost="calibrated", engine="reference").ttft_s
        for b in batch
    ]
    assert together.ttft_s == pytest.approx(np.ravel(alone), rel=1e-9)


def test_attention_in_a_graph_costs_what_the_kernel_costs(device, price):
    import pandas as pd

    shared = {"heads": 32, "kv_heads": 8, "head_dim": 128, "kv_dtype": "bfloat16", "dtype": "bfloat16", "window": 0}
    rows = pd.DataFrame([
        {"op": "context_attention", "batch": 2, "seq_len": 512, "kv_len": 2048, **shared},
        {"op": "generation_attention", "batch": 8, "seq_len": 1, "kv_len": 3000, **shared},
    ])  # fmt: skip
    sizes = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "value_dim": 128.0}
    pairs = 2.0 * (512 * 1536 + 512 * 513 / 2)
    prefill = Attention(sequences=2.0, query_tokens=1024.0, kv_tokens=4096.0, pairs=pairs, **sizes)
    decode = Attention(sequences=8.0, query_tokens=8.0, kv_tokens=24e3, pairs=24e3, decode=True, **sizes)
    found = [float(price(op, device).latency_s) * 1e6 for op in (prefill, decode)]
    assert found == pytest.approx(predict_kernels(rows, device).to_numpy(), rel=1e-9)


def test_an_all_reduce_in_a_graph_runs_on_the_faster_of_its_kernels(device, price):
    import pandas as pd

    rows = pd.DataFrame({
        "op": ["all_reduce", "custom_allreduce"], "dtype": ["half", "bfloat16"], "num_devices": 4,
        "kernel": ["NCCL", "vLLM_custom_graph"], "message_size": 8192,
    })  # fmt: skip
    found = float(price(AllReduce(elems=8192.0, group=4.0), device).latency_s) * 1e6
    assert found == pytest.approx(predict_kernels(rows, device).min(), rel=1e-9)
