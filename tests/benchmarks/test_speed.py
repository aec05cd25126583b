"""Times for pytest-benchmark (`--benchmark-enable`), and how they grow; no absolute time is asserted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphsim as gs
from graphsim.models.huggingface import from_config
from tests.benchmarks import measure
from tests.paths import hf_configs

pytest.importorskip("pytest_benchmark")

Benchmark = Callable[..., Any]
SMALL: dict[str, Any] = measure.GRID | {"batch": list(range(1, 33)), "rank": [8, 64]}


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
def test_sweep(benchmark: Benchmark, cost: str) -> None:
    table = benchmark(gs.sweep, measure.MODEL, measure.DEVICE, cost=cost, engine="reference", **SMALL)
    assert len(table) == 32 * 255 * 4 * 2 and table["latency_s"].notna().all()


def test_reading_a_config(benchmark: Benchmark) -> None:
    configs = list(hf_configs().items())[::30]
    read = benchmark(lambda: [from_config(data, name) for name, data in configs])
    slowest = {name: measure.seconds(lambda data=data: from_config(data, "config.json")) for name, data in configs}
    benchmark.extra_info["slowest"] = max(slowest, key=slowest.__getitem__)
    benchmark.extra_info["slowest_s"] = max(slowest.values())
    assert len(read) == len(configs)


def test_keys_that_shape_nothing_cost_a_reader_next_to_nothing() -> None:
    data = hf_configs()["default:llama"]
    more = {f"note_{i}": i for i in range(100)}

    def read(config: dict[str, Any]) -> Callable[[], object]:
        return lambda: from_config(config, "config.json")

    assert measure.calls(read({**data, **more})) < measure.calls(read(data)) + 50 * len(more)


def test_simulate_warm(benchmark: Benchmark) -> None:
    sizes = iter(range(600, 10**9))
    estimate = benchmark(
        lambda: gs.simulate(measure.MODEL, measure.DEVICE, 4, next(sizes), lora=gs.LoraConfig(), engine="reference")
    )
    assert estimate.ttft_s > 0


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize(("model", "device", "adapter"), measure.DEPLOYMENTS)
def test_a_calibrated_call_takes_less_than_twice_a_roofline_call(
    model: str, device: str, adapter: bool, new: bool
) -> None:
    ratios = (measure.ratio(model, device, adapter, new=new) for _ in range(5))
    assert any(found < 2.0 for found in ratios)


def test_compiled_step(benchmark: Benchmark) -> None:
    step = gs.compile_step(measure.MODEL, measure.DEVICE, lora=gs.LoraConfig(), engine="reference")
    assert benchmark(step, decode_batch=8, context=512) > 0


def test_a_graph_of_400_layers(benchmark: Benchmark) -> None:
    model = measure.deep_model()

    def call() -> tuple[int, gs.CriticalPath]:  # type: ignore[name-defined]
        graph = gs.build_graph(model, lora=gs.LoraConfig(), expand=True)
        return len(graph), gs.critical_path(gs.annotate(graph, measure.DEVICE))

    nodes, path = benchmark(call)
    assert nodes > 10_000 and len(path) > 10_000


def swept(model: gs.ModelConfig | str, **changed: Any) -> Callable[[], object]:
    """A sweep whose graphs are known."""

    def call() -> object:
        return gs.sweep(model, measure.DEVICE, cost="roofline", **SMALL | changed, engine="reference")

    call()
    return call


def test_the_time_of_a_sweep_grows_no_faster_than_its_scenarios() -> None:
    large = swept(measure.MODEL, active_adapters=list(range(1, 11)))
    small_s, large_s = measure.cpu_seconds(swept(measure.MODEL), large, turns=3)
    assert large_s < 10 * 1.5 * small_s


def test_the_time_of_a_sweep_does_not_grow_with_layers() -> None:
    plain_s, deep_s = measure.cpu_seconds(swept(measure.MODEL), swept(measure.deep_model()))
    assert deep_s < 2.0 * plain_s


def test_the_time_of_a_sweep_does_not_grow_with_lengths() -> None:
    """Of a model that takes them all: a row that is refused costs its sentence."""
    model, inputs = gs.load_model("llama-3.1-8b"), SMALL["input_tokens"]
    longer = {"output_tokens": 16 * SMALL["output_tokens"], "input_tokens": [16 * tokens for tokens in inputs]}
    plain_s, longer_s = measure.cpu_seconds(swept(model), swept(model, **longer))
    assert longer_s < 2.0 * plain_s


def test_a_spelt_out_graph_takes_time_linear_in_its_nodes() -> None:
    """Eight times the layers, eight times the calls; larger graphs miss caches, but take nothing like 64 times."""

    def call(layers: int) -> Callable[[], object]:
        model = measure.deep_model(layers)
        return lambda: gs.critical_path(gs.annotate(gs.build_graph(model, expand=True), measure.DEVICE))

    assert measure.calls(call(800)) < 8 * 1.05 * measure.calls(call(100))
    deep_s, flat_s = measure.cpu_seconds(call(800), call(100), turns=3)
    assert deep_s < 8 * 3 * flat_s
