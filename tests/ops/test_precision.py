"""Precisions as text: what is printed is read again as the same, and says what it says of each module."""

from __future__ import annotations

import random

import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.ops import Repeat
from graphsim.ops.formats import FORMATS, format_of, fp8_blocks, weight_only
from graphsim.ops.precision import load_precision

NAMES = tuple(
    dict.fromkeys(
        (
            *FORMATS,
            *(
                weight_only(bits, group, zeros=zeros, wide_zeros=wide, ordered=ordered).name
                for bits in (1, 2, 3, 4, 5, 8)
                for group in (0, 32, 64, 128, 1024)
                for zeros, wide in ((False, False), (True, False), (True, True))
                for ordered in (False, True)
            ),
            fp8_blocks(64, 32).name,
        )
    )
)


def test_every_name_of_a_format_is_that_formats_own() -> None:
    formats = [format_of(name) for name in NAMES]
    assert len(NAMES) > 150 and [form.name for form in formats if form is not None] == list(NAMES)


def test_what_a_precision_prints_is_read_as_the_same() -> None:
    rng = random.Random(7)
    paths = ("model.layers.{}.mlp.down_proj", "model.layers.{0-2|7}.self_attn.q_proj", "lm_head", "model.embed_tokens")
    for name in (*NAMES, *rng.choices(NAMES, k=200)):
        parts = [f"{part}={rng.choice(NAMES)}" for part in ("experts", "attention") if rng.random() < 0.5]
        parts += [f"{path}={rng.choice(NAMES)}" for path in rng.sample(paths, rng.randint(0, 4))]
        parts += [f"kv={rng.choice(('fp8', 'int8', 'nvfp4'))}"] if rng.random() < 0.5 else []
        precision = load_precision(",".join([name, *parts]))
        assert load_precision(precision.name) == precision
        assert load_precision(precision.name).name == precision.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int4,kvv=fp8", "not understood"),
        ("int4,experts", "not understood"),
        ("int4,kv=fp8,kv=int8", "names kv twice"),
        ("int4,experts=fp9", "experts precision = 'fp9' is not known"),
        ("int9", "is not known"),
        ("int8_g0", "is not known"),
        ("int4,model.layers.{7-3}.mlp.down_proj=bf16", "is not a list of layers"),
        ("int4,model.layers.{}.mlp.down_prj=bf16", "did you mean 'model.layers.{}.mlp.down_proj'"),
        ("int4,model.layers.{31-32}.mlp.down_proj=bf16", "layer 32 of llama-3.1-8b has no module"),
    ],
)
def test_what_is_wrong_with_a_precision_is_said_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("{", r"\{").replace("}", r"\}")):
        gs.build_graph("llama-3.1-8b", "decode", precision=text)


def test_layers_are_folded_where_their_modules_formats_are_equal_and_only_there() -> None:
    """Llama-3.1-8B: 4096 x 14336 in down_proj, 131,072 x 4096 x 2 weights at the ends, here in 16 bits."""
    model = gs.load_model("llama-3.1-8b")

    def stretches(text: str) -> list[tuple[int, int]]:
        graph = build(model, prefill(1.0, 1.0), load_precision(text))
        repeats = [op for _, op in graph.nodes(data="op") if isinstance(op, Repeat)]
        return [(op.first_layer, op.layers * op.times) for op in repeats]

    assert stretches("int4") == stretches("int4,model.layers.{}.mlp.down_proj=bf16,lm_head=fp8") == [(0, 32)]
    assert stretches("int4,model.layers.{0-2|31}.mlp.down_proj=bf16") == [(0, 3), (3, 28), (31, 1)]
    alternating = "|".join(map(str, range(0, 32, 2)))
    assert stretches(f"int4,model.layers.{{{alternating}}}.mlp.down_proj=bf16") == [(0, 32)]


def test_a_modules_own_format_weighs_what_it_says() -> None:
    def weights(text: str) -> float:
        graph = build(gs.load_model("llama-3.1-8b"), prefill(1.0, 1.0), load_precision(text))
        return sum(float(op.weight_storage_bytes) * times for _, op, times in walk(graph))

    one, table = 4096 * 14336, 128256 * 4096
    some = weights("fp8,model.layers.{0-2|31}.mlp.down_proj=bf16") - weights("fp8")
    assert some == 4 * one
    assert weights("fp8") - weights("fp8,lm_head=fp8,model.embed_tokens=fp8") == 2 * table
    # an fp16 scale for each of 4096 outputs, and 4 bytes for each of 14336 inputs
    assert weights("fp8,model.layers.{}.mlp.down_proj=fp8_channel") - weights("fp8") == 32 * 4096 * 2
    ordered = weights("int4_act,attention=bf16") - weights("int4,attention=bf16")
    assert ordered == pytest.approx(32 * 4 * (14336 + 2 * 4096), abs=1.0)


@pytest.mark.parametrize(("text", "names"), [
    ("int4", ["qkv_proj"]),
    ("int4,model.layers.{}.self_attn.k_proj=bf16", ["q_proj", "k_proj", "v_proj"]),
    ("int4,attention=bf16", ["qkv_proj"]),
])  # fmt: skip
def test_projections_of_one_kernel_are_packed_where_their_formats_are_one(text: str, names: list[str]) -> None:
    (graph,) = gs.Deployment("llama-3.1-8b", "h100-sxm", precision=text, engine="reference").stages(prefill(1.0, 8.0))
    body = next(op.body for _, op in graph.nodes(data="op") if isinstance(op, Repeat))
    assert [name for name in body if name.endswith(("q_proj", "k_proj", "v_proj", "qkv_proj"))] == names


def test_engines_refuse_projections_of_one_weight_in_several_formats() -> None:
    text = "int4,model.layers.{}.self_attn.k_proj=bf16"
    with pytest.raises(gs.InfeasibleError, match="engine 'vllm' .packed.: All shards of fused layers"):
        gs.simulate("llama-3.1-8b", "h100-sxm", precision=text, engine="vllm")
    assert "packed" in str(gs.simulate("llama-3.1-8b", "h100-sxm", precision=text, engine="reference").notes)
