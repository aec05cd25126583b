import pandas as pd
import pytest

import graphsim as gs
from graphsim.calibration.serving import COLUMNS, summary, validate_serving, validate_serving_file
from graphsim.errors import ConfigError

ROW = {"hardware": "h100_sxm", "model": "meta-llama/Llama-3.1-8B", "precision": "fp8", "concurrency": 4, "tp": 2.0,
       "input_tokens": 512, "output_tokens": 64, "ttft_ms": 20.0, "tpot_ms": 4.0}  # fmt: skip


def test_others_prefills_interrupt_and_a_running_step_delays():
    line = validate_serving(pd.DataFrame([ROW])).iloc[0]
    asked = {"hardware": "h100-sxm", "precision": "fp8", "input_tokens": 512, "output_tokens": 64,
             "parallelism": gs.Parallelism(tp=2)}  # fmt: skip
    step, prompt = (gs.simulate("llama-3.1-8b", batch=b, **asked) for b in (4, 1))
    assert line["tpot_predicted_ms"] == pytest.approx(1e3 * (step.tpot_s + 3 / 64 * prompt.ttft_s))
    assert line["ttft_predicted_ms"] == pytest.approx(1e3 * (step.tpot_s + prompt.ttft_s))
    assert line["tpot_error"] == pytest.approx(line["tpot_predicted_ms"] / 4.0 - 1) and line["problem"] == ""


def test_a_row_that_cannot_be_simulated_says_why_and_the_others_go_on():
    table = validate_serving(pd.DataFrame([ROW | {"model": "nobody/no-such-model"}, ROW]))
    assert "no-such-model" in table["problem"].iloc[0] and table["problem"].iloc[1] == ""
    assert len(summary(table)) == 1


def test_missing_columns_are_named(tmp_path):
    path = tmp_path / "serving.csv"
    path.write_text("hardware,model\nh100_sxm,x\n")
    with pytest.raises(ConfigError, match="precision, concurrency, input_tokens"):
        validate_serving_file(path)
    assert len(COLUMNS) == 8


def test_tokens_of_llama_70b_come_within_a_tenth_of_measured_servers(kernel_folder):
    frame = pd.read_csv(kernel_folder.parent / "e2e_serving.csv")
    frame = frame[frame["model"].str.endswith("Llama-3.1-70B") & (frame["concurrency"] == 4)]
    table = validate_serving(frame)
    assert (table["problem"] == "").all() and len(table) > 15
    assert table["tpot_error"].abs().median() < 0.10
    assert table[table["hardware"] == "h100_sxm"]["ttft_error"].abs().median() < 0.20
