"""Sections of encoders in model files: what reads a source, towers, and mistakes in them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.media import Media
from graphsim.models.phase import decode, prefill
from graphsim.models.yaml import read_model
from graphsim.ops import Gemm
from graphsim.ops.precision import load_precision

HIDDEN, INNER, PATCHES = 64, 32, 16


def gemm(name: str, n: int, k: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "op": "gemm", "n": n, "k": k, **more}


CROSSING = {
    "name": "sums", "hidden_size": HIDDEN, "vocab_size": 100, "stem": "stem", "head": "head",
    "source_encoder": {
        "hidden_size": INNER, "stem": "read", "layers": [{"repeat": 2, "block": "mix"}],
        "names": {"layer": "encoder.{}."},
    },
    "layers": [{"repeat": 3, "block": "ask"}],
    "blocks": {
        "stem": [{"name": "embed", "op": "embedding", "entries": 100}],
        "head": [{"name": "last", "op": "take_rows"}, gemm("lm_head", 100, HIDDEN, head=True)],
        "read": [{"name": "words", "op": "embedding", "entries": 100, "width": INNER}],
        "mix": [gemm("mix", INNER, INNER)],
        "ask": [
            gemm("q", HIDDEN, HIDDEN, inputs=["input"]),
            gemm("k", HIDDEN, INNER, inputs=["source"], m="encoded_rows"),
            gemm("v", HIDDEN, INNER, inputs=["source"], m="encoded_rows"),
            {"name": "attend", "op": "attention", "inputs": ["q", "k", "v"], "heads": 4, "head_dim": 16, "cross": True},
            {"name": "sum", "op": "add", "inputs": ["attend", "input"]},
        ],
    },
}  # fmt: skip

SEEING = {
    "name": "sees", "hidden_size": HIDDEN, "vocab_size": 100, "layers": 1, "attention": {"heads": 4},
    "mlp": {"intermediate_size": 80},
    "encoders": [{
        "name": "eye", "media": "image", "image_size": [28, 28], "sections": [
            {"block": "patches", "hidden_size": INNER, "rows": PATCHES},
            {
                "layers": [{"repeat": 2, "block": "see"}], "names": {"layer": "eye.{}."}, "hidden_size": INNER,
                "rows": PATCHES,
            },
            {"block": "project", "hidden_size": HIDDEN, "rows": 4},
        ],
    }],
    "blocks": {
        "patches": [
            {"name": "pixels", "op": "value", "elems": f"sequences * {PATCHES} * 12"},
            gemm("cut", INNER, 12),
        ],
        "see": [gemm("look", INNER, INNER)],
        "project": [gemm("project", HIDDEN, 4 * INNER, m="tokens")],
    },
}  # fmt: skip


def products(graph: Any) -> dict[str, float]:
    """Rows of each product, by its module."""
    return {op.module: float(op.m) for _, op, _ in walk(graph) if isinstance(op, Gemm)}


def test_a_source_is_read_in_the_prompt_and_kept_from_then_on() -> None:
    model = read_model(CROSSING, "here")
    assert model.num_parameters == (
        2 * 100 * HIDDEN + 100 * INNER + 2 * INNER**2 + 3 * (HIDDEN**2 + 2 * HIDDEN * INNER)
    )
    bf16 = load_precision("bf16")
    prompt = products(build(model, prefill(2.0, 3.0, source_tokens=7.0), bf16))
    assert (prompt["encoder.{}.mix"], prompt["model.layers.{}.k"], prompt["model.layers.{}.q"]) == (14.0, 14.0, 6.0)
    step = products(build(model, decode(2.0, 3.0, source_tokens=7.0), bf16))
    assert (step["encoder.{}.mix"], step["model.layers.{}.k"], step["model.layers.{}.q"]) == (0.0, 0.0, 2.0)


def test_a_model_with_an_encoder_of_blocks_is_simulated() -> None:
    result = gs.simulate(
        read_model(CROSSING, "here"), "h100-sxm", batch=2, input_tokens=64, output_tokens=8, engine="reference"
    )
    assert 0 < float(result.tpot_s) < float(result.ttft_s)


@pytest.mark.parametrize(("native", "images"), [(False, 2), (True, 8)])
def test_images_pass_a_tower_as_often_as_their_size_says(native: bool, images: int) -> None:
    data = copy.deepcopy(SEEING)
    data["encoders"][0]["native"] = native  # type: ignore[index]
    model = read_model(data, "here")
    media = Media(images=2, image_size=(56, 56))
    rows = products(build(model, prefill(1.0, 64.0, media=media), load_precision("bf16")))
    assert rows["eye.{}.look"] == images * PATCHES
    assert model.encoders[0].prompt_tokens(media) == images * 4


def test_text_alone_leaves_towers_out() -> None:
    model = read_model(SEEING, "here")
    assert "eye.{}.look" not in products(build(model, prefill(1.0, 64.0), load_precision("bf16")))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("source_encoder", "stem"), "rea", "did you mean 'read'"),
        (("source_encoder", "layers"), [{"repeat": 2}], "every layer here names a block"),
        (("source_encoder", "hidden_size"), INNER + 1, "expected hidden_size = 33"),
        (("source_encoder", "names"), {"layer": "encoder"}, "expected a path with one {}"),
    ],
)
def test_mistakes_are_said_where_they_are(path: tuple[str, str], value: Any, said: str) -> None:
    data = copy.deepcopy(CROSSING)
    data[path[0]][path[1]] = value  # type: ignore[index]
    with pytest.raises(gs.ConfigError, match=said.replace("{", r"\{").replace("}", r"\}")):
        read_model(data, "here")


def test_only_models_with_an_encoder_have_a_source() -> None:
    data = {key: value for key, value in copy.deepcopy(CROSSING).items() if key != "source_encoder"}
    with pytest.raises(gs.ConfigError, match="names 'source', which is not an earlier node"):
        read_model(data, "here")
