"""A model on the meta device from a module, a config, a mapping or a path."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from graphsim.errors import ConfigError  # noqa: E402
from graphsim.models.capture.instantiate import meta_model  # noqa: E402

pytestmark = pytest.mark.slow

SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}


def parameters_of_small() -> int:
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    return 2 * layer + 2 * 256 * 64 + 64


def test_a_mapping_a_config_a_file_and_a_folder_are_the_same_model(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    config = transformers.LlamaConfig.from_dict(SMALL)
    for ref in (SMALL, config, tmp_path, str(tmp_path / "config.json")):
        model = meta_model(ref)
        assert type(model).__name__ == "LlamaForCausalLM"
        assert not model.training
        assert {p.device.type for p in model.parameters()} == {"meta"}
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert sum(p.numel() for p in model.parameters()) == parameters_of_small()


def test_the_dtype_of_the_config_is_kept() -> None:
    assert meta_model(SMALL | {"dtype": "float16"}).dtype == torch.float16


def test_the_class_is_the_one_that_architectures_names() -> None:
    named = meta_model(SMALL | {"architectures": ["LlamaForSequenceClassification"]})
    assert type(named).__name__ == "LlamaForSequenceClassification"
    unknown = meta_model(SMALL | {"architectures": ["MyLlama"]})
    assert type(unknown).__name__ == "LlamaForCausalLM"


def test_an_encoder_decoder_gets_its_encoder() -> None:
    small = {"d_model": 32, "num_layers": 1, "d_ff": 32, "num_heads": 2, "d_kv": 16, "vocab_size": 64}
    assert type(meta_model({"model_type": "t5"} | small)).__name__ == "T5ForConditionalGeneration"
    bart = {"model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 64}
    assert type(meta_model(bart)).__name__ == "BartForConditionalGeneration"


@pytest.mark.parametrize("model_type", ["xlnet", "diffllama"])
def test_weights_that_a_class_makes_on_the_cpu_are_dropped_too(model_type: str) -> None:
    layers = {"n_layer": 1, "num_hidden_layers": 1, "d_model": 32, "n_head": 2, "d_inner": 32, "vocab_size": 64}
    model = meta_model({"model_type": model_type, "dtype": "bfloat16"} | layers)
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


class Tied(torch.nn.Module):
    """A module with a tied weight, a buffer, a plain tensor and a weight that does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 8)
        self.head = torch.nn.Linear(8, 16, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = torch.nn.LayerNorm(8).requires_grad_(False)
        self.register_buffer("scale", torch.full((8,), 2.0))
        self.table = [torch.arange(16)]


def test_a_users_module_is_copied_without_its_weights_and_left_as_it_was() -> None:
    mine = Tied().train()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    copy = meta_model(mine)
    assert mine.training and not copy.training
    assert {t.device.type for t in mine.state_dict().values()} == {"cpu"} == {mine.table[0].device.type}
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())
    assert {t.device.type for t in copy.state_dict().values()} == {"meta"} == {copy.table[0].device.type}
    assert copy.head.weight is copy.embedding.weight
    assert isinstance(copy.head.weight, torch.nn.Parameter) and copy.head.weight.shape == (16, 8)
    assert not copy.norm.weight.requires_grad


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ({"model_type": "lama"}, "no model_type 'lama'; did you mean 'llama'"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "c.C"}}, "its own code .auto_map. is not run"),
        (SMALL | {"hidden_act": "none of these"}, "LlamaForCausalLM refuses this config"),
        (SMALL | {"num_hidden_layers": "two"}, "LlamaConfig refuses it"),
        ({"model_type": "clip_vision_model"}, "no class with a generating head for CLIPVisionConfig"),
        (3, "not int"),
        ("/nowhere", "neither a folder with a readable config.json"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(ref: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        meta_model(ref)
    assert "\n" not in str(caught.value)
