import pandas as pd
import pytest

import graphsim as gs
from graphsim.display.breakdown import seconds_by_type
from graphsim.errors import ConfigError
from graphsim.validation.serving import COLUMNS, summary, validate_serving, validate_serving_file

ROW = {"hardware": "h100_sxm", "model": "meta-llama/Llama-3.1-8B", "precision": "fp8", "concurrency": 4, "tp": 2.0,
       "input_tokens": 512, "output_tokens": 64, "ttft_ms": 20.0, "tpot_ms": 4.0}  # fmt: skip


EXACT = {"range_ratio": 1.0, "requests_per_client": 5}


def test_others_prefills_interrupt_and_a_running_step_and_the_first_burst_delay():
    line = validate_serving(pd.DataFrame([ROW | EXACT])).iloc[0]
    asked = {"hardware": "h100-sxm", "precision": "fp8", "input_tokens": 512, "output_tokens": 64,
             "parallelism": gs.Parallelism(tp=2)}  # fmt: skip
    step, prompt = (gs.simulate("llama-3.1-8b", batch=b, **asked) for b in (4, 1))
    burst, step_s = 3 / 2 / 5, step.tpot_s - seconds_by_type(step.decode.graph)["ADD"]
    assert line["tpot_predicted_ms"] == pytest.approx(1e3 * (step_s + 3 / 64 * prompt.ttft_s))
    assert line["ttft_predicted_ms"] == pytest.approx(1e3 * (step_s + (1 + burst) * prompt.ttft_s))
    assert line["tpot_error"] == pytest.approx(line["tpot_predicted_ms"] / 4.0 - 1) and line["problem"] == ""


def test_random_lengths_count_with_their_mean():
    stated = validate_serving(pd.DataFrame([ROW | EXACT | {"input_tokens": 461, "output_tokens": 58}])).iloc[0]
    random = validate_serving(pd.DataFrame([ROW | EXACT | {"range_ratio": 0.8}])).iloc[0]
    for name in ("ttft_predicted_ms", "tpot_predicted_ms"):
        assert random[name] == stated[name]


def test_without_a_word_on_it_the_protocol_is_inferencexs():
    plain = validate_serving(pd.DataFrame([ROW])).iloc[0]
    spelt = validate_serving(pd.DataFrame([ROW | {"range_ratio": 0.8, "requests_per_client": 10}])).iloc[0]
    assert plain["ttft_predicted_ms"] == spelt["ttft_predicted_ms"]


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


def test_a_checkpoint_in_blocks_of_fp8_is_simulated_as_such():
    row = ROW | {"model": "MiniMaxAI/MiniMax-M2.5", "tp": 4.0, "moe_ep": 16.0}
    found = validate_serving(pd.DataFrame([row, row | {"precision": "fp8_block", "moe_ep": 4.0}]))
    assert found["tpot_predicted_ms"].nunique() == 1 and (found["problem"] == "").all()


@pytest.fixture(scope="module")
def serving(kernel_folder):
    return pd.read_csv(kernel_folder.parent / "e2e_serving.csv")


def errors(frame, model, hardware, concurrency):
    chosen = frame["model"].str.endswith(model) & (frame["hardware"] == hardware)
    table = validate_serving(frame[chosen & frame["concurrency"].isin(concurrency)])
    assert (table["problem"] == "").all() and len(table) > 5
    return table[["tpot_error", "ttft_error"]].abs().median()


@pytest.mark.parametrize("concurrency", [4, 8, 16, 32])
def test_llama_70b_on_h100_comes_within_a_tenth_per_token_and_a_fifth_to_the_first(serving, concurrency):
    found = errors(serving, "Llama-3.1-70B", "h100_sxm", [concurrency])
    assert found["tpot_error"] < 0.10 and found["ttft_error"] < 0.20


def test_llama_70b_on_b200_comes_within_a_tenth_per_token_and_a_fifth_to_the_first(serving):
    found = errors(serving, "Llama-3.1-70B", "b200_sxm", [4])
    assert found["tpot_error"] < 0.10 and found["ttft_error"] < 0.20


@pytest.mark.parametrize(("model", "concurrency"), [("gpt-oss-120b", [4, 8, 16]), ("MiniMax-M2.5", [4, 8, 16])])
def test_tokens_of_mixtures_of_experts_come_within_a_tenth(serving, model, concurrency):
    assert errors(serving, model, "h100_sxm", concurrency)["tpot_error"] < 0.10
