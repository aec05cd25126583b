"""A number weighs the same wherever it is priced, and no price is below what moving its bytes takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.cost.blocks.attention import attention_shape
from graphsim.cost.blocks.gemm import product_of
from graphsim.cost.blocks.moe import expert_shape
from graphsim.cost.calibrated import calibrated
from graphsim.cost.families import attention_work
from graphsim.cost.families.formats import DTYPES, dtype_of, stored_bytes
from graphsim.cost.kernels import roofline_kernels
from graphsim.cost.roofline import roofline
from graphsim.errors import ConfigError, HardwareError
from graphsim.hardware import COMPUTE_FORMATS, Hardware, list_hardware, load_hardware
from graphsim.ops import Add, AllGather, AllReduce, Attention, ExpertGemm, Gemm, HeadGemm, KvCache, Norm, Op, Sharding
from graphsim.ops.formats import FORMATS, RATES, SPELLINGS, Format, weight_only
from graphsim.ops.precision import load_precision

GROUPED = [weight_only(4, 32), weight_only(3, 128), weight_only(8, 128), Format(name="own", bytes=0.8)]
"""Formats that no table holds: of checkpoints, and of a user."""

DEVICES = sorted(list_hardware())
ACTIVATIONS = {"fp32": FORMATS["fp32"], "fp16": FORMATS["fp16"]}


def gemm(weights: Format, m: float = 16.0) -> Gemm:
    activations = ACTIVATIONS.get(weights.name, FORMATS["bf16"])
    return Gemm(m=m, n=65536.0, k=16384.0, weights=weights, activations=activations)


def experts(weights: Format, tokens: float, split: Sharding) -> ExpertGemm:
    n, k = (28672.0, 4096.0) if split is Sharding.COLUMN else (4096.0, 14336.0)
    activations = ACTIVATIONS.get(weights.name, FORMATS["bf16"])
    return ExpertGemm(
        m=2.0 * tokens, n=n, k=k, tokens=tokens, experts=8.0, of=8, chosen=2, split=split, weights=weights,
        activations=activations,
    )  # fmt: skip


def attention(kv: Format, *, decode: bool) -> Attention:
    sequences, keys = (256.0, 8192.0) if decode else (64.0, 8192.0)
    queries, seen = (1.0, keys) if decode else (128.0, 8128.0)
    return Attention(
        sequences=sequences, query_tokens=sequences * queries, kv_tokens=sequences * keys,
        pairs=sequences * queries * seen, heads=32.0, kv_heads=32.0, head_dim=128.0, value_dim=128.0, decode=decode,
        kv=kv, activations=ACTIVATIONS.get(kv.name, FORMATS["bf16"]),
    )  # fmt: skip


def ops(form: Format) -> list[Op]:
    """Operations whose bytes exceed every cache several times, with weights, cache or activations in a format."""
    found: list[Op] = [gemm(form), gemm(form, m=1.0), HeadGemm(m=64.0, n=512.0, k=2048.0, heads=512.0, weights=form)]
    found += [experts(form, tokens, split) for tokens in (1.0, 64.0) for split in (Sharding.COLUMN, Sharding.ROW)]
    found += [attention(form, decode=decode) for decode in (True, False)]
    found += [
        Norm(rows=65536.0, width=8192.0, activations=form),
        Add(elems=2.0**30, activations=form),
        KvCache(new_tokens=2.0**18, kv_tokens=0.0, kept_tokens=0.0, kv_heads=8.0, width=256.0, kv=form),
    ]
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_weighs_the_same_in_memory_and_in_every_family(name: str) -> None:
    stored = FORMATS[name]
    assert load_precision(name).weights.bytes == stored.bytes
    assert product_of(gemm(stored)).weight_bytes == expert_shape(experts(stored, 8.0, Sharding.ROW)).w_bytes
    assert product_of(gemm(stored)).weight_bytes == stored.bytes
    key = attention_shape(attention(stored, decode=True)).bytes_of_a_key
    assert key == 2.0 * stored.bytes * 128.0
    assert [stored_bytes(family, name) for family in ("gemm", "moe", "attention")] == [stored.bytes] * 3


@pytest.mark.parametrize(("family", "dtype"), [(family, dtype) for family in DTYPES for dtype in DTYPES[family]])
def test_a_kernel_reads_operands_as_the_table_of_formats_says(family: str, dtype: str) -> None:
    form = DTYPES[family][dtype]
    assert FORMATS[form.weights.name] == form.weights and FORMATS[form.inputs.name] == form.inputs
    assert stored_bytes(family, dtype) == form.weights.bytes
    assert set(form.rates) <= set(COMPUTE_FORMATS)
    assert not form.like or form.like in DTYPES[family]


def test_four_bits_weigh_what_their_layouts_say() -> None:
    expected = {
        "int4": 0.5 + 2.5 / 128, "nf4": 0.5 + 4 / 64, "nf4_dq": 0.5 + 1 / 64 + 4 / (64 * 256), "mxfp4": 0.5 + 1 / 32,
        "nvfp4": 0.5 + 1 / 16,
    }  # fmt: skip
    assert {name: FORMATS[name].bytes for name in expected} == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("family", DTYPES)
def test_every_format_names_a_kernel_that_its_family_knows(family: str) -> None:
    assert {getattr(form, family) for form in FORMATS.values()} <= set(DTYPES[family])
    for name in (*FORMATS, *SPELLINGS):
        assert dtype_of(family, name) in DTYPES[family]
    with pytest.raises(ConfigError, match="'bf61' is not known; did you mean 'bf16'"):
        dtype_of(family, "bf61")


def test_matrix_rates_are_those_of_the_hardware_files() -> None:
    assert {form.compute for form in FORMATS.values()} - {""} <= set(RATES)
    assert {name for rates in RATES.values() for name in rates} <= set(COMPUTE_FORMATS)


@pytest.mark.parametrize("form", [*FORMATS.values(), *GROUPED], ids=lambda form: f"{form.name}-{form.bytes:.3f}")
@pytest.mark.slow
def test_no_price_is_below_the_memory_floor_of_its_true_bytes(form: Format) -> None:
    for device in map(load_hardware, DEVICES):
        price = calibrated(device)[0]
        for op in ops(form):
            moved = float(op.work().memory_bytes)
            if moved < 4.0 * float(device.cache_bytes):
                continue
            try:
                bare = roofline(op, device)
            except HardwareError:
                continue  # that device does not multiply in this format
            found = float(price(op, device).latency_s)
            assert found >= 0.9 * moved / float(device.memory_bytes_per_s), (device.name, op)
            assert found >= 0.9 * float(bare.busy_s), (device.name, op)


@pytest.mark.parametrize("kind", [AllReduce, AllGather])
@pytest.mark.parametrize("name", FORMATS)
def test_wider_numbers_take_as_much_longer_on_the_wire(kind: type[AllReduce], name: str) -> None:
    device = load_hardware("h100-sxm")
    op = kind(elems=2.0**30, group=4.0, activations=FORMATS[name])
    assert calibrated(device)[0](op, device).latency_s >= roofline(op, device).network_s * 0.9


@pytest.mark.parametrize("device", ["h100-sxm", "a100-sxm-80gb", "b200-sxm", "l40s", "mi300x"])
def test_fp32_is_slower_than_bf16_in_every_family(device: str) -> None:
    hardware = load_hardware(device)
    price = calibrated(hardware)[0]
    narrow, wide = ops(FORMATS["bf16"]), ops(FORMATS["fp32"])
    for one, other in zip(narrow, wide, strict=True):
        if isinstance(one, Gemm | Attention | Norm):
            times = float(price(one, hardware).latency_s), float(price(other, hardware).latency_s)
            assert times[1] > 1.4 * times[0], type(one).__name__


def test_mixtral_in_fp32_takes_twice_what_it_takes_in_bf16_and_no_less_than_its_weights() -> None:
    wide = gs.simulate("mixtral-8x7b", "h100-sxm", precision="fp32", cost="calibrated", engine="reference").tpot_s
    narrow = gs.simulate("mixtral-8x7b", "h100-sxm", precision="bf16", cost="calibrated", engine="reference").tpot_s
    bare = gs.simulate("mixtral-8x7b", "h100-sxm", precision="fp32", cost="roofline", engine="reference").tpot_s
    assert wide > 1.8 * narrow and wide > 0.95 * bare


def test_an_adapter_in_bf16_on_wide_activations_reads_and_writes_them_as_wide() -> None:
    device = load_hardware("h100-sxm")
    price = calibrated(device)[0]
    op = Gemm(m=65536.0, n=8192.0, k=16.0, activations=FORMATS["fp32"])
    assert price(op, device).latency_s >= 0.9 * op.work().memory_bytes / device.memory_bytes_per_s


def test_a_grouped_layout_of_a_checkpoint_is_priced_by_its_own_bytes() -> None:
    device = load_hardware("h100-sxm")
    price = calibrated(device)[0]
    coarse, fine = (float(price(gemm(weight_only(4, group), m=1.0), device).latency_s) for group in (128, 32))
    assert 1.05 < fine / coarse <= weight_only(4, 32).bytes / weight_only(4, 128).bytes


def test_a_format_without_kernels_keeps_its_roofline_and_stays_monotone_in_bytes() -> None:
    device = load_hardware("h100-sxm")
    price = calibrated(device)[0]
    for wider in (lambda form: gemm(form), lambda form: experts(form, 64.0, Sharding.COLUMN)):
        light, heavy = (float(price(wider(Format(name="own", bytes=b)), device).latency_s) for b in (0.7, 1.4))
        assert 1.8 < heavy / light < 2.1


def test_the_measured_layout_of_a_kernel_does_not_move_its_floor() -> None:
    device = load_hardware("h100-sxm")
    row = {"op": "moe", "dtype": "int4_wo", "distribution": "balanced", "m": 8, "hidden": 4096, "inter": 14336,
           "topk": 2, "experts": 8}  # fmt: skip
    heavy = pd.DataFrame([row])
    weights = 8 * 3 * 4096 * 14336 * FORMATS["int4"].bytes
    tokens = 4.0 * 8 * 4096
    expected = (weights + tokens) / device.memory_bytes_per_s
    assert roofline_kernels(heavy, device).iloc[0] * 1e-6 == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bf16", "nf4_dq", "half"])
def test_rows_of_measurements_may_name_a_format_as_people_spell_it(dtype: str) -> None:
    frame = pd.DataFrame({"op": "gemm", "dtype": [dtype], "m": 1, "n": 65536, "k": 16384})
    moved = stored_bytes("gemm", dtype) * 65536 * 16384
    found = float(gs.predict_kernels(frame, "h100-sxm").iloc[0]) * 1e-6
    assert 0.9 * moved / 3.35e12 < found < 1.4 * moved / 3.35e12


def test_an_fp32_row_counts_wide_results() -> None:
    thin = pd.DataFrame({"op": "gemm", "dtype": "float32", "m": 65536, "n": 8192, "k": [16]})
    device = load_hardware("h100-sxm")
    assert gs.predict_kernels(thin, device).iloc[0] * 1e-6 >= 4.0 * 65536 * 8192 / device.memory_bytes_per_s


def test_attention_of_wide_caches_runs_at_the_rate_of_wide_numbers() -> None:
    device = load_hardware("h100-sxm")
    shape = attention_shape(attention(FORMATS["fp32"], decode=False))
    assert attention_work.floor_s(device, shape) >= attention_work.flops(shape) / device.peak("tf32")


@pytest.mark.parametrize("device", ["h100-sxm", "l40s"])
def test_symbols_price_formats_as_numbers_do(device: str) -> None:
    for precision in ("fp32", "int4", "nf4_dq"):
        estimate = gs.simulate("qwen3-30b-a3b", device, precision=precision, batch=4, engine="reference")
        assert estimate.decode.latency_s > 0
        step = gs.compile_step("qwen3-30b-a3b", device, precision=precision, engine="reference")
        both = step(decode_batch=np.array([4.0, 8.0]), context=577.0)
        assert both[0] == pytest.approx(step(decode_batch=4.0, context=577.0), rel=1e-12)


def hardware_without(device: Hardware, *names: str) -> Hardware:
    return replace(device, flops_per_s={name: rate for name, rate in device.flops_per_s.items() if name not in names})


def test_a_device_without_the_matrix_units_of_a_format_widens_it_and_reads_the_same_bytes() -> None:
    old = hardware_without(load_hardware("a100-sxm-80gb"), "fp8")
    row = pd.DataFrame({"op": "gemm", "dtype": ["fp8_block"], "m": 1, "n": 65536, "k": 16384})
    moved = FORMATS["fp8_block"].bytes * 65536 * 16384
    found = float(gs.predict_kernels(row, old).iloc[0]) * 1e-6
    assert 0.9 * moved / old.memory_bytes_per_s < found < 1.6 * moved / old.memory_bytes_per_s
