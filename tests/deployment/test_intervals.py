"""Intervals of estimates: kernels' errors through the schedule, and what a user is told where nobody knows them."""

import numpy as np
import pytest

import graphsim as gs
from graphsim.cost import served
from graphsim.cost.residuals import SCORES
from graphsim.deployment.intervals import NAMES, latin_hypercube, middle_of, ratio_interval
from graphsim.hardware import load_hardware
from graphsim.result import COVERAGE
from tests.residual_records import device_with

SPREAD = 0.05
KERNEL_WIDTH = 2 * 1.2815515655446 * SPREAD
"""Of log(high / low) of the 80 % interval of a single kernel."""

TIMES = NAMES[:4]


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    return load_hardware(device_with(tmp_path_factory.mktemp("apart"), SPREAD))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The same device, whose kernels of a format share their error."""
    common = {"bfloat16": 1.0, "bfloat16 decode": 1.0, "bfloat16 prefill": 1.0}
    return load_hardware(device_with(tmp_path_factory.mktemp("shared"), {"gemm": SPREAD}, common=common))


@pytest.fixture(scope="module")
def estimate(device):
    return gs.simulate("llama-3.1-8b", device, batch=8, engine="reference")


@pytest.mark.parametrize("name", TIMES)
def test_an_interval_lies_around_its_figure_and_grows_with_its_coverage(estimate, name):
    value, ends = getattr(estimate, name), [estimate.interval(name, coverage) for coverage in (0.5, 0.8, 0.95)]
    assert ends[2][0] < ends[1][0] < ends[0][0] < value < ends[0][1] < ends[1][1] < ends[2][1]
    assert estimate.interval(name) == ends[1] == estimate.intervals()[name]


def test_errors_of_different_kernels_cancel_in_part(estimate):
    low, high = estimate.interval("tpot_s")
    assert 0.3 * KERNEL_WIDTH < np.log(high / low) < 0.9 * KERNEL_WIDTH


def test_errors_that_a_family_shares_do_not_cancel(shared):
    estimate = gs.simulate("llama-3.1-8b", shared, batch=8, engine="reference")
    low, high = estimate.interval("tpot_s")
    nodes = estimate.decode.to_frame()
    attention_s = (nodes["latency_s"] * nodes["times"])[nodes["op_type"] == "ATTENTION"].sum()
    gemm_share = 1.0 - attention_s / float(estimate.decode.latency_s)
    assert np.log(high / low) == pytest.approx(gemm_share * KERNEL_WIDTH, rel=0.12)


def test_the_same_question_has_the_same_answer(estimate, device):
    again = gs.simulate("llama-3.1-8b", device, batch=8, engine="reference")
    assert all(again.interval(name) == estimate.interval(name) for name in TIMES)


def test_arrays_of_scenarios_have_the_intervals_of_each(device):
    batches = np.array([1, 8, 64])
    many = gs.simulate("llama-3.1-8b", device, batch=batches)
    low, high = many.interval("tpot_s")
    assert low.shape == high.shape == (3,)
    for i, batch in enumerate(batches):
        one = gs.simulate("llama-3.1-8b", device, batch=int(batch)).interval("tpot_s")
        assert (low[i], high[i]) == pytest.approx(one, rel=5e-3)


@pytest.mark.parametrize("parallelism", [gs.Parallelism(tp=2), gs.Parallelism(pp=2), gs.Parallelism(dp=2)])
def test_cut_models_have_intervals(device, parallelism):
    estimate = gs.simulate("llama-3.1-8b", device, batch=8, parallelism=parallelism)
    assert all(low < getattr(estimate, name) < high for name, (low, high) in estimate.intervals().items())


def test_an_adapter_has_its_part_in_the_interval(device):
    estimate = gs.simulate("llama-3.1-8b", device, batch=8, lora=gs.LoraConfig(rank=16), engine="reference")
    low, high = estimate.interval("tpot_s")
    assert low < estimate.tpot_s < high


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "tpot"}, "tpot.*tpot_s"),
        ({"name": "memory"}, "is not known"),
        ({"name": "tpot_s", "coverage": 1.0}, "at most 0.98"),
    ],
)
def test_what_there_is_no_interval_of_is_told(estimate, arguments, told):
    with pytest.raises(gs.ConfigError, match=told):
        estimate.interval(**arguments)


def test_the_roofline_has_no_interval_and_says_so(device):
    bare = gs.simulate("llama-3.1-8b", device, batch=8, cost="roofline")
    assert bare.intervals() == {} and bare.to_dict()["intervals"] == {"coverage": COVERAGE}
    with pytest.raises(gs.ConfigError, match="no residuals are recorded for times of the cost model 'roofline'"):
        bare.interval("tpot_s")


def test_a_step_of_operations_that_nobody_measured_has_no_interval(device):
    estimate = gs.simulate("mamba-2.8b" if "mamba-2.8b" in gs.list_models() else _scanning(), device, batch=8)
    if not estimate.uncertainty.missing:
        pytest.skip("scans are measured")
    with pytest.raises(gs.ConfigError, match="operations without measurements"):
        estimate.interval("ttft_s")


def _scanning():
    return next(name for name in gs.list_models() if "mamba" in name or "qwen3-next" in name)


def test_widths_name_the_family_that_is_the_least_certain(tmp_path):
    device = load_hardware(device_with(tmp_path, {"gemm": 0.01, "attention": 0.5}))
    estimate = gs.simulate("llama-3.1-8b", device, batch=64, input_tokens=4096)
    widths = estimate.uncertainty.widths("tpot_s")
    assert list(widths)[0] == "attention" and widths["attention"] > 3 * widths["gemm"]
    assert any("least certain is the family 'attention'" in text for text in gs.explain(estimate).findings)


def test_what_a_server_adds_is_drawn_beside_its_kernels(device, monkeypatch):
    quantiles = [0.2 + 0.1 * float(score) for score in SCORES]
    engine = {"tpot_s": {"all": quantiles}, "ttft_s": {"all": quantiles}}
    monkeypatch.setattr(served, "served_residuals", lambda: {"vllm": engine})
    estimate = gs.simulate("llama-3.1-8b", device, batch=8, engine="vllm")
    low, high = estimate.interval("tpot_s")
    kernels, width = estimate.uncertainty.kernel_width("tpot_s"), np.log(high / low)
    assert width == pytest.approx(np.hypot(kernels, 0.2 * 1.2816), rel=0.05)
    assert np.log(np.sqrt(low * high) / estimate.tpot_s) == pytest.approx(0.2, abs=0.03)
    assert next(iter(estimate.uncertainty.widths("tpot_s"))) == "server"
    assert any("least certain is what the engine's server adds" in text for text in gs.explain(estimate).findings)


def test_an_estimate_stands_to_itself_as_one_to_one(estimate, device):
    other = gs.simulate("llama-3.1-8b", device, batch=8, parallelism=gs.Parallelism(tp=2), engine="reference")
    assert ratio_interval(estimate.uncertainty, estimate.uncertainty, "tpot_s", 0.8) == pytest.approx((1.0, 1.0))
    low, high = ratio_interval(estimate.uncertainty, other.uncertainty, "tpot_s", 0.8)
    assert low < 1.0 < high


def test_every_direction_of_the_hypercube_is_spread_evenly():
    scores = latin_hypercube(12)
    assert (np.sort(scores, axis=1) == np.sort(scores[0])).all() and abs(scores.mean()) < 1e-12
    apart = np.corrcoef(scores) - np.eye(12)
    assert np.abs(apart).max() < 0.2


@pytest.mark.parametrize("coverage", [0.01, 0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("shape", [(1,), (2,), (64,), (101, 7)])
def test_the_middle_of_draws_lies_between_their_quantiles(shape: tuple[int, ...], coverage: float) -> None:
    draws = np.random.default_rng(3).normal(size=shape)
    draws[: len(draws) // 3] = 0.5  # several alike
    quantiles = np.quantile(draws, [(1.0 - coverage) / 2.0, (1.0 + coverage) / 2.0], axis=0)
    assert np.array_equal(middle_of(draws, coverage), quantiles)
