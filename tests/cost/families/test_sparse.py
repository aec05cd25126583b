"""Attention to chosen keys, and the scores that choose them: what their prices must obey under any constants."""

from dataclasses import replace

import numpy as np
import pytest

from graphsim.cost.families.sparse import ATTEND, METHODS, SCORES, START, SparseShape, latency_s, roofline_s
from graphsim.hardware import load_hardware

DEVICES = ("h100-sxm", "b200-sxm")
CHOSEN = 2048.0


def attend(queries=8.0, context=65_536.0, heads=16.0, **further):
    """Latents of as many queries, each with a sequence of its own."""
    pairs = queries * np.minimum(context, CHOSEN)
    return SparseShape(
        part=ATTEND, method="dsa", phase="decode", queries=queries, keys=pairs, pairs=pairs, heads=heads, kv_heads=1.0,
        head_dim=576.0, value_dim=512.0, row_bytes=656.0, slots=CHOSEN, **further,
    )  # fmt: skip


def scores(queries=8.0, context=65_536.0):
    """Of 64 narrow heads."""
    return SparseShape(
        part=SCORES, method="dsa", phase="decode", queries=queries, keys=queries * context, pairs=queries * context,
        heads=64.0, kv_heads=1.0, head_dim=128.0, value_dim=1.0, row_bytes=132.0,
    )  # fmt: skip


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kernel", [attend, scores])
def test_more_queries_and_keys_never_take_less(name, kernel):
    device, grown = load_hardware(name), 2.0 ** np.arange(18)
    for sizes in ({"queries": grown}, {"context": grown}):
        assert (np.diff(latency_s({}, device, kernel(**sizes))) >= 0).all()


def test_heads_that_fit_a_block_come_nearly_free_and_more_cost_as_many_blocks():
    few, block, eight = (latency_s({}, load_hardware("h100-sxm"), attend(4096.0, heads=n)) for n in (8.0, 32.0, 256.0))
    assert few <= block < 1.5 * few and eight > 4 * block


def test_attention_stops_growing_where_all_slots_are_filled_and_scores_do_not():
    device = load_hardware("h100-sxm")
    filled, longer = (latency_s({}, device, attend(context=keys)) for keys in (4096.0, 131_072.0))
    assert filled == longer
    assert latency_s({}, device, scores(context=131_072.0)) > latency_s({}, device, scores(context=4096.0))


def test_nothing_attended_takes_no_time():
    shape = replace(attend(), pairs=np.array([0.0, 1.0]))
    assert (latency_s({}, load_hardware("h100-sxm"), shape) > 0).tolist() == [False, True]


@pytest.mark.parametrize("name", DEVICES)
def test_no_kernel_beats_the_peak(name):
    device, grown = load_hardware(name), 2.0 ** np.arange(20)
    fast = {part: {"constants": dict.fromkeys(names, 1e-9)} for part, names in START.items()}
    parameters = {method: {"decode": {"bfloat16": fast}} for method in METHODS}
    shape = scores(queries=grown)
    assert (latency_s(parameters, device, shape) * device.flops_per_s["fp8"] >= 0.99 * shape.flops).all()
    assert (roofline_s(device, shape) * device.flops_per_s["fp8"] >= 0.99 * shape.flops).all()


def test_a_method_or_format_that_was_not_measured_takes_its_kin():
    device, slow = load_hardware("h100-sxm"), {"constants": START[ATTEND] | {"start_s": 1.0}}
    parameters = {"dsa": {"decode": {"bfloat16": {ATTEND: slow}}}}
    for shape in (attend(), attend(kv_dtype="fp8"), replace(attend(), method="dsa_shared")):
        assert latency_s(parameters, device, shape) > 1.0
    assert latency_s(parameters, device, replace(attend(), method="msa")) < 0.1
