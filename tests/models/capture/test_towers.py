"""Towers of images and sound: their work on one image is what PyTorch counts; a text-only step holds none of it."""

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
from graphsim.models.capture.rows import Row, RowInput  # noqa: E402
from graphsim.models.capture.windows import together  # noqa: E402
from graphsim.models.config import ModelConfig  # noqa: E402
from graphsim.models.media import Media  # noqa: E402
from graphsim.models.phase import prefill  # noqa: E402
from graphsim.models.yaml import read_model  # noqa: E402
from graphsim.ops.precision import load_precision  # noqa: E402

pytestmark = pytest.mark.slow

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96,
}  # fmt: skip
SIDE, PATCH, TOWER = 56, 14, 24
LLAVA = {
    "model_type": "llava", "text_config": {"model_type": "llama", **TEXT}, "image_token_index": 5,
    "vision_config": {
        "model_type": "clip_vision_model", "hidden_size": TOWER, "intermediate_size": 40, "num_hidden_layers": 3,
        "num_attention_heads": 4, "image_size": SIDE, "patch_size": PATCH, "projection_dim": TOWER,
    },
}  # fmt: skip
GEMMA3 = {
    "model_type": "gemma3", "mm_tokens_per_image": 4,
    "text_config": {"model_type": "gemma3_text", "head_dim": 8, **TEXT},
    "vision_config": {
        "model_type": "siglip_vision_model", "hidden_size": TOWER, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": PATCH, "patch_size": PATCH, "vision_use_head": False,
    },
}  # fmt: skip
"""An image of one patch, which Gemma-3's pooling to four rows cannot do."""


@pytest.fixture(scope="module")
def llava() -> ModelConfig:
    return read_model(document_of(LLAVA), "captured")


def work(model: ModelConfig, media: Media | None) -> float:
    """Matrix flops of a prompt's towers and all else."""
    graph = build(model, prefill(1.0, 64.0, media=media), load_precision("bf16"))
    return sum(float(op.work().flops) * times for _, op, times in walk(graph))


def counted(config: dict[str, Any]) -> int:
    """As PyTorch counts one image; on meta, where attention is spelt out in products that it has a formula for."""
    model = meta_model(config)
    model.set_attn_implementation("eager")
    pixels = torch.zeros(1, 3, SIDE, SIDE, dtype=model.dtype, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.get_image_features(pixel_values=pixels)
    return int(counter.get_total_flops())


def test_an_image_costs_what_pytorch_counts(llava: ModelConfig) -> None:
    one, two = (work(llava, Media(images=n, image_size=(SIDE, SIDE))) - work(llava, None) for n in (1, 2))
    assert one == counted(LLAVA)
    assert two == 2 * one


def test_an_image_stands_for_as_many_tokens_as_it_has_patches(llava: ModelConfig) -> None:
    (tower,) = llava.encoders
    assert tower.prompt_tokens(Media(images=3)) == 3 * (SIDE // PATCH) ** 2


def test_text_alone_holds_no_tower_and_all_weights_count(llava: ModelConfig) -> None:
    graph = build(llava, prefill(1.0, 64.0), load_precision("bf16"))
    assert not [name for name in graph if name.startswith("image_tower")]
    assert llava.num_parameters == sum(parameter.numel() for parameter in meta_model(LLAVA).parameters())


def test_adapters_reach_the_tower(llava: ModelConfig) -> None:
    rank, heads, own = 8, 4, 2
    text = 2 * (32 + 32 + 32 + 32 * own // heads)
    tower = 3 * 2 * (TOWER + TOWER)
    assert gs.lora_parameters(llava, gs.LoraConfig(rank=rank, target_modules=["q_proj", "v_proj"])) == rank * (
        text + tower
    )


def test_a_tower_that_does_not_run_keeps_its_weights_and_says_why() -> None:
    model = read_model(document_of(GEMMA3), "captured")
    assert model.num_parameters == sum(parameter.numel() for parameter in meta_model(GEMMA3).parameters())
    assert any("tower does not run" in note and "held" in note for note in model.notes)


def test_windows_are_one_attention_with_the_pairs_of_all() -> None:
    sizes = (4, 4, 2)
    windows = [
        Row(
            name=f"w{i}", kind="attention", op="sdpa", module="attn", scopes=(), outputs=((1, size, 3, 8),),
            inputs=tuple(RowInput(source, (1, 3, size, 8), i) for source in "qkv"), attributes={"queries": size},
        )
        for i, size in enumerate(sizes)
    ]  # fmt: skip
    joined = Row(
        name="cat", kind="aten", op="cat", module="attn", scopes=(), outputs=((1, sum(sizes), 3, 8),),
        inputs=tuple(RowInput(row.name, row.out) for row in windows),
    )  # fmt: skip
    rows = together([*windows, joined])
    assert {taken.source for taken in rows[-1].inputs} == {"w2"}
    assert rows[2].attributes["pairs"] == sum(size * size for size in sizes)
    assert [taken.shape for taken in rows[2].inputs] == [(1, 3, sum(sizes), 8)] * 3


def document_of(model: object) -> dict:
    """The model file of a captured model."""
    document = capture(model).document
    assert document is not None
    return dict(document)


class Stack(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Layers of torch's own attention, whose one weight makes queries, keys and values by slices."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(96, 32)
        self.layers = torch.nn.ModuleList(torch.nn.MultiheadAttention(32, 4, batch_first=True) for _ in range(2))
        self.head = torch.nn.Linear(32, 96)

    def forward(self, input_ids: Any) -> Any:
        x = self.embed(input_ids)
        for layer in self.layers:
            queries = torch.nn.functional.silu(x)
            x = x + layer(queries, x, x, need_weights=False)[0]
        return self.head(x)


def test_slices_of_one_weight_are_all_of_it() -> None:
    module = Stack()
    assert gs.capture(module).num_parameters == sum(parameter.numel() for parameter in module.parameters())
