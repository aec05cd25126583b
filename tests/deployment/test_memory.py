"""Memory against arithmetic done by hand from published shapes."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import graphsim as gs
from tests.paths import hf_configs

GIB = 2.0**30


def memory(model: str = "llama-3.1-8b", hardware: object = "h100-sxm", **asked: object) -> object:
    return gs.simulate(model, hardware, **{"engine": "reference", **asked}).memory  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "precision", "expected"),
    [
        ("llama-3.1-8b", "bf16", 2 * 8_030_261_248),  # 16.06 GB
        ("llama-2-7b", "bf16", 2 * 6_738_415_616),
        ("llama-3.2-1b", "fp16", 2 * 1_235_814_400),  # embeddings are tied and stored once
        ("gpt-2", "fp32", 4 * 124_439_808),
        # fp8 for the 7 matrices of 32 layers; embeddings, head and 65 norms of 4096 stay in bf16
        (
            "llama-3.1-8b",
            "fp8",
            32 * (4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 14336) + 2 * (2 * 128256 * 4096 + 65 * 4096),
        ),
    ],
)
def test_weights_take_their_count_times_their_format(model: str, precision: str, expected: float) -> None:
    assert memory(model, precision=precision).weights_bytes == expected


@pytest.mark.parametrize(
    ("model", "per_token"),
    [
        ("llama-3.1-8b", 131_072),  # 2 (k and v) x 8 heads x 128 x 32 layers x 2 bytes
        ("llama-2-7b", 524_288),  # 2 x 32 x 128 x 32 x 2
        ("llama-3.1-70b", 327_680),  # 2 x 8 x 128 x 80 x 2
        ("gpt-2", 36_864),  # 2 x 12 x 64 x 12 x 2
    ],
)
def test_the_cache_holds_keys_and_values_of_the_prompt_and_the_output(model: str, per_token: int) -> None:
    assert memory(model, batch=3, input_tokens=100, output_tokens=28).kv_cache_bytes == 3 * 128 * per_token


def test_the_cache_may_have_a_format_of_its_own() -> None:
    half = memory(precision="bf16,kv=fp8", input_tokens=1000)
    assert memory(input_tokens=1000).kv_cache_bytes == 2 * half.kv_cache_bytes


def test_windowed_layers_keep_a_window_at_most() -> None:
    """Gemma-2 9B: 21 of 42 layers see 4096 tokens; 8 heads of 256 for keys and for values, 2 bytes."""
    each = 2 * 8 * 256 * 2
    found = memory("gemma-2-9b", input_tokens=9_999, output_tokens=1).kv_cache_bytes
    assert found == 21 * each * 10_000 + 21 * each * 4096
    assert memory("gemma-2-9b", input_tokens=999, output_tokens=1).kv_cache_bytes == 42 * each * 1000


@pytest.mark.parametrize("tp", [1, 2, 4, 8, 16])
def test_heads_are_dealt_out_and_repeated_when_there_are_too_few(tp: int) -> None:
    """Llama-3.1 8B has 8 key heads: beyond 8 devices each keeps one."""
    found = memory(input_tokens=99, output_tokens=1, parallelism=gs.Parallelism(tp=tp))
    assert found.kv_cache_bytes == 100 * 131_072 / min(tp, 8)
    matrices = 32 * (2 * 4096 * 4096 / tp + 2 * 4096 * 1024 / min(tp, 8) + 3 * 4096 * 14336 / tp)
    ends = 2 * 128256 * 4096 / tp + 65 * 4096
    assert found.weights_bytes == pytest.approx(2 * (matrices + ends), rel=1e-12)


def test_stages_hold_their_own_layers_and_ends() -> None:
    layer = 2 * (4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 14336 + 2 * 4096)
    table = 2 * 128256 * 4096
    found = memory(parallelism=gs.Parallelism(pp=4), input_tokens=49, output_tokens=1)
    assert found.weights_bytes == 8 * layer + table + 2 * 4096  # the last stage: head and final norm
    assert found.kv_cache_bytes == 50 * 131_072 / 4


def test_a_tied_head_on_another_stage_has_a_table_of_its_own() -> None:
    """Llama-3.2 1B: 16 layers of 2048, 8 key heads of 64, tied embeddings; the last of 2 stages holds the table too."""
    layer = 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192 + 2 * 2048
    found = memory("llama-3.2-1b", parallelism=gs.Parallelism(pp=2))
    assert found.weights_bytes == 2 * (8 * layer + 128256 * 2048 + 2048)


def test_adapters_take_rank_times_inputs_and_outputs_in_every_slot() -> None:
    qv = 32 * 16 * ((4096 + 4096) + (4096 + 1024)) * 2.0
    lora = gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"], max_loras=5)
    assert memory(lora=lora).adapters_bytes == 5 * qv
    assert (
        memory(lora=gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"], strategy="merge")).adapters_bytes == 0
    )
    assert memory().adapters_bytes == 0


def test_the_parts_add_up() -> None:
    found = memory(lora=gs.LoraConfig())
    parts = ("weights", "kv_cache", "activations", "adapters", "overhead")
    assert found.total_bytes == sum(getattr(found, f"{part}_bytes") for part in parts)
    assert found.capacity_bytes == 80 * GIB


@pytest.mark.parametrize("engine", ["vllm", "reference"])
def test_a_stage_that_keeps_nothing_bounds_no_batch(engine: str) -> None:
    """The last 20 of Gemma-4-E2B's 35 layers read the caches of earlier ones: of three stages the third has none."""
    asked: dict[str, object] = {"parallelism": gs.Parallelism(pp=3), "engine": engine}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = memory(hf_configs()["gemma4_e2b"], "h100-sxm", input_tokens=500, output_tokens=5, **asked)
    room = gs.footprint(hf_configs()["gemma4_e2b"], "h100-sxm", **asked).concurrency(505)
    assert 0 < found.max_batch <= room and (engine == "reference" or found.max_batch == room)


deployments = st.fixed_dictionaries(
    {"pp": st.sampled_from([1, 2, 3]), "dp": st.sampled_from([1, 2, 3]), "micro_batches": st.sampled_from([0, 1, 4])}
)


@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    degrees=deployments,
    batch=st.integers(1, 40),
    length=st.integers(1, 3000),
    room=st.floats(0.05, 3.0),
)
def test_the_largest_batch_fits_and_one_more_does_not(
    degrees: dict[str, int], batch: int, length: int, room: float
) -> None:
    """Whatever batch was asked for: the answer is the same, it fits, and a replica more of it does not."""
    device = {
        "name": "toy",
        "flops_per_s": {"bf16": 1e14},
        "vector_flops_per_s": 1e13,
        "memory": {"capacity": (1.0 + 0.6 / degrees["pp"] + room) * GIB, "bandwidth": 1e12},
        "cores": 100,
        "clock": 1e9,
        "links": [{"name": "link", "devices": 64, "bandwidth": 1e11, "latency": 1e-6}],
        "host_link": {"bandwidth": 1e10, "latency": 1e-6},
    }
    parallelism = gs.Parallelism(**degrees)

    def asked(batch: int) -> object:
        return memory("gpt-2", device, batch=batch, input_tokens=length, output_tokens=9, parallelism=parallelism)

    most = int(asked(batch).max_batch)
    assert asked(batch + 17).max_batch == most
    assert not asked(most + 1).fits
    if most:
        assert asked(most).fits and asked(1).fits


def test_fits_flips_where_the_total_passes_the_capacity() -> None:
    many = gs.simulate(
        "llama-3.1-8b", "h100-sxm", batch=[1, 64, 512, 4096], input_tokens=1024, engine="reference"
    ).memory
    assert list(many.fits) == [True, True, False, False]
    assert list(many.total_bytes <= many.capacity_bytes) == list(many.fits)
    one = memory(batch=4096, input_tokens=1024)
    assert one.fits is False and memory(batch=1).fits is True
