"""Models run on tensors without data, and both sizes of a prompt stay symbols."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch._dispatch.python import enable_python_dispatcher  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily  # noqa: E402
from torch.fx.experimental.symbolic_shapes import (  # noqa: E402
    DimDynamic,
    GuardOnDataDependentSymNode,
    ShapeEnv,
    StatelessSymbolicContext,
)

from graphsim.models.capture.inputs import decode_inputs, decode_module, prompt_inputs  # noqa: E402
from graphsim.models.capture.instantiate import meta_model  # noqa: E402
from graphsim.models.capture.patches import patched  # noqa: E402

pytestmark = pytest.mark.slow

BATCH, LENGTH, SOURCE = 3, 53, 37


class Fakes:
    """Fakes a model's weights, and inputs whose named sizes are one symbol for each name."""

    def __init__(self, model: Any) -> None:
        self.mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        self.symbols: dict[str, Any] = {}
        for module in model.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is not None:
                        store[name] = self.mode.from_tensor(tensor, static_shapes=True)

    def __call__(self, tensor: Any, dims: dict[int, str]) -> Any:
        for dim, name in dims.items():
            if name not in self.symbols:
                with unset_fake_temporarily():
                    one = torch.zeros(tensor.shape[dim], device="meta")
                dynamic = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
                self.symbols[name] = self.mode.from_tensor(one, symbolic_context=dynamic).shape[0]
        shape = [self.symbols[dims[dim]] if dim in dims else size for dim, size in enumerate(tensor.shape)]
        with self.mode:
            return torch.empty(shape, dtype=tensor.dtype, device="meta")

    @contextmanager
    def open(self, model: Any) -> Iterator[None]:
        with patched(model), torch.no_grad(), enable_python_dispatcher(), self.mode:
            yield

    def are_symbols(self) -> bool:
        return all(size.node.expr.is_Symbol for size in self.symbols.values())


def steps(config: dict[str, Any]) -> tuple[Any, Any, Fakes]:
    """What a prompt and a decode step give."""
    model = meta_model(config)
    fakes = Fakes(model)
    hints = {"batch": BATCH, "length": LENGTH, "source_length": SOURCE}
    with fakes.open(model):
        given = prompt_inputs(model, fakes, **hints)
        first = model(**given)
        more = decode_inputs(model, fakes, given, first, batch=BATCH)
        return first, decode_module(model)(**more), fakes


TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 64}
T5 = {"d_model": 32, "num_layers": 1, "num_decoder_layers": 1, "d_ff": 64, "num_heads": 2, "d_kv": 16, "vocab_size": 64}

DECODERS: dict[str, dict[str, Any]] = {
    "llama": TEXT,
    "mixtral": TEXT | {"num_local_experts": 4},
    "bert": BERT | {"architectures": ["BertLMHeadModel"]},
    "cpmant": {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "dim_head": 16,
        "dim_ff": 64,
        "num_hidden_layers": 1,
        "vocab_size": 64,
        "prompt_length": 4,
    },
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "vocab_size": 64},
    "xlm": {"emb_dim": 32, "n_layers": 1, "n_heads": 2, "n_words": 64, "architectures": ["XLMWithLMHeadModel"]},
}
"""Small configs that know no image: one of every kind of question or loop that a patch answers."""


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_decoder_runs_a_prompt_and_a_decode_step_in_symbols(model_type: str) -> None:
    first, second, fakes = steps({"model_type": model_type} | DECODERS[model_type])
    assert fakes.are_symbols()
    vocabulary = next(DECODERS[model_type][name] for name in ("vocab_size", "n_words") if name in DECODERS[model_type])
    assert first.logits.shape[:2] == (fakes.symbols["batch"], fakes.symbols["length"])
    assert first.logits.shape[2] == second.logits.shape[2] >= vocabulary
    whole = {"xlm": fakes.symbols["length"] + 1}
    assert second.logits.shape[1] == whole.get(model_type, 1)


def test_an_encoder_decoder_and_one_that_reads_pictures_run_in_symbols() -> None:
    first, second, fakes = steps({"model_type": "t5"} | T5)
    assert fakes.are_symbols() and set(fakes.symbols) == {"batch", "length", "source"}
    assert first.encoder_last_hidden_state.shape[1] == fakes.symbols["source"]
    assert second.logits.shape[1] == 1
    pictures = {
        "model_type": "vision-encoder-decoder",
        "encoder": VISION | {"model_type": "vit"},
        "decoder": BERT | {"model_type": "bert", "is_decoder": True, "add_cross_attention": True},
    }
    first, second, fakes = steps(pictures)
    assert fakes.are_symbols() and set(fakes.symbols) == {"batch", "length"}
    assert first.encoder_last_hidden_state.shape[1] == (28 // 14) ** 2 + 1  # patches and the class token
    assert second.logits.shape[1] == 1


def test_a_hybrid_without_an_attention_layer_runs_both_steps() -> None:
    bamba = {
        "model_type": "bamba",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "vocab_size": 64,
    }
    bamba |= {"num_attention_heads": 2, "num_key_value_heads": 2, "attn_layer_indices": None}
    model = meta_model(bamba | {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8})
    with patched(model), torch.no_grad():
        given = prompt_inputs(model, lambda bare, dims: bare, batch=2, length=5, source_length=3)
        first = model(**given)
        more = decode_inputs(model, lambda bare, dims: bare, given, first, batch=2)
        assert model(**more).logits.shape == (2, 1, 64)


def llava() -> dict[str, Any]:
    return {
        "model_type": "llava",
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": VISION | {"model_type": "clip_vision_model"},
    }


def test_a_text_prompt_brings_no_image() -> None:
    model = meta_model(llava())
    given = prompt_inputs(model, Fakes(model), batch=BATCH, length=LENGTH, source_length=SOURCE)
    assert set(given) == {"input_ids", "use_cache"}


def test_all_is_as_it_was_after_a_failure() -> None:
    model = meta_model({"model_type": "llama"} | TEXT)
    counted = transformers.Cache.get_seq_length
    with pytest.raises(RuntimeError, match="mine"), patched(model):
        assert os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] == "1"
        raise RuntimeError("mine")
    assert "TRANSFORMERS_DISABLE_TORCH_CHECK" not in os.environ
    assert transformers.Cache.get_seq_length is counted
    assert torch.tensor([2.0]).item() == 2.0


def test_a_question_to_data_without_an_answer_stays_an_error() -> None:
    class Asks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(16, 8)

        def forward(self, input_ids: Any) -> Any:
            return self.embedding(input_ids) if input_ids.sum() > 3 else input_ids

    model = meta_model(Asks())
    fakes = Fakes(model)
    with pytest.raises(GuardOnDataDependentSymNode), fakes.open(model):
        model(**prompt_inputs(model, fakes, batch=BATCH, length=LENGTH, source_length=SOURCE))
