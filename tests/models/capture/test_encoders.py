"""Encoder-decoders: what PyTorch counts of both steps is what the captured model does."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import graphsim as gs  # noqa: E402
from graphsim.graph import walk  # noqa: E402
from graphsim.models.build import build  # noqa: E402
from graphsim.models.capture import capture  # noqa: E402
from graphsim.models.capture.instantiate import meta_model  # noqa: E402
from graphsim.models.config import ModelConfig  # noqa: E402
from graphsim.models.phase import Phase, decode, prefill  # noqa: E402
from graphsim.models.yaml import read_model  # noqa: E402
from graphsim.ops import Attention  # noqa: E402
from graphsim.ops.precision import load_precision  # noqa: E402

pytestmark = pytest.mark.slow

BATCH, OWN, SOURCE = 2, 5, 11

BART = {
    "model_type": "bart", "architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True, "d_model": 32,
    "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 64, "vocab_size": 96, "max_position_embeddings": 128,
}  # fmt: skip
T5 = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True, "d_model": 32,
    "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "vocab_size": 96,
}  # fmt: skip
WHISPER = {
    "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "is_encoder_decoder": True,
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 64, "vocab_size": 96, "num_mel_bins": 8, "max_source_positions": 20,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip


def given_to(model: Any) -> dict[str, Any]:
    """Inputs of a prompt at plain sizes."""
    own = torch.zeros(BATCH, OWN, dtype=torch.long)
    if model.config.model_type == "whisper":
        frames = 2 * model.config.max_source_positions
        features = torch.zeros(BATCH, model.config.num_mel_bins, frames, dtype=model.dtype)
        return {"input_features": features, "decoder_input_ids": own}
    return {"input_ids": torch.zeros(BATCH, SOURCE, dtype=torch.long), "decoder_input_ids": own}


def counted(config: dict[str, Any]) -> tuple[int, int]:
    """Matrix flops of a prompt and of the decode step behind it, as PyTorch runs and counts them.

    With attention spelt out: PyTorch has no formula for the kernel that it takes on a CPU.
    """
    cls = getattr(transformers, config["architectures"][0])
    model = cls._from_config(meta_model(config).config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        with FlopCounterMode(display=False) as prompt:
            result = model(**given_to(model), use_cache=True)
        more = {
            "decoder_input_ids": torch.zeros(BATCH, 1, dtype=torch.long),
            "encoder_outputs": (result.encoder_last_hidden_state,),
            "cache": result.past_key_values,
        }
        with FlopCounterMode(display=False) as generation:
            model(**more, use_cache=True)
    return prompt.get_total_flops(), generation.get_total_flops()


def done(model: ModelConfig, phase: Phase) -> float:
    """Matrix flops of a step, with every key that it has for every query: a mask is no shape to PyTorch."""
    total = 0.0
    for _, op, times in walk(build(model, phase, load_precision("bf16"))):
        flops = float(op.work().flops)
        if isinstance(op, Attention) and flops:
            seen = float(op.query_tokens) * float(op.kv_tokens) / float(op.sequences)
            flops *= seen / float(op.pairs)
        total += flops * times
    return total


@pytest.mark.parametrize("config", [BART, T5, WHISPER], ids=["bart", "t5", "whisper"])
def test_both_steps_do_what_pytorch_counts(config: dict[str, Any]) -> None:
    model = read_model(document_of(config), "captured")
    assert model.source_encoder is not None
    source = float(model.source_encoder.rows or SOURCE)
    prompt, generation = counted(config)
    assert done(model, prefill(BATCH, OWN, all_logits=True, source_tokens=source)) == prompt
    assert done(model, decode(BATCH, OWN, source_tokens=source)) == generation


@pytest.mark.parametrize("config", [BART, T5, WHISPER], ids=["bart", "t5", "whisper"])
def test_all_weights_are_there_once(config: dict[str, Any]) -> None:
    model = read_model(document_of(config), "captured")
    assert model.num_parameters == sum(parameter.numel() for parameter in meta_model(config).parameters())


def test_adapters_reach_encoder_decoder_and_what_is_between() -> None:
    model = read_model(document_of(BART), "captured")
    attentions = BART["encoder_layers"] + 2 * BART["decoder_layers"]  # type: ignore[operator]
    rank, width = 8, BART["d_model"]
    expected = attentions * 2 * rank * (width + width)  # type: ignore[operator]
    assert gs.lora_parameters(model, gs.LoraConfig(rank=rank, target_modules=["q_proj", "v_proj"])) == expected


def test_a_layer_with_cross_attention_is_one_program() -> None:
    document = document_of(BART)
    assert isinstance(document["blocks"]["layer"], list)
    assert document["layers"] == [{"repeat": 3, "block": "layer"}]
    assert document["source_encoder"]["layers"] == [{"repeat": 2, "block": "encoder_layer"}]
    (cross,) = [node for node in document["blocks"]["layer"] if node.get("cross")]
    keys = next(node for node in document["blocks"]["layer"] if node["name"] == cross["inputs"][1])
    assert (keys["inputs"], keys["m"]) == (["source"], "encoded_rows")


def test_an_encoder_of_fixed_length_says_its_rows() -> None:
    assert document_of(WHISPER)["source_encoder"]["rows"] == WHISPER["max_source_positions"]


def document_of(model: object) -> dict:
    """The model file of a captured model."""
    document = capture(model).document
    assert document is not None
    return dict(document)
