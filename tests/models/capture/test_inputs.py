"""Prompt and decode steps of small models run on tensors of which the inputs say the sizes."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from graphsim.errors import ConfigError  # noqa: E402
from graphsim.models.capture.inputs import decode_inputs, prompt_inputs  # noqa: E402
from graphsim.models.capture.instantiate import meta_model  # noqa: E402

pytestmark = pytest.mark.slow

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}
T5 = {"model_type": "t5", "d_model": 32, "num_layers": 1, "d_ff": 32, "num_heads": 2, "d_kv": 16, "vocab_size": 64}


class Made:
    """A maker of meta tensors that remembers which dimensions were said to be symbols."""

    def __init__(self) -> None:
        self.named: list[tuple[tuple[int, ...], dict[int, str]]] = []

    def __call__(self, tensor: Any, dims: dict[int, str]) -> Any:
        self.named.append((tuple(tensor.shape), dims))
        return tensor


def both_steps(
    model: Any, batch: int = 3, length: int = 53, source_length: int = 37
) -> tuple[Any, Any, Any, Any, Made]:
    """Arguments and results of a prompt and of a decode step."""
    make = Made()
    given = prompt_inputs(model, make, batch=batch, length=length, source_length=source_length)
    with torch.no_grad():
        result = model(**given)
        more = decode_inputs(model, make, given, result, batch=batch)
        return given, result, more, model(**more), make


def test_a_decoder_reads_its_prompt_and_goes_on_with_its_own_cache() -> None:
    model = meta_model(LLAMA)
    given, first, more, second, make = both_steps(model)
    assert given["input_ids"].shape == (3, 53)
    assert first.logits.shape == (3, 53, 256)
    assert second.logits.shape == (3, 1, 256)
    cache = next(value for value in more.values() if isinstance(value, transformers.Cache))
    assert cache.get_seq_length() == 53 + 1
    assert make.named == [((3, 53), {0: "batch", 1: "length"}), ((3, 1), {0: "batch"})]


def test_an_encoder_decoder_reads_its_source_once() -> None:
    model = meta_model(T5)
    runs: list[Any] = []
    model.encoder.register_forward_hook(lambda *call: runs.append(call[2]))
    given, first, more, second, make = both_steps(model)
    assert given["input_ids"].shape == (3, 37)
    assert given["decoder_input_ids"].shape == (3, 53)
    assert more["decoder_input_ids"].shape == (3, 1)
    assert second.logits.shape == (3, 1, 64)
    assert len(runs) == 1
    assert ((3, 37), {0: "batch", 1: "source"}) in make.named


class Tokens(torch.nn.Module):
    """A module that takes its tokens by a name of its own and has no cache."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 8)

    def forward(self, idx: Any) -> Any:
        return self.embedding(idx)


class Nameless(Tokens):
    """A module of which nobody can tell what it takes."""

    def forward(self, thing: Any) -> Any:
        return super().forward(thing)


def test_a_module_of_ones_own_gets_its_tokens_and_says_that_it_has_no_cache() -> None:
    model = meta_model(Tokens())
    given = prompt_inputs(model, Made(), batch=3, length=5, source_length=7)
    assert {name: tuple(tensor.shape) for name, tensor in given.items()} == {"idx": (3, 5)}
    with pytest.raises(ConfigError, match="Tokens returns no cache"):
        decode_inputs(model, Made(), given, model(**given), batch=3)


def test_a_forward_of_unknown_arguments_asks_for_inputs() -> None:
    with pytest.raises(ConfigError, match=r"Nameless.forward\(thing\) has no argument for token ids with a known name"):
        prompt_inputs(meta_model(Nameless()), Made(), batch=3, length=5, source_length=7)
