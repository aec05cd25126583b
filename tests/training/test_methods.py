"""Methods by name: what is trained, on which base, by which variant of LoRA."""

from __future__ import annotations

import pytest

from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject
from graphsim.lora.variants import known
from graphsim.models.build import build
from graphsim.models.loading import load_model
from graphsim.models.phase import prefill
from graphsim.ops.formats import FORMATS
from graphsim.ops.precision import load_precision
from graphsim.training.methods import COURSE, list_methods, load_method
from graphsim.training.optimizers import list_optimizers
from graphsim.training.step import marked
from graphsim.training.stored import trained_parameters


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("sft", "full"),
        ("SFT", "full"),
        ("full-finetuning", "full"),
        ("full_finetuning", "full"),
        ("pretraining", "pretrain"),
        ("gptq_lora", "gptq-lora"),
        ("QLoRA", "qlora"),
        ("ReLoRA", "relora"),
        ("LoRA+", "lora-plus"),
        ("lora_fa", "lora-fa"),
        ("DoRA", "dora"),
        ("Full Finetuning", "full"),
    ],
)
def test_usual_spellings(spelling: str, name: str) -> None:
    assert load_method(spelling).name == name


@pytest.mark.parametrize("name", list_methods())
def test_a_method_trains_the_base_or_an_adapter(name: str) -> None:
    method = load_method(name)
    assert method.base != method.adapters
    assert not (method.base and method.base_format), "a base in few bits cannot be trained in full"
    assert method.base_format in ("", *FORMATS)
    assert method.optimizer in ("", *list_optimizers())
    assert method.course.keys() <= set(COURSE) and (not method.course or method.merges)
    assert load_method(method) == method


def test_every_variant_of_lora_is_a_method() -> None:
    for variant in known():
        method = load_method(variant)
        assert method.adapters and not method.base
        assert method.variant == ("" if variant == "lora" else variant)


def test_a_recipe_decides_what_is_put_into_fp32_beside_a_quantised_base() -> None:
    assert load_method("qlora").upcasts and not load_method("qlora", upcasts=False).upcasts
    assert load_method("gptq-lora", upcasts=True).upcasts
    assert not load_method("lora", upcasts=True).upcasts  # nothing is quantised


MODEL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip


def test_relora_trains_embeddings_head_and_norms_beside_its_adapters() -> None:
    def trained(method: str, rank: int) -> float:
        lora = None if method == "full" else LoraConfig(rank=rank, target_modules="all-linear")
        graph = inject(build(load_model(MODEL), prefill(1.0, 64.0, all_logits=True), load_precision("bf16")), lora)
        return float(trained_parameters(marked(graph, load_method(method))))

    beside = 2 * 256 * 64 + 5 * 64
    assert trained("relora", 8) == trained("lora", 8) + beside
    assert trained("relora", 0) == trained("full", 0)  # nothing is frozen where there is no adapter


def test_relora_trains_what_has_no_adapter_and_merges() -> None:
    method = load_method("relora")
    assert method.merges and method.others and method.course["relora_every"] == 5320
    assert not load_method("lora").merges and not load_method("lora").others


@pytest.mark.parametrize("name", ["qlorra", "", "  ", None, 3, "lora lora", "x" * 4000])
def test_what_is_no_method_is_answered_in_a_sentence(name: object) -> None:
    with pytest.raises(ConfigError, match=r"^method = .{0,120} is not (known|allowed); ") as raised:
        load_method(name)  # type: ignore[arg-type]
    assert len(str(raised.value)) < 1000
