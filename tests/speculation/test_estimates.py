"""Laws of estimates with speculation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.speculation.drafts import draft_of
from graphsim.speculation.step_times import StepTimes

TARGET = gs.Deployment("llama-3.1-8b", "h100-sxm", engine="vllm")
REQUESTS = {"batch": 16, "input_tokens": 500, "output_tokens": 97}
DRAFTS = ["llama-3.2-1b", "ngram"]
FIELDS = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s")


def speculation(draft: Any = "llama-3.2-1b", tokens: Any = 3, acceptance: Any = 0.7, **more: Any) -> gs.Speculation:
    return gs.Speculation(draft=draft, tokens=tokens, acceptance=acceptance, **more)


def estimate(given: gs.Speculation | None = None, deployment: gs.Deployment = TARGET, **changes: Any) -> gs.Estimate:
    return gs.simulate(deployment, **{**REQUESTS, **changes}, speculation=given)


@pytest.mark.parametrize("draft", DRAFTS)
def test_no_drafted_token_is_no_speculation(draft: str) -> None:
    plain, none = estimate(), estimate(speculation(draft, tokens=0))
    for name in FIELDS:
        assert getattr(none, name) == getattr(plain, name), name
    assert none.memory.to_dict() == plain.memory.to_dict()
    mixed = estimate(speculation(draft, tokens=np.array([0, 4])), batch=np.array([16, 16]))
    for name in FIELDS:
        assert getattr(mixed, name)[0] == pytest.approx(getattr(plain, name), rel=1e-12), name
    assert mixed.memory.total_bytes[0] == plain.memory.total_bytes
    assert mixed.memory.max_batch[0] == plain.memory.max_batch


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("batch", [1, 16, 200])
def test_nothing_accepted_is_never_faster(draft: str, batch: int) -> None:
    plain = estimate(batch=batch)
    for tokens in (1, 3, 7):
        drafted = estimate(speculation(draft, tokens=tokens, acceptance=0.0), batch=batch)
        assert drafted.tpot_s >= plain.tpot_s
        assert drafted.ttft_s >= plain.ttft_s
        assert drafted.tokens_per_s <= plain.tokens_per_s


@pytest.mark.parametrize("draft", DRAFTS)
def test_all_accepted_is_a_step_for_every_k_plus_1_tokens(draft: str) -> None:
    """96 tokens behind the first one in steps of 4: 24 steps, none of which is shorter than one of a single token."""
    plain, found = estimate(), estimate(speculation(draft, tokens=3, acceptance=1.0))
    told = found.speculation
    assert told is not None
    assert told.tokens_per_step == 4
    step_s = told.draft_s + told.verify_s
    assert found.tpot_s * 96 == pytest.approx(96 / 4 * step_s)
    assert found.tpot_s >= plain.tpot_s / 4
    if draft == "ngram":
        assert found.tpot_s < plain.tpot_s / 2


def test_more_acceptance_is_never_slower() -> None:
    found = estimate(speculation(acceptance=np.linspace(0.0, 1.0, 5)), batch=np.full(5, 16))
    assert np.all(np.diff(found.tpot_s) < 0)
    assert np.all(found.ttft_s == found.ttft_s[0])


def test_a_scenario_of_an_array_is_the_number() -> None:
    tokens, acceptance, batch = np.array([1, 3, 5]), np.array([0.5, 0.7, 0.9]), np.array([1, 16, 64])
    many = estimate(speculation(tokens=tokens, acceptance=acceptance), batch=batch)
    for i in range(3):
        one = estimate(speculation(tokens=tokens[i], acceptance=acceptance[i]), batch=int(batch[i]))
        for name in FIELDS:
            assert getattr(many, name)[i] == pytest.approx(getattr(one, name), rel=1e-9), name
        for name in ("weights_bytes", "kv_cache_bytes", "total_bytes", "max_batch"):
            assert getattr(many.memory, name)[i] == getattr(one.memory, name), name
        assert many.energy_per_token_j[i] == pytest.approx(one.energy_per_token_j, rel=1e-9)


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match="differ in length"):
        estimate(speculation(tokens=np.array([1, 2])), batch=np.array([1, 2, 3]))


def test_memory_grows_by_the_draft_and_the_drafted_rows() -> None:
    plain, found = estimate().memory, estimate(speculation(tokens=4)).memory
    draft = gs.simulate("llama-3.2-1b", "h100-sxm", **{**REQUESTS, "output_tokens": 101}).memory
    ahead = estimate(output_tokens=101).memory
    assert found.weights_bytes == plain.weights_bytes + draft.weights_bytes
    assert found.kv_cache_bytes == ahead.kv_cache_bytes + draft.kv_cache_bytes
    assert found.max_batch < plain.max_batch
    assert estimate(speculation("ngram")).memory.weights_bytes == plain.weights_bytes


def test_a_cheaper_draft_pays_more() -> None:
    small, large = estimate(speculation("llama-3.2-1b")), estimate(speculation("llama-3.2-3b"))
    assert small.tpot_s < large.tpot_s
    assert estimate(speculation("ngram")).tpot_s < small.tpot_s


def test_verifying_one_token_is_a_step_of_generation() -> None:
    for model, hardware, tp in (("llama-3.1-8b", "h100-sxm", 1), ("deepseek-v3", "h200-sxm", 8)):
        target = gs.Deployment(model, hardware, parallelism=gs.Parallelism(tp=tp), engine="vllm")
        times = StepTimes(target=target, draft=draft_of(speculation("ngram"), target), tokens=0.0)
        step = times.step(8.0, np.array([10.0, 1000.0, 5000.0]))
        assert np.array_equal(step.verify_s, step.plain_s)


def test_layers_for_further_tokens_draft_for_their_own_model() -> None:
    target = gs.Deployment("deepseek-v3", "h200-sxm", parallelism=gs.Parallelism(tp=8), engine="vllm")
    plain, found = (
        gs.simulate(target, batch=8, input_tokens=500, output_tokens=100, speculation=each)
        for each in (None, speculation("mtp", tokens=1, acceptance=0.875))
    )
    assert found.tpot_s < plain.tpot_s
    assert 0 < found.memory.weights_bytes - plain.memory.weights_bytes < 0.05 * plain.memory.weights_bytes
    told = found.speculation
    assert told is not None
    assert 0 < told.draft_s < 0.1 * told.plain_s


EAGLE3 = {
    "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 1,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "draft_vocab_size": 32000, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048,
}  # fmt: skip
MEDUSA = {"architectures": ["MedusaModel"], "model_type": "medusa", "hidden_size": 4096, "num_heads": 3,
          "num_hidden_layers": 1, "vocab_size": 128256}  # fmt: skip


def test_heads_draft_cheaper_than_a_model() -> None:
    model, eagle, medusa = (estimate(speculation(draft)).speculation for draft in ("llama-3.2-1b", EAGLE3, MEDUSA))
    assert model is not None and eagle is not None and medusa is not None
    assert 0 < eagle.draft_s < model.draft_s
    assert 0 < eagle.draft_prompt_s < model.draft_prompt_s
    assert medusa.draft_prompt_s == 0
    again = estimate(speculation(MEDUSA, tokens=1)).speculation
    assert again is not None
    assert medusa.draft_s == pytest.approx(again.draft_s)  # one pass, however many tokens it proposes


def test_an_adapter_slows_the_model_and_not_the_draft() -> None:
    adapted = replace(TARGET, lora=gs.LoraConfig(rank=16, target_modules=["attn", "ffn"]))
    with_it, without = estimate(speculation(), adapted), estimate(speculation())
    assert with_it.speculation is not None and without.speculation is not None
    assert with_it.speculation.verify_s > without.speculation.verify_s
    assert with_it.speculation.draft_s == pytest.approx(without.speculation.draft_s)
    assert any("the draft runs without an adapter" in note for note in with_it.notes)
    assert not any("without an adapter" in note for note in without.notes)


def test_what_it_found_is_told() -> None:
    found = estimate(speculation())
    document = found.to_dict()
    assert document["settings"]["speculation"] == {
        "draft": "llama-3.2-1b", "tokens": 3.0, "acceptance": 0.7, "draft_tp": None,
    }  # fmt: skip
    told = document["speculation"]
    assert told["speedup"] == pytest.approx(estimate().tpot_s / found.tpot_s)
    assert "speculation" not in estimate().to_dict()
    low, high = found.interval("tpot_s")
    assert low < found.tpot_s < high
    assert found.decode.name == "verification"
    assert found.decode.latency_s == pytest.approx(told["verify_s"], rel=0.02)


def test_sweeps_have_drafts_as_a_choice() -> None:
    choices = [None, speculation(tokens=2), speculation("ngram", tokens=2)]
    frame = gs.sweep([TARGET], batch=[1, 64], input_tokens=500, output_tokens=97, speculation=choices)
    for _, row in frame.iterrows():
        chosen = next(each for each in choices if row["speculation"] == ("none" if each is None else each.label))
        one = estimate(chosen, batch=int(row["batch"]))
        assert row["tpot_s"] == pytest.approx(one.tpot_s, rel=1e-4)
        assert row["memory_bytes"] == one.memory.total_bytes
    plain = gs.sweep([TARGET], batch=1)
    assert "speculation" not in plain.columns


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        ("llama-3.1-8b", {"draft": "nothing-8b"}, "speculation.draft: model"),
        ("llama-3.1-8b", {"draft": "qwen3-0.6b"}, "expected a draft with the same tokens"),
        ("llama-3.1-8b", {"draft": "mtp"}, "speculation.draft = 'mtp' is not allowed"),
        ("kimi-k2", {"draft": "mtp"}, "speculation.draft = 'mtp' is not allowed"),
        ("flan-t5-large", {"draft": "ngram"}, "is an encoder-decoder"),
        ("llama-3.1-8b", {"draft": "flan-t5-large"}, "does not generate text token by token"),
    ],
)
def test_drafts_that_do_not_go_with_the_model_are_one_sentence(model: str, given: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        gs.simulate(model, "h200-sxm", parallelism=gs.Parallelism(tp=8), speculation=speculation(**given))
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_draft_has_a_format_of_its_own() -> None:
    wide, narrow = (estimate(speculation(precision=each)) for each in (None, "fp8"))
    assert wide.speculation is not None and narrow.speculation is not None
    assert narrow.speculation.draft_s < wide.speculation.draft_s
    assert narrow.speculation.verify_s == wide.speculation.verify_s
    assert narrow.memory.weights_bytes < wide.memory.weights_bytes


def test_engines_and_other_things_are_refused() -> None:
    with pytest.raises(gs.InfeasibleError, match="engine 'slora' does not verify drafted tokens"):
        gs.simulate("llama-2-7b", "h100-sxm", engine="slora", speculation=speculation("ngram"))
    with pytest.raises(ConfigError, match=r"parallelism.cp = 2"):
        gs.simulate("llama-3.1-8b", "h100-sxm", parallelism=gs.Parallelism(cp=2), speculation=speculation())
    with pytest.raises(ConfigError, match="is not a Speculation"):
        gs.simulate("llama-3.1-8b", "h100-sxm", speculation="llama-3.2-1b")  # type: ignore[arg-type]


@pytest.mark.slow
def test_strategies_of_an_adapter_are_compared_with_a_draft() -> None:
    """As each of them alone; the draft has no adapter, so that base and merged are alike but for the merge."""
    draft = gs.Speculation(draft="llama-3.2-1b", tokens=3, acceptance=0.7)
    asked: dict[str, Any] = {"batch": 8, "input_tokens": 256, "output_tokens": 64}
    found = gs.compare_lora("llama-3.1-8b", "h100-sxm", speculation=draft, lora=gs.LoraConfig(rank=16), **asked)
    for strategy in ("dynamic", "merge"):
        alone = gs.simulate(
            "llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(rank=16, strategy=strategy), engine="vllm",
            speculation=draft, **asked,
        )  # fmt: skip
        assert found.loc[strategy, "tpot_s"] == alone.tpot_s and found.loc[strategy, "latency_s"] == alone.latency_s
    plain = gs.compare_lora("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(rank=16), **asked)
    assert (found["tpot_s"] < plain["tpot_s"]).all() and found.loc["base", "overhead"] == 0.0
    with pytest.raises(gs.ConfigError, match="is not a Speculation"):
        gs.compare_lora("llama-3.1-8b", "h100-sxm", speculation="mtp")  # type: ignore[arg-type]
