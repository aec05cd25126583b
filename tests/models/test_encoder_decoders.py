"""Encoder-decoders: the input is encoded once, its keys and values are kept, and every later step reads them."""

from __future__ import annotations

from typing import Any

import pytest

import graphsim as gs
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference, Requests
from graphsim.graph import total_work, walk
from graphsim.models.phase import Segment
from graphsim.ops import KvCache, Launch

DEVICE = "h100"
LAYERS, HIDDEN, HEADS, HEAD, INNER, VOCAB = 3, 96, 4, 24, 200, 1000

T5: dict[str, Any] = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": HIDDEN, "d_kv": HEAD, "d_ff": INNER,
    "num_layers": 2, "num_decoder_layers": LAYERS, "num_heads": HEADS, "vocab_size": VOCAB,
    "relative_attention_num_buckets": 32, "feed_forward_proj": "relu",
}  # fmt: skip
BART: dict[str, Any] = {
    "model_type": "bart", "architectures": ["BartForConditionalGeneration"], "d_model": HIDDEN, "encoder_layers": 2,
    "decoder_layers": LAYERS, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER, "vocab_size": VOCAB, "max_position_embeddings": 300,
}  # fmt: skip
WHISPER: dict[str, Any] = {
    **{key: value for key, value in BART.items() if key != "max_position_embeddings"},
    "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "vocab_size": 51866,
    "num_mel_bins": 128, "max_source_positions": 1500, "max_target_positions": 448,
}  # fmt: skip
ALL = {"t5": T5, "bart": BART, "whisper": WHISPER}


def caches(config: dict[str, Any], phase: str, **sizes: Any) -> list[KvCache]:
    graph = gs.build_graph(config, phase, **sizes)
    return [op for _, op, times in walk(graph) for _ in range(times) if isinstance(op, KvCache)]


def test_the_prompt_step_keeps_the_inputs_keys_once_and_later_steps_only_read_them() -> None:
    prompt = [op for op in caches(T5, "prefill", batch=2, input_tokens=50) if op.source]
    later = [op for op in caches(T5, "decode", batch=2, input_tokens=50, context_tokens=60) if op.source]
    assert len(prompt) == len(later) == LAYERS
    assert [op.new_tokens for op in prompt] == [100.0] * LAYERS and [op.new_tokens for op in later] == [0.0] * LAYERS
    assert {op.kept_tokens for op in prompt + later} == {100.0}


def test_a_step_of_generation_does_the_decoders_products_and_none_of_the_encoders() -> None:
    """Behind 50 tokens read and 10 generated, the 11th sees itself, those ten and the start."""
    inner = HEADS * HEAD
    linear = LAYERS * (4 + 2) * 2 * HIDDEN * inner + LAYERS * 2 * 2 * HIDDEN * INNER + 2 * HIDDEN * VOCAB
    attention = LAYERS * 4 * inner * ((1 + 10 + 1) + 50)
    graph = gs.build_graph(T5, "decode", batch=2, input_tokens=50, context_tokens=60)
    assert total_work(graph).flops == 2 * (linear + attention)


def test_a_prompt_step_encodes_the_whole_input_and_decodes_one_token() -> None:
    inner, tokens = HEADS * HEAD, 2 * 50
    encoder = 2 * tokens * (4 * 2 * HIDDEN * inner + 2 * 2 * HIDDEN * INNER + 4 * inner * 50)
    decoder = LAYERS * 2 * ((4 + 2) * 2 * HIDDEN * inner + 2 * 2 * HIDDEN * INNER + 4 * inner * (1 + 50))
    cross = LAYERS * tokens * 2 * 2 * HIDDEN * inner
    graph = gs.build_graph(T5, "prefill", batch=2, input_tokens=50)
    assert total_work(graph).flops == encoder + cross + decoder + 2 * 2 * HIDDEN * VOCAB


@pytest.mark.parametrize(("tp", "share"), [(1, 1.0), (2, 0.5)])
def test_the_cache_holds_the_decoders_own_tokens_and_the_encoders_rows(tp: int, share: float) -> None:
    row = LAYERS * 2 * HEADS * HEAD * 2
    found = gs.simulate(
        T5, DEVICE, batch=3, input_tokens=50, output_tokens=20, parallelism=gs.Parallelism(tp=tp), engine="reference"
    )
    assert found.memory.kv_cache_bytes == 3 * row * (50 + 1 + 20) * share


def test_a_window_of_sound_has_its_rows_whatever_the_request_says() -> None:
    """Multilingual prompts are four marks: of the transcript, the language, the task, and that times are left out."""
    row = LAYERS * 2 * HIDDEN * 2
    short, long = (
        gs.simulate(WHISPER, DEVICE, batch=2, input_tokens=n, output_tokens=30, cost="roofline", engine="reference")
        for n in (10, 400)
    )
    assert short.ttft_s == long.ttft_s and short.tpot_s == pytest.approx(long.tpot_s, rel=1e-12)
    assert short.memory.kv_cache_bytes == long.memory.kv_cache_bytes == 2 * row * (1500 + 4 + 30)
    assert "1500 rows" in " ".join(short.notes)


def test_a_decoder_alone_keeps_the_weights_that_attend_to_an_encoder_and_does_nothing_with_them() -> None:
    alone = {**BART, "architectures": ["BartForCausalLM"]}
    graph = gs.build_graph(alone, "decode", batch=1, context_tokens=9)
    linear = LAYERS * (4 * 2 * HIDDEN * HIDDEN + 2 * 2 * HIDDEN * INNER) + 2 * HIDDEN * VOCAB
    assert total_work(graph).flops == linear + LAYERS * 4 * HIDDEN * 10
    cross = LAYERS * (4 * (HIDDEN * HIDDEN + HIDDEN) + 2 * HIDDEN)
    held = [op.parameters * times for name, op, times in walk(graph) if "encoder_attn" in getattr(op, "module", "")]
    assert sum(held) == cross
    names = gs.LoraConfig(rank=8, target_modules=["q_proj"])
    assert gs.lora_parameters(alone, names) == LAYERS * 2 * 8 * 2 * HIDDEN


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_no_kernel_of_the_encoder_is_started_where_nothing_is_encoded(config: dict[str, Any]) -> None:
    graph = gs.build_graph(config, "decode", batch=1, input_tokens=20, context_tokens=25, engine="peft")
    encoder = [op for name, op, _ in walk(graph) if name.startswith("encoder.")]
    assert encoder and not any(isinstance(op, Launch) for op in encoder)
    prompt = gs.build_graph(config, "prefill", batch=1, input_tokens=20, engine="peft")
    assert any(isinstance(op, Launch) for name, op, _ in walk(prompt) if name.startswith("encoder."))


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_recorded_formulas_give_what_the_graphs_give(config: dict[str, Any]) -> None:
    deployment = Deployment(config, DEVICE, cost="roofline", engine="reference")
    slow = Inference(deployment=deployment, requests=Requests(batch=4, input_tokens=70, output_tokens=33))
    found = gs.simulate(deployment, batch=4, input_tokens=70, output_tokens=33)
    assert found.ttft_s == pytest.approx(slow.ttft_s(), rel=1e-12)
    assert found.tpot_s * 32 == pytest.approx(slow.generation_s(), rel=1e-12)
    assert found.memory.total_bytes == pytest.approx(slow.memory().total_bytes, rel=1e-12)


@pytest.mark.slow
def test_rows_of_a_sweep_are_what_simulate_says() -> None:
    sizes = {"batch": [4], "input_tokens": [30, 90], "output_tokens": [40]}
    for row in gs.sweep(T5, hardware=DEVICE, cost="roofline", **{"engine": "reference", **sizes}).to_dict("records"):
        asked = {name: int(row[name]) for name in sizes}
        found = gs.simulate(T5, DEVICE, cost="roofline", **{"engine": "reference", **asked})
        assert row["ttft_s"] == pytest.approx(found.ttft_s, rel=1e-9)
        assert row["tpot_s"] == pytest.approx(found.tpot_s, rel=1e-9)


def test_layers_spelled_out_take_the_encoders_output_each() -> None:
    whole = gs.build_graph(T5, "prefill", batch=2, input_tokens=50)
    spelled = gs.build_graph(T5, "prefill", batch=2, input_tokens=50, expand=True)
    gs.validate(spelled)
    users = set(spelled.successors("encoder.final_layer_norm"))
    assert len(users) == LAYERS and all(user.endswith("encoder_output") for user in users)
    times = [gs.critical_path(gs.annotate(graph, DEVICE, cost="roofline")).latency_s for graph in (whole, spelled)]
    assert times[0] == pytest.approx(times[1], rel=1e-12)


def test_an_adapter_on_some_layers_reaches_encoder_and_decoder_alike() -> None:
    lora = gs.LoraConfig(rank=8, target_modules=["q"], layers_to_transform=[1])
    graph = gs.build_graph(T5, "prefill", batch=2, input_tokens=50, lora=lora)
    gs.validate(graph)
    assert gs.lora_parameters(T5, lora) == (1 + 2) * 8 * (HIDDEN + HEADS * HEAD)


def test_what_cannot_be_said_of_two_kinds_of_tokens_is_refused_in_a_sentence() -> None:
    with pytest.raises(gs.ConfigError, match="compile_step does not support an encoder-decoder such as 't5'"):
        gs.compile_step(T5, DEVICE, engine="reference")
    with pytest.raises(gs.ConfigError, match="whose caches hold tokens of two kinds"):
        gs.footprint(WHISPER, DEVICE)
    with pytest.raises(
        gs.InfeasibleError, match="parallelism.pp = 2 .* decoder's layers all read the encoder's output"
    ):
        gs.simulate(T5, DEVICE, parallelism=gs.Parallelism(pp=2), engine="reference")
    with pytest.raises(gs.ConfigError, match="context_tokens = 10 is not allowed with input_tokens = 50"):
        gs.build_graph(T5, "decode", input_tokens=50, context_tokens=10)


@pytest.mark.parametrize(
    ("engine", "runs"),
    [("vllm", {"whisper"}), ("vllm-0.7", {"bart", "whisper"}), ("sglang", {"whisper"}), ("slora", set())],
)
def test_an_engine_runs_the_encoder_decoders_that_it_knows(engine: str, runs: set[str]) -> None:
    for kind, config in ALL.items():
        if kind in runs:
            gs.build_graph(config, "prefill", input_tokens=20, engine=engine)
        else:
            with pytest.raises(gs.InfeasibleError, match=f"runs no encoder-decoder of the kind {kind}"):
                gs.build_graph(config, "prefill", input_tokens=20, engine=engine)


def test_positions_of_encoder_and_decoder_are_counted_apart() -> None:
    """BART's 300 on each side: 299 generated tokens and the start, or 300 of the input, whose last needs a row too."""
    asked = {"hardware": DEVICE, "engine": "peft", "cost": "roofline"}
    gs.simulate(BART, batch=1, input_tokens=300, output_tokens=300, **{"engine": "reference", **asked})
    with pytest.raises(gs.InfeasibleError, match="output_tokens = 301 .*300 positions"):
        gs.simulate(BART, batch=1, input_tokens=10, output_tokens=301, **{"engine": "reference", **asked})
    with pytest.raises(gs.InfeasibleError, match="input_tokens = 301 .*300 positions"):
        gs.simulate(BART, batch=1, input_tokens=301, output_tokens=10, **{"engine": "reference", **asked})


@pytest.mark.parametrize(("tokens", "window"), [(1, 3), (4, 3), (10, 3), (10, 9), (10, 12)])
def test_a_window_of_an_encoder_reaches_to_both_sides(tokens: int, window: int) -> None:
    """transformers 5.24, `masking_utils.py`, sliding_window_bidirectional_overlay: |i - j| <= window."""
    near = sum(abs(i - j) <= window for i in range(tokens) for j in range(tokens))
    assert Segment(sequences=2.0, new_tokens=float(tokens)).near_pairs(float(window)) == 2 * near
