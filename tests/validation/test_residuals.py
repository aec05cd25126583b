"""Residuals kernel by kernel, and their picture."""

import json

import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.hardware import load_hardware
from graphsim.validation.residuals import LIMITS, kernel_classes, residuals, size_of


@pytest.fixture(scope="module")
def rows():
    """Products of which every other one has a thin side, and an all-reduce; measured at half and twice the estimate."""
    products = pd.DataFrame(
        {"op": "gemm", "dtype": "bfloat16", "m": 2.0 ** np.arange(8), "n": 4096.0, "k": [64.0, 4096.0] * 4}
    )
    messages = pd.DataFrame(
        {"op": "all_reduce", "dtype": "half", "kernel": "NCCL", "message_size": [2.0**10, 2.0**20], "num_devices": 4.0}
    )
    frame = pd.concat([products, messages], ignore_index=True).assign(gpu="h100_sxm")
    parts = [gs.predict_kernels(part, "h100-sxm") for _, part in frame.groupby("op")]
    return frame.assign(latency_us=pd.concat(parts) * np.resize([0.5, 2.0], len(frame)))


def test_every_row_is_told_once_per_class_with_its_size(rows):
    """Every row is measured at a multiple of its estimate that no other has, by which it is found again."""
    multiples = 1.0 + np.arange(len(rows)) / 7.0
    estimates = gs.predict_kernels(rows, "h100-sxm")
    found = residuals(rows.assign(latency_us=estimates * multiples), load_hardware("h100-sxm"))
    classes = kernel_classes(rows)
    assert sum(mask.sum() for mask in classes.values()) == len(found) > len(rows)
    for place, multiple in enumerate(multiples):
        told = found[np.isclose(found["ratio"], 1.0 / multiple, rtol=1e-9)]
        belongs = [name for name, mask in classes.items() if mask[place]]
        assert sorted(told["kernels"]) == sorted(belongs) and belongs
        assert told["size"].tolist() == [rows[size_of(name)[0]].iloc[place] for name in told["kernels"]]


def test_products_with_a_thin_side_are_a_class_of_their_own_as_well(rows):
    classes = kernel_classes(rows)
    products, thin = (rows["op"] == "gemm").to_numpy(), (rows["k"] <= 128).to_numpy()
    assert classes["GEMM bf16"].tolist() == products.tolist()
    assert classes["GEMM bf16, n or k up to 128"].tolist() == (products & thin).tolist()
    assert classes["collectives"].tolist() == (~products).tolist()


def test_without_the_devices_own_calibration_another_prices_it(rows):
    device = load_hardware("h100-sxm")
    own, borrowed = residuals(rows, device), residuals(rows, device, own=False)
    assert not np.allclose(own["ratio"], borrowed["ratio"])


def test_every_class_has_a_size_to_be_drawn_over():
    assert {size_of(name)[0] for name in LIMITS} == {"m", "kv_len", "message_size"}


def test_the_picture_has_a_panel_per_class_and_a_line_through_the_medians(rows):
    pytest.importorskip("matplotlib").use("Agg")
    from graphsim.export.residuals import plot_residuals

    figure = plot_residuals(residuals(rows, load_hardware("h100-sxm")))
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes if ax.get_title(loc="left")}
    assert list(panels) == ["GEMM bf16", "GEMM bf16, n or k up to 128", "collectives"]
    (line,) = [line for line in panels["GEMM bf16"].get_lines() if line.get_label() == "h100-sxm"]
    assert line.get_xdata().tolist() == (2.0 ** np.arange(8)).tolist()
    assert line.get_ydata().tolist() == pytest.approx([2.0, 0.5] * 4)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["h100-sxm"]
    with pytest.raises(gs.ConfigError, match="no residuals to draw; residuals can be drawn for GEMM bf16"):
        plot_residuals(residuals(rows[:0], load_hardware("h100-sxm")))


@pytest.mark.parametrize("what", ["kernels", "unmeasured"])
def test_the_command_draws_what_it_scores(rows, what, tmp_path, capsys):
    pytest.importorskip("matplotlib").use("Agg")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    picture = tmp_path / "residuals.svg"
    assert main(["validate", what, str(tmp_path / "rows.csv"), "--plot", str(picture), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert "predicted / measured" in picture.read_text() and "collectives" in picture.read_text()


@pytest.mark.parametrize(
    ("what", "name", "said"),
    [
        ("kernels", "x.jpeg", "its suffix is '.jpeg'; allowed: .png, .svg, .pdf"),
        ("held-out", "x.svg", "only kernels and unmeasured are drawn, not held-out"),
        ("kernels", "none/x.svg", "cannot be written: there is no folder"),
    ],
)
def test_a_picture_that_cannot_be_is_one_sentence(rows, what, name, said, tmp_path, capsys):
    rows.to_csv(tmp_path / "rows.csv", index=False)
    asked = ["validate", what, str(tmp_path / "rows.csv"), "--plot", str(tmp_path / name)]
    try:
        assert main(asked) == 2
    except SystemExit as left:
        assert left.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
