"""A table of measured servers, a row a server: the prediction of `validate served` beside its own columns."""

from __future__ import annotations

import pandas as pd
import pytest

from graphsim.errors import ConfigError
from graphsim.validation.e2e import COLUMNS, summary, validate_serving, validate_serving_file
from graphsim.validation.served import lines_of
from graphsim.validation.served_rows import rows_of

ROW = {"hardware": "h100_sxm", "framework": "vllm 0.18.0", "model": "meta-llama/Llama-3.2-1B", "precision": "fp8",
       "concurrency": 4, "tp": 2.0, "input_tokens": 512, "output_tokens": 64, "ttft_ms": 20.0,
       "tpot_ms": 4.0}  # fmt: skip


def test_a_row_is_predicted_as_served_rows_are():
    frame = pd.DataFrame([ROW])
    line = validate_serving(frame).iloc[0]
    ttft, tpot = lines_of(rows_of(frame, "test")[0])
    assert (line["ttft_predicted_ms"], line["tpot_predicted_ms"]) == (ttft["predicted"], tpot["predicted"])
    assert line["tpot_error"] == pytest.approx(line["tpot_predicted_ms"] / 4.0 - 1) and line["problem"] == ""
    assert line["model"] == ROW["model"]


def test_without_a_word_on_it_the_protocol_is_inferencexs():
    """One client, since several of equal lengths finish together, and their prompts wait less for each other."""
    alone = ROW | {"concurrency": 1}
    plain = validate_serving(pd.DataFrame([alone])).iloc[0]
    spelt = validate_serving(pd.DataFrame([alone | {"range_ratio": 0.8, "requests_per_client": 10}])).iloc[0]
    longer = validate_serving(pd.DataFrame([alone | {"range_ratio": 1.0}])).iloc[0]
    assert plain["ttft_predicted_ms"] == spelt["ttft_predicted_ms"] < longer["ttft_predicted_ms"]


def test_the_first_burst_counts_less_among_more_requests():
    few, many = (
        validate_serving(pd.DataFrame([ROW | {"requests_per_client": n, "concurrency": 16}]))["ttft_predicted_ms"][0]
        for n in (1, 10)
    )
    assert few > many


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


@pytest.mark.slow
def test_a_checkpoint_in_blocks_of_fp8_is_simulated_as_such():
    row = ROW | {"model": "MiniMaxAI/MiniMax-M2.5", "tp": 4.0, "moe_ep": 16.0}
    found = validate_serving(pd.DataFrame([row, row | {"precision": "fp8_block", "moe_ep": 4.0}]))
    assert found["tpot_predicted_ms"].nunique() == 1 and (found["problem"] == "").all()


@pytest.fixture(scope="module")
def serving(kernel_folder):
    return pd.read_csv(kernel_folder.parent / "e2e_serving.csv")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "hardware"),
    [("Llama-3.1-70B", "h100_sxm"), ("Llama-3.1-70B", "b200_sxm"), ("gpt-oss-120b", "h100_sxm"),
     ("MiniMax-M2.5", "h100_sxm")],
)  # fmt: skip
def test_servers_of_few_clients_come_near(serving, model, hardware):
    chosen = serving["model"].str.endswith(model) & (serving["hardware"] == hardware)
    table = validate_serving(serving[chosen & serving["concurrency"].isin([4, 16])].iloc[::2])
    found = table[["tpot_error", "ttft_error"]].abs().median()
    assert (table["problem"] == "").all() and len(table) > 2
    assert found["tpot_error"] < 0.12 and found["ttft_error"] < 0.30
