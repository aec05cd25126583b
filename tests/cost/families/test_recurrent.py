"""Kernels of recurrent layers: how their times grow, what bounds them, and what stands in for what nobody measured."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.cost.families import recurrent
from graphsim.cost.families.recurrent_work import RecurrentShape, floor_s, least_bytes, roofline_s
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from graphsim.symbolic.expr import Tape

DEVICES = ["a100-sxm-80gb", "h100-sxm", "h200-sxm", "b200-sxm", "gb200", "l40s", "rtx-pro-6000", "t4"]
KERNELS = [
    ("convolution", "context", "gdn"), ("convolution", "generation", "mamba2"), ("convolution", "verify", "kda"),
    ("scan", "context", "gdn"), ("scan", "context", "kda"), ("scan", "context", "mamba2"),
    ("scan", "generation", "gdn"), ("scan", "generation", "mamba2"), ("scan", "verify", "kda"),
    ("fused", "generation", "kda"), ("fused", "verify", "kda"),
]  # fmt: skip
LONGEST = {"context": 2**17, "generation": 1, "verify": 8}

powers = st.integers(0, 9).flatmap(lambda bits: st.integers(2**bits, 2 ** (bits + 1) - 1))
heads, tokens = st.sampled_from([1, 2, 6, 8, 24, 64, 100]), st.integers(1, 2**15)


def measured(kernel: str, phase: str, **columns: object) -> pd.DataFrame:
    """Rows of a gated delta-net of two batches, as tables hold them."""
    sizes = {"batch": [1, 4], "seq_len": [64, 128], "d_conv": 4, "k_heads": 2, "k_dim": 128, "v_heads": 8, "v_dim": 128}
    return pd.DataFrame(sizes | {"op": "gdn:gdn", "phase": phase, "kernel": kernel} | columns)


def shape(step: str, phase: str, mechanism: str, **sizes: float) -> RecurrentShape:
    """A kernel of as many channels as its heads have."""
    usual = {"batch": 2.0, "seq_len": 1.0, "heads": 16.0, "key_heads": 16.0}
    found = usual | {name: float(size) for name, size in sizes.items()}
    found["seq_len"] = min(found["seq_len"], LONGEST[phase])
    return RecurrentShape(step=step, phase=phase, mechanism=mechanism, channels=384.0 * found["heads"], **found)


def latency(device: str, kernel: RecurrentShape, parameters: dict | None = None) -> float:
    return float(recurrent.latency_s(parameters or {}, load_hardware(device), kernel))


@settings(max_examples=100, deadline=None)
@given(device=st.sampled_from(DEVICES), kernel=st.sampled_from(KERNELS), batch=powers, seq_len=tokens, h=heads)
def test_every_kernel_takes_a_finite_time_never_below_what_memory_allows(device, kernel, batch, seq_len, h):
    one, hardware = shape(*kernel, batch=batch, seq_len=seq_len, heads=h, key_heads=h), load_hardware(device)
    time = latency(device, one)
    assert np.isfinite(time) and time > 0
    if least_bytes(one, 2.0) > 1.2 * hardware.cache_bytes:
        assert time >= least_bytes(one, 2.0) / hardware.memory_bytes_per_s * (1 - 1e-12)
    assert float(roofline_s(hardware, one)) >= float(floor_s(hardware, one)) * (1 - 1e-12)


@settings(max_examples=200, deadline=None)
@given(
    device=st.sampled_from(DEVICES), kernel=st.sampled_from(KERNELS), batch=powers, seq_len=tokens, h=heads,
    which=st.sampled_from(["batch", "seq_len", "heads"]), times=st.floats(1.01, 8.0),
)  # fmt: skip
def test_more_work_is_never_faster_where_physics_alone_speaks(device, kernel, batch, seq_len, h, which, times):
    sizes = {"batch": batch, "seq_len": seq_len, "heads": h, "key_heads": h}
    grown = {name: times * size if name in (which, f"key_{which}") else size for name, size in sizes.items()}
    assert latency(device, shape(*kernel, **grown)) >= latency(device, shape(*kernel, **sizes)) * (1 - 1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mechanism", ["gdn", "kda", "mamba2"])
def test_long_prompts_take_as_much_longer_as_they_have_more_tokens(device, mechanism):
    few, many = (latency(device, shape("scan", "context", mechanism, seq_len=x)) for x in (2**16, 2**17))
    assert 1.9 < many / few < 2.1


@pytest.mark.parametrize("device", DEVICES)
def test_a_sequence_is_walked_chunk_by_chunk_however_many_cores_wait(device):
    one = latency(device, shape("scan", "context", "gdn", batch=1, seq_len=32768, heads=2, key_heads=2))
    dealt = latency(device, shape("scan", "context", "gdn", batch=4, seq_len=8192, heads=2, key_heads=2))
    assert dealt < 0.75 * one


def test_many_states_are_moved_at_the_memorys_rate():
    many = shape("scan", "generation", "gdn", batch=4096, heads=64)
    for device in DEVICES:
        assert 0.9 < latency(device, many) / float(roofline_s(load_hardware(device), many)) < 1.6


def test_states_kept_after_every_draft_cost_more_than_one():
    one, four = (shape("scan", "verify", "kda", batch=512, heads=32, seq_len=x) for x in (1, 4))
    assert latency("h100-sxm", four) > 1.8 * latency("h100-sxm", one)


def test_no_tokens_take_no_time():
    for kernel in KERNELS:
        assert latency("h100-sxm", shape(*kernel, batch=0)) == latency("h100-sxm", shape(*kernel, seq_len=0)) == 0.0


def test_arrays_and_symbols_give_what_single_numbers_give():
    batch, hardware = np.array([1.0, 5.0, 64.0, 700.0]), load_hardware("b200-sxm")
    frame = pd.concat([measured("chunk_gated_delta_rule", "context", batch=[2**x, 3 * 2**x]) for x in range(8)])
    fitted = recurrent.fit(frame.assign(latency_us=20.0 + 3.0 * frame["batch"]), hardware)
    for kernel in KERNELS:
        one = shape(*kernel, seq_len=100)
        sizes = {name: getattr(one, name) for name in ("seq_len", "heads", "key_heads", "channels")}
        named = {"step": one.step, "phase": one.phase, "mechanism": one.mechanism}
        together = recurrent.latency_s(fitted, hardware, RecurrentShape(batch=batch, **sizes, **named))
        alone = [float(recurrent.latency_s(fitted, hardware, RecurrentShape(batch=x, **sizes, **named))) for x in batch]
        assert np.allclose(together, alone, rtol=1e-12)
        symbol = Tape(literal=True).variable("batch")
        assert recurrent.latency_s(fitted, hardware, RecurrentShape(batch=symbol, **sizes, **named)) is not None


def fit_of(seconds: float, kind: str = "convolution") -> dict:
    """A fit that says so many seconds of the start of a kernel."""
    return {"constants": recurrent.START[kind] | {"launch_s": seconds}}


def test_the_nearest_kernel_stands_in_for_one_that_nobody_measured():
    slow, slower = fit_of(1.0, "update"), fit_of(2.0, "update")
    known = {"generation": {"gdn scan": slow, "kda fused": slower}, "context": {"gdn convolution": fit_of(3.0)}}
    found = {kernel: latency("h100-sxm", shape(*kernel), known) for kernel in KERNELS}
    assert found["scan", "generation", "mamba2"] == pytest.approx(1.0, rel=1e-3)
    assert found["scan", "generation", "gdn"] == pytest.approx(1.0, rel=1e-3)
    assert found["scan", "verify", "kda"] == found["fused", "verify", "kda"] == pytest.approx(2.0, rel=1e-3)
    for mechanism in ("gdn", "kda", "mamba2"):
        assert latency("h100-sxm", shape("convolution", "context", mechanism), known) == pytest.approx(3.0, rel=1e-3)
    assert found["scan", "context", "mamba2"] < 1e-3


def test_tables_that_the_host_makes_are_no_part_of_a_prepared_kernel():
    entry = {"constants": recurrent.START["convolution"] | recurrent.HOST}
    known, alone = {"context": {"kda convolution": entry}}, shape("convolution", "context", "kda", seq_len=100)
    prepared = RecurrentShape(
        step="convolution", phase="context", mechanism="kda", batch=2.0, seq_len=100.0, channels=alone.channels,
        prepared=True,
    )  # fmt: skip
    assert latency("h100-sxm", prepared, known) < 0.1 * latency("h100-sxm", alone, known)


def test_mamba_2_needs_less_than_a_delta_rule_which_inverts():
    for device in DEVICES:
        dual, delta = (latency(device, shape("scan", "context", name, seq_len=8192)) for name in ("mamba2", "gdn"))
        assert roofline_s(load_hardware(device), shape("scan", "context", "gdn", seq_len=8192)) < dual < delta


def test_rows_say_what_a_kernel_does_and_on_how_many_channels():
    assert recurrent.shape_of(measured("chunk_gated_delta_rule_flashinfer", "context")).step == "scan"
    assert recurrent.shape_of(measured("causal_conv1d_fn", "context")).channels.tolist() == [1536.0, 1536.0]
    fused = measured("fused_kda_decode_mtp_dspark", "verify", op="kda:kda")
    assert (recurrent.shape_of(fused).step, recurrent.shape_of(fused).mechanism) == ("fused", "kda")
    for framework, version in (("trtllm", "1.3.0rc20"), ("sglang", "0.5.10")):
        of_keys = measured("causal_conv1d_fn", "context", framework=framework, framework_version=version)
        assert recurrent.shape_of(of_keys).channels.tolist() == [256.0, 256.0]
    mamba = {"n_heads": 64, "head_dim": 64, "n_groups": 8, "d_state": 128}
    dual = recurrent.shape_of(measured("causal_conv1d_update", "generation", op="mamba2:mamba2", **mamba))
    assert dual.channels.tolist() == [6144.0, 6144.0] and dual.taps.tolist() == [4.0, 4.0]


def test_what_is_not_known_is_refused_by_name():
    with pytest.raises(ConfigError, match="column n_heads, head_dim, n_groups, d_state missing; rows of op 'mamba2:ma"):
        recurrent.shape_of(measured("causal_conv1d_fn", "context", op="mamba2:mamba2"))
    with pytest.raises(ConfigError, match="phase 'decode' is not known.*generation"):
        recurrent.shape_of(measured("causal_conv1d_fn", "decode"))
        latency("h100-sxm", RecurrentShape(step="scan", phase="decode", batch=1.0))
    with pytest.raises(ConfigError, match="kernel 'rwkv scan' is not known"):
        latency("h100-sxm", RecurrentShape(step="scan", phase="context", mechanism="rwkv", batch=1.0))


def test_a_card_that_others_used_too_does_not_slow_what_it_did_alone():
    hardware = load_hardware("h100-sxm")
    sizes = [measured("chunk_gated_delta_rule", "context", batch=2**b, seq_len=[2**n, 2**n]) for b in range(7)
             for n in range(4, 15)]  # fmt: skip
    frame = pd.concat(sizes, ignore_index=True)
    frame["latency_us"] = 1e6 * np.asarray(recurrent.latency_s({}, hardware, recurrent.shape_of(frame)))
    work = frame["batch"] * frame["seq_len"]
    disturbed = (work > work.quantile(0.7)) & (np.arange(len(frame)) % 3 == 0)
    spoilt = frame.assign(latency_us=np.where(disturbed, 4.0, 1.0) * frame["latency_us"])
    found = recurrent.latency_s(recurrent.fit(spoilt, hardware), hardware, recurrent.shape_of(frame))
    assert np.median(np.abs(1e6 * found / frame["latency_us"] - 1)[work > work.quantile(0.7)]) < 0.05
