"""Models that generate nothing and look both ways: BERT's kin with other heads, decoders turned into encoders.

Their parameters, adapters and flops are held to transformers and PEFT in test_structure.py.
"""

from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.ops import Attention, Gemm, KvCache
from graphsim.ops.precision import load_precision
from tests.paths import hf_configs

CONFIGS = hf_configs()
GEMMA, QWEN = CONFIGS["Gemma3TextModel:both ways"], CONFIGS["Qwen2Model:both ways"]


def ops(data: dict[str, Any], kind: type, batch: float, tokens: float) -> list[Any]:
    """Of the prompt step, with those of repeated layers."""
    graph = build(gs.load_model(data), prefill(batch, tokens), load_precision("bf16"))
    return [op for _, op, _ in walk(graph) if isinstance(op, kind)]


def pairs(data: dict[str, Any], tokens: int) -> set[float]:
    return {float(op.pairs) for op in ops(data, Attention, 1.0, float(tokens))}


@pytest.mark.parametrize(
    "name", ["BertForMaskedLM", "RobertaForSequenceClassification", "ElectraForTokenClassification", "T5EncoderModel"]
)
def test_what_generates_nothing_sees_every_key_and_keeps_none(name: str) -> None:
    attention = ops(CONFIGS[name], Attention, 3.0, 10.0)
    assert attention and all(op.pairs == 3 * 10 * 10 for op in attention)
    assert not ops(CONFIGS[name], KvCache, 3.0, 10.0)


@pytest.mark.parametrize(
    ("name", "module", "rows"),
    [
        ("BertForSequenceClassification", "classifier", 3),
        ("RobertaForSequenceClassification", "out_proj", 3),
        ("BertForTokenClassification", "classifier", 30),
        ("BertForQuestionAnswering", "qa_outputs", 30),
        ("BertForMaskedLM", "decoder", 30),
    ],
)
def test_a_classifier_reads_one_row_a_sequence_and_others_every_token(name: str, module: str, rows: int) -> None:
    found = [op for op in ops(CONFIGS[name], Gemm, 3.0, 10.0) if op.module.rsplit(".", 1)[-1] == module]
    assert [op.m for op in found] == [rows]


@pytest.mark.parametrize("labels", [1, 2, 7])
@pytest.mark.parametrize("name", ["BertForSequenceClassification", "XLMRobertaForSequenceClassification"])
def test_a_label_is_a_row_and_a_bias_more(name: str, labels: int) -> None:
    names = {str(i): f"LABEL_{i}" for i in range(labels)}
    five, own = (gs.load_model({**CONFIGS[name], **said}) for said in ({}, {"id2label": names}))
    assert own.num_parameters - five.num_parameters == (48 + 1) * (labels - 5)


@pytest.mark.parametrize("window", [2, 12, 13])
def test_gemma_sees_half_a_window_on_either_side(window: int) -> None:
    """transformers 5.24 halves the window and adds one, exclusive; layers without a window see all."""
    near = sum(abs(i - j) < window // 2 + 1 for i in range(30) for j in range(30))
    assert pairs({**GEMMA, "sliding_window": window}, 30) == {near, 30 * 30}


@pytest.mark.parametrize("window", [4, 12])
def test_a_window_of_a_decoder_that_looks_both_ways_reaches_as_far_on_either_side(window: int) -> None:
    """transformers 5.24, `sliding_window_bidirectional_overlay`: a distance of the window or less."""
    slides = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}
    near = sum(abs(i - j) <= window for i in range(30) for j in range(30))
    assert pairs({**QWEN, **slides}, 30) == {near}


def test_a_class_named_bidirectional_looks_both_ways_without_the_key() -> None:
    named = {**{k: v for k, v in QWEN.items() if k != "is_causal"}, "model_type": "llama"}
    ways = [pairs({**named, "architectures": [name]}, 30) for name in ("LlamaModel", "LlamaBidirectionalModel")]
    assert ways == [{30 * 31 / 2}, {30 * 30}]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {**QWEN, "architectures": ["Qwen2ForCausalLM"]},
            "is_causal = False is not simulated for a class that generat",
        ),
        ({**QWEN, "architectures": None}, "is_causal = False is not simulated for a class that generates"),
        ({**GEMMA, "architectures": ["Gemma3ForCausalLM"]}, "use_bidirectional_attention = True is not simulated"),
        ({**GEMMA, "sliding_window": 1}, "sliding_window = 1 is not simulated where attention looks both ways"),
        ({**CONFIGS["BertForMaskedLM"], "is_decoder": True}, "is_decoder = True is not simulated for a class that gen"),
        ({**CONFIGS["BertForMaskedLM"], "architectures": ["BertForPreTraining"]}, "or one that ends with ForSequence"),
        (
            {**CONFIGS["T5EncoderModel"], "architectures": ["T5ForTokenClassification"]},
            "or EncoderModel for the encoder",
        ),
        (
            {**CONFIGS["default:big_bird"], "architectures": ["BigBirdForMaskedLM"]},
            "is not simulated; expected a class",
        ),
        (
            {**CONFIGS["default:mamba2"], "architectures": ["Mamba2Model"], "is_causal": False},
            "attention and MLP alone",
        ),
    ],
)
def test_what_is_not_simulated_is_refused_in_a_sentence(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(gs.ConfigError, match=sentence):
        gs.load_model(data)
