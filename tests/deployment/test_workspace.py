"""What engines keep free: against peaks that vLLM logged, and the laws of a chunked prefill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.memory import stages_of
from graphsim.ops.formats import FORMATS

GIB = 2**30


def dense(layers: int, hidden: int, wide: int, heads: int, kv_heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "qwen2", "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": wide,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab, **more,
    }  # fmt: skip


QWEN3_06B = dense(28, 1024, 3072, 16, 8, 151936, model_type="qwen3", head_dim=128, tie_word_embeddings=True)
QWEN25_15B = dense(28, 1536, 8960, 12, 2, 151936, tie_word_embeddings=True)
GEMMA3_4B = dense(
    34, 2560, 10240, 8, 4, 262208, model_type="gemma3_text", head_dim=256, sliding_window=1024, tie_word_embeddings=True
)


def peak_gib(model: Any, device: str, engine: Any, tp: int = 1) -> float:
    deployment = gs.Deployment(model, device, engine=engine, parallelism=gs.Parallelism(tp=tp))
    return float(stages_of(deployment)[-1].workspace.activations_bytes) / GIB


@pytest.mark.parametrize(
    ("model", "tp", "logged"),
    [
        ("llama-3.1-8b", 1, 4.76),
        (QWEN3_06B, 1, 5.56),
        ("qwen3-32b", 1, 5.64),
        ("llama-3.1-70b", 2, 4.84),  # the whole vocabulary is sampled from on every device
        ("gpt-oss-120b", 1, 7.38),
    ],
)
def test_peaks_of_vllm_0_11_on_an_h100(model: Any, tp: int, logged: float) -> None:
    """llm-d-benchmark, config_explorer/empirical-vllm-memory-results.md: 8,192 tokens, 1,024 sequences."""
    assert peak_gib(model, "h100-sxm", "vllm-0.11", tp) == pytest.approx(logged, rel=0.01)


@pytest.mark.parametrize(
    ("model", "device", "engine", "logged"),
    [
        (GEMMA3_4B, "b200-sxm", {"base": "vllm-0.11", "memory": {"large_chunk_tokens": 16384}}, 9.96),  # PR 21489
        (QWEN25_15B, "rtx-4090", "vllm-0.7", 1.39),  # issue 12529
        ("llama-3.1-8b", "a100-sxm-80gb", "vllm-0.7", 1.19),  # 0.7.0, 79.14 GiB
    ],
)
def test_peaks_of_other_versions_models_and_devices_that_nothing_was_fitted_on(
    model: Any, device: str, engine: Any, logged: float
) -> None:
    assert peak_gib(model, device, engine) == pytest.approx(logged, rel=0.04)


def memory(engine: str, batch: Any, prompt: Any) -> Any:
    deployment = gs.Deployment("llama-3.1-8b", "h100-sxm", engine=engine)
    return Inference(
        deployment=deployment, requests=Requests(batch=batch, input_tokens=prompt, output_tokens=1)
    ).memory()


def test_activations_are_those_of_a_chunk_where_prompts_are_cut_and_of_all_prompts_elsewhere() -> None:
    batch, prompt = np.array([1.0, 16.0, 1.0]), np.array([1000.0, 1000.0, 16000.0])
    for engine in ("vllm", "vllm-0.7", "sglang"):
        assert len(set(memory(engine, batch, prompt).activations_bytes)) == 1, engine
    for engine in ("reference", "peft"):
        one, many, long = memory(engine, batch, prompt).activations_bytes
        assert many == long == pytest.approx(16 * one, rel=1e-3), engine


def test_a_prompt_longer_than_a_chunk_needs_room_for_its_cache_only() -> None:
    """32,000 tokens of 131,072 bytes beside 15 GiB of weights: vLLM serves them on an L4."""
    assert gs.simulate("llama-3.1-8b", "l4", 1, 32_000, 128, engine="vllm").memory.fits
    assert not gs.simulate("llama-3.1-8b", "l4", 1, 32_000, 128, engine="reference").memory.fits


@pytest.mark.parametrize(("prompt", "generated"), [(8192, 512), (1024, 128), (128, 1024)])
def test_the_largest_batch_is_that_of_the_tokens_that_vllm_logs(prompt: int, generated: int) -> None:
    """377,024 tokens for Qwen3-8B on an H100 (vLLM 0.30): 43 requests of 8,704 and 327 of 1,152."""
    most = gs.simulate("qwen3-8b", "h100-sxm", 1, prompt, generated, engine="vllm").memory.max_batch
    assert most == pytest.approx(377_024 / (prompt + generated), rel=0.03)


def test_the_workspace_grows_with_vocabulary_chunk_sequences_and_devices() -> None:
    def workspace(model: Any = "llama-3.1-8b", tp: int = 1, **changed: float) -> float:
        engine = {"base": "vllm-0.11", "memory": changed}
        return float(gs.footprint(model, "h100-sxm", engine=engine, parallelism=gs.Parallelism(tp=tp)).workspace_bytes)

    assert workspace("gpt-oss-20b") > workspace("qwen3-8b") > workspace() > workspace("llama-2-7b")
    assert workspace(large_chunk_tokens=65536) > workspace() > workspace(large_sequences=256)
    assert workspace(tp=2) - workspace() == pytest.approx(0.42 * GIB, rel=0.01)  # the sampler works on all of them


def test_a_server_without_adapters_leaves_the_tokens_that_it_logged() -> None:
    """334,816 for Llama-3.1-8B on an H100 64 GB (vLLM 0.8.5, runs behind arXiv 2508.08343); nothing was fitted on it.

    Merged adapters are the base model, and enabled ones take room before the first slot.
    """
    merged, enabled = gs.LoraConfig(strategy="merge"), gs.LoraConfig(max_loras=1)
    tokens = [
        gs.footprint("llama-3.1-8b", "h100-64gb", lora, engine="vllm-0.8").kv_tokens for lora in (None, merged, enabled)
    ]
    assert tokens[0] == tokens[1] == pytest.approx(334_816, rel=0.002) and tokens[2] < 0.95 * tokens[0]


def test_limits_of_a_step_are_those_of_the_device() -> None:
    """8,192 tokens and 1,024 sequences from 70 GiB on, 2,048 and 256 below and on A100s (vLLM, get_batch_defaults)."""

    def sampled(device: str) -> float:
        deployment = gs.Deployment("llama-3.1-8b", device, engine="vllm-0.11")
        return float(stages_of(deployment)[0].workspace.activations_bytes)

    large = (8192 + 1024) * 4096 * 2 + 1024 * 128256 * 38.3
    assert sampled("h100-sxm") == sampled("mi300x") == pytest.approx(large)
    assert sampled("l4") == sampled("h100-64gb") == sampled("a100-sxm-80gb") == pytest.approx(large / 4)


@pytest.mark.parametrize("device", gs.list_hardware())
def test_a_question_about_memory_asks_for_no_peak(device: str) -> None:
    """Whatever the format: none of these devices has a matrix peak for all of them."""
    peaks = gs.load_hardware(device).flops_per_s
    formats = [name for name in ("fp8", "int8", "nvfp4", "mxfp4", "nf4", "int4") if name in FORMATS]
    assert not set(formats) <= set(peaks)
    for name in formats:
        assert gs.footprint("llama-3.2-1b", device, precision=name).kv_bytes > 0


def test_a_limit_of_steps_needs_both_its_numbers() -> None:
    with pytest.raises(gs.ConfigError, match="memory.chunk_tokens and memory.sequences go together; give both or none"):
        gs.footprint("llama-3.2-1b", "l4", engine={"name": "mine", "memory": {"chunk_tokens": 512}})
    with pytest.raises(gs.ConfigError, match="memory.share = 1.5 is not allowed; expected a number from 0 to 1"):
        gs.footprint("llama-3.2-1b", "l4", engine={"base": "vllm", "memory": {"share": 1.5}})
    with pytest.raises(gs.ConfigError, match="memory.blocks is not a known key"):
        gs.footprint("llama-3.2-1b", "l4", engine={"base": "vllm", "memory": {"blocks": 16}})


MIB = 2.0**20


@pytest.mark.parametrize(
    ("device", "tp", "changed", "reserve_mib"),
    [
        ("h100-sxm", 1, {}, 512 + 1.5 * 8192 + 2 * 256 + 128),
        ("h100-sxm", 4, {}, 512 + 1.5 * 8192 + 2 * 256 + 4 * 128),
        ("rtx-4090", 1, {}, 512 + 1.5 * 2048 + 2 * 32 + 128),
        ("h100-sxm", 1, {"large_chunk_tokens": 2048}, 10 * 1024),
    ],
)
def test_sglang_keeps_free_what_its_rule_of_thumb_says(
    device: str, tp: int, changed: dict[str, float], reserve_mib: float
) -> None:
    """512 MB, 1.5 for each token of a chunk, 2 for each sequence of the largest graph, 1 GB for every eight devices,
    and 10 GB at least on large devices (SGLang 0.5, `server_args.py`, mem_fraction_static), beside 1 GiB of runtime."""
    engine = {"base": "sglang", "memory": changed}
    found = gs.footprint("llama-3.1-8b", device, engine=engine, parallelism=gs.Parallelism(tp=tp))
    assert found.workspace_bytes / MIB == pytest.approx(1024 + reserve_mib)


def test_sglangs_rule_of_thumb_leaves_the_tokens_of_a_log() -> None:
    """38,141 for Llama-3.1-8B on some card of 24 GB (MaxUhl98/Thesis, inference_server/readme.md, July 2025), when the
    rule was 2.9 GB on such cards: `server_args.py` of 0.4.9, (2.8 + tp / 10) * 1024 MB."""
    rule = {
        "reserve_bytes": 2.9 * GIB,
        "reserve_token_bytes": 0,
        "reserve_sequence_bytes": 0,
        "reserve_device_bytes": 0,
    }
    found = gs.footprint("llama-3.1-8b", "rtx-4090", engine={"base": "sglang", "memory": rule})
    assert found.kv_tokens == pytest.approx(38_141, rel=0.03)
