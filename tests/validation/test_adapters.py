"""Measured adapter serving, slots and lifecycles: the errors that the README states hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.validation.adapters import validate_adapter_serving, validate_slots
from graphsim.validation.lifecycles import validate_lifecycles
from graphsim.validation.published import validate_published
from graphsim.validation.traces import validate_traces
from tests.paths import REFERENCE


def reference(name: str) -> Path:
    if not (REFERENCE / name).exists():
        pytest.skip("the reference data is not at hand")
    return REFERENCE / name


def test_every_serving_row_is_within_15_percent_and_its_ratio_within_12() -> None:
    table = validate_adapter_serving(reference("lora_serving.csv"))
    assert not table["problem"].any() and len(table) == 24
    assert table["error"].abs().max() < 0.15
    assert table["ratio_error"].abs().max() < 0.12


def test_another_model_that_nothing_was_fitted_on_is_within_15_percent() -> None:
    """Qwen2.5-7B, 250 sequences, the same server: published in the repository behind arXiv 2508.08343."""
    from graphsim.lora.popularity import expected_distinct, uniform

    base = gs.simulate("qwen2.5-7b", "h100-64gb", 250, 1, 200, engine="vllm-0.8").tpot_s
    for adapters, measured_ms in ((1, 36.6), (32, 47.0), (64, 56.9), (128, 71.8), (300, 93.8)):
        distinct = expected_distinct(uniform(adapters), 250.0)
        lora = gs.LoraConfig(rank=8, target_modules="all-linear", active_adapters=distinct, max_loras=300)
        found = gs.simulate("qwen2.5-7b", "h100-64gb", 250, 1, 200, lora=lora, engine="vllm-0.8").tpot_s
        assert found * 1e3 == pytest.approx(measured_ms, rel=0.15)
        assert found / base == pytest.approx(measured_ms / 19.6, rel=0.12)


def test_slots_are_within_a_thousandth_and_kv_tokens_within_two_percent() -> None:
    table = validate_slots(reference("lora_memory.csv"))
    assert table["loading_error"].abs().max() < 1e-3
    assert table["kv_error"].abs().max() < 0.02


def test_published_lifecycles_have_a_median_error_below_25_percent() -> None:
    table = validate_lifecycles(reference("lora_published.csv"))
    assert len(table) >= 30
    assert table["error"].abs().median() < 0.25


def test_published_serving_has_a_median_error_below_20_percent() -> None:
    table = validate_published(reference("lora_published.csv"))
    assert len(table) >= 80
    assert table["error"].abs().median() < 0.20


def test_published_request_rates_are_within_20_percent_and_fall_with_adapters_as_published() -> None:
    table = validate_traces(reference("lora_published.csv"))
    assert len(table) == 10 and table["error"].abs().max() < 0.20
    for _, rows in table.groupby("rank"):
        for rates in (rows["predicted"], rows["published"]):
            assert rates.diff().max() < 1e-3 * rates.max() and rates.iloc[-1] < rates.iloc[0]


CHECKS = [validate_adapter_serving, validate_slots, validate_lifecycles, validate_published, validate_traces]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("text", "said"), [(None, "cannot be read"), ("", "the file is empty"), ("a,b\n1,2\n", "missing")]
)
def test_a_wrong_file_is_one_sentence(check: Any, text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(gs.ConfigError, match=said):
        check(path)


def test_a_row_of_an_unknown_engine_says_so(tmp_path: Path) -> None:
    path = tmp_path / "serving.csv"
    path.write_text(
        "model,framework,device,max_loras,max_lora_rank,rank,batch,input_tokens,output_tokens,adapters,mean_itl_ms\n"
        "gpt-2,mystery,H100 64 GB,0,0,0,1,1,10,0,1.0\n"
    )
    assert "framework = 'mystery' is not known" in validate_adapter_serving(path)["problem"][0]
