"""Residual records: what a shape's kind and distance are, and what their quantiles say."""

import numpy as np
import pytest

from graphsim.cost.families.attention_work import AttentionShape
from graphsim.cost.families.collectives import CollectiveShape
from graphsim.cost.families.gemm import CAPTURED, GemmShape
from graphsim.cost.families.moe_work import MoeShape
from graphsim.cost.residuals import (
    ALL,
    CLASSES,
    SCORES,
    beyond,
    cells_of,
    cells_text,
    check_record,
    coverage_of,
    kind_of,
    log_residuals,
    sizes_of,
)
from graphsim.errors import ConfigError
from tests.residual_records import record

SCORE = np.array([-1.2815515655446, 0.0, 1.2815515655446])


def test_a_kind_is_what_the_texts_of_a_shape_say():
    assert kind_of(GemmShape(m=1, n=2, k=3, dtype="fp8")) == "fp8"
    assert kind_of(CollectiveShape(kind="all_reduce", message_bytes=8, devices=2)) == "all_reduce"
    shape = AttentionShape(batch=1, kv_len=9, heads=8, kv_heads=8, head_dim=64)
    assert kind_of(shape) == "bfloat16 decode"


def test_a_product_that_waited_for_the_host_is_another_kind_in_a_graph():
    assert kind_of(GemmShape(m=1, n=2, k=3, dtype="fp8_block", eager=True)) == "fp8_block"
    assert kind_of(GemmShape(m=1, n=2, k=3, dtype="fp8_block")) == CAPTURED


def test_a_block_of_experts_has_the_sizes_of_its_part_on_one_device_however_it_is_cut():
    whole = MoeShape(m=8, hidden=4096, inter=2048, topk=2, experts=64, tp=4, ep=2)
    part = MoeShape(m=8, hidden=4096, inter=512, topk=2, experts=32)
    assert sizes_of(whole) == sizes_of(part)


def test_quantiles_between_those_kept_are_those_of_a_normal_distribution():
    found = log_residuals(record(0.1, bias=0.02), "fp8", 1e-5, SCORE)
    assert found == pytest.approx(0.02 + 0.1 * SCORE, abs=1e-3)


def test_kinds_and_classes_of_time_have_their_own_residuals_and_others_those_of_all():
    told = record(0.1)
    told["quantiles"]["fp8"] = {ALL: [0.5 * score for score in SCORES], "10": [0.01 * score for score in SCORES]}
    times = np.array([1e-6, 1e-3])
    width = np.ptp(log_residuals(told, "fp8", times, SCORE), axis=0)
    assert width[0] == pytest.approx(0.02 * SCORE[-1], rel=1e-3) and width[1] == pytest.approx(SCORE[-1], rel=1e-3)
    assert np.ptp(log_residuals(told, "int8", times, SCORE), axis=0) == pytest.approx(0.2 * SCORE[-1], rel=1e-3)


@pytest.mark.parametrize("name", CLASSES)
def test_more_probability_is_never_a_smaller_residual(name):
    told = record(0.1)
    told["quantiles"]["fp8"] = {ALL: list(np.linspace(-1, 2, len(SCORES))), name: list(np.linspace(-0.1, 0.1, 11))}
    found = log_residuals(told, "fp8", np.geomspace(1e-7, 1, 30), np.linspace(-4, 4, 50))
    assert (np.diff(found, axis=0) >= 0).all()


def test_residuals_get_wider_with_each_octave_beyond_what_was_measured():
    told = record(0.1, layout=["n", "k"], cells="cc", ranges={"m": [0, 10]}, per_octave=0.5)
    near = GemmShape(m=512, n=4096, k=4096)
    assert beyond(told, near) == 0.0
    for shape, octaves in ((GemmShape(m=512, n=16384, k=4096), 1.5), (GemmShape(m=4096, n=4096, k=4096), 2.0)):
        assert beyond(told, shape) == pytest.approx(octaves)
        spread = log_residuals(told, "bfloat16", 1e-5, SCORE, beyond(told, shape))
        assert np.ptp(spread) == pytest.approx((1 + 0.5 * octaves) * np.ptp(log_residuals(told, "", 1e-5, SCORE)))


def test_cells_are_read_as_they_were_written():
    cells = np.array([[0.0, 12.0, 35.0], [7.0, 8.0, 9.0]])
    assert cells_of(cells_text(cells)).tolist() == cells.tolist()


def test_distances_of_many_shapes_are_those_of_each():
    told = record(0.1, layout=["n", "k"], cells="88 cc", ranges={"m": [0, 10]})
    many = np.array([100.0, 5000.0, 90000.0])
    alone = [float(beyond(told, GemmShape(m=4, n=n, k=512))) for n in many]
    assert beyond(told, GemmShape(m=4, n=many, k=512)) == pytest.approx(alone)


@pytest.mark.parametrize("value", [0, 1, 0.99, "much", None, True])
def test_a_coverage_that_the_quantiles_do_not_tell_is_refused(value):
    with pytest.raises(ConfigError, match=r"coverage = .* at most 0\.98"):
        coverage_of(value)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({}, "expected a mapping with quantiles"),
        ({"quantiles": {}}, r"quantiles\.all\.all is missing"),
        ({"quantiles": {ALL: {ALL: [0.0] * 3}}}, "11 ascending numbers"),
        ({"quantiles": {ALL: {ALL: [0.0] * 10 + [-1.0]}}}, "11 ascending numbers"),
        ({"quantiles": {ALL: {ALL: ["much"] * 11}}}, "11 ascending numbers"),
        (record(0.1, cells=[[8, 8]]), "expected words of digits"),
    ],
)
def test_a_record_that_no_fit_writes_is_told(broken, told):
    with pytest.raises(ConfigError, match=told):
        check_record(broken, "file: gemm.residuals")
