"""Files of facts that are none: one sentence each, whichever command reads them."""

import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.files.measured import above_zero, each, measured, number, numbers_of, read_facts, whole

KINDS = ["kernels", "held-out", "unmeasured", "structure", "e2e", "lora", "slots", "lifecycle", "published", "traces"]


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("text", ["# A page\n\na, b\nc, d, e, f\n", "a,b\n1,2\n", "", "\x00\x01\n"])
def test_a_file_that_is_no_table_of_facts_is_one_sentence(what, text, tmp_path, capsys):
    file = tmp_path / "facts.csv"
    file.write_text(text)
    assert main(["validate", what, str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"graphsim: {file}: ") and error.count("\n") == 1


def test_what_is_missing_is_named_with_all_that_is_needed(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert read_facts(tmp_path / "x.csv", "facts", ["b", "a"])["b"].tolist() == [2]
    with pytest.raises(gs.ConfigError, match="x.csv: column c is missing; needed are a, c$"):
        read_facts(tmp_path / "x.csv", "facts", ["a", "c"])


PUBLISHED = {
    "metric": "median_inter_token_latency", "framework": "vLLM 0.5", "hardware": "1x H100 64GB", "model": "llama-2-7b",
    "base_value_without_lora": 20.0, "note": "max_loras=8; per batch 4", "rank": 8, "input_len": 100, "output_len": 50,
    "adapters_active": 4, "value": 25.0, "unit": "ms",
}  # fmt: skip
SERVED = {
    "hardware": "h100_sxm", "model": "meta-llama/Llama-3.1-70B", "precision": "fp8", "concurrency": 4,
    "input_tokens": 100, "output_tokens": 50, "ttft_ms": 50.0, "tpot_ms": 12.0, "tp": 4,
}  # fmt: skip
ADAPTERS = {
    "model": "llama-2-7b", "framework": "vLLM", "device": "1x H100", "max_loras": 4, "max_lora_rank": 8, "rank": 8,
    "batch": 2, "input_tokens": 100, "output_tokens": 50, "adapters": 4, "mean_itl_ms": 9.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "row", "name"),
    [("published", PUBLISHED, name) for name in ("rank", "input_len", "output_len", "value")]
    + [("e2e", SERVED, name) for name in ("ttft_ms", "tpot_ms")]
    + [("lora", ADAPTERS, "mean_itl_ms")],
)
@pytest.mark.parametrize("value", ["abc", "1e400", "-1"])
def test_a_cell_that_is_no_number_is_named_with_its_file_and_row(what, row, name, value, tmp_path, capsys):
    file = tmp_path / "facts.csv"
    pd.DataFrame([row, row | {name: value}]).astype({name: str}).to_csv(file, index=False)
    assert main(["validate", what, str(file)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{file}: row 2: " in error and name in error


def test_rows_of_serving_that_cannot_be_simulated_are_counted(tmp_path, capsys):
    file = tmp_path / "facts.csv"
    pd.DataFrame([SERVED, SERVED | {"concurrency": "many"}]).to_csv(file, index=False)
    assert main(["validate", "e2e", str(file)]) == 0
    assert "left out: 1 of 2 rows: concurrency = many is not allowed; expected a number" in capsys.readouterr().out


def test_cells_are_read_as_what_they_are():
    row = {"long": "36028797018963969", "float": "8.0", "half": 0.5, "text": "x", "blank": float("nan")}
    assert whole(row, "long") == 2**55 + 1 and whole(row, "float") == 8 and number(row, "half") == 0.5
    for read, name in ((whole, "half"), (whole, "text"), (number, "blank")):
        with pytest.raises(gs.ConfigError, match=f"^{name} = .* is not allowed; expected a"):
            read(row, name)
    with pytest.raises(gs.ConfigError, match="x = 0 is not allowed; expected a number above 0"):
        above_zero({"x": 0}, "x")


def test_measured_columns_may_have_blanks_but_nothing_else():
    frame = pd.DataFrame({"x": ["1.5", None], "y": ["a", "b"]})
    assert measured(frame, ["x"])["x"].sum() == 1.5
    with pytest.raises(gs.ConfigError, match="row 1: y = a is not allowed"):
        measured(frame, ["y"])


def test_what_is_made_of_rows_leaves_out_those_of_which_nothing_is_made():
    frame = pd.DataFrame({"x": [1, 2, 3]})[1:]
    assert each(frame, "f", lambda row: {"y": row["x"]} if row["x"] > 2 else None)["y"].tolist() == [3]
    with pytest.raises(gs.ConfigError, match="^f: row 2: x = -2 is not"):
        each(frame, "f", lambda row: {"y": above_zero({"x": -row["x"]}, "x")})


def test_cells_beyond_any_float_are_no_numbers_that_count() -> None:
    frame = pd.DataFrame({"value": ["9" * 400, 10**400, "x", 3]}, dtype=object)
    found = numbers_of(frame["value"])
    assert not np.isfinite(found.iloc[:3]).any() and found.iloc[3] == 3.0
    with pytest.raises(gs.ConfigError, match="row 1: value = 9999"):
        measured(frame, ["value"])
