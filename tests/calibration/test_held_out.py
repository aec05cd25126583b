"""Shapes held out together, each once, and the command that reports what fits are worth on them."""

import json

import numpy as np
import pandas as pd
import pytest

from graphsim.calibration.held_out import ALL, FOLDS, THIN_NAME, held_out, held_out_errors, lines_of
from graphsim.cli import main
from graphsim.cost.families.registry import family_of
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware


@pytest.fixture(scope="module")
def measured():
    """Messages between two and eight devices that take 10 us and 1.5 times the wire time."""
    sizes, devices, kinds = np.meshgrid(2.0 ** np.arange(9, 28), [2, 4, 8], [0, 1])
    frame = pd.DataFrame({"message_size": sizes.ravel(), "num_devices": devices.ravel()})
    frame["op"] = np.where(kinds.ravel() == 0, "all_gather", "reduce_scatter")
    wire_s = 2 * frame["message_size"] * (1 - 1 / frame["num_devices"]) / 450e9
    noise = np.random.default_rng(0).normal(0, 0.01, len(frame))
    frame["latency_us"] = 1e6 * (1e-5 + 1.5 * wire_s) * np.exp(noise)
    return frame.assign(dtype="half", kernel="nccl", gpu="h100_sxm")


def test_every_row_is_held_out_once_with_its_whole_shape(measured):
    folds = [held_out(measured, ("message_size", "num_devices"), fold) for fold in range(FOLDS)]
    assert (np.sum(folds, axis=0) == 1).all() and all(0.1 < fold.mean() < 0.4 for fold in folds)
    together = measured.assign(fold=np.argmax(folds, axis=0)).groupby(["message_size", "num_devices"])["fold"]
    assert together.nunique().max() == 1


def test_what_was_not_seen_is_predicted_worse_but_well(measured):
    found = held_out_errors(measured, "h100-sxm")
    assert list(found["op"]) == ["all_gather", "reduce_scatter"] and (found["rows"] == len(measured) // 2).all()
    assert (found["in_sample"] < 0.02).all() and (found["held_out"] < 0.04).all()
    assert (found["held_out_p90"] >= found["held_out"]).all()


def test_the_judgement_is_the_same_every_time(measured):
    pd.testing.assert_frame_equal(held_out_errors(measured, "h100-sxm"), held_out_errors(measured, "h100-sxm"))


def test_a_shape_alone_has_no_error_on_shapes_not_seen(measured):
    found = held_out_errors(measured[:1], load_hardware("h100-sxm"))
    assert found["rows"].tolist() == [1] and found["held_out"].isna().all()


def test_lora_shaped_products_have_a_line_of_their_own():
    rows = pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "n": [4096, 64, 4096], "k": [4096, 4096, 128]})
    rows["latency_us"] = 10.0
    lines = lines_of(rows, np.array([10.0, 11.0, 11.0]), np.array([11.0, 12.0, 12.0]), {}, family_of("gemm"))
    assert [(line["size"], line["rows"]) for line in lines] == [(ALL, 3), (THIN_NAME, 2)]
    assert lines[1]["in_sample"] == pytest.approx(0.1) and lines[1]["held_out"] == pytest.approx(0.2)


def test_families_are_chosen_by_name(measured):
    assert held_out_errors(measured, "h100-sxm", families=["gemm"]).empty
    with pytest.raises(ConfigError, match="collectives"):
        held_out_errors(measured, "h100-sxm", families=["colectives"])


def test_the_command_judges_files(measured, tmp_path, capsys):
    measured.to_csv(tmp_path / "rows.csv", index=False)
    assert main(["validate", "held-out", str(tmp_path / "rows.csv"), "--family", "collectives", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {line["hardware"] for line in lines} == {"h100-sxm"} and all(line["held_out"] < 0.04 for line in lines)
