"""`gs.compare_serving`: strategies, or values of a setting, side by side on the same requests."""

from __future__ import annotations

import pytest

import graphsim as gs

LORA = gs.LoraConfig(rank=8, target_modules=["attn"], max_loras=2)
ASKED = gs.Traffic.poisson(rate=20.0, requests=100, input_tokens=64, output_tokens=16, adapters=3, popularity="zipf:2")
BASE = gs.Traffic.poisson(rate=20.0, requests=20, input_tokens=64, output_tokens=8)
NAMES = ["dynamic", "merged", "merged:credits", "mixed", "paged"]


@pytest.mark.slow
def test_every_strategy_is_a_row_of_figures() -> None:
    frame = gs.compare_serving("gpt-2", "l4", ASKED, NAMES, lora=LORA, ttft_s=0.1)
    assert list(frame.index) == NAMES and frame.index.name == "strategy"
    assert (frame["completed"] == 100).all() and (frame["reason"] == "").all()
    assert frame.loc["merged", "switches"] > 0 == frame.loc["dynamic", "switches"]
    assert frame.loc["merged", "kv_tokens"] > frame.loc["dynamic", "kv_tokens"]
    assert frame["attainment"].between(0.0, 1.0).all()
    alone = gs.serve("gpt-2", "l4", ASKED, lora=LORA, strategy="merged")
    assert frame.loc["merged", "p99_ttft_s"] == pytest.approx(alone.summary()["p99_ttft_ms"] / 1e3)


@pytest.mark.slow
def test_what_a_strategy_brings_with_it_is_noted() -> None:
    few = gs.Traffic.poisson(rate=20.0, requests=20, input_tokens=64, output_tokens=8, adapters=2)
    notes = gs.compare_serving("gpt-2", "l40s", few, ["dynamic", "merged"], lora=LORA, precision="int4").attrs["notes"]
    assert any(note.startswith("merged: the batch drains before other weights are merged") for note in notes)
    assert any(note.startswith("merged: weights in int4 are widened, merged and rounded again") for note in notes)
    base = gs.compare_serving("gpt-2", "l40s", BASE, ["dynamic", "merged"]).attrs["notes"]
    assert base == ["no request of this traffic has an adapter, so that all strategies are the same"]


@pytest.mark.slow
def test_values_of_a_setting_are_rows() -> None:
    frame = gs.compare_serving("gpt-2", "l4", ASKED, lora=LORA, vary={"max_loras": [1, 3, 10**5]})
    assert list(frame.index) == [1, 3, 10**5] and frame.index.name == "max_loras"
    assert frame.loc[3, "p99_ttft_s"] < frame.loc[1, "p99_ttft_s"]
    assert "no room for a KV cache" in frame.loc[10**5, "reason"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"strategies": "dynamic"}, "expected a list"),
        ({"strategies": []}, "expected a list"),
        ({"strategies": ["luck"]}, "luck"),
        ({"vary": {"max_loras": [1], "max_num_seqs": [1]}}, "expected one setting"),
        ({"vary": {"max_lors": [1]}}, "did you mean 'max_loras'"),
    ],
)
def test_wrong_questions_are_one_sentence(given: dict, words: str) -> None:
    with pytest.raises(gs.ConfigError) as caught:
        gs.compare_serving("gpt-2", "l4", ASKED, lora=LORA, **given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_interruption_leaves_the_rows_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def progress(number: int, name: str) -> None:
        asked.append(name)
        if number == 1:
            monkeypatch.setattr("graphsim.serving.scenario.run", interrupted)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    frame = gs.compare_serving("gpt-2", "l4", ASKED, ["dynamic", "paged", "mixed"], lora=LORA, progress=progress)
    assert list(frame.index) == ["dynamic", "paged"] and list(frame["reason"]) == ["", "interrupted"]
    assert asked == ["strategy dynamic", "strategy paged"]
